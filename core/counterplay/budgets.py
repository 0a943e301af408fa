"""How fast a service may be asked, and how many bytes may be in flight: shared by all who use it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Services count requests by the minute."""
_STEP = 0.1  # requests are counted in slices of this many seconds
_SLACK = 0.3  # a request arrives later than it starts, so the window is taken that much longer
_BURST = 0.3  # of a minute's requests may start at once; after that they go at the service's pace
_KEPT_FOR_URGENT = 0.015  # of a minute's requests
_CUT = 0.7
_CUT_AGAIN_AFTER = 5.0  # refusals of requests that were under way together are one sign, not many
_GROWTH = 0.02  # of the limit, every `_GROWS_EVERY` seconds without a refusal
_GROWS_EVERY = 10.0
_FORGOTTEN_AFTER = 600.0
_LEAST = 12.0


class Budget:
    """The pace of one service. Reaching it is a wait: `take` says for how long.

    `limit` is what the service grants in a minute, None when that is not known: then only its
    refusals slow it down. A refusal cuts the pace by a third, and it comes back by and by.
    """

    def __init__(self, limit: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._granted = limit
        self._limit = limit
        self._clock = clock
        self._tokens = (limit or 0.0) * _BURST
        self._filled = clock()
        self._slices: deque[list[float]] = deque()  # [start of the slice, requests in it]
        self._counted = 0
        self._paused_until = 0.0
        self._cut_at = -_FORGOTTEN_AFTER
        self._grown_at = clock()
        self._lock = threading.Lock()
        self.refusals = 0
        self.waited = 0

    @property
    def limit(self) -> float | None:
        """Requests a minute as they go now."""
        return self._limit

    @property
    def used(self) -> int:
        """Requests that were started in the last minute."""
        with self._lock:
            self._forget(self._clock())
            return self._counted

    def take(self, *, urgent: bool = True) -> float:
        """Start a request now (0.0), or wait so many seconds and ask again.

        `urgent` requests (a listing, an effect) come before the others when the budget gets short.
        """
        with self._lock:
            moment = self._clock()
            wait = self._wait(moment, urgent)
            if wait > 0.0:
                self.waited += 1
                return wait
            slice_start = moment - moment % _STEP
            if not self._slices or self._slices[-1][0] != slice_start:
                self._slices.append([slice_start, 0])
            self._slices[-1][1] += 1
            self._counted += 1
            return 0.0

    def refused(self, pause: float) -> None:
        """The service said that it was asked too often: nobody asks it for `pause` seconds."""
        with self._lock:
            moment = self._clock()
            self.refusals += 1
            self._forget(moment)
            self._paused_until = max(self._paused_until, moment + pause)
            if moment - self._cut_at >= _CUT_AGAIN_AFTER:
                present = self._limit if self._limit is not None else float(self._counted)
                self._limit = max(_LEAST, present * _CUT)
                self._tokens = min(self._tokens, self._limit * _BURST)
                self._cut_at = self._grown_at = moment

    def left(self) -> float:
        """Seconds until a refusal's pause is over."""
        return max(0.0, self._paused_until - self._clock())

    def _wait(self, moment: float, urgent: bool) -> float:
        self._forget(moment)
        self._grow(moment)
        if moment < self._paused_until:
            return self._paused_until - moment
        if self._limit is None:
            return 0.0
        pace = self._limit / WINDOW
        self._tokens = min(self._limit * _BURST, self._tokens + (moment - self._filled) * pace)
        self._filled = moment
        ceiling = self._limit if urgent else self._limit * (1 - _KEPT_FOR_URGENT)
        if self._counted + 1 > ceiling:
            return max(0.001, self._slices[0][0] + _STEP + WINDOW + _SLACK - moment)
        if self._tokens < 1.0 and not urgent:
            return max(0.001, (1.0 - self._tokens) / pace)
        self._tokens -= 1.0
        return 0.0

    def _forget(self, moment: float) -> None:
        while self._slices and self._slices[0][0] + _STEP + WINDOW + _SLACK <= moment:
            self._counted -= int(self._slices.popleft()[1])

    def _grow(self, moment: float) -> None:
        if self._limit is None or self._limit == self._granted:
            return
        if self._granted is None and moment - self._cut_at > _FORGOTTEN_AFTER:
            self._limit = None
            return
        steps = int((moment - self._grown_at) / _GROWS_EVERY)
        if steps:
            self._grown_at += steps * _GROWS_EVERY
            grown = self._limit + steps * _GROWTH * (self._granted or self._limit)
            self._limit = grown if self._granted is None else min(self._granted, grown)


class Budgets:
    """The budget of each service, by connection and origin."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        self._lock = threading.Lock()

    def of(self, service: str, limit: float | None = None) -> Budget:
        """The service's budget; `limit` counts when it is asked for the first time."""
        with self._lock:
            found = self._budgets.get(service)
            if found is None:
                found = self._budgets[service] = Budget(limit)
            return found

    def all(self) -> dict[str, Budget]:
        """Every budget by its service, for metrics."""
        with self._lock:
            return dict(self._budgets)


class ByteBudget:
    """How many bytes of units may be held at once, from their fetch to their last acknowledgement."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Hold so many bytes if they fit; one that is larger than the whole budget goes alone."""
        with self._lock:
            if self.held and self.held + size > self.limit:
                return False
            self.held += size
            return True

    def change(self, by: int) -> None:
        """What was held turned out larger or smaller, or is given back."""
        with self._lock:
            self.held += by
