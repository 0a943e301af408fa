"""Retention of the ledger: which units go when they are old, and which stay whatever their age."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.events import Unit
from counterplay.store import unit_retention
from counterplay.store.database import open_database
from counterplay.store.feeds import Acknowledged, Counts, DeadLetter, Delivered, FeedKey, FeedStore, Fetched
from counterplay.store.key_claims import UnitKeys
from counterplay.store.tables import metadata
from counterplay.store.unit_retention import count_old_units, delete_old_units

THEN = datetime(2020, 3, 2, 8, tzinfo=UTC)
LIMIT = timedelta(days=365)
KEY = FeedKey("acme.exports", "acme", "tenant-1", "{}")
NAMES = ("u0", "u1", "u2", "last")


@pytest.fixture
def feeds(store: str) -> Iterator[FeedStore]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield FeedStore(database)
    database.close()


@pytest.fixture
def feed_id(feeds: FeedStore) -> int:
    """Four units of years ago that the only subscriber has, with ids and receipts."""
    feed_id = feeds.subscribe(KEY, "a", THEN - timedelta(days=1)).feed_id
    units = [Unit(name, created=THEN, expires=THEN + timedelta(days=7)) for name in NAMES]
    feeds.record_listing(feed_id, THEN, units)
    for one in feeds.pending(feed_id, ["a"], 9):
        hour = int(THEN.timestamp()) // 3600
        keys = UnitKeys(one.id, [f"{one.unit.id}-1", f"{one.unit.id}-2"], [0, 1], [hour, hour], [1, 2])
        with feeds.database.write() as connection:
            feeds.claim(connection, feed_id, [Fetched(one, 10, "d", 2, keys)])
            feeds.record(
                connection,
                feed_id,
                [Delivered(one.id, "a", "1:sink", "d", "0-1", ["r0", "r1"])],
                [Acknowledged(one.id, "a", Counts(delivered=2))],
            )
    age(feeds)
    return feed_id


def age(feeds: FeedStore) -> None:
    """All of it was listed, read and acknowledged years ago."""
    change(feeds, f"UPDATE cp_unit SET listed = '{to_text(THEN)}', fetched = '{to_text(THEN)}'")
    change(feeds, f"UPDATE cp_acknowledgement SET at = '{to_text(THEN)}'")


def change(feeds: FeedStore, statement: str) -> None:
    with feeds.database.write() as connection:
        connection.exec_driver_sql(statement)


def left(feeds: FeedStore) -> list[str]:
    with feeds.database.read() as connection:
        return list(connection.execute(sa.text("SELECT unit_key FROM cp_unit ORDER BY id")).scalars())


def rows(feeds: FeedStore) -> dict[str, int]:
    with feeds.database.read() as connection:
        return {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


def test_what_every_subscriber_has_goes_with_its_receipts_and_ids(
    feeds: FeedStore, feed_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch; the last unit of the feed stays."""
    monkeypatch.setattr(unit_retention, "BATCH", 2)
    assert count_old_units(feeds.database, now() - LIMIT) == 3

    assert delete_old_units(feeds.database, now() - LIMIT) == 3

    assert left(feeds) == ["last"]
    kept = rows(feeds)
    tables = ("cp_unit", "cp_acknowledgement", "cp_delivery", "cp_unit_keys", "cp_key_hour")
    assert {name: kept[name] for name in tables} == dict.fromkeys(tables, 1)
    assert delete_old_units(feeds.database, now() - LIMIT) == 0


KEPT: dict[str, Callable[[FeedStore, int], None]] = {
    "younger than configured": lambda feeds, _: change(
        feeds,
        f"UPDATE cp_acknowledgement SET at = '{to_text(now() - timedelta(days=364))}' WHERE unit_id = 2",
    ),
    "read lately": lambda feeds, _: change(
        feeds, f"UPDATE cp_unit SET fetched = '{to_text(now())}' WHERE id = 2"
    ),
    "the source still lists it": lambda feeds, _: change(
        feeds, f"UPDATE cp_unit SET expires = '{to_text(now() + timedelta(hours=1))}' WHERE id = 2"
    ),
    "the source may list it for ever": lambda feeds, _: change(
        feeds, "UPDATE cp_unit SET expires = NULL WHERE id = 2"
    ),
    "not acknowledged": lambda feeds, _: change(feeds, "DELETE FROM cp_acknowledgement WHERE unit_id = 2"),
    "quarantined": lambda feeds, _: feeds.set_aside(2, "quarantined", "not JSON"),
    "lost": lambda feeds, _: feeds.set_aside(2, "lost", "AF20051"),
    "read in part": lambda feeds, _: change(feeds, "UPDATE cp_unit SET broken = 1 WHERE id = 2"),
    "with a dead letter": lambda feeds, _: bury(feeds),
}


def bury(feeds: FeedStore) -> None:
    with feeds.database.write() as connection:
        feeds.bury(connection, [DeadLetter("413", b"{}", 0, "a", "1:sink", 2)])


@pytest.mark.parametrize("why", KEPT)
def test_evidence_and_what_is_not_over_stay(feeds: FeedStore, feed_id: int, why: str) -> None:
    """Whatever their age; the units around them go."""
    KEPT[why](feeds, feed_id)

    assert delete_old_units(feeds.database, now() - LIMIT) == 2

    assert left(feeds) == ["u1", "last"]


def test_a_unit_stays_until_each_of_its_subscribers_has_it(feeds: FeedStore, feed_id: int) -> None:
    """One that came later and does not ask for what is older owes nothing."""
    feeds.subscribe(KEY, "held-back", THEN)
    assert delete_old_units(feeds.database, now() - LIMIT) == 0

    change(feeds, f"UPDATE cp_subscription SET since = '{to_text(now())}' WHERE playbook = 'held-back'")
    assert delete_old_units(feeds.database, now() - LIMIT) == 3


def test_whoever_ended_a_subscription_is_owed_nothing(feeds: FeedStore, feed_id: int) -> None:
    """What it never had, and nobody else, is evidence of that, and stays."""
    change(feeds, "DELETE FROM cp_acknowledgement WHERE unit_id = 1")
    feeds.subscribe(KEY, "ended", THEN)
    assert delete_old_units(feeds.database, now() - LIMIT) == 0
    with feeds.database.write() as connection:
        assert feeds.end(connection, "ended", [feed_id]) == feeds.end(connection, "a", [feed_id]) == [feed_id]

    assert delete_old_units(feeds.database, now() - LIMIT) == 2
    assert left(feeds) == ["u0", "last"]


def test_pages_go_by_age_alone_and_gaps_stay(feeds: FeedStore, feed_id: int) -> None:
    """A page is never listed; a gap is evidence, and so is the note of a loss."""
    change(feeds, 'UPDATE cp_unit SET "window" = NULL, expires = NULL')
    feeds.record_gap(feed_id, "a", THEN, THEN + timedelta(hours=1), "retention")

    assert delete_old_units(feeds.database, now() - LIMIT) == 3

    kept = rows(feeds)
    assert (kept["cp_gap"], kept["cp_loss"]) == (1, 1)


def test_the_events_of_a_unit_that_went_are_nobodys(feeds: FeedStore, feed_id: int) -> None:
    """Also to a worker that has its ids in memory still: who repeats them owns them from then on."""
    delete_old_units(feeds.database, now() - LIMIT)
    feeds.record_listing(feed_id, THEN, [Unit("again", created=now(), expires=now() + timedelta(days=7))])
    (one,) = feeds.pending(feed_id, ["a"], 9)
    hour = int(THEN.timestamp()) // 3600
    keys = UnitKeys(one.id, ["u0-1", "new"], [0, 1], [hour, hour], [1, 2])

    with feeds.database.write() as connection:
        (owned,) = feeds.claim(connection, feed_id, [Fetched(one, 10, "d", 2, keys)])
    assert owned.duplicates == {}
