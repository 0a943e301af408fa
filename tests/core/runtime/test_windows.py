"""Windows and low-water marks, as pure functions of time."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from counterplay.runtime.windows import Cursor, Hole, Window, is_closed, readable_from, tiles

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
    moved = Cursor(mark, mark, mark).after_listing(closed, windows).after_work(waiting)
    assert mark <= moved.mark <= moved.listed <= moved.seen <= max(now, mark)
    passed = [one for one in windows if one.start < moved.listed]
    assert all(one in closed for one in passed)
    if moved.mark > mark:
        assert all(moved.mark <= start for start in waiting)


class Life:
    """A source that is listed, or not, and what a subscriber's cursor makes of it."""

    width, settle, reach = timedelta(hours=1), timedelta(hours=2), timedelta(hours=30)

    def __init__(self) -> None:
        self.now = BASE
        self.cursor = Cursor(BASE - timedelta(hours=3), BASE - timedelta(hours=3), BASE - timedelta(hours=3))
        self.since = self.cursor.mark
        self.listed_at: dict[int, datetime] = {}  # by minute: when it was listed last
        self.holes: list[Hole] = []
        self.waiting: set[datetime] = set()

    def step(self, minutes: int, refused: frozenset[int], waits: bool, done: bool) -> None:
        self.now += timedelta(minutes=minutes)
        edge = readable_from(self.now, self.reach)
        assert edge is not None
        self.cursor, holes = self.cursor.after_expiry(edge)
        self.holes += holes
        windows = tiles(self.cursor.listed, self.now, self.width)
        answered = [one for number, one in enumerate(windows) if number % 7 not in refused]
        for one in answered:
            for minute in range(*(int((at - EPOCH).total_seconds()) // 60 for at in (one.start, one.end))):
                self.listed_at[minute] = self.now
            if waits:
                self.waiting.add(one.start)
        closed = [one for one in answered if is_closed(one, self.now, self.width, self.settle)]
        before, self.cursor = self.cursor, self.cursor.after_listing(closed, answered)
        if done:
            self.waiting.clear()
        self.cursor = self.cursor.after_work(self.waiting)
        assert before.mark <= self.cursor.mark <= self.cursor.listed <= self.cursor.seen <= self.now

    def restart(self) -> None:
        """Only the cursor is kept; `seen` may be kept late."""
        self.cursor = replace(self.cursor, seen=self.cursor.listed)


STEPS = st.tuples(
    st.integers(1, 600), st.frozensets(st.integers(0, 6)), st.booleans(), st.booleans(), st.booleans()
)


@given(st.lists(STEPS, max_size=15))
def test_every_minute_is_listed_after_it_settled_or_in_a_hole(
    steps: list[tuple[int, frozenset[int], bool, bool, bool]],
) -> None:
    """Whatever is refused and however long nobody asks: behind the cursor nothing is missing unsaid, no
    hole is made where the last listing was made, and none is named twice."""
    life = Life()
    for minutes, refused, waits, done, restarts in steps:
        life.step(minutes, refused, waits, done)
        if restarts:
            life.restart()
    in_holes = [
        minute
        for hole in life.holes
        for minute in range(*(int((at - EPOCH).total_seconds()) // 60 for at in (hole.start, hole.end)))
    ]
    assert len(in_holes) == len(set(in_holes))
    covered = set(in_holes)
    first, last = (int((at - EPOCH).total_seconds()) // 60 for at in (life.since, life.cursor.listed))
    for minute in range(first, last):
        end_of_tile = EPOCH + timedelta(hours=minute // 60 + 1)
        settled = minute in life.listed_at and life.listed_at[minute] >= end_of_tile + life.settle
        assert settled or minute in covered
    for hole in life.holes:
        for minute in range(*(int((at - EPOCH).total_seconds()) // 60 for at in (hole.start, hole.end))):
            if hole.seen:
                assert minute in life.listed_at


@given(MOMENTS, st.lists(MOMENTS, min_size=1, max_size=3), WIDTHS)
def test_a_mark_stops_at_a_unit_that_was_listed_with_other_bounds(
    mark: datetime, starts: list[datetime], width: timedelta
) -> None:
    """An older listing began in the middle of today's window: that window may not be passed."""
    windows = tiles(mark, BASE + timedelta(days=3), width)
    moved = Cursor(mark, mark, mark).after_listing(windows, windows).after_work(starts).mark
    assert moved == mark or all(moved <= start for start in starts)


@given(MOMENTS, WIDTHS)
def test_a_mark_reaches_the_end_when_all_is_done(mark: datetime, width: timedelta) -> None:
    """Two steps come as far as one."""
    windows = tiles(mark, BASE + timedelta(days=3), width)
    start = Cursor(mark, mark, mark)
    whole = start.after_listing(windows, windows).after_work([])
    assert whole == Cursor(*[windows[-1].end] * 3)
    assert start.after_listing(windows[:2], windows[:2]).after_listing(windows, []).after_work([]) == whole


def test_what_waits_is_not_given_up_at_the_edge() -> None:
    """Units that were listed stay with the subscriber, however old; only what was not listed is a hole."""
    day = timedelta(days=1)
    cursor = Cursor(BASE, BASE + 3 * day, BASE + 4 * day)
    assert cursor.after_expiry(BASE + 2 * day) == (cursor, ())
    moved, holes = cursor.after_expiry(BASE + 5 * day)
    assert moved == Cursor(BASE, BASE + 5 * day, BASE + 5 * day)
    assert holes == (
        Hole(BASE + 3 * day, BASE + 4 * day, seen=True),
        Hole(BASE + 4 * day, BASE + 5 * day, seen=False),
    )
    assert moved.after_work([BASE + day]).mark == BASE + day


def test_what_is_within_the_margins_of_the_edge_is_not_given_up() -> None:
    """It is asked for from where it begins, until only the least margin is left."""
    cursor, minute = Cursor(BASE, BASE, BASE), timedelta(minutes=1)
    assert cursor.after_expiry(BASE + 5 * minute) == (cursor, ())
    moved, holes = cursor.after_expiry(BASE + 6 * minute)
    assert moved.listed == BASE + 6 * minute
    assert holes == (Hole(BASE, BASE + 6 * minute, seen=False),)


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
