"""Which windows of a source to list, and how far a low-water mark may move: pure functions of time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RETENTION_MARGIN = timedelta(minutes=10)
"""A request takes time, so the oldest window asked for begins this much after the source's edge."""


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


def is_closed(window: Window, listed_at: datetime, width: timedelta, settle_time: timedelta) -> bool:
    """May a listing made at that time be the window's last: is it whole, and has it settled?"""
    whole = (window.end - _EPOCH) % width == timedelta(0)
    return whole and window.end + settle_time <= listed_at


def advanced(mark: datetime, closed: Collection[Window], waiting: Collection[datetime]) -> datetime:
    """The new low-water mark: the end of the last window in an unbroken row from the mark on that is
    closed and in which nothing waits. `waiting` holds starts of windows with unaccounted units; they may
    have been listed with other bounds than today, so everything from the oldest of them on waits.
    """
    oldest = min(waiting, default=None)
    for window in sorted(closed, key=lambda one: one.start):
        if window.end <= mark:
            continue
        if window.start > mark or (oldest is not None and window.end > oldest):
            break
        mark = window.end
    return mark


def readable_from(now: datetime, retention: timedelta | None) -> datetime | None:
    """The oldest time that the source can still list; None without a limit."""
    return None if retention is None else now - retention + RETENTION_MARGIN
