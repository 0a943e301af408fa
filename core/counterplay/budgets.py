"""How fast a service may be asked, and how many bytes may be in flight: shared by all who use it."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

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
_SHORT = 0.5  # of a limit; from there on each of those who share it keeps to an equal part


@dataclass(frozen=True, slots=True)
class Limit:
    """A documented limit of a service that a request counts against.

    `name` says of what and of whom, for everybody who uses it (`reads of <app> in <tenant>`). Within any
    `seconds` at most `units` are used, of which this request takes `cost`. With `at_once`, so many
    requests may be under way at a time. `share` names the one of several who share the limit (a tenant):
    none of them can use it up for the others.
    """

    name: str
    units: float = 0.0
    seconds: float = WINDOW
    cost: float = 1.0
    at_once: int = 0
    share: str = ""


class Budget:
    """The pace of one service. Reaching it is a wait: `take` says for how long.

    `limit` is what the service grants in a minute, None when that is not known: then only its
    refusals slow it down. A refusal cuts the pace by a third, and it comes back by and by.
    """

    def __init__(
        self,
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        window: float = WINDOW,
    ) -> None:
        self._window = window
        self._least = max(1.0, _LEAST * window / WINDOW)
        self._shares: defaultdict[str, float] = defaultdict(float)
        self._granted = limit
        self._limit = limit
        self._clock = clock
        self._tokens = (limit or 0.0) * _BURST
        self._filled = clock()
        self._slices: deque[tuple[float, defaultdict[str, float]]] = (
            deque()
        )  # start of the slice, units in it by share
        self._counted = 0.0
        self._paused_until = 0.0
        self._cut_at = -_FORGOTTEN_AFTER
        self._grown_at = clock()
        self._lock = threading.Lock()
        self.refusals = 0
        self.waited = 0
        self.passing = False  #: forgotten once it is idle, as there may be very many like it

    @property
    def limit(self) -> float | None:
        """Requests a minute as they go now."""
        return self._limit

    @property
    def used(self) -> int:
        """Requests (units) that were started within the last minute (window)."""
        with self._lock:
            self._forget(self._clock())
            return round(self._counted)

    def take(self, *, urgent: bool = True, cost: float = 1.0, share: str = "") -> float:
        """Start a request now (0.0), or wait so many seconds and ask again.

        `urgent` requests (a listing, an effect) come before the others when the budget gets short. `share`
        names who asks, among several who have the budget together.
        """
        with self._lock:
            moment = self._clock()
            wait = self._wait(moment, urgent, cost, share)
            if wait > 0.0:
                self.waited += 1
                return wait
            slice_start = moment - moment % _STEP
            if not self._slices or self._slices[-1][0] != slice_start:
                self._slices.append((slice_start, defaultdict(float)))
            self._slices[-1][1][share] += cost
            self._shares[share] += cost
            self._counted += cost
            return 0.0

    def refused(self, pause: float) -> None:
        """The service said that it was asked too often: nobody asks it for `pause` seconds."""
        with self._lock:
            moment = self._clock()
            self.refusals += 1
            self._forget(moment)
            self._paused_until = max(self._paused_until, moment + pause)
            if moment - self._cut_at >= _CUT_AGAIN_AFTER:
                present = self._limit if self._limit is not None else self._counted
                least = self._least if self._granted is None else min(self._least, self._granted)
                self._limit = max(least, present * _CUT)
                self._tokens = min(self._tokens, self._limit * _BURST)
                self._cut_at = self._grown_at = moment

    @property
    def idle(self) -> bool:
        """Whether forgetting it loses nothing."""
        return not self.used and self.left() == 0.0 and self._limit == self._granted

    def left(self) -> float:
        """Seconds until a refusal's pause is over."""
        return max(0.0, self._paused_until - self._clock())

    def _wait(self, moment: float, urgent: bool, cost: float, share: str) -> float:
        self._forget(moment)
        self._grow(moment)
        if moment < self._paused_until:
            return self._paused_until - moment
        if self._limit is None:
            return 0.0
        pace = self._limit / self._window
        self._tokens = min(self._limit * _BURST, self._tokens + (moment - self._filled) * pace)
        self._filled = moment
        ceiling = self._limit if urgent else self._limit * (1 - _KEPT_FOR_URGENT)
        if self._slices and (self._counted + cost > ceiling or self._over_share(ceiling, cost, share)):
            return max(0.001, self._slices[0][0] + _STEP + self._window + _SLACK - moment)
        if self._tokens < cost and not urgent:
            return max(0.001, (cost - self._tokens) / pace)
        self._tokens -= cost
        return 0.0

    def _over_share(self, ceiling: float, cost: float, share: str) -> bool:
        """Whether somebody would take what the others who are active have a right to."""
        if not share or self._counted + cost <= ceiling * _SHORT:
            return False
        active = len(self._shares.keys() | {share})
        return self._shares.get(share, 0.0) + cost > max(1.0, ceiling / active)

    def _forget(self, moment: float) -> None:
        while self._slices and self._slices[0][0] + _STEP + self._window + _SLACK <= moment:
            for share, cost in self._slices.popleft()[1].items():
                self._counted -= cost
                self._shares[share] -= cost
                if self._shares[share] <= 0:
                    del self._shares[share]
        if not self._slices:
            self._counted = 0.0  # no rest of adding up fractions

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


class Slots:
    """How many requests are under way at once, by whatever has a limit of that kind (a mailbox)."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._free = threading.Condition()

    def enter(self, name: str, most: int, patience: float) -> bool:
        """Take one of `most` slots, or give up after `patience` seconds."""
        with self._free:
            if not self._free.wait_for(lambda: self._held[name] < most, patience):
                return False
            self._held[name] += 1
            return True

    def leave(self, name: str) -> None:
        """Give a slot back."""
        with self._free:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]
            self._free.notify_all()


class Budgets:
    """The budget of each service, by connection and origin, and of each documented limit."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        self._lock = threading.Lock()
        self._pruned = 0.0
        self.slots = Slots()

    def of(self, service: str, limit: float | None = None) -> Budget:
        """The service's budget; `limit` counts when it is asked for the first time."""
        with self._lock:
            found = self._budgets.get(service)
            if found is None:
                found = self._budgets[service] = Budget(limit)
            return found

    def of_limit(self, limit: Limit) -> Budget:
        """The budget of a documented limit."""
        with self._lock:
            found = self._budgets.get(limit.name)
            if found is None:
                self._prune()
                found = self._budgets[limit.name] = Budget(limit.units, window=limit.seconds)
                found.passing = True
            return found

    def _prune(self) -> None:
        """Forget limits that nobody uses (of mailboxes that were worked on long ago)."""
        moment = time.monotonic()
        if moment - self._pruned > WINDOW:
            self._pruned = moment
            idle = [name for name, one in self._budgets.items() if one.passing and one.idle]
            for name in idle:
                del self._budgets[name]

    def all(self) -> dict[str, Budget]:
        """The budget of every service, for metrics."""
        with self._lock:
            return {name: one for name, one in self._budgets.items() if not one.passing}

    def counted(self) -> dict[str, tuple[int, int]]:
        """(Refusals of the service, waits) of each service and limit that is remembered, for measurements."""
        with self._lock:
            return {name: (one.refusals, one.waited) for name, one in self._budgets.items()}


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

    def fits(self, size: int) -> bool:
        """Whether `take` would hold it now."""
        with self._lock:
            return not self.held or self.held + size <= self.limit

    def change(self, by: int) -> None:
        """What was held turned out larger or smaller, or is given back."""
        with self._lock:
            self.held += by
