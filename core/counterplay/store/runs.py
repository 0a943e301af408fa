"""Runs, their steps and the journal of effects: what people see, and what a resumed run goes by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import from_text, now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import Database, storable
from counterplay.store.feeds import _insert_or_ignore
from counterplay.store.tables import attempt, effect, once, run, snapshot, step, suppressed

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
    once: OnceKey | None = None


@dataclass(frozen=True, slots=True)
class OnceKey:
    """What `once_per` says of an event: at most one run for the key within the window."""

    key: str
    window: timedelta


@dataclass
class Lease:
    """The right of one segment to write a run's rows. `cancel`: somebody asked the run to end."""

    run_id: str
    segment: int
    cancel: JsonObject | None = None


class LeaseLost(Exception):
    """The run goes on elsewhere, or ended: this segment has no say in it any more."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it stands. `outcome` is how its steps ended, known before its sinks are done.

    `parent`, `parent_step` and `origin` are those of a child: `origin["role"]` is `branch` (of
    `parallel`), `element` (of `for_each`) or `call` (a playbook that was called).
    """

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
    rank: str = ""
    parent: str | None = None
    parent_step: str | None = None
    place: int | None = None
    origin: JsonObject = field(default_factory=dict)
    stop: JsonObject | None = None
    cancel: JsonObject | None = None
    failed_at: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt that did not end its step."""

    step_id: str
    number: int
    status: str
    error: str | None
    started: str
    ended: str | None


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as it stands. `result` is what the action returned; `due` when its wait or back-off ends."""

    step_id: str
    uses: str
    status: str
    attempts: int
    arguments: Any
    result: Any
    error: str | None
    started: str
    ended: str | None
    due: str | None = None
    position: int = 0


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
        self._pending: dict[tuple[str, str], tuple[Lease, StoredStep]] = {}

    def add(self, connection: sa.Connection, runs: Sequence[NewRun]) -> list[str]:
        """Put runs into the outbox, in the caller's transaction. Returns those that were not there yet.

        A run whose `once` key another run holds is not added; `holders` says which one does.
        """
        if not runs:
            return []
        known: set[str] = set()
        for start in range(0, len(runs), 500):  # a statement takes a limited number of variables
            part = [one.id for one in runs[start : start + 500]]
            known.update(connection.execute(sa.select(run.c.id).where(run.c.id.in_(part))).scalars())
        added: list[str] = []
        moment = to_text(now())
        for one in runs:
            if one.id in known or not self._opens(connection, one, moment):
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
                    rank=moment,
                )
            )
        return added

    def _opens(self, connection: sa.Connection, one: NewRun, moment: str) -> bool:
        """Whether `once_per` lets the run begin; then it holds the key. Else the event is on record."""
        if one.once is None:
            return True
        key = storable(one.once.key)
        where = (once.c.tenant == one.tenant, once.c.playbook == one.playbook, once.c.key == key)
        held = connection.execute(sa.select(once.c.run_id, once.c.opened).where(*where)).first()
        if held is not None and from_text(held.opened) + one.once.window > from_text(moment):
            connection.execute(
                _insert_or_ignore(connection, suppressed),
                {
                    "id": one.id,
                    "tenant": one.tenant,
                    "playbook": one.playbook,
                    "key": key,
                    "run_key": storable(one.run_key),
                    "run_id": held.run_id,
                    "at": moment,
                },
            )
            return False
        connection.execute(sa.delete(once).where(*where))
        connection.execute(
            once.insert().values(
                tenant=one.tenant, playbook=one.playbook, key=key, run_id=one.id, opened=moment
            )
        )
        return True

    def holders(self, connection: sa.Connection, runs: Sequence[NewRun]) -> dict[str, str]:
        """Of runs that were not added: the ones whose key another run holds, with that run."""
        asked = [one.id for one in runs if one.once is not None]
        found: dict[str, str] = {}
        for start in range(0, len(asked), 500):
            part = asked[start : start + 500]
            rows = connection.execute(
                sa.select(suppressed.c.id, suppressed.c.run_id).where(suppressed.c.id.in_(part))
            )
            found.update((identity, holder) for identity, holder in rows)
        return found

    def due(self, limit: int) -> list[tuple[str, int]]:
        """(run, segment) of runs that have to be started or woken now: what was woken first, then by age."""
        moment = to_text(now())
        woken = (
            sa.select(run.c.id, run.c.segment)
            .where(run.c.status.in_(("waiting", "blocked")), run.c.wake <= moment)
            .order_by(run.c.wake, run.c.id)
            .limit(limit)
        )
        queued = (
            sa.select(run.c.id, run.c.segment)
            .where(run.c.status == "queued")
            .order_by(run.c.rank, run.c.id)
            .limit(limit)
        )
        with self.database.read() as connection:
            found = [(identity, segment) for identity, segment in connection.execute(woken)]
            if len(found) < limit:
                found += [(identity, segment) for identity, segment in connection.execute(queued)]
        return found[:limit]

    def wakes_within(self, seconds: float) -> bool:
        """Whether a run waits in its steps, and for no longer than that."""
        until = to_text(now() + timedelta(seconds=seconds))
        with self.database.read() as connection:
            found = connection.execute(
                sa.select(run.c.id)
                .where(run.c.status == "waiting", run.c.wake <= until, run.c.outcome.is_(None))
                .limit(1)
            ).first()
        return found is not None

    def next_wake(self) -> datetime | None:
        """When the first of the runs that wait is due; None when none of them waits for a time."""
        with self.database.read() as connection:
            found = connection.execute(
                sa.select(sa.func.min(run.c.wake)).where(run.c.status.in_(("waiting", "blocked")))
            ).scalar()
        return from_text(found) if found else None

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

    def newest(
        self,
        *,
        playbook: str | None,
        status: str | None,
        limit: int,
        entity: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        inside: bool = True,
    ) -> list[StoredRun]:
        """Runs, newest first. `entity`: whom an effect touched, or a text in the event.

        `since` and `until` look at when runs were created; without `inside`, branches, elements and called
        playbooks are left out.
        """
        query = sa.select(run, snapshot.c.document).join(snapshot)
        if playbook:
            query = query.where(run.c.playbook == playbook)
        if status:
            query = query.where(run.c.status == status)
        if entity:
            query = query.where(self._about_entity(entity))
        if since:
            query = query.where(run.c.created >= to_text(since))
        if until:
            query = query.where(run.c.created <= to_text(until))
        if not inside:
            query = query.where(run.c.parent.is_(None))
        return self._select(query.order_by(run.c.created.desc(), run.c.id).limit(limit))

    def _about_entity(self, entity: str) -> sa.ColumnElement[bool]:
        text = (
            sa.cast(run.c.event, sa.Text)
            if self.database.sqlite
            else sa.func.convert_from(run.c.event, "UTF8")
        )
        touched = sa.select(effect.c.run_id).where(
            sa.or_(
                sa.func.lower(effect.c.target) == entity.lower(),
                sa.func.lower(effect.c.subject) == entity.lower(),
            )
        )
        with self.database.read() as connection:
            roots = {one.partition("/")[0] for one in connection.execute(touched).scalars()}
        return sa.or_(run.c.id.in_(roots), text.icontains(entity, autoescape=True))

    def within(self, identity: str) -> list[StoredRun]:
        """The runs inside a run, at any depth, in order."""
        query = sa.select(run, snapshot.c.document).join(snapshot)
        inside = run.c.id.startswith(f"{identity}/", autoescape=True)
        return self._select(query.where(inside).order_by(run.c.parent, run.c.parent_step, run.c.place))

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
                rank=row.rank,
                parent=row.parent,
                parent_step=row.parent_step,
                place=row.place,
                origin=_loads(row.origin) or {},
                stop=_loads(row.stop),
                cancel=_loads(row.cancel),
                failed_at=_loads(row.failed_at),
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

    @contextmanager
    def leased(self, lease: Lease) -> Iterator[sa.Connection]:
        """One transaction of the segment that holds the run. LeaseLost: another one does, or it ended."""
        with self.database.write() as connection:
            row = connection.execute(
                sa.select(run.c.segment, run.c.status, run.c.cancel).where(run.c.id == lease.run_id)
            ).first()
            if row is None or row.segment != lease.segment or row.status != "running":
                raise LeaseLost(f"run {lease.run_id} goes on without segment {lease.segment}")
            lease.cancel = _loads(row.cancel)
            yield connection

    def park_in(
        self,
        connection: sa.Connection,
        lease: Lease,
        wake: datetime | None,
        reason: str,
        status: str = "waiting",
    ) -> None:
        """`park`, in a transaction of the segment that ends by it."""
        connection.execute(
            sa.update(run)
            .where(run.c.id == lease.run_id)
            .values(
                status=status,
                segment=lease.segment + 1,
                wake=to_text(wake) if wake else None,
                error=storable(reason),
            )
        )

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

    def renumber(self, working: Collection[str]) -> None:
        """Runs that began and now wait get a fresh segment number, unless that segment is at work.

        A process may have died between a segment's end in the engine and in our row; the engine would
        not start the same segment again.
        """
        ids = {segment.rpartition("/")[0] for segment in working}
        waits = (run.c.status.in_(("queued", "waiting", "blocked")), run.c.started.is_not(None))
        with self.database.write() as connection:
            connection.execute(
                sa.update(run).where(*waits, run.c.id.not_in(ids)).values(segment=run.c.segment + 1)
            )

    def retry_sinks(self) -> None:
        """What waits for a sink is due now: a new worker tries at once, it may have been mended."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.status.in_(("waiting", "blocked")), run.c.outcome.is_not(None))
                .values(wake=to_text(now()))
            )

    def set_outcome(
        self, identity: str, outcome: str, error: str | None, failed_at: JsonObject | None = None
    ) -> None:
        """How the steps ended; `finally` and the sinks are still to come."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == identity)
                .values(outcome=outcome, error=error and storable(error), failed_at=_dumps(failed_at))
            )

    def end(
        self,
        identity: str,
        status: str,
        error: str | None,
        *,
        stop: JsonObject | None = None,
        failed_at: JsonObject | None = None,
    ) -> None:
        """The run is over; a child's end lets the next one begin, and the last one's wakes the parent."""
        from counterplay.store.children import child_ended

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
                    stop=_dumps(stop),
                    failed_at=sa.func.coalesce(_dumps(failed_at), run.c.failed_at),
                )
            )
            if "/" in identity:
                child_ended(connection, identity)

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
                due=row.due,
                position=row.position,
            )
            for row in rows
        ]

    def attempts(self, identity: str) -> list[StoredAttempt]:
        """Attempts that did not end their steps."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(attempt)
                .where(attempt.c.run_id == identity)
                .order_by(attempt.c.started, attempt.c.number)
            ).all()
        return [
            StoredAttempt(row.step_id, row.number, row.status, row.error, row.started, row.ended)
            for row in rows
        ]

    def put_step(self, connection: sa.Connection, identity: str, one: StoredStep) -> None:
        """Write a step's row, whether it is there or not."""
        self._pending.pop((identity, one.step_id), None)
        values = {
            "position": one.position,
            "uses": one.uses,
            "status": one.status,
            "attempts": one.attempts,
            "arguments": _dumps(one.arguments),
            "result": _dumps(one.result),
            "error": one.error and storable(one.error),
            "started": one.started,
            "ended": one.ended,
            "due": one.due,
        }
        connection.execute(
            _upsert(connection, step, ("run_id", "step_id"), tuple(values)),
            {"run_id": identity, "step_id": one.step_id, **values},
        )

    def put_attempt(
        self, connection: sa.Connection, identity: str, one: StoredStep, status: str, error: str | None
    ) -> None:
        """An attempt of the step is over, and the step is not."""
        connection.execute(
            _insert_or_ignore(connection, attempt),
            {
                "run_id": identity,
                "step_id": one.step_id,
                "number": one.attempts,
                "status": status,
                "error": error and storable(error),
                "started": one.started,
                "ended": to_text(now()),
            },
        )

    def expect(self, lease: Lease, one: StoredStep) -> None:
        """A step begins: its row is written with the next thing it does, or by `tell` when it takes long."""
        self._pending[lease.run_id, one.step_id] = (lease, one)

    def tell(self, older_than: float) -> None:
        """Write the rows of steps that have been working for that many seconds, so that people see them."""
        limit = to_text(now() - timedelta(seconds=older_than))
        for (identity, _), (lease, one) in list(self._pending.items()):
            if one.started <= limit:
                try:
                    with self.leased(lease) as connection:
                        if (identity, one.step_id) in self._pending:
                            self.put_step(connection, identity, one)
                except LeaseLost:
                    self._pending.pop((identity, one.step_id), None)

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
                self.end_effect(
                    connection, identity, step_id, effect_status, result, error, verified, settled
                )

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
        connection.execute(
            sa.update(effect)
            .where(effect.c.run_id == identity, effect.c.step_id == step_id)
            .values(
                status=status,
                result=_dumps(result),
                error=error and storable(error),
                verified=None if verified is None else int(verified),
                settled=settled,
                after=_dumps(after),
                ended=to_text(now()),
            )
        )
        audit.effect_ended(connection, identity, step_id)

    def intend(self, identity: str, step_id: str, about: JsonObject) -> None:
        """Journal an effect before its first request. One that failed before is open again."""
        lease, begun = self._pending.get((identity, step_id), (None, None))
        with self.database.write() if lease is None else self.leased(lease) as connection:
            if begun is not None:
                self.put_step(connection, identity, begun)
            connection.execute(
                _upsert(connection, effect, ("run_id", "step_id"), ("status", "error", "result", "ended")),
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
        with self.database.write() as connection:
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
                result=_loads(row.result),
                error=row.error,
                verified=None if row.verified is None else bool(row.verified),
                settled=row.settled,
                at=row.at,
            )
            for row in rows
        ]


def _upsert(
    connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], changed: tuple[str, ...]
) -> sa.Insert:
    """An insert that changes the columns of the row that is there already."""
    return _upsert_of(connection.dialect.name, table, keys, changed)


@lru_cache(maxsize=32)
def _upsert_of(dialect: str, table: sa.Table, keys: tuple[str, ...], changed: tuple[str, ...]) -> sa.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        statement = postgresql_insert(table)
        return statement.on_conflict_do_update(
            index_elements=keys, set_={name: statement.excluded[name] for name in changed}
        )
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    insert = sqlite_insert(table)
    return insert.on_conflict_do_update(
        index_elements=keys, set_={name: insert.excluded[name] for name in changed}
    )


def _dumps(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _loads(text: str | None) -> Any:
    return None if text is None else json.loads(text)
