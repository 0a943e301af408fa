"""Whose turn it is to write: one transaction at a time in a process, and short ones share a commit.

A commit waits for the disk, and a connection that finds SQLite locked sleeps and polls, so writers queue
here instead. A short write does not commit while another short one waits: it hands the open transaction
on, and the last of them commits for all. Nobody hears that a write is done before that commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa

from counterplay.errors import StateError

MOST = 32
LONGEST = 0.02
"""Seconds: neither more writes nor a longer time go into one commit, so that the first need not wait."""
_RESCUE = 0.2


@dataclass(eq=False, slots=True)
class _Shared:
    """An open transaction, and how it ended for those who wrote in it."""

    connection: sa.Connection
    opened: float
    members: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Turns:
    """The order of the writers of one database in one process. `connect` gives a connection that writes."""

    def __init__(self, connect: Callable[[], sa.Connection]) -> None:
        self._connect = connect
        self._turn = threading.Lock()
        self._holder: int | None = None
        self._counting = threading.Lock()
        self._waiting = 0
        self._open: _Shared | None = None
        self._kept: sa.Connection | None = None

    def close(self) -> None:
        """Give the connection back that short writes use. Nothing may be written any more."""
        with self.alone():
            if self._kept is not None:
                self._kept.close()
                self._kept = None

    @property
    def waiting(self) -> int:
        """How many short writes wait for their turn."""
        return self._waiting

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        """Wait for the turn; what others left open is committed first."""
        self._acquire()
        self._commit()

    def give_back(self) -> None:
        """Let the next one write."""
        self._holder = None
        self._turn.release()

    @contextmanager
    def shared(self) -> Iterator[sa.Connection]:
        """A short write: on disk when the block ends, all of it or nothing, with those of others."""
        with self._counting:
            self._waiting += 1
        try:
            self._acquire()
        finally:
            with self._counting:
                self._waiting -= 1
        try:
            batch = self._opened()
        except BaseException:
            self.give_back()
            raise
        try:
            yield batch.connection
        except BaseException as error:
            self._take_back(batch, error)
            self._leave(batch)
            raise
        batch.members += 1
        self._leave(batch)
        self._await(batch)

    def _acquire(self) -> None:
        if self._holder == threading.get_ident():
            raise RuntimeError("a write began inside another one of the same thread")
        self._turn.acquire()
        self._holder = threading.get_ident()

    def _opened(self) -> _Shared:
        """The open transaction, marked so that what this member does can be taken back alone."""
        batch = self._open
        if batch is None:
            connection = self._kept or self._connect()
            self._kept = None
            try:
                connection.begin()
            except BaseException:
                connection.close()
                raise
            batch = self._open = _Shared(connection, time.monotonic())
        elif batch.members:
            try:
                batch.connection.exec_driver_sql("SAVEPOINT member")
            except BaseException as error:
                self._fail(batch, error)
                raise
        return batch

    def _take_back(self, batch: _Shared, error: BaseException) -> None:
        """Undo what a member did before it failed; where that cannot be, the whole has failed."""
        if not batch.members:
            self._fail(batch, error)
            return
        try:
            batch.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT member")
        except Exception:  # the database gave up the whole transaction: the disk is full, or it is gone
            self._fail(batch, error)

    def _leave(self, batch: _Shared) -> None:
        """Hand the transaction on to who waits for it, or commit."""
        try:
            with self._counting:
                awaited = self._waiting > 0
            young = time.monotonic() - batch.opened < LONGEST
            if not (awaited and young and batch.members < MOST):
                self._commit()
        finally:
            self.give_back()

    def _await(self, batch: _Shared) -> None:
        """Return when it is on disk. Whoever was to commit may have been interrupted: then do it here."""
        while not batch.ended.wait(_RESCUE):
            if self._turn.acquire(blocking=False):
                self._holder = threading.get_ident()
                try:
                    if self._open is batch:
                        self._commit()
                finally:
                    self.give_back()
        if batch.error is not None:
            raise batch.error

    def _commit(self) -> None:
        """End the open transaction, if there is one. Its failure is told to those who wrote in it."""
        batch = self._open
        if batch is None:
            return
        try:
            batch.connection.commit()
        except BaseException as error:
            with suppress(Exception):  # nobody can tell in which state it is
                batch.connection.invalidate()
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        self._open, self._kept = None, batch.connection
        batch.ended.set()

    def _fail(self, batch: _Shared, error: BaseException) -> None:
        self._open = None
        interrupted = StateError("the write was interrupted before it was on disk", hint="start it again")
        batch.error = error if isinstance(error, Exception) else interrupted
        with suppress(Exception):  # nothing of it was committed, whatever the connection says to that
            batch.connection.close()
        batch.ended.set()
