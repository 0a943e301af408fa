"""How the engine connects to the store's database: in turn with our own writers, and lazily on disk.

The engine's rows only say which segments work. Losing the last of them to a power cut is harmless: our own
rows decide what is done, each of our commits puts on disk what was written before it, and the next start
goes on with every run that its segment left. So the engine does not wait for the disk; nobody loses a
promise by that.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from counterplay.store.turns import Turns

_TURN = "counterplay_turn"
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN IMMEDIATE")
"""What makes Python's `sqlite3` take the lock on the file."""

#: For PostgreSQL: what DBOS passes on to each connection.
LAZY_COMMITS = {"options": "-c synchronous_commit=off"}


def sqlite_engine(url: str, pool_size: int, turns: Turns | None) -> sa.Engine:
    """Connections to a SQLite file for DBOS. A connection that writes has its turn until it is given back."""
    engine = sa.create_engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=30)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    if turns is not None:
        _take_turns(engine, turns)
    return engine


def _take_turns(engine: sa.Engine, turns: Turns) -> None:
    @sa.event.listens_for(engine, "before_cursor_execute")
    def _before(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if _TURN not in connection.info and statement.lstrip().upper().startswith(_WRITES):
            turns.take()
            connection.info[_TURN] = True

    @sa.event.listens_for(engine, "checkin")
    def _given_back(_connection: Any, record: Any) -> None:
        if record.info.pop(_TURN, None):
            turns.give_back()
