"""How long things took, as histograms: cheap enough for each unit, too dear for each event."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SHORT = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
"""Bounds in seconds for what the collector does: up to a day, for a sink may be down that long."""
LONG = (
    *(1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0),
    *(7200.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0),
)
"""Bounds in seconds for what the source does as well: up to the seven days of a back-fill."""

BOUNDS = {
    "event_available": LONG,
    "unit_listed": LONG,
    "unit_fetched": SHORT,
    "unit_acknowledged": SHORT,
    "event_acknowledged": LONG,
}
"""The histograms of a feed, in the order in which a unit passes them."""


class Histogram:
    """Counts of seconds by their upper bounds. One thread observes, others may read."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """A clock that is behind makes negative ones: they count as no time at all."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, how many took at most that long), the last one with an infinite bound."""
        total, found = 0, []
        for bound, count in zip((*self.bounds, float("inf")), list(self._counts), strict=True):
            total += count
            found.append((bound, total))
        return found
