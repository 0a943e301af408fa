"""Who may write a run's rows: the segment that holds it, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from counterplay.events import JsonObject
from counterplay.store.database import Database
from counterplay.store.statements import loads
from counterplay.store.tables import run

#: Until the transaction ends, nobody else takes the run (SQLite, with one writer, needs no lock for that).
_HELD = (
    sa.select(run.c.segment, run.c.status, run.c.cancel)
    .where(run.c.id == sa.bindparam("of"))
    .with_for_update()
)


@dataclass
class Lease:
    """The right of one segment to write a run's rows. `cancel`: somebody asked the run to end."""

    run_id: str
    segment: int
    cancel: JsonObject | None = None


class LeaseLost(Exception):
    """The run goes on elsewhere, or ended: this segment has no say in it any more."""


class Leased:
    """The tables of runs, as far as they are written under a lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextmanager
    def leased(self, lease: Lease) -> Iterator[sa.Connection]:
        """A short transaction of the segment that holds the run. LeaseLost: another one does, or it ended."""
        with self.database.write_short() as connection:
            row = connection.execute(_HELD, {"of": lease.run_id}).first()
            if row is None or row.segment != lease.segment or row.status != "running":
                raise LeaseLost(f"run {lease.run_id} goes on without segment {lease.segment}")
            lease.cancel = loads(row.cancel)
            yield connection
