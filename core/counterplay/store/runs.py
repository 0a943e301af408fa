"""Runs, their steps and the journal of effects: what people see, and what a resumed run goes by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import Database, storable
from counterplay.store.feeds import _insert_or_ignore
from counterplay.store.tables import effect, run, snapshot, step

ENDED = ("succeeded", "failed", "cancelled")


def run_id(tenant: str, playbook: str, run_key: str) -> str:
    """The identity of a run: the same event cannot start it twice, whatever the playbook says by then."""
    digest = hashlib.sha256("\0".join((tenant, playbook, run_key)).encode("utf-8", "surrogatepass"))
    return f"r-{digest.hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be started: `document` is the playbook snapshot, `connections` the renaming of its set."""

    id: str
    tenant: str
    playbook: str
    run_key: str
    document: JsonObject
    event: bytes
    meta: JsonObject
    inputs: JsonObject
    connections: JsonObject


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it stands. `outcome` is how its steps ended, known before its sinks are done."""

    id: str
    tenant: str
    playbook: str
    document: JsonObject
    event: bytes
    meta: JsonObject
    inputs: JsonObject
    connections: JsonObject
    status: str
    segment: int
    outcome: str | None
    error: str | None
    created: str
    started: str | None
    ended: str | None
    wake: str | None


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as it stands. `result` is what the action returned."""

    step_id: str
    uses: str
    status: str
    attempts: int
    arguments: Any
    result: Any
    error: str | None
    started: str
    ended: str | None


@dataclass(frozen=True, slots=True)
class StoredEffect:
    """An entry of the effect journal."""

    run_id: str
    step_id: str
    uses: str
    tenant: str
    connection: str
    target: str | None
    subject: str | None
    arguments: JsonObject
    before: JsonObject
    calls: list[JsonObject]
    status: str
    result: Any
    error: str | None
    verified: bool | None
    settled: str | None
    at: str


class RunStore:
    """The tables of runs. One instance for a process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, connection: sa.Connection, runs: Sequence[NewRun]) -> list[str]:
        """Put runs into the outbox, in the caller's transaction. Returns those that were not there yet."""
        if not runs:
            return []
        known: set[str] = set()
        for start in range(0, len(runs), 500):  # a statement takes a limited number of variables
            part = [one.id for one in runs[start : start + 500]]
            known.update(connection.execute(sa.select(run.c.id).where(run.c.id.in_(part))).scalars())
        added: list[str] = []
        moment = to_text(now())
        for one in runs:
            if one.id in known:
                continue
            known.add(one.id)
            added.append(one.id)
            document = json.dumps(one.document, sort_keys=True)
            digest = hashlib.sha256(document.encode()).hexdigest()
            connection.execute(
                _insert_or_ignore(connection, snapshot), {"hash": digest, "document": document}
            )
            connection.execute(
                run.insert().values(
                    id=one.id,
                    tenant=one.tenant,
                    playbook=one.playbook,
                    run_key=storable(one.run_key),
                    snapshot=digest,
                    event=one.event,
                    meta=json.dumps(one.meta),
                    inputs=json.dumps(one.inputs),
                    connections=json.dumps(one.connections),
                    status="queued",
                    segment=1,
                    created=moment,
                )
            )
        return added

    def due(self, limit: int) -> list[tuple[str, int]]:
        """(run, segment) of runs that have to be started or woken now, oldest first."""
        moment = to_text(now())
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(run.c.id, run.c.segment)
                .where(
                    sa.or_(
                        run.c.status == "queued",
                        sa.and_(run.c.status.in_(("waiting", "blocked")), run.c.wake <= moment),
                    )
                )
                .order_by(run.c.created, run.c.id)
                .limit(limit)
            )
            return [(identity, segment) for identity, segment in rows]

    def with_status(self, *statuses: str) -> list[tuple[str, int]]:
        """(run, segment) of every run in one of the statuses."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(run.c.id, run.c.segment)
                .where(run.c.status.in_(statuses))
                .order_by(run.c.created, run.c.id)
            )
            return [(identity, segment) for identity, segment in rows]

    def get(self, identity: str) -> StoredRun | None:
        """One run, whole."""
        found = self._select(sa.select(run, snapshot.c.document).join(snapshot).where(run.c.id == identity))
        return found[0] if found else None

    def find(self, prefix: str) -> list[StoredRun]:
        """Runs whose id begins with the text, as people type it."""
        begins = run.c.id.startswith(prefix, autoescape=True)
        query = sa.select(run, snapshot.c.document).join(snapshot).where(begins).limit(10)
        return self._select(query)

    def newest(self, *, playbook: str | None, status: str | None, limit: int) -> list[StoredRun]:
        """Runs, newest first."""
        query = sa.select(run, snapshot.c.document).join(snapshot)
        if playbook:
            query = query.where(run.c.playbook == playbook)
        if status:
            query = query.where(run.c.status == status)
        return self._select(query.order_by(run.c.created.desc(), run.c.id).limit(limit))

    def _select(self, query: sa.Select[Any]) -> list[StoredRun]:
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            StoredRun(
                id=row.id,
                tenant=row.tenant,
                playbook=row.playbook,
                document=json.loads(row.document),
                event=row.event,
                meta=json.loads(row.meta),
                inputs=json.loads(row.inputs),
                connections=json.loads(row.connections),
                status=row.status,
                segment=row.segment,
                outcome=row.outcome,
                error=row.error,
                created=row.created,
                started=row.started,
                ended=row.ended,
                wake=row.wake,
            )
            for row in rows
        ]

    def begin(self, identity: str, segment: int) -> bool:
        """A segment starts working. False: this segment is not the run's current one, or the run ended.

        Returns True again when the same segment resumes after a crash.
        """
        with self.database.write() as connection:
            moved = connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.segment == segment, run.c.status.not_in(ENDED))
                .values(status="running", wake=None, started=sa.func.coalesce(run.c.started, to_text(now())))
            )
        return moved.rowcount == 1

    def park(self, identity: str, status: str, wake: datetime | None, reason: str | None) -> None:
        """End the segment; the run goes on with the next one, at `wake` or when it is queued again."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.status.not_in(ENDED))
                .values(
                    status=status,
                    segment=run.c.segment + 1,
                    wake=to_text(wake) if wake else None,
                    error=reason and storable(reason),
                )
            )

    def retry_sinks(self) -> None:
        """What waits for a sink is due now: a new worker tries at once, it may have been mended."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.status.in_(("waiting", "blocked")), run.c.outcome.is_not(None))
                .values(wake=to_text(now()))
            )

    def set_outcome(self, identity: str, outcome: str, error: str | None) -> None:
        """How the steps ended; the sinks are still to come."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == identity)
                .values(outcome=outcome, error=error and storable(error))
            )

    def end(self, identity: str, status: str, error: str | None) -> None:
        """The run is over."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.status.not_in(ENDED))
                .values(
                    status=status,
                    outcome=status,
                    error=error and storable(error),
                    ended=to_text(now()),
                    wake=None,
                )
            )

    def steps(self, identity: str) -> list[StoredStep]:
        """The run's steps as far as they were reached, in order."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(step).where(step.c.run_id == identity).order_by(step.c.position)
            ).all()
        return [
            StoredStep(
                step_id=row.step_id,
                uses=row.uses,
                status=row.status,
                attempts=row.attempts,
                arguments=_loads(row.arguments),
                result=_loads(row.result),
                error=row.error,
                started=row.started,
                ended=row.ended,
            )
            for row in rows
        ]

    def step_started(self, identity: str, step_id: str, position: int, uses: str) -> int:
        """An attempt begins; returns its number."""
        with self.database.write() as connection:
            known = connection.execute(
                sa.select(step.c.attempts).where(step.c.run_id == identity, step.c.step_id == step_id)
            ).scalar()
            if known is None:
                connection.execute(
                    step.insert().values(
                        run_id=identity,
                        step_id=step_id,
                        position=position,
                        uses=uses,
                        status="running",
                        attempts=1,
                        started=to_text(now()),
                    )
                )
                return 1
            connection.execute(
                sa.update(step)
                .where(step.c.run_id == identity, step.c.step_id == step_id)
                .values(attempts=known + 1)
            )
            return int(known) + 1

    def step_ended(
        self,
        identity: str,
        step_id: str,
        status: str,
        *,
        arguments: Any = None,
        result: Any = None,
        error: str | None = None,
        effect_status: str | None = None,
        verified: bool | None = None,
        settled: str | None = None,
    ) -> None:
        """A step's end and its effect's outcome, as one."""
        moment = to_text(now())
        error = error and storable(error)
        with self.database.write() as connection:
            connection.execute(
                sa.update(step)
                .where(step.c.run_id == identity, step.c.step_id == step_id)
                .values(
                    status=status,
                    arguments=_dumps(arguments),
                    result=_dumps(result),
                    error=error,
                    ended=moment,
                )
            )
            if effect_status is not None:
                connection.execute(
                    sa.update(effect)
                    .where(effect.c.run_id == identity, effect.c.step_id == step_id)
                    .values(
                        status=effect_status,
                        result=_dumps(result),
                        error=error,
                        verified=None if verified is None else int(verified),
                        settled=settled,
                        ended=moment,
                    )
                )
                audit.effect_ended(connection, identity, step_id)

    def intend(self, identity: str, step_id: str, about: JsonObject) -> None:
        """Journal an effect before its first request."""
        with self.database.write() as connection:
            connection.execute(
                _insert_or_ignore(connection, effect),
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
                    "at": to_text(now()),
                },
            )

    def add_call(self, identity: str, step_id: str, call: JsonObject) -> None:
        """Journal one request of an effect before it is sent: method, URL, body."""
        with self.database.write() as connection:
            where = (effect.c.run_id == identity, effect.c.step_id == step_id)
            calls = json.loads(connection.execute(sa.select(effect.c.calls).where(*where)).scalar_one())
            calls.append(call)
            connection.execute(sa.update(effect).where(*where).values(calls=json.dumps(calls)))

    def effects(self, identity: str) -> list[StoredEffect]:
        """The journal of one run, in order."""
        return self._effects(effect.c.run_id == identity)

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
                result=_loads(row.result),
                error=row.error,
                verified=None if row.verified is None else bool(row.verified),
                settled=row.settled,
                at=row.at,
            )
            for row in rows
        ]


def _dumps(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _loads(text: str | None) -> Any:
    return None if text is None else json.loads(text)
