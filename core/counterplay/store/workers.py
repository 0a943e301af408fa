"""Workers that share one PostgreSQL: who lives, who holds what, and what becomes of a dead one's work.

Times are those of the database, so that the clocks of the machines do not matter. On SQLite there is one
worker, which the lock beside the file makes sure of, and nothing here is written.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.database import Database, session_name
from counterplay.store.run_records import ENDED
from counterplay.store.tables import feed, run, worker

_NOW = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float)


@dataclass(frozen=True, slots=True)
class StoredWorker:
    """A process that works on the store. `silent` is for how many seconds it was not heard of."""

    id: str
    host: str
    pid: int
    purpose: str
    started: str
    silent: float
    lasts: float
    runs: int
    feeds: int

    @property
    def dead(self) -> bool:
        """It was silent for so long that others take over what it holds."""
        return self.silent > self.lasts

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"worker {self.id} (process {self.pid} on {self.host}, `{self.purpose}`)"


class WorkerStore:
    """The table of workers. One instance for a process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def join(self, identity: str, purpose: str, lasts: float) -> None:
        """This process begins to work; it counts as dead when it is silent for `lasts` seconds."""
        with self.database.write() as connection:
            connection.execute(
                worker.insert().values(
                    id=identity,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    purpose=purpose,
                    started=to_text(now()),
                    beat=_NOW,
                    lasts=lasts,
                )
            )

    def beat(self, identity: str) -> bool:
        """This process lives. False: others took it for dead, and what it held is theirs."""
        with self.database.write() as connection:
            moved = connection.execute(sa.update(worker).where(worker.c.id == identity).values(beat=_NOW))
        return moved.rowcount == 1

    def silent(self) -> list[str]:
        """Workers that count as dead."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(worker.c.id).where(worker.c.beat + worker.c.lasts < _NOW))
            return list(rows.scalars())

    def bury(self, identity: str) -> list[str] | None:
        """Let others take what a dead worker held; returns the segments that it worked on.

        A worker that was stopped is not gone: its connections stand, and with them the locks and the rows
        that it held. So they are ended first. None: it is alive after all, or another one has buried it.
        """
        if identity not in self.silent():
            return None
        with self.database.write() as connection:
            connection.execute(_END_CONNECTIONS, {"name": session_name(session_of(identity))})
        with self.database.write() as connection:
            gone = connection.execute(
                sa.delete(worker).where(worker.c.id == identity, worker.c.beat + worker.c.lasts < _NOW)
            )
            return _released(connection, identity) if gone.rowcount == 1 else None

    def leave(self, identity: str) -> list[str]:
        """This process stops working; what it had still taken, others may take."""
        with self.database.write() as connection:
            connection.execute(sa.delete(worker).where(worker.c.id == identity))
            return _released(connection, identity)

    def listed(self) -> list[StoredWorker]:
        """All workers with what they hold, the eldest first. There are none on SQLite."""
        if self.database.sqlite:
            return []
        runs = sa.select(sa.func.count()).where(run.c.worker == worker.c.id).scalar_subquery()
        feeds = sa.select(sa.func.count()).where(feed.c.worker == worker.c.id).scalar_subquery()
        query = sa.select(
            worker, (_NOW - worker.c.beat).label("silent"), runs.label("runs"), feeds.label("feeds")
        )
        with self.database.read() as connection:
            return [
                StoredWorker(
                    row.id,
                    row.host,
                    row.pid,
                    row.purpose,
                    row.started,
                    round(max(0.0, row.silent), 1),
                    row.lasts,
                    row.runs,
                    row.feeds,
                )
                for row in connection.execute(query.order_by(worker.c.started, worker.c.id))
            ]


def give_back(connection: sa.Connection, identity: str, runs: Collection[str]) -> None:
    """Let go of runs that were taken and could not be begun."""
    connection.execute(
        sa.update(run)
        .where(run.c.id.in_(runs), run.c.worker == identity, run.c.status.not_in(ENDED))
        .values(worker=None, segment=run.c.segment + 1)
    )


_END_CONNECTIONS = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name "
    "AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)


def identity_of(session: str) -> str:
    """What a worker is called, by the session of its connections."""
    return f"w-{session}"


def session_of(identity: str) -> str:
    return identity.removeprefix("w-")


def _released(connection: sa.Connection, identity: str) -> list[str]:
    held = (run.c.worker == identity, run.c.status.not_in(ENDED))
    works = sa.case((run.c.status == "running", "queued"), else_=run.c.status)
    moved = connection.execute(
        sa.update(run)
        .where(*held)
        .values(status=works, segment=run.c.segment + 1, worker=None)
        .returning(run.c.id, run.c.segment)
    )
    segments = [f"{row.id}/{row.segment - 1}" for row in moved]
    connection.execute(
        sa.update(feed).where(feed.c.worker == identity).values(worker=None, epoch=feed.c.epoch + 1)
    )
    return segments
