"""A push request can make other feeds of its connection look for news at once."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterplay.events import JsonObject, Page, PushAnswer, PushRequest
from counterplay.language import load
from counterplay.modules import Context, PollTrigger, PushTrigger, Trigger
from counterplay.plugins import PluginHost
from counterplay.runtime.feeds import Feed
from counterplay.runtime.figures import Figures
from counterplay.runtime.subscribers import Subscriber
from counterplay.store.database import Database, open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.runs import RunStore

HOUR = timedelta(hours=1)


class Source(PollTrigger):
    """Gives nothing, and says when it was asked."""

    name = "source"

    def __init__(self) -> None:
        super().__init__({})
        self.asked = threading.Semaphore(0)

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        self.asked.release()
        return Page((), {})


class Hint(PushTrigger):
    """Has no events of its own."""

    name = "hint"

    def receive(self, context: Context, request: PushRequest) -> PushAnswer:
        return PushAnswer(status=200, wakes=("acme.source",))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Any:
    """Build a feed that asks each hour when nobody wakes it."""
    file = tmp_path / "watch.yaml"
    text = "name: watch\ntrigger: {uses: std.manual}\nsinks: [{uses: std.jsonl, with: {path: out}}]\n"
    file.write_text(text)
    playbook: Any = load(file, PluginHost.load())
    stop = threading.Event()

    def build(uses: str, connection: str, trigger: Trigger) -> tuple[Feed, threading.Event]:
        made = Feed(
            FeedKey(uses, connection, "tenant-1", json.dumps({})),
            trigger,
            Context(http=None, stop=stop),  # type: ignore[arg-type]  # these ask no network
            [Subscriber(playbook, {}, {}, [], [])],
            store=FeedStore(database),
            runs=RunStore(database),
            figures=Figures(),
            stop=stop,
            runs_added=lambda _: None,
            poll_interval=HOUR,
            once=False,
        )
        (opened,) = made.open()
        return opened, stop

    return build


def test_a_hint_wakes_the_feeds_it_names_on_its_connection(make: Any) -> None:
    """The feed is polled although its interval is an hour; that of another connection is not."""
    near, far = Source(), Source()
    feed, stop = make("acme.source", "contoso", near)
    other, _ = make("acme.source", "fabrikam", far)
    push, _ = make("acme.hint", "contoso", Hint({}))
    push.neighbours = [feed, other, push]
    threads = [threading.Thread(target=one.run) for one in (feed, other)]
    for thread in threads:
        thread.start()
    assert near.asked.acquire(timeout=20)
    assert far.asked.acquire(timeout=20)

    answer = push.receive(PushRequest("POST", "/", {}, {}, b""))

    assert answer.status == 200
    assert near.asked.acquire(timeout=20)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not far.asked.acquire(blocking=False)
