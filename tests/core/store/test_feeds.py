"""The ledger: subscriptions, units, ownership of events, acknowledgements, cursors."""

import uuid
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterplay.clock import from_text, now
from counterplay.errors import StateError
from counterplay.events import Unit
from counterplay.store.database import Database
from counterplay.store.feeds import (
    Counts,
    DeadLetter,
    Delivered,
    FeedKey,
    FeedStore,
    Fetched,
    NewGap,
    StoredUnit,
)
from counterplay.store.key_claims import UNTIMED, UnitKeys
from counterplay.store.ranges import Positions
from counterplay.store.tables import acknowledgement, dead_letter, feed, key_hour, unit_keys
from counterplay.store.tables import unit as unit_table

HOUR = datetime(2026, 3, 2, 8, tzinfo=UTC)
SINCE = HOUR - timedelta(days=1)


def unit(name: str, **rest: object) -> Unit:
    return Unit(name, created=HOUR, **rest)  # type: ignore[arg-type]  # the members of Unit


def listed(feeds: FeedStore, feed_id: int, *names: str) -> dict[str, int]:
    """Record units, and tell their ids in the ledger."""
    feeds.record_listing(feed_id, HOUR, [unit(name) for name in names])
    return {one.unit.id: one.id for one in feeds.pending(feed_id, ["a", "b"], 100)}


def fetched(
    feeds: FeedStore, unit_id: int, keys: dict[int, str], *letters: DeadLetter, digest: str = "d"
) -> Fetched:
    """What a fetch of a listed unit found; the body of an event is its key."""
    with feeds.database.read() as connection:
        row = connection.execute(sa.select(unit_table).where(unit_table.c.id == unit_id)).one()
    stored = StoredUnit(
        unit_id, unit(row.unit_key), row.status, row.attempts, row.digest, frozenset(), row.duplicates
    )
    places, names = list(keys), list(keys.values())
    again = row.digest is not None
    found = UnitKeys(unit_id, names, places, [UNTIMED] * len(keys), [0] * len(keys), again)
    return Fetched(stored, 10, digest, len(keys), found, letters)


def claim(feeds: FeedStore, feed_id: int, unit_id: int, keys: dict[int, str]) -> dict[int, int]:
    found = fetched(feeds, unit_id, keys)
    with feeds.database.write() as connection:
        (owned,) = feeds.claim(connection, feed_id, [found])
    return dict(owned.duplicates)


def deliver(feeds: FeedStore, unit_id: int, positions: str, *receipts: str) -> None:
    with feeds.database.write() as connection:
        feeds.record(connection, 1, [Delivered(unit_id, "a", "1:sink", "d1", positions, receipts)], [])


def acknowledge(feeds: FeedStore, feed_id: int, unit_id: int, playbook: str) -> None:
    with feeds.database.write() as connection:
        feeds.acknowledge(connection, feed_id, unit_id, playbook, Counts())


def test_a_second_subscription_is_the_first_one(feeds: FeedStore, key: FeedKey) -> None:
    """A later look-back does not move a place that is already taken."""
    first = feeds.subscribe(key, "a", SINCE)
    feeds.advance(first.feed_id, "a", HOUR, HOUR, HOUR)
    again = feeds.subscribe(key, "a", HOUR + timedelta(days=1))
    assert (first.new, again.new) == (True, False)
    assert (again.feed_id, again.since, again.mark) == (first.feed_id, SINCE, HOUR)
    assert feeds.has_subscription(key, "a")
    assert not feeds.has_subscription(key, "b")


@pytest.mark.parametrize("member", ["trigger", "connection", "tenant", "key"])
def test_what_differs_in_its_source_is_another_feed(feeds: FeedStore, key: FeedKey, member: str) -> None:
    """Trigger, connection, tenant and arguments all tell feeds apart."""
    other = replace(key, **{member: "other"})
    assert feeds.subscribe(key, "a", SINCE).feed_id != feeds.subscribe(other, "a", SINCE).feed_id


def test_before_the_first_page_playbooks_share_a_polled_feed(feeds: FeedStore, key: FeedKey) -> None:
    """Nothing was read yet, so nobody missed anything."""
    first = feeds.subscribe(key, "a", SINCE, shared=False)
    assert feeds.subscribe(key, "b", SINCE, shared=False).feed_id == first.feed_id


def test_who_comes_after_the_first_page_begins_a_new_generation(feeds: FeedStore, key: FeedKey) -> None:
    """Its pages cannot be read again; a feed of its own gives the newcomer its look-back."""
    first = feeds.subscribe(key, "a", SINCE, shared=False)
    epoch = feeds.take_over(first.feed_id)
    feeds.store_page(first.feed_id, epoch, {"at": 1}, "page-1", None)
    second = feeds.subscribe(key, "b", SINCE, shared=False)
    assert second.feed_id != first.feed_id
    assert feeds.cursor(second.feed_id) is None
    assert feeds.subscribe(key, "a", SINCE, shared=False).feed_id == first.feed_id
    assert feeds.subscribe(key, "b", SINCE, shared=False).feed_id == second.feed_id


def test_listing_a_unit_again_changes_nothing(feeds: FeedStore, key: FeedKey) -> None:
    """A source may list the same unit in two windows, and twice in one."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    assert feeds.record_listing(feed_id, HOUR, [unit("u1"), unit("u2"), unit("u1")]) == 2
    assert feeds.record_listing(feed_id, HOUR + timedelta(hours=1), [unit("u2"), unit("u3")]) == 1
    assert feeds.record_listing(feed_id, HOUR, []) == 0
    assert [one.unit.id for one in feeds.pending(feed_id, ["a"], 9)] == ["u1", "u2", "u3"]
    assert feeds.waiting_windows(feed_id, "a") == {
        "2026-03-02T08:00:00.000000Z": 2,
        "2026-03-02T09:00:00.000000Z": 1,
    }


def test_what_expires_first_is_pending_first(feeds: FeedStore, key: FeedKey) -> None:
    """Units that never expire come last; locator and times read back as they were."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    late = unit("late", expires=HOUR + timedelta(days=2), locator={"url": "https://x/1"})
    soon = unit("soon", expires=HOUR + timedelta(days=1))
    feeds.record_listing(feed_id, HOUR, [unit("never"), late, soon])
    pending = feeds.pending(feed_id, ["a"], 9)
    assert [one.unit.id for one in pending] == ["soon", "late", "never"]
    assert pending[1].unit == late
    assert [one.unit.id for one in feeds.pending(feed_id, ["a"], 1)] == ["soon"]


def test_what_has_expired_by_this_clock_is_fetched_all_the_same(feeds: FeedStore, key: FeedKey) -> None:
    """Local clocks lie: only the source can say that a unit is gone."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    feeds.record_listing(feed_id, HOUR, [unit("old", expires=HOUR)])
    assert [one.unit.id for one in feeds.pending(feed_id, ["a"], 9)] == ["old"]


@pytest.mark.parametrize("column", ["since", "mark", "listed", "seen"])
@pytest.mark.parametrize("damage", ["x", "2026-13-01T00:00:00.000000Z", "\x00"])
def test_a_damaged_place_is_no_beginning(
    feeds: FeedStore, key: FeedKey, database: Database, column: str, damage: str
) -> None:
    """Nobody begins anew, or at "now", because a row was spoilt."""
    feeds.subscribe(key, "a", SINCE)
    with database.write() as connection:
        connection.execute(sa.text(f"UPDATE cp_subscription SET {column} = :damage"), {"damage": damage})
    with pytest.raises(StateError, match=r"the place of a in feed .* is damaged"):
        feeds.subscribe(key, "a", HOUR)


@pytest.mark.parametrize("damage", ["{", "[]", '{"0": "x"}', '{"0": 7}'])
def test_a_damaged_time_of_a_sweep_is_a_fault_of_the_store(
    feeds: FeedStore, key: FeedKey, database: Database, damage: str
) -> None:
    """It is told as such, and not as a fault of the trigger that is swept."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    with database.write() as connection:
        connection.execute(sa.text("UPDATE cp_feed SET swept = :damage"), {"damage": damage})
    with pytest.raises(StateError, match=rf"the times at which feed {feed_id} was swept are damaged"):
        feeds.sweep_due(feed_id, 0, HOUR, timedelta(hours=1))
    with pytest.raises(StateError, match="are damaged"):
        feeds.swept(feed_id, 0, HOUR)


def test_each_playbook_acknowledges_for_itself(feeds: FeedStore, key: FeedKey) -> None:
    """A unit is pending until the last one has it; a second acknowledgement changes nothing."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    feeds.subscribe(key, "b", SINCE)
    unit_id = listed(feeds, feed_id, "u1")["u1"]
    for _ in range(2):
        acknowledge(feeds, feed_id, unit_id, "a")
    (left,) = feeds.pending(feed_id, ["a", "b"], 9)
    assert left.waiting == {"b"}
    assert not feeds.has_pending(feed_id, ["a"])
    acknowledge(feeds, feed_id, unit_id, "b")
    assert not feeds.has_pending(feed_id, ["a", "b"])
    assert feeds.waiting_windows(feed_id, "b") == {}


def test_a_subscriber_is_not_given_what_is_older_than_it(feeds: FeedStore, key: FeedKey) -> None:
    """Units that were there before its look-back are nobody's debt to it."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    feeds.subscribe(key, "b", HOUR + timedelta(seconds=1))
    listed(feeds, feed_id, "u1")
    assert [one.waiting for one in feeds.pending(feed_id, ["a", "b"], 9)] == [{"a"}]


def test_a_spooled_page_stays_until_the_last_subscriber_has_it(feeds: FeedStore, key: FeedKey) -> None:
    """Its bytes cannot be fetched again."""
    feed_id = feeds.subscribe(key, "a", now()).feed_id
    feeds.subscribe(key, "b", now())
    epoch = feeds.take_over(feed_id)
    unit_id = feeds.store_page(feed_id, epoch, {"after": 1}, "page-1", b'[{"n":1}]')
    assert unit_id is not None
    acknowledge(feeds, feed_id, unit_id, "a")
    assert feeds.spooled(unit_id) == b'[{"n":1}]'
    acknowledge(feeds, feed_id, unit_id, "b")
    assert feeds.spooled(unit_id) is None


def test_the_cursor_moves_with_the_page_or_not_at_all(feeds: FeedStore, key: FeedKey) -> None:
    """One transaction holds both, so that a crash leaves neither or both."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    epoch = feeds.take_over(feed_id)
    assert feeds.cursor(feed_id) is None
    with pytest.raises((TypeError, sa.exc.StatementError)):
        feeds.store_page(feed_id, epoch, {"after": 1}, "page-1", "no bytes")  # type: ignore[arg-type]
    assert feeds.cursor(feed_id) is None
    assert not feeds.has_pending(feed_id, ["a"])
    feeds.store_page(feed_id, epoch, {"after": 1}, "page-1", b"[]")
    assert feeds.cursor(feed_id) == {"after": 1}


def test_an_unchanged_page_is_stored_once(feeds: FeedStore, key: FeedKey) -> None:
    """A source that is asked from a time on, inclusive, answers the same page until something happens."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    epoch = feeds.take_over(feed_id)
    assert feeds.store_page(feed_id, epoch, {"from": 1}, "page-1", b'[{"n":1}]') is not None
    assert feeds.store_page(feed_id, epoch, {"from": 1}, "page-1", b'[{"n":1}]') is None
    assert len(feeds.pending(feed_id, ["a"], 9)) == 1


def test_a_worker_that_was_replaced_cannot_move_the_cursor(feeds: FeedStore, key: FeedKey) -> None:
    """The epoch fences it off, and its page is not stored either."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    old = feeds.take_over(feed_id)
    new = feeds.take_over(feed_id)
    with pytest.raises(StateError, match="taken over by another worker"):
        feeds.store_page(feed_id, old, {"after": 1}, "page-1", b"[]")
    assert feeds.cursor(feed_id) is None
    assert not feeds.has_pending(feed_id, ["a"])
    feeds.store_page(feed_id, new, {"after": 2}, "page-2", None)
    assert feeds.cursor(feed_id) == {"after": 2}


@pytest.mark.parametrize("damage", ["", "{", "[1]", "null", '"x"'])
def test_a_damaged_cursor_is_no_first_run(feeds: FeedStore, key: FeedKey, damage: str) -> None:
    """Beginning anew would lose the place, so it is an error that shows what is there."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    with feeds.database.write() as connection:
        connection.execute(sa.update(feed).values(cursor=damage))
    with pytest.raises(StateError, match="not a cursor") as caught:
        feeds.cursor(feed_id)
    assert repr(damage) in str(caught.value)


def test_a_mark_never_goes_back(feeds: FeedStore, key: FeedKey) -> None:
    """Whoever comes late with an older mark changes nothing."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    later, earlier = HOUR + timedelta(hours=1), HOUR - timedelta(hours=1)
    feeds.advance(feed_id, "a", HOUR, HOUR, later)
    feeds.advance(feed_id, "a", earlier, earlier, earlier)
    found = feeds.subscribe(key, "a", SINCE)
    assert (found.mark, found.listed, found.seen) == (HOUR, HOUR, later)


def test_a_store_that_only_knows_a_mark_was_listed_up_to_it(
    feeds: FeedStore, key: FeedKey, database: Database
) -> None:
    """What was not kept at that time is taken for not listed."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    feeds.advance(feed_id, "a", HOUR, HOUR, HOUR)
    with database.write() as connection:
        connection.execute(sa.text("UPDATE cp_subscription SET listed = NULL, seen = NULL"))
    found = feeds.subscribe(key, "a", SINCE)
    assert (found.mark, found.listed, found.seen) == (HOUR, HOUR, HOUR)
    later = HOUR + timedelta(hours=1)
    feeds.advance(feed_id, "a", HOUR, later, later)
    assert feeds.subscribe(key, "a", SINCE).seen == later


def test_within_a_unit_the_second_of_two_is_the_duplicate(feeds: FeedStore, key: FeedKey) -> None:
    """The unit itself owns the key; the first occurrence is kept."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    assert claim(feeds, feed_id, u1, {0: "k", 1: "other", 2: "k"}) == {2: u1}


def test_another_unit_owns_what_it_claimed_first(feeds: FeedStore, key: FeedKey) -> None:
    """Fetching a unit again finds its own events; in another unit they are duplicates."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    units = listed(feeds, feed_id, "u1", "u2")
    u1, u2 = units["u1"], units["u2"]
    assert claim(feeds, feed_id, u1, {0: "k1", 1: "k2"}) == {}
    assert claim(feeds, feed_id, u2, {0: "k2", 1: "k3", 2: "k2"}) == {0: u1, 2: u1}
    assert claim(feeds, feed_id, u1, {0: "k1", 1: "k2"}) == {}
    assert claim(feeds, feed_id, u2, {0: "k2", 1: "k3", 2: "k2"}) == {0: u1, 2: u1}


def test_a_unit_of_thousands_of_events_is_claimed_at_once(feeds: FeedStore, key: FeedKey) -> None:
    """More keys than a statement takes variables."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    assert claim(feeds, feed_id, u1, {place: f"k{place}" for place in range(40_000)}) == {}


def test_feeds_do_not_share_ownership(feeds: FeedStore, key: FeedKey) -> None:
    """The same key in another feed is another event."""
    one = feeds.subscribe(key, "a", SINCE).feed_id
    two = feeds.subscribe(replace(key, tenant="tenant-2"), "a", SINCE).feed_id
    assert claim(feeds, one, listed(feeds, one, "u1")["u1"], {0: "k"}) == {}
    assert claim(feeds, two, listed(feeds, two, "u1")["u1"], {0: "k"}) == {}


def test_a_lost_unit_gives_its_events_to_others(feeds: FeedStore, key: FeedKey) -> None:
    """Its duplicates elsewhere are the only copies now."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    units = listed(feeds, feed_id, "u1", "u2")
    claim(feeds, feed_id, units["u1"], {0: "k"})
    assert feeds.undelivered_owners([units["u1"]], "a") == {units["u1"]}
    feeds.set_aside(units["u1"], "lost", "404")
    assert feeds.undelivered_owners([units["u1"]], "a") == set()
    assert claim(feeds, feed_id, units["u2"], {0: "k"}) == {}
    assert feeds.set_aside_of([feed_id]) == [("u1", "lost", "404")]
    assert [one.unit.id for one in feeds.pending(feed_id, ["a"], 9)] == ["u2"]


def test_a_lost_unit_keeps_what_a_playbook_has_from_it(feeds: FeedStore, key: FeedKey) -> None:
    """Else that playbook would get the events a second time, out of another unit."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    feeds.subscribe(key, "b", SINCE)
    units = listed(feeds, feed_id, "u1", "u2")
    claim(feeds, feed_id, units["u1"], {0: "k"})
    acknowledge(feeds, feed_id, units["u1"], "a")
    feeds.set_aside(units["u1"], "lost", "404")
    assert claim(feeds, feed_id, units["u2"], {0: "k"}) == {0: units["u1"]}
    assert feeds.acknowledged_by([units["u1"]], "a") == {units["u1"]}
    assert feeds.acknowledged_by([units["u1"]], "b") == set()
    assert feeds.undelivered_owners([units["u1"]], "b") == set()


def test_unreadable_elements_are_kept_once_however_often_a_unit_is_read(
    feeds: FeedStore, key: FeedKey, database: Database
) -> None:
    """A second claim replaces the letters of the first, not those of a playbook's sink."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    letter = DeadLetter("cut \ud83d off", b'{"a":', position=3, unit_id=u1)
    with database.write() as connection:
        feeds.bury(connection, [DeadLetter("413", b"{}", 7, "a", "sink", u1)])
    for _ in range(2):
        found = fetched(feeds, u1, {}, letter)
        with database.write() as connection:
            feeds.claim(connection, feed_id, [found])
    with database.read() as connection:
        rows = connection.execute(sa.select(dead_letter.c.reason, dead_letter.c.body)).all()
    assert sorted(rows) == [("413", b"{}"), ("cut \\ud83d off", b'{"a":')]
    assert feeds.buried(u1, "a", "sink") == Positions([7])


def test_receipts_count_for_the_bytes_that_were_delivered(feeds: FeedStore, key: FeedKey) -> None:
    """When a unit comes back with other bytes, its positions mean something else."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    deliver(feeds, u1, "0-1", "r0", "r1")
    deliver(feeds, u1, "5", "r5")
    assert feeds.delivered(u1, "a", "1:sink", "d1") == Positions([0, 1, 5])
    assert not feeds.delivered(u1, "a", "1:sink", "d2")
    assert not feeds.delivered(u1, "a", "2:sink", "d1")
    assert not feeds.delivered(u1, "b", "1:sink", "d1")


def test_a_postponed_unit_waits_for_its_time(feeds: FeedStore, key: FeedKey) -> None:
    """It is not due, but not forgotten; waiting for another unit is no failed attempt."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    later = now() + timedelta(hours=1)
    feeds.postpone(u1, "503", later)
    assert feeds.pending(feed_id, ["a"], 9) == []
    assert feeds.has_pending(feed_id, ["a"])
    assert feeds.next_due(feed_id, ["a"]) == later
    feeds.postpone(u1, "waits", now(), failed=False)
    assert [one.attempts for one in feeds.pending(feed_id, ["a"], 9)] == [1]


def test_a_gap_is_recorded_once(feeds: FeedStore, key: FeedKey, database: Database) -> None:
    """The same hole found twice is one hole."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    assert feeds.record_gap(feed_id, "a", SINCE, HOUR, "retention").new == 1
    assert feeds.record_gap(feed_id, "a", SINCE, HOUR, "retention") == NewGap(0, 0)
    assert feeds.record_gap(feed_id, "b", SINCE, HOUR, "retention").new == 1
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM cp_gap")).scalar() == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 10), st.sampled_from(["off", "retention"])), max_size=8
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gaps_never_overlap_and_cover_what_was_recorded(
    database: Database, ranges: list[tuple[int, int, str]]
) -> None:
    """However they overlap, each minute is in one gap; one that only goes on is no new one."""
    feeds = FeedStore(database)
    feed_id = feeds.subscribe(FeedKey("t", "c", "x", str(uuid.uuid4())), "a", SINCE).feed_id
    minutes: dict[int, str] = {}
    for start, length, cause in ranges:
        fresh = [minute for minute in range(start, start + length) if minute not in minutes]
        first, last = (SINCE + timedelta(minutes=at) for at in (start, start + length))
        found = feeds.record_gap(feed_id, "a", first, last, cause)
        assert found.seconds == 60 * len(fresh)
        starts = [minute for minute in fresh if minute - 1 not in fresh]
        assert found.new == sum(minutes.get(minute - 1) != cause for minute in starts)
        minutes |= dict.fromkeys(fresh, cause)
    with database.read() as connection:
        rows = connection.execute(
            sa.text('SELECT start, "end", cause FROM cp_gap WHERE feed_id = :feed'), {"feed": feed_id}
        ).all()
    known: dict[int, str] = {}
    for row in rows:
        first, last = ((from_text(at) - SINCE) // timedelta(minutes=1) for at in row[:2])
        for minute in range(first, last):
            assert minute not in known
            known[minute] = row.cause
    assert known == minutes


def test_an_interrupted_transaction_leaves_nothing(feeds: FeedStore, key: FeedKey) -> None:
    """Ownership and acknowledgement are written together or not at all."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]

    found = fetched(feeds, u1, {0: "k"})

    def fails() -> None:
        with feeds.database.write() as connection:
            feeds.claim(connection, feed_id, [found])
            feeds.acknowledge(connection, feed_id, u1, "a", Counts(delivered=1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with feeds.database.read() as connection:
        assert connection.execute(sa.select(unit_keys)).all() == []
        assert connection.execute(sa.select(key_hour)).all() == []
        assert connection.execute(sa.select(acknowledgement)).all() == []
    assert [one.status for one in feeds.pending(feed_id, ["a"], 9)] == ["listed"]


def test_counts_stand_beside_the_acknowledgement(feeds: FeedStore, key: FeedKey, database: Database) -> None:
    """The ledger can be asked what became of each unit."""
    feed_id = feeds.subscribe(key, "a", SINCE).feed_id
    u1 = listed(feeds, feed_id, "u1")["u1"]
    counts = Counts(delivered=5, duplicates=1, filtered=2, condition_errors=1, dropped=3, dead=1, runs=0)
    with database.write() as connection:
        feeds.acknowledge(connection, feed_id, u1, "a", counts)
    with database.read() as connection:
        row = connection.execute(sa.select(acknowledgement)).mappings().one()
    assert {name: row[name] for name in asdict(counts)} == asdict(counts)
