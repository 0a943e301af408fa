"""The journal of effects: intents before the first request, each request, the outcome."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import storable
from counterplay.store.run_records import StoredEffect
from counterplay.store.run_steps import StepRows
from counterplay.store.statements import dumps, loads, upsert
from counterplay.store.tables import effect

_ENDS = ("status", "result", "error", "verified", "settled", "after", "ended")
_REOPENED = ("subject", "before", "status", "error", "result", "ended")
_END = (
    sa.update(effect)
    .where(effect.c.run_id == sa.bindparam("of"), effect.c.step_id == sa.bindparam("at_step"))
    .values({name: sa.bindparam(f"{name}_") for name in _ENDS})
    .returning(effect)
)


class EffectRows(StepRows):
    """Writes and reads the journal."""

    def end_effect(
        self,
        connection: sa.Connection,
        identity: str,
        step_id: str,
        status: str,
        result: Any = None,
        error: str | None = None,
        verified: bool | None = None,
        settled: str | None = None,
        after: Any = None,
    ) -> None:
        """What became of a journalled effect."""
        values = {
            "of": identity,
            "at_step": step_id,
            "status_": status,
            "result_": dumps(result),
            "error_": error and storable(error),
            "verified_": None if verified is None else int(verified),
            "settled_": settled,
            "after_": dumps(after),
            "ended_": to_text(now()),
        }
        row = connection.execute(_END, values).one_or_none()
        if row is not None:
            audit.effect_ended(connection, row)

    def intend(self, identity: str, step_id: str, about: JsonObject) -> None:
        """Journal an effect before its first request. One that is there is open again, from `before` on."""
        lease, begun = self._pending.get((identity, step_id), (None, None))
        with self.database.write_short() if lease is None else self.leased(lease) as connection:
            if begun is not None:
                self.put_step(connection, identity, begun)
            connection.execute(
                upsert(connection, effect, ("run_id", "step_id"), _REOPENED),
                {
                    "run_id": identity,
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

    def add_call(self, identity: str, step_id: str, call: JsonObject) -> None:
        """Journal one request of an effect before it is sent: method, URL, body."""
        with self.database.write_short() as connection:
            where = (effect.c.run_id == identity, effect.c.step_id == step_id)
            calls = json.loads(connection.execute(sa.select(effect.c.calls).where(*where)).scalar_one())
            calls.append(call)
            connection.execute(sa.update(effect).where(*where).values(calls=json.dumps(calls)))

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
