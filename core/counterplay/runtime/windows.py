"""Which windows of a source to list, and how far a cursor may move: pure functions of time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RETENTION_MARGIN = timedelta(minutes=10)
"""A request takes time, so the oldest window asked for begins this much after the source's edge."""
LEAST_MARGIN = timedelta(minutes=5)
"""Until it is so near to the source's edge, what begins behind it is still asked for, so that a window at
the edge that is refused once is not given up second by second while it is asked for again."""


@dataclass(frozen=True, slots=True)
class Window:
    """[start, end) in the source's time of availability."""

    start: datetime
    end: datetime


def tiles(mark: datetime, now: datetime, width: timedelta) -> list[Window]:
    """The windows from the mark to now. Inner bounds are multiples of the width, so that a window is
    always listed with the same bounds; the newest one ends now, never in the future.
    """
    windows: list[Window] = []
    start = mark
    while start < now:
        boundary = _EPOCH + ((start - _EPOCH) // width + 1) * width
        windows.append(Window(start, min(boundary, now)))
        start = boundary
    return windows


def aligned(moment: datetime, width: timedelta) -> datetime:
    """The bound of windows at or before that moment."""
    return _EPOCH + (moment - _EPOCH) // width * width


def is_closed(window: Window, listed_at: datetime, width: timedelta, settle_time: timedelta) -> bool:
    """May a listing made at that time be the window's last: is it whole, and has it settled?"""
    whole = (window.end - _EPOCH) % width == timedelta(0)
    return whole and window.end + settle_time <= listed_at


@dataclass(frozen=True, slots=True)
class Cursor:
    """A subscriber's place in a source, as three times that never go back.

    Every window before `listed` was listed for the last time, or is a gap; every one before `seen` was
    listed at least once, or is a gap. Everything before `mark` is accounted for besides: the low-water
    mark. So `mark <= listed <= seen`, and none of them is ever taken from the clock.
    """

    mark: datetime
    listed: datetime
    seen: datetime

    def after_listing(self, closed: Collection[Window], seen: Collection[Window]) -> Cursor:
        """Windows were listed: `closed` ones for the last time, `seen` ones at least once."""
        listed = _reached(self.listed, closed)
        return Cursor(self.mark, listed, max(listed, _reached(self.seen, [*closed, *seen])))

    def after_expiry(self, edge: datetime) -> tuple[Cursor, tuple[Hole, ...]]:
        """`edge` is how far back is asked for: what was not listed by then is a hole.

        Nothing is given up as long as all that was not listed is within the margins of the source's edge.
        Units that were listed are never given up: the mark stays where they wait.
        """
        if edge - (RETENTION_MARGIN - LEAST_MARGIN) <= self.listed:
            return self, ()
        holes = (
            Hole(self.listed, min(self.seen, edge), seen=True),
            Hole(self.seen, edge, seen=False),
        )
        moved = Cursor(self.mark, edge, max(self.seen, edge))
        return moved, tuple(one for one in holes if one.start < one.end)

    def after_work(self, waiting: Collection[datetime]) -> Cursor:
        """`waiting` holds the starts of windows with units that are not accounted for.

        They may have been listed with other bounds than today, so everything from the oldest on waits.
        """
        return Cursor(max(self.mark, min([self.listed, *waiting])), self.listed, self.seen)


@dataclass(frozen=True, slots=True)
class Hole:
    """[start, end), which can no longer be listed. `seen`: it was, but units may have come later."""

    start: datetime
    end: datetime
    seen: bool


def _reached(start: datetime, windows: Collection[Window]) -> datetime:
    """The end of the unbroken row of windows that leads on from `start`."""
    for window in sorted(windows, key=lambda one: (one.start, one.end)):
        if window.start > start:
            break
        start = max(start, window.end)
    return start


def readable_from(now: datetime, retention: timedelta | None) -> datetime | None:
    """The oldest time that the source can still list; None without a limit."""
    return None if retention is None else now - retention + RETENTION_MARGIN
