"""Graph's documented limits, each service its own, scaled by one switch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from counterplay_sim.clock import NANOSECONDS, Clock
from counterplay_sim.graph.errors import GraphError, Headers
from counterplay_sim.graph_rules import GraphRules

_SLOTS = 4
_TOLD_FROM = 0.8  # the share of a limit from which answers tell how near it is


@dataclass(frozen=True, slots=True)
class Limit:
    """So many units (requests, or resource units) in so many seconds, for each value of `scope`."""

    service: str
    units: int
    seconds: float
    scope: str = "Application_Tenant"
    tells_wait: bool = True


SECURITY = (Limit("security", 150, 60),)
HUNTING = (Limit("hunting", 45, 60, "Tenant"),)
PROTECTION = (Limit("identityProtection", 1, 1, "Tenant", tells_wait=False),)
REPORTS = (Limit("reports", 5, 10),)
MAIL = (Limit("outlook", 10_000, 600, "Application_Mailbox"),)
WRITES = (Limit("identityWrites", 3000, 150), Limit("identityWritesOfAll", 18_000, 300, "Tenant"))
_READS = ((50, 3500), (500, 5000))  # resource units in 10 s for tenants of up to so many users


def reads(users: int) -> tuple[Limit, ...]:
    """Identity and access: the larger the tenant, the more it may read."""
    units = next((units for most, units in _READS if users <= most), 8000)
    return (Limit("identityReads", units, 10),)


class _Window:
    """What was used within the last seconds."""

    __slots__ = ("times", "used")

    def __init__(self) -> None:
        self.times: deque[tuple[int, int]] = deque()
        self.used = 0

    def forget(self, before: int) -> None:
        while self.times and self.times[0][0] <= before:
            self.used -= self.times.popleft()[1]


class Throttle:
    """Counts requests against limits. A refused request counts against nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self._slots: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(
        self, rules: GraphRules, limits: tuple[Limit, ...], who: dict[str, str], cost: int = 1
    ) -> Headers:
        """Count a request; headers that tell how near its limits are. GraphError 429: it is one too many.

        `who` says whom each scope means: `{"Tenant": id, "Application_Tenant": ..., ...}`.
        """
        if rules.throttle_scale <= 0:
            return ()
        now, share = self._clock.now_ns(), 0.0
        with self._lock:
            windows = [(limit, self._window(limit, who[limit.scope], now)) for limit in limits]
            for limit, window in windows:
                most = max(1, round(limit.units * rules.throttle_scale))
                if window.used + cost > most and window.times:
                    raise _refusal(rules, limit, window, now)
                share = max(share, (window.used + cost) / most)
            for _, window in windows:
                window.times.append((now, cost))
                window.used += cost
        return (("x-ms-throttle-limit-percentage", f"{share:.2f}"),) if share > _TOLD_FROM else ()

    @contextmanager
    def slot(self, rules: GraphRules, mailbox: str) -> Iterator[None]:
        """One of the four requests that a mailbox works on at a time. GraphError 429: all are taken."""
        with self._lock:
            if self._slots.get(mailbox, 0) >= _SLOTS:
                raise GraphError(
                    429,
                    "ApplicationThrottled",
                    "Application is over its MailboxConcurrency limit.",
                    (("Retry-After", "1"),) if rules.retry_after else (),
                )
            self._slots[mailbox] = self._slots.get(mailbox, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._slots[mailbox] -= 1
                if not self._slots[mailbox]:
                    del self._slots[mailbox]

    def _window(self, limit: Limit, who: str, now: int) -> _Window:
        window = self._windows.setdefault((limit.service, who), _Window())
        window.forget(now - int(limit.seconds * NANOSECONDS))
        return window


def _refusal(rules: GraphRules, limit: Limit, window: _Window, now: int) -> GraphError:
    headers: Headers = (
        ("x-ms-throttle-scope", f"{limit.scope}/Read/{limit.service}"),
        ("x-ms-throttle-information", "ResourceUnitLimitExceeded"),
    )
    if limit.tells_wait and rules.retry_after:
        left = window.times[0][0] + int(limit.seconds * NANOSECONDS) - now
        headers = (("Retry-After", str(max(1, -(-left // NANOSECONDS)))), *headers)
    if limit.service == "outlook":
        return GraphError(429, "ApplicationThrottled", "Application is over its request limit.", headers)
    if limit.service == "hunting":
        text = "You have exceeded the allowed number of calls per minute for your tenant."
        return GraphError(429, "TooManyRequests", text, headers)
    return GraphError(429, "TooManyRequests", "Too many requests.", headers)
