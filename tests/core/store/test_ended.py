"""A playbook that is not run any more: its subscription is ended, and that stands in the ledger."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from counterplay.cli import playbook
from counterplay.clock import now
from counterplay.events import Unit
from counterplay.store.database import Database, open_database, worker_lock
from counterplay.store.feeds import Counts, FeedKey, FeedStore
from counterplay.store.ledger import Ledger
from counterplay.store.workers import WorkerStore, identity_of

HOUR = datetime(2026, 3, 2, 8, tzinfo=UTC)
SINCE = HOUR - timedelta(days=1)


def end(feeds: FeedStore, name: str, *feed_ids: int) -> list[int]:
    with feeds.database.write() as connection:
        return feeds.end(connection, name, feed_ids)


def listed(feeds: FeedStore, feed_id: int, *names: str) -> None:
    feeds.record_listing(feed_id, HOUR, [Unit(name, created=HOUR) for name in names])


def accounts(database: Database) -> dict[str, tuple[int, int, int, int, bool]]:
    book = Ledger(database)
    return {
        row.playbook: (row.units, row.acknowledged, row.waiting, row.ended, row.balanced)
        for row in book.account(book.feeds())
    }


@pytest.fixture
def url(store: str) -> str:
    """A subscription ends in the same way on SQLite and on PostgreSQL."""
    return store


@contextmanager
def working(database: Database, url: str) -> Iterator[None]:
    """A `playbook up` works on the store."""
    if database.sqlite:
        with worker_lock(url, "playbook up"):
            yield
        return
    workers, identity = WorkerStore(database), identity_of(database.session)
    workers.join(identity, "playbook up", 60)
    yield
    workers.leave(identity)


@pytest.fixture
def feed_id(feeds: FeedStore, key: FeedKey) -> int:
    """Two playbooks and two units; `gone` has acknowledged the first."""
    feed_id = feeds.subscribe(key, "stays", SINCE).feed_id
    feeds.subscribe(key, "gone", SINCE)
    listed(feeds, feed_id, "u1", "u2")
    first = next(one for one in feeds.pending(feed_id, ["gone"], 9) if one.unit.id == "u1")
    with feeds.database.write() as connection:
        feeds.acknowledge(connection, feed_id, first.id, "gone", Counts())
    return feed_id


def test_nothing_waits_for_it_and_the_account_says_so(
    database: Database, feeds: FeedStore, feed_id: int
) -> None:
    """What it had not got is ended, what comes later is not in its account, others go on."""
    assert accounts(database) == {"stays": (2, 0, 2, 0, True), "gone": (2, 1, 1, 0, True)}
    assert end(feeds, "gone", feed_id) == [feed_id]
    assert end(feeds, "gone", feed_id) == []
    listed(feeds, feed_id, "u3")
    assert accounts(database) == {"stays": (3, 0, 3, 0, True), "gone": (2, 1, 0, 1, True)}
    assert feeds.pending(feed_id, ["gone"], 9) == []
    assert len(feeds.pending(feed_id, ["stays"], 9)) == 3


def test_pages_that_only_it_waited_for_are_deleted(feeds: FeedStore, key: FeedKey) -> None:
    """One that was set aside stays, for it may be tried again."""
    feed_id = feeds.subscribe(key, "gone", now(), shared=False).feed_id
    feeds.subscribe(key, "stays", now(), shared=False)
    epoch = feeds.take_over(feed_id)
    assert epoch is not None
    pages = [feeds.store_page(feed_id, epoch, {"at": n}, f"page-{n}", b"[]") or 0 for n in range(3)]
    with feeds.database.write() as connection:
        feeds.acknowledge(connection, feed_id, pages[0], "stays", Counts())
    feeds.set_aside(pages[2], "quarantined", "not JSON")
    end(feeds, "gone", feed_id)
    assert [feeds.spooled(one) is not None for one in pages] == [False, True, True]


def test_run_again_it_begins_anew_and_names_what_it_missed(
    database: Database, feeds: FeedStore, key: FeedKey, feed_id: int
) -> None:
    """From its mark to where it begins; what it had acknowledged stays so."""
    feeds.advance(feed_id, "gone", SINCE + timedelta(hours=1), HOUR, HOUR)
    end(feeds, "gone", feed_id)
    begin = HOUR + timedelta(days=1)
    again = feeds.subscribe(key, "gone", begin)
    assert (again.new, again.feed_id, again.since, again.mark) == (True, feed_id, begin, begin)
    assert not feeds.subscribe(key, "gone", begin).new
    book = Ledger(database)
    (gap,) = book.gaps(book.feeds())
    assert (gap.playbook, gap.start, gap.end, gap.cause) == (
        "gone",
        "2026-03-01T09:00:00.000000Z",
        "2026-03-03T08:00:00.000000Z",
        "its subscription had been ended",
    )
    assert accounts(database)["gone"] == (2, 1, 0, 0, True)


def test_run_again_within_its_look_back_it_gets_what_it_had_not(
    database: Database, feeds: FeedStore, key: FeedKey, feed_id: int
) -> None:
    """Nothing is missing then, and nothing comes twice."""
    end(feeds, "gone", feed_id)
    feeds.subscribe(key, "gone", SINCE)
    assert [one.unit.id for one in feeds.pending(feed_id, ["gone"], 9)] == ["u2"]
    assert Ledger(database).gaps({feed_id: "x"}) == []


def test_a_polled_source_is_read_anew_for_it(database: Database, feeds: FeedStore, key: FeedKey) -> None:
    """Pages that were polled meanwhile are gone, so it gets a generation of its own."""
    first = feeds.subscribe(key, "gone", SINCE, shared=False).feed_id
    epoch = feeds.take_over(first)
    assert epoch is not None
    feeds.store_page(first, epoch, {"at": 1}, "page-1", b"[]")
    end(feeds, "gone", first)
    later = now() + timedelta(hours=1)
    again = feeds.subscribe(key, "gone", later, shared=False)
    assert again.feed_id != first
    assert feeds.subscribe(key, "gone", later, shared=False).feed_id == again.feed_id
    (gap,) = Ledger(database).gaps({again.feed_id: "x"})
    assert gap.cause == "its subscription had been ended"


def workspace(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on this store, with the playbook `stays`."""
    (folder / "counterplay.yaml").write_text(f"store: {url.replace('+psycopg', '')}\n")
    (folder / "playbooks").mkdir()
    (folder / "playbooks" / "stays.yaml").write_text("name: stays\n")
    monkeypatch.chdir(folder)


def test_the_command_ends_it_and_refuses_where_it_may_run(
    database: Database,
    feeds: FeedStore,
    feed_id: int,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The audit log has it; a playbook that a working process may run is left alone."""
    workspace(tmp_path, url, monkeypatch)
    runner = CliRunner()
    with working(database, url):
        refused = runner.invoke(playbook, ["ledger", "end", "stays"])
        ended = runner.invoke(playbook, ["ledger", "end", "gone"])
    assert refused.exit_code != 0
    assert "a process works on this store that may run 'stays'" in str(refused.exception or refused.output)
    assert (ended.exit_code, ended.output) == (0, "gone: 1 subscription ended\n")
    unknown = runner.invoke(playbook, ["ledger", "end", "gone"])
    assert "'gone' subscribes to nothing here" in str(unknown.exception or unknown.output)
    with database.read() as connection:
        ((body,),) = connection.exec_driver_sql("SELECT body FROM cp_audit WHERE kind = 'command'").all()
    assert json.loads(body) == {
        "command": "ledger end",
        "playbook": "gone",
        "feeds": ["acme.exports acme"],
    }


def test_a_worker_that_died_keeps_nobody_from_ending_it(
    server_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: FeedKey
) -> None:
    """On PostgreSQL it stands in the table until others bury it, and there may be none."""
    workspace(tmp_path, server_store, monkeypatch)
    database = open_database(server_store)
    try:
        FeedStore(database).subscribe(key, "stays", SINCE)
        WorkerStore(database).join(identity_of(database.session), "playbook up", -1)
    finally:
        database.close()
    ended = CliRunner().invoke(playbook, ["ledger", "end", "stays"])
    assert (ended.exit_code, ended.output) == (0, "stays: 1 subscription ended\n")
