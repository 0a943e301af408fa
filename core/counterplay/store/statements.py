"""Statements and values that several tables need, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa


def insert_or_ignore(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    """An insert that leaves the row alone that is there already: the result's `rowcount` is then 0."""
    return _ignoring(connection.dialect.name, table)


def upsert(
    connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], changed: tuple[str, ...]
) -> sa.Insert:
    """An insert that changes the columns of the row that is there already."""
    return _changing(connection.dialect.name, table, keys, changed)


def execute_many(
    connection: sa.Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Run a statement for rows that name the same columns, at half of what `connection.execute` costs.

    For statements that are built once, since each is kept, and for values that need no conversion.
    """
    if not rows:
        return
    dialect = connection.dialect
    columns = tuple(rows[0])
    known = _COMPILED.get((dialect.name, statement, columns))
    if known is None:
        known = _COMPILED[dialect.name, statement, columns] = _compiled(dialect, statement, columns)
    text, order, fixed = known
    whole = [{**fixed, **row} for row in rows]
    parameters: Any = whole if order is None else [tuple([row[name] for name in order]) for row in whole]
    connection.exec_driver_sql(text, parameters)


def new_id(made: sa.CursorResult[Any]) -> int:
    """The primary key that a single-row insert was given."""
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])


def dumps(value: Any) -> str | None:
    """JSON; None stays NULL."""
    return None if value is None else json.dumps(value)


def loads(text: str | None) -> Any:
    """What `dumps` wrote."""
    return None if text is None else json.loads(text)


_Compiled = tuple[str, Sequence[str] | None, dict[str, Any]]
_COMPILED: dict[tuple[str, sa.Insert | sa.Update, tuple[str, ...]], _Compiled] = {}


def _compiled(dialect: sa.Dialect, statement: sa.Insert | sa.Update, columns: tuple[str, ...]) -> _Compiled:
    """The text, the order of its parameters where they have no names, and the values that rows leave out."""
    inserts = isinstance(statement, sa.Insert)
    compiled: Any = statement.compile(
        dialect=dialect, column_keys=list(columns) if inserts else None, for_executemany=True
    )
    fixed = {name: value for name, value in compiled.params.items() if name not in columns}
    if inserts:
        for column in statement.table.columns:
            if column.name in fixed and isinstance(column.default, sa.ColumnDefault):
                fixed[column.name] = column.default.arg
    return str(compiled), compiled.positiontup, fixed


@lru_cache(maxsize=32)
def _ignoring(dialect: str, table: sa.Table) -> sa.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        # SQLAlchemy does not keep an insert's count unless it is told to
        return postgresql_insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).on_conflict_do_nothing()


@lru_cache(maxsize=32)
def _changing(dialect: str, table: sa.Table, keys: tuple[str, ...], changed: tuple[str, ...]) -> sa.Insert:
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
