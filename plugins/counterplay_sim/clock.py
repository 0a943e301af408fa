"""The simulator's time: real by default; it can be set, stopped, made faster, and its `Date` can be wrong.

Every service reads it, nothing else. What was set is kept in the state, so that it outlives the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

NANOSECONDS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond that a datetime holds."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def from_ns(nanoseconds: int) -> datetime:
    """The moment, cut to microseconds, aware UTC."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def span_ns(span: timedelta) -> int:
    """A span in nanoseconds."""
    return span // timedelta(microseconds=1) * 1000


def stamp(moment: datetime, digits: int = 0) -> str:
    """RFC 3339 with `Z`: `2026-03-02T08:14:07Z`, or with so many fraction digits (at most 7)."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{f'{moment.microsecond:06d}0'[:digits]}Z" if digits else f"{text}Z"


class Clock:
    """A clock that runs with the real one until it is told otherwise.

    `rate` is how many of its seconds pass in a real one (0: it stands still). `skew` moves the `Date`
    header alone, as a service with a wrong clock would.
    """

    def __init__(self) -> None:
        self._real = self._shown = 0  # two readings of the same moment; equal: the real time
        self._rate = 1.0
        self._skew = 0
        self._lock = threading.Lock()
        self._changed: Callable[[dict[str, Any]], None] = lambda state: None

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        if self._rate == 1.0:
            return time.time_ns() - self._real + self._shown
        return self._shown + int((time.time_ns() - self._real) * self._rate)

    def now(self) -> datetime:
        """The time, aware UTC."""
        return from_ns(self.now_ns())

    def date_ns(self) -> int:
        """The time that the `Date` header tells."""
        return self.now_ns() + self._skew

    @property
    def rate(self) -> float:
        """Its seconds in a real second."""
        return self._rate

    @property
    def skew(self) -> timedelta:
        """How much later than this clock the `Date` header is."""
        return timedelta(microseconds=self._skew // 1000)

    def set(self, moment: datetime) -> None:
        """Jump to a moment, forwards or back."""
        self._move(to_ns(moment), self._rate, self._skew)

    def advance(self, by: timedelta) -> None:
        """Let so much time pass at once."""
        with self._lock:
            shown = self.now_ns() + span_ns(by)
        self._move(shown, self._rate, self._skew)

    def run_at(self, rate: float) -> None:
        """Let it run so many times as fast as the real time; 0 stops it. ValueError: negative."""
        if not 0 <= rate <= 1_000_000:
            raise ValueError(f"a clock runs at a rate from 0 to 1,000,000, not {rate}")
        self._move(self.now_ns(), float(rate), self._skew)

    def skew_date(self, by: timedelta) -> None:
        """Let the `Date` header be wrong by so much."""
        self._move(self.now_ns(), self._rate, span_ns(by))

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"real": self._real, "shown": self._shown, "rate": self._rate, "skew": self._skew}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as a clock with that `state`, also in another process; real time went on meanwhile."""
        with self._lock:
            self._real, self._shown = int(state["real"]), int(state["shown"])
            self._rate, self._skew = float(state["rate"]), int(state["skew"])

    def on_change(self, changed: Callable[[dict[str, Any]], None]) -> None:
        """Call this with the `state` whenever the clock is told something."""
        self._changed = changed

    def _move(self, shown: int, rate: float, skew: int) -> None:
        with self._lock:
            self._real, self._shown, self._rate, self._skew = time.time_ns(), shown, rate, skew
            self._changed(self.state())


class ManualClock(Clock):
    """A clock that stands still until it is told otherwise."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._real, self._shown, self._rate = time.time_ns(), to_ns(start), 0.0
