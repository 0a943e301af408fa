"""How many units are fetched at once: as many as latency asks for, no more than the processor can use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from counterplay.budgets import ByteBudget
from counterplay.errors import RetryableError
from counterplay.events import Unit
from counterplay.runtime.fetching import Arrival, Fetching
from counterplay.runtime.growth import Growth, Meter
from counterplay.store.feeds import StoredUnit

PATIENCE = 20.0
UNITS = [
    StoredUnit(
        number, Unit(f"u{number}", created=datetime(2026, 3, 2, tzinfo=UTC)), "listed", 0, None, frozenset()
    )
    for number in range(40)
]


class Source:
    """Answers a request when it is told to."""

    def __init__(self) -> None:
        self.most = 0
        self.done = 0
        self._asked = 0
        self._allowed = threading.Semaphore(0)
        self._changed = threading.Condition()

    def fetch(self, _: StoredUnit) -> bytes:
        with self._changed:
            self._asked += 1
            self.most = max(self.most, self._asked)
            self._changed.notify_all()
        assert self._allowed.acquire(timeout=PATIENCE)
        with self._changed:
            self._asked -= 1
        return b"[]"

    def arrived(self, _: Arrival) -> None:
        with self._changed:
            self.done += 1
            self._changed.notify_all()

    def answer(self, number: int) -> None:
        self._allowed.release(number)

    def await_asked(self, number: int) -> bool:
        """So many requests wait for an answer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._asked >= number, PATIENCE)

    def await_done(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.done >= number, PATIENCE)


@contextmanager
def fetching(
    source: Source,
    growth: Growth,
    fetch: Callable[[StoredUnit], bytes] | None = None,
    held: ByteBudget | None = None,
) -> Iterator[Fetching]:
    """At most 16 at once, for work that takes units as fast as they come."""
    made = Fetching(
        fetch or source.fetch,
        look=lambda body: None,
        name="test",
        parallel=16,
        held=held or ByteBudget(64 * 1024 * 1024),
        arrived=source.arrived,
        backlog=lambda: 0,
        stop=threading.Event(),
        growth=growth,
    )
    try:
        yield made
    finally:
        source.answer(len(UNITS))
        made.close()


@pytest.fixture
def source() -> Source:
    return Source()


def test_latency_is_answered_with_more_connections(source: Source) -> None:
    """The process has time, and the work waits: each answer brings one more request, up to the limit."""
    with fetching(source, Growth(busy=lambda: 0.2)) as made:
        made.add(UNITS)
        source.answer(20)

        assert source.await_asked(16)
        source.answer(len(UNITS))
        assert source.await_done(len(UNITS))
    assert source.most == 16


def test_a_process_that_is_busy_opens_no_more_connections(source: Source) -> None:
    """The work waits for the processor, and more threads would only take turns on it."""
    with fetching(source, Growth(busy=lambda: 0.97)) as made:
        made.add(UNITS)
        source.answer(len(UNITS))
        assert source.await_done(len(UNITS))
    assert source.most <= 4


def test_all_feeds_share_what_is_opened_beyond_the_first_few(source: Source) -> None:
    """What one feed has is not there for others until it ends."""
    growth = Growth(most=3, busy=lambda: 0.2)
    with fetching(source, growth) as made:
        made.add(UNITS)
        source.answer(len(UNITS))
        assert source.await_done(len(UNITS))
        assert not growth.one_more()
    assert source.most <= 7
    assert [growth.one_more() for _ in range(4)] == [True, True, True, False]


def test_units_are_coming_as_soon_as_there_is_room_for_them(source: Source) -> None:
    """Whoever waits for more knows of what no thread has begun with yet, and does not wait in vain."""
    held = ByteBudget(64 * 1024 * 1024)
    assert held.take(held.limit)
    with fetching(source, Growth(busy=lambda: 0.97), held=held) as made:
        assert not made.coming
        made.add(UNITS)
        assert not made.coming, "the bytes of others leave no room"
        held.change(-held.limit)
        assert made.coming
        source.answer(len(UNITS))
        assert source.await_done(len(UNITS))
        assert not made.coming


def test_after_a_pause_one_unit_goes_ahead_until_somebody_says_what_became_of_it(source: Source) -> None:
    """Each further pause lets one more through; when the service is well again, none waits for another."""
    with fetching(source, Growth(busy=lambda: 0.2)) as made:
        made.pause(0.0)
        made.add(UNITS)
        assert source.await_asked(1)
        for done in (1, 2):
            source.answer(1)
            assert source.await_done(done)
            assert (source.most, made.queued, made.active) == (1, len(UNITS) - done, 0)
            made.pause(0.0)
            assert source.await_asked(1)

        made.resume()
        assert source.await_asked(2)


def test_a_service_that_fails_gets_no_further_connections(source: Source) -> None:
    """However long the work waits for what does not come."""

    def fails(stored: StoredUnit) -> bytes:
        source.fetch(stored)
        raise RetryableError("503", status=503)

    with fetching(source, Growth(busy=lambda: 0.2), fails) as made:
        made.add(UNITS)
        source.answer(len(UNITS))
        assert source.await_done(len(UNITS))
    assert source.most <= 4


def test_the_share_of_a_core_is_that_of_the_last_moments() -> None:
    """Too early to tell counts as busy; then it is what the process used between two looks."""
    moment, used = [10.0], [3.0]
    meter = Meter(lambda: moment[0], lambda: used[0])
    assert meter.share() == 1.0
    moment[0], used[0] = 10.05, 3.01
    assert meter.share() == 1.0

    moment[0], used[0] = 10.2, 3.05
    assert meter.share() == pytest.approx(0.25)
    moment[0] = 10.25
    assert meter.share() == pytest.approx(0.25)
    moment[0], used[0] = 10.4, 3.25
    assert meter.share() == pytest.approx(1.0)
