"""Locks that every worker of a PostgreSQL respects; the server ends those of a process that dies."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

_TRY = sa.select(sa.func.pg_try_advisory_lock(sa.bindparam("of", type_=sa.BigInteger)))
_WAIT = sa.select(sa.func.pg_advisory_lock(sa.bindparam("of", type_=sa.BigInteger)))
_FREE = sa.select(sa.func.pg_advisory_unlock(sa.bindparam("of", type_=sa.BigInteger)))


def number(name: str) -> int:
    """The number under which PostgreSQL knows a name (64 bits, signed)."""
    return int.from_bytes(hashlib.sha256(f"counterplay {name}".encode()).digest()[:8], signed=True)


class Locks:
    """Locks by name. All that are free when they are asked for are held by one connection."""

    def __init__(self, engine: sa.Engine) -> None:
        """`engine` commits each statement at once."""
        self._engine = engine
        self._using = threading.Lock()
        self._common: sa.Connection | None = None
        self._held: set[int] = set()

    @contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the lock inside the block. False, with `wait=False`: somebody else holds it."""
        of = number(name)
        if self._taken(of):
            try:
                yield True
            finally:
                self._free(of)
            return
        if not wait:
            yield False
            return
        with self._engine.connect() as own:  # it waits: nobody else's locks may wait with it
            own.execute(_WAIT, {"of": of})
            try:
                yield True
            finally:
                own.execute(_FREE, {"of": of})

    def close(self) -> None:
        """Let go of everything."""
        with self._using:
            self._drop()
        self._engine.dispose()

    def _taken(self, of: int) -> bool:
        with self._using:
            if of in self._held:  # by another thread: to the server both are the same
                return False
            try:
                if self._common is None:
                    self._common = self._engine.connect()
                got = bool(self._common.execute(_TRY, {"of": of}).scalar_one())
            except BaseException:
                self._drop()
                raise
            if got:
                self._held.add(of)
            return got

    def _free(self, of: int) -> None:
        with self._using:
            if of not in self._held or self._common is None:
                return  # the connection broke, and the server freed what it held
            self._held.discard(of)
            try:
                self._common.execute(_FREE, {"of": of})
            except BaseException:
                self._drop()
                raise

    def _drop(self) -> None:
        self._held.clear()
        common, self._common = self._common, None
        if common is not None:
            with suppress(sa.exc.SQLAlchemyError):
                common.invalidate()  # closed, so that it holds nothing
            common.close()
