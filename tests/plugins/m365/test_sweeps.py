"""Sweeps over a collection that changes while it is read: nothing that was visible in time is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay import GoneError, PermanentError
from counterplay_m365 import times
from counterplay_m365.recall import LIMIT, SERIAL, Recall, digest
from counterplay_m365.sweeps import Recipe, Records, turn

START = datetime(2026, 3, 1, tzinfo=UTC)
OVERLAP = timedelta(minutes=10)
REVISIT = timedelta(hours=2)


@dataclass
class Record:
    """One record of the service: when it was made, its time now, and from when on it is visible."""

    name: str
    created: datetime
    moment: datetime
    visible: datetime

    @property
    def key(self) -> str:
        return f"{self.name}|{self.moment.isoformat()}"


@dataclass
class Service:
    """A collection that pages by position, newest first, as Graph does with `$skip`.

    Something may happen before each request: `pending` is worked off there, one thing at a time.
    """

    now: datetime
    page_size: int
    moves: bool
    records: list[Record] = field(default_factory=list)
    pending: list[Callable[[], None]] = field(default_factory=list)
    expire_links: int = 0
    requests: int = 0

    def first(self, start: str, until: str) -> Records:
        return self._page(start, until, 0)

    def follow(self, link: str) -> Records:
        if self.expire_links:
            self.expire_links -= 1
            raise GoneError("the link has expired", status=410)
        start, until, skip = json.loads(link)
        return self._page(start, until, skip)

    def moved_since(self, until: str) -> bool:
        self._happen()
        edge = times.parse(until)
        assert edge is not None
        return any(one.moment > edge >= one.created and self._sees(one) for one in self.records)

    def _page(self, start: str, until: str, skip: int) -> Records:
        self._happen()
        low, high = times.parse(start), times.parse(until)
        assert low is not None
        assert high is not None
        inside = [one for one in self.records if self._sees(one) and low <= one.moment <= high]
        inside.sort(key=lambda one: (one.created, one.name), reverse=True)
        part = inside[skip : skip + self.page_size]
        more = skip + self.page_size < len(inside)
        link = json.dumps([start, until, skip + self.page_size]) if more else None
        return Records(tuple(one.key.encode() for one in part), link)

    def _sees(self, one: Record) -> bool:
        return one.visible <= self.now

    def _happen(self) -> None:
        self.requests += 1
        self.now += timedelta(milliseconds=300)
        if self.pending:
            self.pending.pop(0)()


def sweep(service: Service, recipe: Recipe, cursor: dict[str, Any] | None, found: set[str]) -> dict[str, Any]:
    """Poll until a sweep ends, the cursor going through JSON each time as it does in the store."""
    for _ in range(5000):
        page = turn(service, recipe, cursor, START, service.now)
        found.update(raw.decode() for raw in page.records)
        cursor = json.loads(json.dumps(page.cursor))
        if not page.more:
            return cursor
    raise AssertionError("the sweep does not end")


MINUTES = st.integers(0, 600)
CHANGES = st.lists(st.tuples(st.sampled_from(["update", "new", "late"]), st.integers(0, 60)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    births=st.lists(MINUTES, max_size=40),
    changes=CHANGES,
    page_size=st.integers(1, 7),
    polls=st.integers(1, 4),
    moves=st.booleans(),
    expired=st.integers(0, 3),
)
def test_the_last_state_of_every_record_is_read(
    births: list[int], changes: list[tuple[str, int]], page_size: int, polls: int, moves: bool, expired: int
) -> None:
    """Ties, updates between pages, new ones, late ones within the overlap, and links that expire."""
    end = START + timedelta(minutes=700)
    service = Service(end, page_size, moves, expire_links=expired)
    for number, minute in enumerate(births):
        when = START + timedelta(minutes=minute)
        service.records.append(Record(f"r{number}", when, when, when))

    def change(kind: str, index: int) -> None:
        if kind == "update" and moves and service.records:
            one = service.records[index % len(service.records)]
            if one.visible <= service.now:
                one.moment = service.now
        elif kind == "new":
            service.records.append(Record(f"n{len(service.records)}", service.now, service.now, service.now))
        elif kind == "late":
            when = service.now - timedelta(seconds=index * 9)  # at most nine minutes back
            service.records.append(Record(f"l{len(service.records)}", when, when, service.now))

    service.pending = [lambda one=one: change(*one) for one in changes]  # type: ignore[misc]
    recipe = Recipe("records", OVERLAP, REVISIT, moves)
    found: set[str] = set()
    cursor = None
    for _ in range(polls):
        cursor = sweep(service, recipe, cursor, found)
        service.now += timedelta(seconds=10)
    service.pending = []  # it comes to rest, and is asked once more
    service.now += timedelta(seconds=2)
    sweep(service, recipe, cursor, found)

    assert {one.key for one in service.records} <= found


def test_a_record_that_shifts_the_pages_is_not_the_next_ones_loss() -> None:
    """An update between two pages takes a record out of the first: the window is halved and read anew."""
    service = Service(START + timedelta(hours=9), page_size=2, moves=True)
    for number in range(4):
        when = START + timedelta(hours=number + 1)
        service.records.append(Record(f"r{number}", when, when, when))
    newest = service.records[3]

    def update() -> None:
        newest.moment = service.now

    service.pending = [lambda: None, update]
    recipe = Recipe("records", OVERLAP, REVISIT, moves=True)
    found: set[str] = set()
    first = turn(service, recipe, None, START, service.now)
    second = turn(service, recipe, first.cursor, START, service.now)
    found = {raw.decode() for raw in (*first.records, *second.records)}

    assert service.records[1].key not in found  # what plain paging would have lost
    assert second.cursor["until"] == "2026-03-01T04:30:00Z"
    cursor = sweep(service, recipe, second.cursor, found)
    sweep(service, recipe, cursor, found)
    assert {one.key for one in service.records} <= found


def test_what_comes_late_is_found_by_the_hourly_look_back() -> None:
    """A record that becomes visible an hour after its time is beyond the overlap, and not lost."""
    service = Service(START + timedelta(hours=5), page_size=10, moves=False)
    recipe = Recipe("records", OVERLAP, REVISIT)
    found: set[str] = set()
    cursor = sweep(service, recipe, None, found)
    service.records.append(
        Record("late", service.now - timedelta(hours=1), service.now - timedelta(hours=1), service.now)
    )
    service.now += timedelta(minutes=5)
    cursor = sweep(service, recipe, cursor, found)
    assert found == set()
    service.now += timedelta(minutes=55)
    sweep(service, recipe, cursor, found)

    assert found == {service.records[0].key}


def test_a_clock_that_was_set_back_moves_no_mark_back() -> None:
    """The mark only ever rises."""
    service = Service(START + timedelta(hours=5), page_size=10, moves=False)
    recipe = Recipe("records", OVERLAP, REVISIT)
    cursor = sweep(service, recipe, None, set())
    service.now -= timedelta(hours=2)
    after = sweep(service, recipe, cursor, set())

    assert after["mark"] == cursor["mark"]


def test_a_damaged_cursor_is_an_error() -> None:
    """It does not silently become "now"."""
    service = Service(START, page_size=1, moves=False)

    with pytest.raises(PermanentError, match="the stored cursor holds no time as 'mark'"):
        turn(service, Recipe("records", OVERLAP, REVISIT), {"mark": "yesterday"}, START, START)


# --- what was handed out before ------------------------------------------------------------------


def test_keys_count_once_their_page_was_stored() -> None:
    """The same cursor again means that the page was not stored: its records are handed out again."""
    recall = Recall()
    known = recall.resume(None)
    first = {SERIAL: recall.onward(known, [digest("a")])}

    assert digest("a") not in recall.resume(None)
    second = {SERIAL: recall.onward(recall.resume(None), [digest("a")])}
    assert digest("a") in recall.resume(second)
    assert digest("a") not in recall.resume(first)  # that line was given up


def test_two_lines_of_cursors_do_not_mix() -> None:
    """A playbook that subscribes later has its own line, and gets what the other has already."""
    recall = Recall()
    one = {SERIAL: recall.onward(recall.resume({SERIAL: "x"}), [digest("a")])}
    two = {SERIAL: recall.onward(recall.resume({SERIAL: "y"}), [digest("b")])}

    assert list(recall.resume(one)) == [digest("a")]
    assert list(recall.resume(two)) == [digest("b")]


def test_memory_is_bounded() -> None:
    """The oldest keys go first; the ledger knows them still."""
    recall = Recall()
    keys = [number.to_bytes(8, "big") for number in range(LIMIT + 5)]
    cursor = {SERIAL: recall.onward(recall.resume(None), keys)}
    known = recall.resume(cursor)

    assert len(known) == LIMIT
    assert keys[0] not in known
    assert keys[-1] in known
