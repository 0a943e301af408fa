"""Windows and low-water marks, as pure functions of time."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from counterplay.runtime.windows import Window, advanced, is_closed, readable_from, tiles

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BASE = datetime(2026, 3, 2, 8, tzinfo=UTC)
MOMENTS = st.integers(0, 48 * 3600).map(lambda seconds: BASE + timedelta(seconds=seconds))
WIDTHS = st.sampled_from(
    [timedelta(minutes=7), timedelta(minutes=30), timedelta(hours=1), timedelta(hours=24)]
)


@given(MOMENTS, MOMENTS, WIDTHS)
def test_tiles_cover_exactly_what_lies_between_mark_and_now(
    mark: datetime, now: datetime, width: timedelta
) -> None:
    """No hole, no overlap, nothing in the future; inner bounds are the same for every mark."""
    found = tiles(mark, now, width)
    if mark >= now:
        assert found == []
        return
    assert (found[0].start, found[-1].end) == (mark, now)
    for left, right in itertools.pairwise(found):
        assert left.end == right.start
        assert (left.end - EPOCH) % width == timedelta(0)
    assert all(timedelta(0) < one.end - one.start <= width for one in found)


@given(MOMENTS, MOMENTS, WIDTHS, st.data())
def test_a_mark_passes_nothing_that_is_open_or_waiting(
    mark: datetime, now: datetime, width: timedelta, data: st.DataObject
) -> None:
    """Whatever is closed and whatever waits: the mark moves forward only, and only over closed windows."""
    windows = tiles(mark, now, width)
    closed = [one for one in windows if data.draw(st.booleans())]
    waiting = data.draw(st.lists(MOMENTS, max_size=3))
    moved = advanced(mark, closed, waiting)
    assert moved >= mark
    passed = [one for one in windows if one.start < moved]
    assert all(one in closed for one in passed)
    if moved > mark:
        assert moved == passed[-1].end
        assert not any(start < moved for start in waiting)


@given(MOMENTS, st.lists(MOMENTS, min_size=1, max_size=3), WIDTHS)
def test_a_mark_stops_at_a_unit_that_was_listed_with_other_bounds(
    mark: datetime, starts: list[datetime], width: timedelta
) -> None:
    """An older listing began in the middle of today's window: that window may not be passed."""
    now = BASE + timedelta(days=3)
    moved = advanced(mark, tiles(mark, now, width), starts)
    assert moved == mark or all(moved <= start for start in starts)


@given(MOMENTS, WIDTHS)
def test_a_mark_reaches_the_end_when_all_is_done(mark: datetime, width: timedelta) -> None:
    """Two steps come as far as one."""
    windows = tiles(mark, BASE + timedelta(days=3), width)
    assert advanced(mark, windows, []) == windows[-1].end
    assert advanced(advanced(mark, windows[:2], []), windows, []) == windows[-1].end


def test_a_window_is_closed_when_it_is_whole_and_has_settled() -> None:
    """The newest window, which ends now, never is; a full one is after its settling time."""
    hour, settle = timedelta(hours=1), timedelta(minutes=5)
    whole = Window(BASE, BASE + hour)
    assert not is_closed(Window(BASE, BASE + hour / 2), BASE + 2 * hour, hour, settle)
    assert not is_closed(whole, whole.end + settle - timedelta(seconds=1), hour, settle)
    assert is_closed(whole, whole.end + settle, hour, settle)
    assert is_closed(Window(BASE + hour / 2, BASE + hour), BASE + 2 * hour, hour, settle)


def test_the_edge_of_retention_leaves_time_for_the_request() -> None:
    """A request takes time: what is just about to go is not asked for."""
    assert readable_from(BASE, None) is None
    assert readable_from(BASE, timedelta(days=7)) == BASE - timedelta(days=7) + timedelta(minutes=10)
