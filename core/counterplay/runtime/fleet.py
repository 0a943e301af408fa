"""This process as one of several workers on a PostgreSQL: it says that it lives, and buries the dead.

A worker that is silent for too long loses its runs and feeds to the others. Should it still live (it was
stopped, or cut off from the database), then every write of its runs is refused, because they go on under
another segment's number, and it ends as soon as it notices.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from counterplay.errors import CounterplayError, StateError
from counterplay.store.database import Database
from counterplay.store.workers import WorkerStore, identity_of

BEATS = 6
"""Beats in the time after which a silent worker counts as dead."""

log = logging.getLogger("counterplay.workers")


class Fleet:
    """Membership of one process. `identity` stands in every row that it holds."""

    def __init__(
        self,
        database: Database,
        purpose: str,
        dead_after: timedelta,
        stop: threading.Event,
        on_failure: Callable[[CounterplayError], None],
        on_beat: Callable[[], None],
    ) -> None:
        """`on_beat` is called after each beat: work may have come from others."""
        self.identity = identity_of(database.session)
        self.on_released: Callable[[list[str]], None] = lambda segments: None
        self._workers = WorkerStore(database)
        self._purpose = purpose
        self._lasts = dead_after.total_seconds()
        self._stop = stop
        self._ended = threading.Event()
        self._on_failure = on_failure
        self._on_beat = on_beat
        self._suspects: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="fleet", daemon=True)

    def start(self) -> None:
        """Join the others."""
        self._workers.join(self.identity, self._purpose, self._lasts)
        self._thread.start()

    def close(self) -> None:
        """Leave; to be called when nothing works any more."""
        self._ended.set()
        self._thread.join()
        try:
            self._workers.leave(self.identity)
        except CounterplayError as error:  # then the others bury it
            log.warning("this worker could not take its leave: %s", error)

    def _work(self) -> None:
        while not self._ended.wait(self._lasts / BEATS):
            try:
                if not self._workers.beat(self.identity):
                    self._on_failure(self._given_up())
                    return
                self._bury_the_dead()
                self._on_beat()
            except CounterplayError as error:  # the database may come back before this worker is missed
                log.warning("no sign of life could be given: %s", error)

    def reason(self, failure: StateError) -> StateError:
        """Why the store failed this worker: others ended its connections, if they took it for dead."""
        try:
            return failure if self._workers.beat(self.identity) else self._given_up()
        except CounterplayError:
            return failure

    def _given_up(self) -> StateError:
        return StateError(
            f"worker {self.identity} was not heard of for {self._lasts:.0f} s, so others took over its work",
            hint="start it again; `playbook workers` lists those that live",
        )

    def _bury_the_dead(self) -> None:
        """Those that are silent at two beats in a row: when the database was away, nobody could be heard."""
        silent = set(self._workers.silent())
        for identity in sorted(silent & self._suspects):
            segments = self._workers.bury(identity)
            if segments is not None:
                log.warning("worker %s is dead; %d runs of it go on elsewhere", identity, len(segments))
                self.on_released(segments)
        self._suspects = silent
