"""Ownership of events by unit, held against a plain dictionary; restarts and rollbacks included."""

import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from counterplay.clock import now
from counterplay.events import Unit
from counterplay.store.database import Database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.key_claims import UNTIMED, UnitKeys
from counterplay.store.key_hours import digests
from counterplay.store.keys import KeyStore

NAMES = [str(uuid.UUID(int=number * 7919)) for number in range(6)] + ["plain", "", "ä" * 40, "plain "]
UNITS = 5


def keys(unit_id: int, names: list[str], again: bool = False, check: int = 0) -> UnitKeys:
    hours = [len(name) % 3 - 1 for name in names]  # a function of the event, as its time is
    return UnitKeys(unit_id, names, range(len(names)), hours, [check] * len(names), again)


def units(feeds: FeedStore, key: FeedKey) -> tuple[int, list[int]]:
    feed_id = feeds.subscribe(key, "a", now()).feed_id
    feeds.record_listing(feed_id, now(), [Unit(str(number)) for number in range(UNITS)])
    return feed_id, [one.id for one in feeds.pending(feed_id, ["a"], UNITS)]


def expected(owners: dict[str, int], unit_id: int, names: list[str]) -> dict[int, int]:
    """The model: an event is a duplicate where another unit owns it, or the unit holds it already.

    What a unit owned and no longer holds is nobody's.
    """
    for name in [one for one, owner in owners.items() if owner == unit_id and one not in names]:
        del owners[name]
    found: dict[int, int] = {}
    seen: set[str] = set()
    for place, name in enumerate(names):
        owner = owners.setdefault(name, unit_id)
        if owner != unit_id or name in seen:
            found[place] = owner
        seen.add(name)
    return found


claims = st.lists(
    st.tuples(st.integers(0, UNITS - 1), st.lists(st.sampled_from([n for n in NAMES if n]), max_size=8)),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(  # a claim without ids first after a restart, then one of an id that is on disk
    history=[(0, [NAMES[1]]), (1, [NAMES[0]]), (0, []), (0, [NAMES[0]])],
    forgets={2},
    grouped=False,
    paged=False,
)
@example(  # an id found on pages first after a restart, then one of an hour that only its units hold
    history=[(0, [NAMES[0]]), (1, ["plain"]), (2, ["ä" * 40]), (3, [NAMES[1]]), (4, ["plain", "ä" * 40])],
    forgets={3},
    grouped=False,
    paged=True,
)
@given(history=claims, forgets=st.sets(st.integers(0, 11)), grouped=st.booleans(), paged=st.booleans())
def test_ownership_is_that_of_a_dictionary(
    database: Database, history: list[tuple[int, list[str]]], forgets: set[int], grouped: bool, paged: bool
) -> None:
    """Whatever is fetched again, in whatever order, with restarts in between: each event has one owner."""
    key = FeedKey("t", "c", "x", f'{{"n": "{uuid.uuid4()}"}}')
    feed_id, ids = units(FeedStore(database), key)
    small = {"memory": 150, "worth_pages": 1} if paged else {}
    store, owners, fetched = KeyStore(**small), {}, set()
    history = [(ids[place], names) for place, names in history]
    if grouped:  # a group holds each unit once
        history = list({unit_id: (unit_id, names) for unit_id, names in history}.values())
    models = []
    batch = []
    for unit_id, names in history:
        models.append(expected(owners, unit_id, names))
        batch.append(keys(unit_id, names, again=unit_id in fetched))
        fetched.add(unit_id)
    groups = [batch] if grouped else [[one] for one in batch]
    answers: list[Any] = []
    for place, group in enumerate(groups):
        if place in forgets:
            store = KeyStore(**small)
        with database.write() as connection:
            answers += store.claim(connection, feed_id, group)
    assert [dict(one.duplicates) for one in answers] == models


def test_a_rolled_back_claim_is_forgotten(database: Database, feeds: FeedStore, key: FeedKey) -> None:
    """After `forget`, memory follows the disk again."""
    feed_id, ids = units(feeds, key)
    store = KeyStore()
    try:
        with database.write() as connection:
            store.claim(connection, feed_id, [keys(ids[0], ["plain"])])
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        store.forget()
    with database.write() as connection:
        (owned,) = store.claim(connection, feed_id, [keys(ids[1], ["plain"])])
    assert owned.duplicates == {}


def test_a_known_id_with_another_body_is_told(database: Database, feeds: FeedStore, key: FeedKey) -> None:
    """It still counts as a duplicate."""
    feed_id, ids = units(feeds, key)
    with database.write() as connection:
        feeds.keys.claim(connection, feed_id, [keys(ids[0], ["plain", NAMES[1]], check=1)])
        (same,) = feeds.keys.claim(connection, feed_id, [keys(ids[1], ["plain"], check=1)])
        (other,) = feeds.keys.claim(connection, feed_id, [keys(ids[2], [NAMES[1]], check=2)])
    assert (same.duplicates, same.altered) == ({0: ids[0]}, ())
    assert (other.duplicates, other.altered) == ({0: ids[0]}, (0,))


@pytest.mark.parametrize("worth_pages", [1, 10_000])
def test_memory_stays_within_its_bound(
    database: Database, feeds: FeedStore, key: FeedKey, worth_pages: int
) -> None:
    """Hours that were not asked for lately go; their ids are still known."""
    feed_id, ids = units(feeds, key)
    store = KeyStore(memory=40_000, worth_pages=worth_pages)
    names = [str(uuid.UUID(int=number)) for number in range(1, 4001)]
    hours = [number // 200 for number in range(4000)]
    with database.write() as connection:
        store.claim(connection, feed_id, [UnitKeys(ids[0], names, range(4000), hours, [0] * 4000)])
        assert store.size <= 40_000
        (owned,) = store.claim(connection, feed_id, [UnitKeys(ids[1], names, range(4000), hours, [0] * 4000)])
    assert owned.duplicates == dict.fromkeys(range(4000), ids[0])


def test_old_ids_are_purged_with_their_units(database: Database, feeds: FeedStore, key: FeedKey) -> None:
    """By when the unit became available, and not by when its events happened."""
    feed_id, ids = units(feeds, key)
    with database.write() as connection:
        feeds.keys.claim(connection, feed_id, [UnitKeys(ids[0], ["a"], [0], [UNTIMED], [0])])
    assert feeds.purge_keys(feed_id, now()) == 1
    with database.write() as connection:
        (owned,) = feeds.keys.claim(connection, feed_id, [UnitKeys(ids[1], ["a"], [0], [UNTIMED], [0])])
    assert owned.duplicates == {}


@given(st.lists(st.one_of(st.uuids().map(str), st.text(max_size=40)), min_size=1))
def test_ids_are_told_apart_by_what_they_are(names: list[str]) -> None:
    """Alone or among others, an id has the same digest; different ones differ (GUIDs by value)."""
    together = digests(names)
    apart = [digests([name]) for name in names]
    assert together == b"".join(apart)
    by_value = {name.lower() if len(name) == 36 and name.count("-") == 4 else name for name in names}
    assert len(set(apart)) == len(by_value) or len(set(apart)) == len(set(names))


def test_what_vanished_from_its_owner_is_free_and_told(
    database: Database, feeds: FeedStore, key: FeedKey
) -> None:
    """A source that gave a foreign event with a unit once must not cost that event."""
    feed_id, ids = units(feeds, key)
    with database.write() as connection:
        feeds.keys.claim(connection, feed_id, [keys(ids[0], ["plain", NAMES[1]])])
        (held,) = feeds.keys.claim(connection, feed_id, [keys(ids[1], ["plain"])])
        (again,) = feeds.keys.claim(connection, feed_id, [keys(ids[0], [NAMES[1]], again=True)])
        (free,) = feeds.keys.claim(connection, feed_id, [keys(ids[1], ["plain"], again=True)])
        (later,) = feeds.keys.claim(connection, feed_id, [keys(ids[2], ["plain"])])
    assert (held.duplicates, again.vanished, again.duplicates) == ({0: ids[0]}, True, {})
    assert (free.duplicates, later.duplicates) == ({}, {0: ids[1]})
