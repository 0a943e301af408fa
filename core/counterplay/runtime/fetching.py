"""Fetching units ahead of the work on them: as many at once as latency asks for, within a budget of bytes.

Each further connection costs a handshake and memory, and each further thread the others' time, so their
number grows only while the work on units has to wait for them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from mmap import mmap

from counterplay.budgets import ByteBudget
from counterplay.clock import now
from counterplay.runtime.growth import Growth
from counterplay.runtime.units import Sliced
from counterplay.store.feeds import StoredUnit

READY = 10
"""So many fetched units may wait for the work on them; more would only cost memory."""
_FIRST_GUESS = 256 * 1024
_FIRST_AT_ONCE = 4
_MAPPED = 1024 * 1024  # what a memory-mapped unit counts for: its bytes lie in a file


@dataclass(frozen=True, slots=True)
class Arrival:
    """A unit and its bytes, or the error that fetching it raised. `held`: bytes of the budget.

    `began` and `at` are when it was asked for, and when it was here. `sliced`: what its bytes say, as far as
    somebody looked.
    """

    stored: StoredUnit
    body: bytes | mmap | None
    error: Exception | None
    held: int
    began: datetime
    at: datetime
    sliced: Sliced | None = None


class Fetching:
    """A queue of units, and the threads that fetch them in its order."""

    def __init__(
        self,
        fetch: Callable[[StoredUnit], bytes | mmap],
        *,
        look: Callable[[bytes], Sliced | None],
        name: str,
        parallel: int,
        held: ByteBudget,
        arrived: Callable[[Arrival], None],
        backlog: Callable[[], int],
        stop: threading.Event,
        growth: Growth,
    ) -> None:
        """`look` says what it can of bytes that have just come."""
        self._growth = growth
        self._grown = 0
        self._fetch = fetch
        self._look = look
        self._name = name
        self._parallel = parallel
        self._held = held
        self._arrived = arrived
        self._backlog = backlog
        self._stop = stop
        self._queue: deque[StoredUnit] = deque()
        self._changed = threading.Condition()
        self._at_once = min(_FIRST_AT_ONCE, parallel)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._paused_until = 0.0
        self._probing = False
        self._probe_out = False
        self._guess = _FIRST_GUESS
        self.active = 0

    def add(self, units: Sequence[StoredUnit]) -> None:
        """Fetch these after those that are queued."""
        with self._changed:
            self._queue.extend(units)
        self.wake()

    def wake(self) -> None:
        """There may be room for one more fetch."""
        with self._changed:
            if not self._queue or self._closed:
                return
            if self._backlog() >= READY:
                return
            if self._idle:
                self._changed.notify()
            elif len(self._threads) < self._at_once:
                thread = threading.Thread(target=self._work, name=f"{self._name} fetch", daemon=True)
                self._threads.append(thread)
                thread.start()

    def pause(self, seconds: float) -> None:
        """The service as a whole has a fault: nothing is fetched for that long, and one unit then.

        What became of that one is said by a further `pause`, or by `resume`.
        """
        with self._changed:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)
            self._probing, self._probe_out = True, False
            self._changed.notify()  # who waits for that looks when the pause is over

    def resume(self) -> None:
        """The service is well again."""
        with self._changed:
            self._paused_until, self._probing = 0.0, False
            self._changed.notify_all()

    @property
    def coming(self) -> bool:
        """Something is being fetched, or is about to be."""
        with self._changed:
            return bool(self.active or (self._may_fetch() and self._held.fits(self._guess)))

    @property
    def queued(self) -> int:
        return len(self._queue)

    def identities(self) -> list[int]:
        """The units in the queue."""
        with self._changed:
            return [one.id for one in self._queue]

    def clear(self) -> list[StoredUnit]:
        """Empty the queue."""
        with self._changed:
            taken = list(self._queue)
            self._queue.clear()
        return taken

    def close(self) -> None:
        """End when what is being fetched is there."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._growth.fewer(self._grown)
        self._grown = 0

    def _work(self) -> None:
        while True:
            taken = self._next()
            if taken is None:
                return
            stored, held = taken
            began = now()
            sliced = None
            try:
                body: bytes | mmap | None = self._fetch(stored)
                error: Exception | None = None
            except Exception as failure:
                body, error = None, failure
            if isinstance(body, bytes):
                # Whoever opens the unit looks again, and says what is wrong with it.
                with suppress(Exception):
                    sliced = self._look(body)
            size = 0 if body is None else _MAPPED if isinstance(body, mmap) else len(body)
            self._held.change(size - held)
            hungry = not self._backlog()
            with self._changed:
                self.active -= 1
                wanted = hungry and error is None and self._queue and self._at_once < self._parallel
                if wanted and self._growth.one_more():
                    self._at_once += 1  # doubles in each round trip, until fetching keeps up with the work
                    self._grown += 1
                if size:
                    self._guess = (7 * self._guess + size) // 8
            self._arrived(Arrival(stored, body, error, size, began, now(), sliced))
            self.wake()

    def _next(self) -> tuple[StoredUnit, int] | None:
        with self._changed:
            while True:
                if self._closed:
                    return None
                if self._may_fetch() and self._held.take(self._guess):
                    self.active += 1
                    self._probe_out = self._probing
                    return self._queue.popleft(), self._guess
                pause = self._paused_until - time.monotonic() if self._paused_until else 0.0
                self._idle += 1
                self._changed.wait(min(pause, 0.25) if pause > 0.0 else 0.25)
                self._idle -= 1

    def _may_fetch(self) -> bool:
        """There is something to fetch, and nothing but the budget of bytes says to wait."""
        if not self._queue or self._backlog() >= READY or self._closed or self._stop.is_set():
            return False
        if self._paused_until and self._paused_until > time.monotonic():
            return False
        return not (self._probing and self._probe_out)
