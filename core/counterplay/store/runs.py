"""How runs move, from the outbox to their end; what they are made of has its own files."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import storable
from counterplay.store.effects import EffectRows
from counterplay.store.leases import Lease, LeaseLost
from counterplay.store.next_runs import next_runs
from counterplay.store.outbox import Outbox
from counterplay.store.run_history import RunHistory
from counterplay.store.run_records import (
    ENDED,
    EffectEnd,
    NewRun,
    OnceKey,
    StoredAttempt,
    StoredEffect,
    StoredRun,
    StoredStep,
    run_id,
)
from counterplay.store.statements import dumps
from counterplay.store.tables import run
from counterplay.store.workers import give_back

_MOST_NAMED = 10_000
"""Ids in one statement: PostgreSQL takes 65,535 values, SQLite 32,766 unless it was built for more."""

__all__ = [
    "ENDED",
    "EffectEnd",
    "Lease",
    "LeaseLost",
    "NewRun",
    "OnceKey",
    "RunStore",
    "StoredAttempt",
    "StoredEffect",
    "StoredRun",
    "StoredStep",
    "run_id",
]


class RunStore(Outbox, RunHistory, EffectRows):
    """The tables of runs. One instance for a process."""

    def due(self, limit: int, newcomers: int = 0, held: Collection[str] = ()) -> list[tuple[str, int]]:
        """(run, segment) of runs that have to be started or woken now; tenants take turns (`next_runs`)."""
        with self.database.read() as connection:
            return next_runs(connection, limit, newcomers, held, None)

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

    def playbooks_of(self, *statuses: str) -> list[tuple[str, str]]:
        """(run, playbook) of every run in one of the statuses."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(run.c.id, run.c.playbook)
                .where(run.c.status.in_(statuses))
                .order_by(run.c.created, run.c.id)
            )
            return [(identity, playbook) for identity, playbook in rows]

    def claim(self, worker: str, limit: int, newcomers: int = 0) -> list[tuple[str, int]]:
        """Like `due`, and taken for a worker at once, so that no other one takes them, too."""
        with self.database.write() as connection:
            return next_runs(connection, limit, newcomers, (), worker)

    def give_back(self, worker: str, runs: Collection[str]) -> None:
        """Let go of what `claim` took and could not be begun."""
        with self.database.write() as connection:
            give_back(connection, worker, runs)

    def any_open(self, runs: Collection[str]) -> list[str]:
        """Those of the runs that work or are to work, however many are asked for."""
        working = run.c.status.in_(("queued", "running", "held"))
        found: list[str] = []
        with self.database.read() as connection:
            named = list(runs)
            for at in range(0, len(named), _MOST_NAMED):
                query = sa.select(run.c.id).where(run.c.id.in_(named[at : at + _MOST_NAMED]), working)
                found += connection.execute(query).scalars()
        return found

    def begin(self, identity: str, segment: int, *, tell: bool = False) -> bool:
        """A segment starts working. False: this segment is not the run's current one, or the run ended.

        Returns True again when the same segment resumes after a crash. `tell`: a hook is to be told that the
        run starts; that stays on record until `told`.
        """
        to_tell = {"tell": "started"} if tell else {}
        with self.database.write_one() as connection:
            moved = connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.segment == segment, run.c.status.not_in(ENDED))
                .values(
                    status="running",
                    wake=None,
                    started=sa.func.coalesce(run.c.started, to_text(now())),
                    **to_tell,
                )
            )
        return moved.rowcount == 1

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
                worker=None,
                segment=lease.segment + 1,
                wake=to_text(wake) if wake else None,
                error=storable(reason),
            )
        )

    def park(
        self,
        identity: str,
        status: str,
        wake: datetime | None,
        reason: str | None,
        *,
        segment: int | None = None,
    ) -> None:
        """End the segment; the run goes on with the next one, at `wake` or when it is queued again.

        `segment` is that of whoever parks: nothing happens when the run goes on under another one.
        """
        with self.database.write_one() as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.status.not_in(ENDED), _held_by(segment))
                .values(
                    status=status,
                    worker=None,
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
        """What waits for a sink, or is blocked, is due now: a new worker tries at once."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(run)
                .where(
                    sa.or_(
                        run.c.status == "blocked",
                        sa.and_(run.c.status == "waiting", run.c.outcome.is_not(None)),
                    )
                )
                .values(wake=to_text(now()))
            )

    def put_stop(self, connection: sa.Connection, identity: str, stop: JsonObject) -> None:
        """A step ended the run: what follows is not walked through any more, whoever goes on with it."""
        connection.execute(sa.update(run).where(run.c.id == identity).values(stop=dumps(stop)))

    def set_outcome(
        self, lease: Lease, outcome: str, error: str | None, failed_at: JsonObject | None = None
    ) -> None:
        """How the steps ended; `finally` and the sinks are still to come. LeaseLost: others go on with it."""
        with self.leased(lease) as connection:
            connection.execute(
                sa.update(run)
                .where(run.c.id == lease.run_id)
                .values(
                    outcome=outcome, error=error and storable(error), failed_at=dumps(failed_at), stop=None
                )
            )

    def end(
        self,
        identity: str,
        status: str,
        error: str | None,
        *,
        stop: JsonObject | None = None,
        failed_at: JsonObject | None = None,
        segment: int | None = None,
        tell: bool = False,
    ) -> None:
        """The run is over; a child's end lets the next one begin, and the last one's wakes the parent.

        `tell`: a hook is to be told; that stays on record until `told`.

        LeaseLost: the run goes on under another segment than that of whoever ends it.
        """
        from counterplay.store.children import child_ended, lock

        inside = "/" in identity
        with self.database.write_short() if inside else self.database.write_one() as connection:
            if inside:
                lock(connection, identity.rsplit("/", 2)[0])
            moved = connection.execute(
                sa.update(run)
                .where(run.c.id == identity, run.c.status.not_in(ENDED), _held_by(segment))
                .values(
                    status=status,
                    worker=None,
                    tell="finished" if tell else None,
                    outcome=status,
                    error=error and storable(error),
                    ended=to_text(now()),
                    wake=None,
                    stop=dumps(stop),
                    failed_at=sa.func.coalesce(dumps(failed_at), run.c.failed_at),
                )
            )
            if segment is not None and moved.rowcount != 1:
                raise LeaseLost(f"run {identity} goes on without segment {segment}")
            if inside:
                child_ended(connection, identity)

    def told(self, identity: str) -> None:
        """The hook that was to be called for the run was called."""
        with self.database.write_one() as connection:
            connection.execute(sa.update(run).where(run.c.id == identity).values(tell=None))

    def untold(self, before: datetime) -> list[str]:
        """Runs that ended before a time, and whose end was told to no hook: their process died in between."""
        with self.database.read() as connection:
            ended = sa.select(run.c.id).where(run.c.tell == "finished", run.c.ended <= to_text(before))
            return list(connection.execute(ended.order_by(run.c.ended)).scalars())


def _held_by(segment: int | None) -> sa.ColumnElement[bool]:
    return sa.true() if segment is None else run.c.segment == segment
