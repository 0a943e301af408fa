"""Whether one more connection pays: what all feeds of a session open beyond the first few of each.

A connection and its thread hold a quarter of a megabyte, and more than the processor can work off only take
turns on it. 24 of them at 150 ms are five times the requests of a tenant's ordinary quota.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST = 24
_BUSY = 0.85  # of a core; Python code uses one at most, so who waits then waits for this process itself
_WINDOW = 0.1


class Meter:
    """How much of a core this process uses."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._at = clock()
        self._used = cpu()
        self._share = 1.0

    def share(self) -> float:
        """Cores in use, of the last tenth of a second or more; 1 while it is too early to tell."""
        passed = self._clock() - self._at
        if passed >= _WINDOW:
            used = self._cpu()
            self._share = (used - self._used) / passed
            self._at, self._used = self._at + passed, used
        return self._share


class Growth:
    """Gives out further connections, to all feeds of a session together. Safe for threads.

    `most`: so many. `busy`: cores in use; nothing is given to a process that is busy.
    """

    def __init__(self, most: int = MOST, busy: Callable[[], float] | None = None) -> None:
        self._most = most
        self._busy = busy or Meter().share
        self._given = 0
        self._lock = threading.Lock()

    def one_more(self) -> bool:
        """Take one, if there is one."""
        with self._lock:
            if self._given >= self._most or self._busy() >= _BUSY:
                return False
            self._given += 1
            return True

    def fewer(self, number: int) -> None:
        """Give so many back: a feed has ended."""
        with self._lock:
            self._given -= number
