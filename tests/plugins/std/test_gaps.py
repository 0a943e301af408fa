"""std.gaps: an event for each new gap, and for each unit that is set aside."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterplay import Context, Page, PermanentError, Unit
from counterplay.clock import now
from counterplay.store.database import open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.losses import Losses
from counterplay_std.gaps import Gaps

EIGHT = datetime(2026, 3, 2, 8, tzinfo=UTC)
NINE = EIGHT + timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield FeedStore(database)
    database.close()


def poll(store: FeedStore, cursor: Any = None, since: datetime = LONG_AGO) -> tuple[list[Any], Page]:
    context = Context(http=None, stop=threading.Event(), losses=Losses(store.database))  # type: ignore[arg-type]
    page = Gaps({}).poll(context, cursor, since)
    return [json.loads(raw) for raw in page.events], page


def feed(store: FeedStore, trigger: str = "m365.audit_log") -> int:
    return store.subscribe(FeedKey(trigger, "contoso", "t-1", '{"types": ["DLP.All"]}'), "a", EIGHT).feed_id


def test_each_new_gap_is_told_once(store: FeedStore) -> None:
    """One that only goes on is no new one; the cursor goes on behind what was told."""
    feed_id = feed(store)
    store.record_gap(feed_id, "a", EIGHT, NINE, "nobody collected")
    ((told,), page) = poll(store)
    at = told.pop("at")
    assert told == {
        "id": "loss-1",
        "kind": "gap",
        "feed": "m365.audit_log contoso DLP.All",
        "tenant": "t-1",
        "playbook": "a",
        "unit": "",
        "from": "2026-03-02T08:00:00.000000Z",
        "to": "2026-03-02T09:00:00.000000Z",
        "cause": "nobody collected",
    }
    assert datetime.fromisoformat(at) <= now()
    store.record_gap(feed_id, "a", NINE, NINE + timedelta(hours=1), "nobody collected")
    assert poll(store, page.cursor) == ([], Page((), page.cursor))
    store.record_gap(feed_id, "a", NINE + timedelta(hours=1), NINE + timedelta(hours=2), "off")
    assert [one["cause"] for one in poll(store, page.cursor)[0]] == ["off"]


def test_units_that_are_set_aside_are_told(store: FeedStore) -> None:
    """With their name, and when the source made them available."""
    feed_id = feed(store)
    store.record_listing(feed_id, EIGHT, [Unit("u1", created=EIGHT, expires=NINE), Unit("u2")])
    first, second = store.pending(feed_id, ["a"], 9)
    store.set_aside(first.id, "quarantined", "not JSON")
    store.set_aside(second.id, "lost", "AF20051")
    told, _ = poll(store)
    assert [(one["kind"], one["unit"], one["cause"]) for one in told] == [
        ("quarantined", "u1", "not JSON"),
        ("lost", "u2", "AF20051"),
    ]
    assert told[0]["from"] == "2026-03-02T08:00:00.000000Z"


def test_it_does_not_tell_about_itself(store: FeedStore) -> None:
    """A playbook that cannot take such an event must not be given one about that."""
    store.record_gap(feed(store, "std.gaps"), "a", EIGHT, NINE, "x")
    told, page = poll(store)
    assert (told, page.cursor) == ([], {"last": 1})


def test_a_new_subscriber_begins_at_its_look_back(store: FeedStore) -> None:
    """What was known before is not told."""
    store.record_gap(feed(store), "a", EIGHT, NINE, "x")
    assert poll(store, since=now() + timedelta(seconds=1))[0] == []


def test_without_a_ledger_it_says_so() -> None:
    """A plan has none; that is no empty ledger."""
    with pytest.raises(PermanentError, match="no ledger to read"):
        Gaps({}).poll(Context(http=None), None, LONG_AGO)  # type: ignore[arg-type]
