"""A source that is not offered here (a licence is missing): told once, and no trouble to the others."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterplay.errors import UnavailableError
from counterplay.events import JsonObject, Page
from counterplay.language import load
from counterplay.modules import Context, PollTrigger
from counterplay.plugins import PluginHost
from counterplay.runtime import feeds
from counterplay.runtime.feeds import Feed
from counterplay.runtime.figures import Figures
from counterplay.runtime.subscribers import Subscriber
from counterplay.store.database import Database, open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.runs import RunStore

HOST = PluginHost.load()


class Source(PollTrigger):
    """Gives nothing, or is unavailable until `offered`; counts how often it was asked."""

    name = "source"

    def __init__(self, offered: bool, stop: threading.Event, enough: int) -> None:
        super().__init__({})
        self.offered = offered
        self.asked = 0
        self._stop = stop
        self._enough = enough

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        self.asked += 1
        if self.asked == self._enough:
            self._stop.set()
        if not self.offered:
            raise UnavailableError("needs Entra ID P2")
        return Page((), {"n": self.asked})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def subscriber(tmp_path: Path) -> Subscriber:
    file = tmp_path / "watch.yaml"
    file.write_text(
        "name: watch\ntrigger: {uses: std.manual}\nsinks: [{uses: std.jsonl, with: {path: out}}]\n"
    )
    playbook: Any = load(file, HOST)
    return Subscriber(playbook, {}, {}, [], [])


def feed(
    database: Database,
    subscriber: Subscriber,
    source: Source,
    stop: threading.Event,
    figures: Figures,
    *,
    name: str = "a",
    once: bool = False,
) -> Feed:
    made = Feed(
        FeedKey("acme.source", name, "tenant-1", json.dumps({})),
        source,
        Context(http=None, stop=stop),  # type: ignore[arg-type]  # this source asks no network
        [subscriber],
        store=FeedStore(database),
        runs=RunStore(database),
        figures=figures,
        stop=stop,
        runs_added=lambda _: None,
        poll_interval=timedelta(milliseconds=1),
        once=once,
    )
    (opened,) = made.open()
    return opened


def test_it_is_told_once_and_holds_back_no_other_feed(database: Database, subscriber: Subscriber) -> None:
    """While another feed is polled again and again, it is asked once."""
    stop, figures = threading.Event(), Figures()
    missing, present = Source(False, stop, enough=99), Source(True, stop, enough=5)
    first = feed(database, subscriber, missing, stop, figures, name="a")
    second = feed(database, subscriber, present, stop, figures, name="b")
    threads = [threading.Thread(target=one.run) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert present.asked == 5
    assert missing.asked == 1
    assert first.failure is None
    assert figures.notices == {
        "acme.source a: unavailable": "acme.source a: unavailable: needs Entra ID P2; asked again each day"
    }


def test_it_is_asked_again_when_the_day_is_over(
    database: Database, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A licence that was bought meanwhile takes back the notice."""
    monkeypatch.setattr(feeds, "UNAVAILABLE_FOR", 0.0)
    stop, figures = threading.Event(), Figures()
    source = Source(False, stop, enough=3)
    made = feed(database, subscriber, source, stop, figures)
    original = source.poll

    def bought(context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        source.offered = source.asked >= 1
        return original(context, cursor, since)

    source.poll = bought  # type: ignore[method-assign]
    made.run()

    assert source.asked == 3
    assert figures.notices == {}


def test_with_once_the_feed_ends_as_blocked(database: Database, subscriber: Subscriber) -> None:
    """Nobody waits for a day: the session's exit code tells that something was not collected."""
    stop, figures = threading.Event(), Figures()
    source = Source(False, stop, enough=99)
    made = feed(database, subscriber, source, stop, figures, once=True)
    made.run()

    assert source.asked == 1
    assert isinstance(made.failure, UnavailableError)
    assert str(made.failure) == "needs Entra ID P2"
