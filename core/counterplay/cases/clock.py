"""The time of a case: it stands still until something waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta


class CaseClock:
    """Tells the case's own time. Safe for threads."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.followers: list[Callable[[datetime], None]] = []
        """Whoever has a clock of their own that goes with this one."""

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        with self._lock:
            self._now += by
        self._tell()

    def advance_to(self, moment: datetime) -> None:
        """Go to a moment; one that is past changes nothing."""
        with self._lock:
            self._now = max(self._now, moment)
        self._tell()

    def _tell(self) -> None:
        for follower in self.followers:
            follower(self._now)


class CaseStop(threading.Event):
    """The event that work waits on: waiting for it lets the case's time pass instead of anybody's own."""

    def __init__(self, clock: CaseClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            return super().wait()
        if not self.is_set():
            self._clock.advance(timedelta(seconds=timeout))
        return self.is_set()
