"""The journal of effects: intents before the first request, each request, the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import storable
from counterplay.store.leases import HELD, Lease, LeaseLost, Row, Shape, together
from counterplay.store.run_records import EffectEnd, StoredEffect, StoredStep
from counterplay.store.run_steps import StepRows
from counterplay.store.statements import dumps, loads
from counterplay.store.tables import effect

_ENDS = ("status", "result", "error", "verified", "settled", "after", "ended")
_REOPENED = ("subject", "before", "status", "error", "result", "ended")
_END = (
    sa.update(effect)
    .where(effect.c.run_id == sa.bindparam("of"), effect.c.step_id == sa.bindparam("at_step"))
    .values({name: sa.bindparam(f"{name}_") for name in _ENDS})
    .returning(effect)
)


@lru_cache(maxsize=4)
def _ending(step: Shape) -> sa.Select[Any]:
    """One statement for PostgreSQL: the lease, the step's row, `_END`, and where the audit log ends."""
    held, written = together((step,))
    holds = sa.exists(sa.select(held.c.cancel))
    ended, last = _END.where(holds).cte("ended"), audit.HEAD.where(holds).cte("last")
    found = held.outerjoin(ended, sa.true()).join(last, sa.true())
    columns = (held.c.cancel, *ended.c, last.c.seq.label("last_seq"), last.c.hash.label("last_hash"))
    return sa.select(*columns).select_from(found).add_cte(*written)


def _ending_of(identity: str, step_id: str, end: EffectEnd) -> dict[str, Any]:
    return {
        "of": identity,
        "at_step": step_id,
        "status_": end.status,
        "result_": dumps(end.result),
        "error_": end.error and storable(end.error),
        "verified_": None if end.verified is None else int(end.verified),
        "settled_": end.settled,
        "after_": dumps(end.after),
        "ended_": to_text(now()),
    }


_CALLS = sa.case(
    (effect.c.calls == "[]", "["),
    else_=sa.func.substr(effect.c.calls, 1, sa.func.length(effect.c.calls) - 1) + ", ",
)
_CALL = (
    sa.update(effect)
    .where(
        effect.c.run_id == sa.bindparam("of"),
        effect.c.step_id == sa.bindparam("at_step"),
        sa.exists(HELD),
    )
    .values(calls=_CALLS + sa.bindparam("call", type_=sa.Text) + "]")
)
"""JSON text gets one more element."""


class EffectRows(StepRows):
    """Writes and reads the journal."""

    def end_effect(self, connection: sa.Connection, identity: str, step_id: str, end: EffectEnd) -> None:
        """What became of a journalled effect."""
        row = connection.execute(_END, _ending_of(identity, step_id, end)).one_or_none()
        if row is not None:
            audit.effect_ended(connection, row)

    def end_step(
        self, lease: Lease, one: StoredStep, end: EffectEnd, *changes: Callable[[sa.Connection], object]
    ) -> None:
        """`write_step` for a step with an effect: what became of it, and its entry in the audit log."""
        if self.database.sqlite or self.is_large(one):
            journalled = partial(self.end_effect, identity=lease.run_id, step_id=one.step_id, end=end)
            self.write_step(lease, one, journalled, *changes)
            return
        row = self.step_row(lease.run_id, one)
        values = {"of": lease.run_id, "under": lease.segment, **row.parameters}
        with self.database.write_short() as connection:
            found = connection.execute(
                _ending(row.shape), {**values, **_ending_of(lease.run_id, one.step_id, end)}
            ).first()
            if found is None:
                raise LeaseLost(f"run {lease.run_id} goes on without segment {lease.segment}")
            lease.cancel = loads(found.cancel)
            if found.step_id is not None:
                audit.effect_ended(connection, found, (found.last_seq, found.last_hash))
            for change in changes:
                change(connection)

    def intend(self, lease: Lease, step_id: str, about: JsonObject) -> None:
        """Journal an effect before its first request. One that is there is open again, from `before` on.

        LeaseLost: the run goes on under another segment, whose business the effect is.
        """
        row = Row(
            effect,
            ("run_id", "step_id"),
            _REOPENED,
            {
                "run_id": lease.run_id,
                "step_id": step_id,
                "uses": about["uses"],
                "tenant": about["tenant"],
                "connection": about["connection"],
                "target": about["target"] and storable(about["target"]),
                "subject": about["subject"] and storable(about["subject"]),
                "arguments": json.dumps(about["arguments"]),
                "before": json.dumps(about["before"]),
                "calls": "[]",
                "status": "intended",
                "error": None,
                "result": None,
                "ended": None,
                "at": to_text(now()),
            },
        )
        self.write_leased(lease, *self.begun(lease, step_id), row)

    def add_call(self, lease: Lease, step_id: str, call: JsonObject) -> None:
        """Journal one request of an effect before it is sent: method, URL, body. LeaseLost: as `intend`."""
        values = {
            "of": lease.run_id,
            "under": lease.segment,
            "at_step": step_id,
            "call": json.dumps(call),
        }
        with self.database.write_one() as connection:
            added = connection.execute(_CALL, values).rowcount
        if added != 1:
            raise LeaseLost(f"run {lease.run_id} goes on without segment {lease.segment}")

    def effects(self, identity: str) -> list[StoredEffect]:
        """The journal of one run, in order."""
        return self._effects(effect.c.run_id == identity)

    def effects_within(self, identity: str) -> list[StoredEffect]:
        """The journal of a run and of every run inside it, in order."""
        return self._effects(
            sa.or_(effect.c.run_id == identity, effect.c.run_id.startswith(f"{identity}/", autoescape=True))
        )

    def effects_since(self, moment: str) -> list[StoredEffect]:
        """The journal of all runs from a time on, by when the effects ended."""
        return self._effects(effect.c.ended >= moment)

    def _effects(self, where: sa.ColumnElement[bool]) -> list[StoredEffect]:
        with self.database.read() as connection:
            rows = connection.execute(sa.select(effect).where(where).order_by(effect.c.id)).all()
        return [
            StoredEffect(
                run_id=row.run_id,
                step_id=row.step_id,
                uses=row.uses,
                tenant=row.tenant,
                connection=row.connection,
                target=row.target,
                subject=row.subject,
                arguments=json.loads(row.arguments),
                before=json.loads(row.before),
                calls=json.loads(row.calls),
                status=row.status,
                result=loads(row.result),
                error=row.error,
                verified=None if row.verified is None else bool(row.verified),
                settled=row.settled,
                at=row.at,
            )
            for row in rows
        ]
