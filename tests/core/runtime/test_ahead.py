"""The next units of a feed: in order, each once, and nothing forgotten that came while others waited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from counterplay.events import Unit
from counterplay.runtime.ahead import Ahead
from counterplay.store.database import open_database
from counterplay.store.feeds import FeedKey, FeedStore, StoredUnit

KEY = FeedKey("m365.audit_log", "contoso", "Audit.Exchange", "k1")
HOUR = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def feeds(tmp_path: Path) -> Iterator[FeedStore]:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield FeedStore(database)
    database.close()


@pytest.fixture
def feed_id(feeds: FeedStore) -> int:
    """A feed with seven units, the first of which expires last."""
    made = feeds.subscribe(KEY, "a", HOUR - timedelta(days=1)).feed_id
    feeds.subscribe(KEY, "b", HOUR - timedelta(days=1))
    add(feeds, made, *range(7))
    return made


def add(feeds: FeedStore, feed_id: int, *numbers: int) -> None:
    units = [Unit(f"u{one}", created=HOUR, expires=HOUR + timedelta(days=7, hours=-one)) for one in numbers]
    feeds.record_listing(feed_id, HOUR, units)


def taken(ahead: Ahead, *playbooks: str) -> list[str]:
    """What one look finds, with nothing on its way."""
    return [one.unit.id for one in ahead.take(playbooks or ("a",), None, lambda: ())]


def rest(ahead: Ahead, before: list[StoredUnit]) -> list[StoredUnit]:
    """All that comes after those, none of which is done yet."""
    found: list[StoredUnit] = []
    while ahead.more:
        known = {one.id for one in before + found}
        found += ahead.take(["a"], None, known.copy)
    return found


def test_what_expires_first_is_taken_first_and_nothing_twice(feeds: FeedStore, feed_id: int) -> None:
    """Units are read a few at a time, in the order of the one question that found them."""
    ahead = Ahead(feeds, feed_id, known=100, at_once=3)

    assert taken(ahead) == ["u6", "u5", "u4"]
    assert taken(ahead) == ["u3", "u2", "u1"]
    assert ahead.more
    assert taken(ahead) == ["u0"]
    assert not ahead.more


def test_what_is_listed_while_others_wait_is_not_forgotten(feeds: FeedStore, feed_id: int) -> None:
    """Whoever says that there is more is heard, though the ids at hand come first."""
    ahead = Ahead(feeds, feed_id, known=100, at_once=3)
    found = ahead.take(["a"], None, lambda: ())
    add(feeds, feed_id, 9)
    ahead.look_again()

    found += rest(ahead, found)

    assert [one.unit.id for one in found] == ["u6", "u5", "u4", "u3", "u2", "u1", "u0", "u9"]


def test_more_than_is_known_by_id_is_asked_for_again(feeds: FeedStore, feed_id: int) -> None:
    """A question finds so many at most; those on their way are left out of the next one."""
    ahead = Ahead(feeds, feed_id, known=3, at_once=2)
    found = ahead.take(["a"], None, lambda: ())

    found += rest(ahead, found)

    assert [one.unit.id for one in found] == [f"u{6 - number}" for number in range(7)]


def test_what_was_settled_meanwhile_is_passed_over(feeds: FeedStore, feed_id: int) -> None:
    """Between the question and their turn units may be set aside, as by an operator."""
    ahead = Ahead(feeds, feed_id, known=100, at_once=3)
    assert taken(ahead) == ["u6", "u5", "u4"]
    (gone,) = (one.id for one in feeds.pending(feed_id, ["a"], 9) if one.unit.id == "u2")
    feeds.set_aside(gone, "quarantined", "by hand")

    assert taken(ahead) == ["u3", "u1"]


def test_who_waits_for_a_unit_is_told_with_it(feeds: FeedStore, feed_id: int) -> None:
    """Another playbook that is ready again has its own view of what is due: the ids at hand are dropped."""
    ahead = Ahead(feeds, feed_id, known=100, at_once=1)
    assert taken(ahead, "a") == ["u6"]

    (found,) = ahead.take(["a", "b"], None, lambda: ())

    assert (found.unit.id, found.waiting) == ("u6", {"a", "b"})
