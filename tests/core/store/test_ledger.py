"""The ledger as people ask for it: it balances, names what is missing, and tries again on demand."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from counterplay.errors import ConfigError
from counterplay.events import Unit
from counterplay.store.database import Database
from counterplay.store.feeds import Acknowledged, Counts, DeadLetter, Delivered, FeedKey, FeedStore
from counterplay.store.ledger import Ledger

HOUR = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def feed_id(feeds: FeedStore, key: FeedKey) -> int:
    """Four units in two hours: one delivered, one waiting, one quarantined, one lost; and a gap."""
    feed_id = feeds.subscribe(key, "a", HOUR - timedelta(days=1)).feed_id
    feeds.record_listing(
        feed_id, HOUR, [Unit(f"u{place}", created=HOUR + timedelta(minutes=25 * place)) for place in range(4)]
    )
    ids = {one.unit.id: one.id for one in feeds.pending(feed_id, ["a"], 9)}
    with feeds.database.write() as connection:
        feeds.record(
            connection,
            feed_id,
            [Delivered(ids["u0"], "a", "1:sink", "d", "0-1", ["r0", "r1"])],
            [Acknowledged(ids["u0"], "a", Counts(delivered=2))],
        )
        feeds.bury(connection, [DeadLetter("413", b'{"x":1}', 7, "a", "1:sink", ids["u0"])])
    feeds.set_aside(ids["u1"], "quarantined", "not JSON")
    feeds.set_aside(ids["u2"], "lost", "AF20051")
    feeds.record_gap(feed_id, "a", HOUR - timedelta(days=9), HOUR - timedelta(days=8), "retention")
    return feed_id


def test_the_account_balances_by_hour(database: Database, feed_id: int) -> None:
    """Every listed unit is in one column, for each hour in which it became available."""
    book = Ledger(database)
    rows = book.account(book.feeds())
    assert [
        (row.hour, row.units, row.acknowledged, row.quarantined, row.lost, row.waiting) for row in rows
    ] == [
        ("2026-03-02T08:00Z", 3, 1, 1, 1, 0),
        ("2026-03-02T09:00Z", 1, 0, 0, 0, 1),
    ]
    assert all(row.balanced for row in rows)
    assert rows[0].delivered == 2
    assert book.account(book.feeds("no such feed")) == []


def test_units_older_than_a_subscription_are_not_its_debt(
    database: Database, feeds: FeedStore, key: FeedKey, feed_id: int
) -> None:
    """They stand in a column of their own."""
    feeds.subscribe(key, "late", HOUR + timedelta(hours=1))
    book = Ledger(database)
    late = [row for row in book.account(book.feeds()) if row.playbook == "late"]
    assert [(row.units, row.before, row.waiting, row.balanced) for row in late] == [
        (3, 1, 0, True),
        (1, 0, 1, True),
    ]


def test_gaps_name_ranges_and_units_with_their_cause(database: Database, feed_id: int) -> None:
    """Ranges first."""
    book = Ledger(database)
    found = [(one.status, one.unit, one.cause) for one in book.gaps(book.feeds())]
    assert found == [("gap", "", "retention"), ("quarantined", "u1", "not JSON"), ("lost", "u2", "AF20051")]


def test_a_retry_makes_a_unit_due_wherever_the_mark_is(
    database: Database, feeds: FeedStore, feed_id: int
) -> None:
    """Also below the low-water mark, where nobody looks otherwise."""
    book = Ledger(database)
    assert book.retry(book.feeds(), ("u1",)) == 1
    with pytest.raises(ConfigError, match="no unit 'u1' is quarantined or lost"):
        book.retry(book.feeds(), ("u1",))
    floor = HOUR + timedelta(days=2)
    assert [one.unit.id for one in feeds.pending(feed_id, ["a"], 9, floor=floor)] == ["u1"]
    assert book.retry(book.feeds(), ()) == 1


def test_a_name_that_is_wrong_keeps_the_others_from_being_tried_again(
    database: Database, feed_id: int
) -> None:
    """All that are named, or none: who reads an error may take it that nothing was done."""
    book = Ledger(database)
    with pytest.raises(ConfigError, match="no unit 'u0' is quarantined or lost here, so none is tried again"):
        book.retry(book.feeds(), ("u1", "u0"))
    assert [one.status for one in book.gaps(book.feeds())] == ["gap", "quarantined", "lost"]


def test_the_export_holds_every_receipt(database: Database, feed_id: int) -> None:
    """One object a unit, with what each sink answered."""
    book = Ledger(database)
    units = {one["unit"]: one for one in book.export(book.feeds())}
    assert sorted(units) == ["u0", "u1", "u2", "u3"]
    assert units["u0"]["delivered"][0]["receipts"] == ["r0", "r1"]
    assert units["u0"]["acknowledged"][0]["playbook"] == "a"
    assert units["u2"]["reason"] == "AF20051"


def test_the_commands_say_the_same(
    database: Database, feed_id: int, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 while something is missing; `ledger FEED` is the account of that feed."""
    from counterplay.cli import playbook

    (tmp_path / "counterplay.yaml").write_text(f"store: {database.url}\n")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    runner = CliRunner()
    listed = runner.invoke(playbook, ["ledger", "acme"])
    assert (listed.exit_code, "every unit that was listed is accounted for" in listed.output) == (1, True)
    assert (
        "for each playbook: every unit that was listed is accounted for; 1 unit still to be" in listed.output
    )
    for words in (["ACME"], ["--json", "acme"], ["gaps"], ["--json", "gaps"]):
        plain = runner.invoke(playbook, ["ledger", *words])
        assert plain.output[0] == ("[" if "--json" in words else "F"), words
    gaps = runner.invoke(playbook, ["ledger", "gaps", "--json"])
    assert [one["status"] for one in json.loads(gaps.output)] == ["gap", "quarantined", "lost"]
    lines = runner.invoke(playbook, ["ledger", "export"]).output.splitlines()
    assert len([json.loads(line) for line in lines]) == 4
    letters = runner.invoke(playbook, ["dead-letters", "--json"])
    (letter,) = json.loads(letters.output)
    assert (letter["reason"], letter["unit"], letters.exit_code) == ("413", "u0", 1)
    assert runner.invoke(playbook, ["dead-letters", str(letter["id"])]).output == '{"x":1}'
    assert runner.invoke(playbook, ["ledger", "retry"]).output == "2 units to be tried again\n"
