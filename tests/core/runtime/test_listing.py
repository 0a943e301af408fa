"""The listing of a source by windows: what is listed when, and what becomes a gap."""

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterplay.errors import BlockedError, InterruptedWork, PermanentError, RetryableError
from counterplay.events import Unit
from counterplay.modules import Context, FeedTrigger
from counterplay.runtime import listing
from counterplay.runtime.figures import Figures
from counterplay.runtime.listing import Listing
from counterplay.runtime.windows import RETENTION_MARGIN
from counterplay.store.database import Database, open_database
from counterplay.store.feeds import Counts, FeedKey, FeedStore

BASE = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Span = tuple[datetime, datetime]


class Source(FeedTrigger):
    """Lists what a test put there, refuses what it says, and notes what it was asked."""

    name = "source"
    retention = 7 * DAY
    settle_time = 2 * HOUR
    sweeps = ((26 * HOUR, HOUR), (7 * DAY, DAY))

    def __init__(self) -> None:
        super().__init__({})
        self.units: dict[str, datetime] = {}
        self.asked: list[Span] = []
        self.refuses: dict[datetime, Exception] = {}
        self.breaks: dict[datetime, Exception] = {}
        self.down: Exception | None = None
        self.off: str | None = None
        self.prepared = 0

    def interruption(self, context: Context) -> str | None:
        return self.off

    def prepare(self, context: Context) -> None:
        self.prepared += 1
        if self.down is None:
            self.off = None

    def discover(self, context: Context, start: datetime, end: datetime) -> Iterable[Unit]:
        self.asked.append((start, end))
        if error := self.down or self.refuses.get(start):
            raise error
        yield from [Unit(name, created=at) for name, at in self.units.items() if start <= at < end]
        if error := self.breaks.get(start):
            raise error


class Bench:
    """One feed with one subscriber, whose clock the test moves."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = BASE
        monkeypatch.setattr(listing, "now", lambda: self.at)
        monkeypatch.setattr(listing, "HOT_EVERY", 0.0)
        self.store, self.source = FeedStore(database), Source()
        self.figures, self.stop = Figures(), threading.Event()
        self.start()

    def start(self, since: timedelta = 3 * HOUR) -> None:
        """As at the start of a process: nothing but the store is kept."""
        self.since = self.at - since
        subscription = self.store.subscribe(FeedKey("t", "c", "x", "{}"), "a", self.since)
        self.feed_id = subscription.feed_id
        self.listing = Listing(
            self.source,
            Context(http=None),  # type: ignore[arg-type]  # this source asks no network
            {"a": subscription},
            label="t c",
            store=self.store,
            figures=self.figures,
            stop=self.stop,
            once=True,
            found=lambda: None,
        )

    def round(self, later: timedelta = timedelta(0), fails: type[Exception] | None = None) -> list[Span]:
        """One round; what the source was asked in it."""
        self.at += later
        self.source.asked = []
        try:
            self.listing.round()
            assert fails is None
        except Exception as error:
            if fails is None or not isinstance(error, fails):
                raise
            self.listing.failed(str(error))
        self.listing.advance()
        return self.source.asked

    def gaps(self) -> list[tuple[Any, ...]]:
        with self.store.database.read() as connection:
            return [
                tuple(row)
                for row in connection.exec_driver_sql('SELECT start, "end", cause FROM cp_gap ORDER BY id')
            ]

    def acknowledge(self) -> None:
        with self.store.database.write() as connection:
            for one in self.store.pending(self.feed_id, ["a"], 99):
                self.store.acknowledge(connection, self.feed_id, one.id, "a", Counts())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    opened = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield Bench(opened, monkeypatch)
    opened.close()


def at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_the_newest_window_is_listed_first_and_ends_now(bench: Bench) -> None:
    """Then those from the subscription's beginning on; no bound lies in the future."""
    asked = bench.round()
    assert asked[0] == (BASE.replace(minute=0), BASE)
    assert sorted(asked)[0] == (BASE - 3 * HOUR, BASE.replace(minute=0) - 2 * HOUR)
    assert all(end <= BASE and end - start <= HOUR for start, end in asked)


def test_what_stands_before_a_failure_is_collected(bench: Bench) -> None:
    """A listing that breaks off at its third page is no reason to wait for what the first two hold."""
    hour = BASE.replace(minute=0) - 2 * HOUR
    bench.source.units = {f"u{number}": hour + timedelta(seconds=number) for number in range(700)}
    bench.source.breaks[hour] = PermanentError("content without an address")
    bench.round(fails=PermanentError)
    found = bench.store.pending(bench.feed_id, ["a"], 999)
    assert {one.unit.id for one in found} == set(bench.source.units)
    bench.acknowledge()
    assert bench.listing.marks == {"a": hour}
    bench.source.breaks.clear()
    assert (hour, hour + HOUR) in bench.round(timedelta(minutes=2))


def test_a_window_is_listed_until_it_has_settled(bench: Bench) -> None:
    """Two hours after its end it is closed; the mark follows, and a restart goes on from there."""
    bench.round()
    assert bench.listing.marks == {"a": BASE.replace(minute=0) - 2 * HOUR}
    bench.round(HOUR)
    assert bench.listing.marks == {"a": BASE.replace(minute=0) - HOUR}
    bench.start()
    assert min(start for start, _ in bench.round() if start >= bench.since) >= BASE.replace(minute=0) - HOUR


def test_a_window_that_is_refused_holds_no_other_back(bench: Bench) -> None:
    """The first failure is raised after all had their turn; the mark waits at the one that is missing."""
    third = BASE.replace(minute=0) - 2 * HOUR
    bench.source.refuses = {third: PermanentError("AF20055")}
    bench.source.units = {"new": BASE - timedelta(minutes=5)}
    assert len(bench.round(fails=PermanentError)) == 4
    bench.round(10 * HOUR, fails=PermanentError)
    assert bench.listing.marks == {"a": third}
    assert [one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)] == ["new"]
    bench.source.refuses = {}
    bench.round()
    bench.acknowledge()
    bench.listing.advance()
    assert bench.listing.marks == {"a": BASE.replace(minute=0) + 8 * HOUR}
    assert bench.gaps() == []


def test_a_source_that_is_down_is_not_asked_for_every_window(bench: Bench) -> None:
    """A few failures prove it."""
    bench.start(3 * HOUR)
    bench.source.down = RetryableError("no route")
    asked = bench.round(5 * DAY, fails=RetryableError)
    assert len(asked) < 20


def test_a_clock_that_was_ahead_and_was_set_right_costs_nothing(bench: Bench) -> None:
    """What was noted for a time to come is not waited for."""
    bench.round()
    bench.round(5 * DAY)
    bench.at -= 5 * DAY - HOUR
    bench.start()
    bench.source.units = {"new": bench.at - timedelta(minutes=3), "older": bench.at - 2 * HOUR}
    bench.round()
    assert {one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)} == {"new", "older"}


def test_late_content_is_found_by_the_sweeps(bench: Bench) -> None:
    """Whatever became listable after its window was closed is listed within the hour, or the day."""
    bench.start(3 * HOUR)
    bench.round()
    bench.round(2 * DAY)
    bench.source.units = {"late": bench.at - 20 * HOUR, "later": bench.at - 40 * HOUR}
    bench.round(HOUR)
    assert {one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)} == {"late"}
    assert bench.figures["late"] == 1
    bench.round(DAY)
    assert {one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)} == {"late", "later"}


def test_after_an_outage_everything_is_swept(bench: Bench) -> None:
    """What the service published late while nobody could ask is not waited for until tomorrow."""
    bench.round()
    bench.round(2 * DAY)
    bench.source.down = RetryableError("503")
    bench.round(timedelta(minutes=1), fails=RetryableError)
    bench.source.units = {"late": bench.at - 40 * HOUR}
    bench.source.down = None
    bench.round(8 * HOUR)
    assert [one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)] == ["late"]


def test_a_sweep_asks_for_nothing_that_cannot_be_listed_any_more(bench: Bench) -> None:
    """One that was interrupted at the edge of retention goes on behind it."""
    bench.round()
    bench.round(8 * DAY)
    bench.source.refuses = {bench.at.replace(minute=0) - 6 * DAY + DAY: RetryableError("503")}
    bench.round(25 * HOUR, fails=RetryableError)
    bench.source.refuses = {}
    edge = bench.at + 12 * HOUR - 7 * DAY + RETENTION_MARGIN
    assert min(start for start, _ in bench.round(12 * HOUR)) >= edge


def test_a_host_that_was_down_too_long_names_the_hole_once(bench: Bench) -> None:
    """From the last listing to the edge: what was listed before is no part of the hole."""
    bench.round()
    bench.start()
    bench.round(9 * DAY)
    edge = BASE + 2 * DAY + RETENTION_MARGIN
    settled = BASE.replace(minute=0) - 2 * HOUR
    late, never = bench.gaps()
    assert late[:2] == (at(settled), at(BASE))
    assert late[2].endswith("listed, but not once more after that: what came late may be missing")
    assert never == (
        at(BASE),
        at(edge),
        "the source lists no more than 7 days, and nobody collected until then",
    )
    bench.round(HOUR)
    bench.start()
    bench.round(HOUR)
    assert len(bench.gaps()) == bench.figures["gaps"] == 2


def test_what_is_refused_once_at_the_edge_of_retention_is_no_further_gap(bench: Bench) -> None:
    """The margins are there to be used: a hole does not grow while its last window is asked for again."""
    bench.round()
    bench.start()
    edge = BASE + 2 * DAY + RETENTION_MARGIN
    bench.source.refuses = {edge: RetryableError("503")}
    bench.round(9 * DAY, fails=RetryableError)
    known = bench.gaps()
    assert known[-1][1] == at(edge)
    bench.source.refuses = {}
    assert min(start for start, _ in bench.round(timedelta(minutes=4))) == edge
    assert bench.gaps() == known


def test_a_window_that_stays_refused_at_the_edge_is_given_up(bench: Bench) -> None:
    """When the margins are used up, what was not listed is a hole too, with the reason of the refusal."""
    bench.round()
    bench.start()
    edge = BASE + 2 * DAY + RETENTION_MARGIN
    bench.source.refuses = {edge: RetryableError("503 busy")}
    bench.round(9 * DAY, fails=RetryableError)
    bench.round(timedelta(minutes=6))
    start, end, cause = bench.gaps()[-1]
    assert (start, end) == (at(edge), at(edge + timedelta(minutes=6)))
    assert cause.endswith("until then it could not be listed: 503 busy")


def test_units_that_wait_are_no_gap_however_old_they_are(bench: Bench) -> None:
    """A sink that refuses for longer than the source's retention costs nothing that was listed."""
    bench.source.units = {"old": BASE - 2 * HOUR}
    for _ in range(9):
        bench.round(DAY - timedelta(minutes=1))
    assert bench.gaps() == []
    assert [one.unit.id for one in bench.store.pending(bench.feed_id, ["a"], 9)] == ["old"]
    bench.acknowledge()
    bench.listing.advance()
    assert bench.listing.marks["a"] > BASE + 8 * DAY


def test_a_source_that_refuses_for_days_makes_one_gap_that_grows(bench: Bench) -> None:
    """Its cause is the first refusal, and each round only makes it longer."""
    bench.round(3 * HOUR)
    bench.source.down = BlockedError("403 AF10001", hint="grant ActivityFeed.Read")
    for _ in range(20):
        bench.round(12 * HOUR, fails=BlockedError)
    gaps = bench.gaps()
    assert len(gaps) == bench.figures["gaps"] == 2
    assert gaps[1][1] == at(bench.at - 7 * DAY + RETENTION_MARGIN)
    assert "until then it could not be listed: 403 AF10001" in gaps[1][2]
    assert bench.figures["gap_seconds"] == sum(
        (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        for start, end, _ in gaps
    )


def test_a_source_that_did_not_record_leaves_a_gap(bench: Bench) -> None:
    """From the last time that it was listed until it was mended, however often that was tried."""
    bench.round()
    bench.source.off, bench.source.down = "the subscription was disabled", BlockedError("AF20023")
    bench.listing.failed("AF20022")
    bench.round(HOUR, fails=BlockedError)
    bench.round(HOUR, fails=BlockedError)
    bench.source.down = None
    bench.round(HOUR)
    assert bench.gaps() == [(at(BASE), at(bench.at), "the subscription was disabled")]
    assert bench.figures["gaps"] == 1


def test_a_source_that_was_never_on_is_a_beginning_and_no_gap(bench: Bench) -> None:
    """Nothing was collected yet."""
    bench.source.off = "there was no subscription"
    bench.round()
    assert (bench.gaps(), bench.source.off) == ([], None)


def test_readiness_is_looked_at_again_after_a_failure_only(bench: Bench) -> None:
    """Not in each round: some services count such calls."""
    bench.round()
    bench.round()
    assert bench.source.prepared == 1
    bench.source.down = RetryableError("503")
    bench.round(fails=RetryableError)
    bench.round(fails=RetryableError)
    assert bench.source.prepared == 2


def test_a_stop_ends_a_round_between_two_windows(bench: Bench) -> None:
    """Nothing is taken for listed that was not."""
    bench.stop.set()
    assert bench.round(fails=InterruptedWork) == []
    assert bench.listing.marks == {"a": bench.since}
