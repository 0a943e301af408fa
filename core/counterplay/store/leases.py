"""Who may write a run's rows: the segment that holds it, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from counterplay.errors import InterruptedWork
from counterplay.events import JsonObject
from counterplay.store.database import Database
from counterplay.store.statements import loads, upsert
from counterplay.store.tables import run

#: Until the transaction ends, nobody else takes the run (SQLite, with one writer, needs no lock for that).
HELD = (
    sa.select(run.c.cancel)
    .where(run.c.id == sa.bindparam("of"), run.c.segment == sa.bindparam("under"), run.c.status == "running")
    .with_for_update()
)


@dataclass
class Lease:
    """The right of one segment to write a run's rows. `cancel`: somebody asked the run to end."""

    run_id: str
    segment: int
    cancel: JsonObject | None = None


class LeaseLost(InterruptedWork):
    """The run goes on elsewhere, or ended: this segment has no say in it any more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row to be written; of one that is there already, by `keys`, the columns `changed` are."""

    table: sa.Table
    keys: tuple[str, ...]
    changed: tuple[str, ...]
    values: dict[str, Any]

    @property
    def shape(self) -> Shape:
        """What the statement depends on."""
        return self.table, self.keys, self.changed, tuple(self.values)

    @property
    def parameters(self) -> dict[str, Any]:
        """Its values, under names that no other table has."""
        return {f"{self.table.name}_{name}": value for name, value in self.values.items()}


Shape = tuple[sa.Table, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


class Leased:
    """The tables of runs, as far as they are written under a lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextmanager
    def leased(self, lease: Lease, *rows: Row) -> Iterator[sa.Connection]:
        """A short transaction of the segment that holds the run, with these rows, one of a table.

        LeaseLost: another segment holds it, or it ended.
        """
        with self.database.write_short() as connection:
            self._check(connection, lease, rows)
            yield connection

    def write_leased(self, lease: Lease, *rows: Row) -> None:
        """`leased` for a transaction that is these rows and nothing else."""
        with self.database.write_one() as connection:
            self._check(connection, lease, rows)

    def _check(self, connection: sa.Connection, lease: Lease, rows: Sequence[Row]) -> None:
        """PostgreSQL, which waits for each answer, writes the rows in the statement that looks at the run."""
        at_once = rows if connection.dialect.name == "postgresql" else ()
        asked = _holding(tuple(row.shape for row in at_once)) if at_once else HELD
        parameters = {"of": lease.run_id, "under": lease.segment}
        for row in at_once:
            parameters |= row.parameters
        held = connection.execute(asked, parameters).first()
        if held is None:
            raise LeaseLost(f"run {lease.run_id} goes on without segment {lease.segment}")
        lease.cancel = loads(held.cancel)
        for row in rows if not at_once else ():
            connection.execute(upsert(connection, row.table, row.keys, row.changed), row.values)


@lru_cache(maxsize=32)
def _holding(shapes: tuple[Shape, ...]) -> sa.Select[Any]:
    held, written = together(shapes)
    return sa.select(held.c.cancel).add_cte(*written)


def together(shapes: tuple[Shape, ...]) -> tuple[sa.CTE, list[sa.CTE]]:
    """Parts of one statement for PostgreSQL: `HELD`, and rows that are written if it finds the run."""
    from sqlalchemy.dialects.postgresql import insert

    held = HELD.cte("held")
    written = []
    for number, (table, keys, changed, columns) in enumerate(shapes):
        values = [sa.bindparam(f"{table.name}_{name}", type_=table.c[name].type) for name in columns]
        made = insert(table).from_select(columns, sa.select(*values).select_from(held))
        new = {name: made.excluded[name] for name in changed}
        written.append(made.on_conflict_do_update(index_elements=keys, set_=new).cte(f"written_{number}"))
    return held, written
