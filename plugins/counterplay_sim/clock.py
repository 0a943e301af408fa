"""The simulator's time: real by default, a settable one for tests. Every service reads it, nothing else."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

NANOSECONDS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that a datetime holds."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def from_ns(nanoseconds: int) -> datetime:
    """The moment, cut to microseconds, aware UTC."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def stamp(moment: datetime, digits: int = 0) -> str:
    """RFC 3339 with `Z`: `2026-03-02T08:14:07Z`, or with so many fraction digits (at most 7)."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{f'{moment.microsecond:06d}0'[:digits]}Z" if digits else f"{text}Z"


class Clock:
    """The real time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def now(self) -> datetime:
        """The time, aware UTC."""
        return from_ns(self.now_ns())


class ManualClock(Clock):
    """A clock that stands still until it is told otherwise."""

    def __init__(self, start: datetime) -> None:
        self._ns = to_ns(start)
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self._ns

    def set(self, moment: datetime) -> None:
        """Jump to a moment, forwards or back."""
        with self._lock:
            self._ns = to_ns(moment)

    def advance(self, by: timedelta) -> None:
        """Let so much time pass."""
        with self._lock:
            self._ns += by // timedelta(microseconds=1) * 1000
