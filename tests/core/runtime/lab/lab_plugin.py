"""A plugin without a network: a source, a polled log and a sink that do what a test tells them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay import (
    Action,
    BulkSink,
    Connection,
    Context,
    Event,
    FeedTrigger,
    JsonObject,
    Module,
    Page,
    PollTrigger,
    Receipt,
    RejectedError,
    Sink,
    StepContext,
    Transform,
    Unit,
    hookimpl,
)
from counterplay.hookspecs import EffectIntent, EffectVerdict

Answer = bytes | Exception


@dataclass
class Lab:
    """What the modules answer, and what they were asked. A list of answers gives its last one for ever."""

    units: dict[str, tuple[datetime, list[Answer]]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    polled: list[JsonObject | None] = field(default_factory=list)
    refusals: defaultdict[str, deque[Exception]] = field(default_factory=lambda: defaultdict(deque))
    refuses: Callable[[bytes], bool] = lambda _raw: False
    taken: defaultdict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    encoding: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    acted: list[str] = field(default_factory=list)
    act: Callable[[StepContext, JsonObject], JsonObject] = lambda _context, arguments: {"echo": arguments}
    read_back: JsonObject = field(default_factory=lambda: {"pressed": True})
    guard: Callable[[EffectIntent], EffectVerdict | None] = lambda _intent: None
    ended: list[JsonObject] = field(default_factory=list)
    domains: Sequence[str] | Exception = ()
    asked_domains: int = 0


LAB = Lab()


class Source(FeedTrigger):
    """Emits what the test put into units."""

    name = "source"
    tile = timedelta(hours=1)
    look_back = timedelta(hours=3)
    settle_time = timedelta(hours=1)  # so that a unit of five minutes ago is always found

    def discover(self, context: Context, start: datetime, end: datetime) -> Iterable[Unit]:
        return [Unit(name, created=at) for name, (at, _) in LAB.units.items() if start <= at < end]

    def fetch(self, context: Context, unit: Unit) -> bytes:
        LAB.fetched.append(unit.id)
        answers = LAB.units[unit.id][1]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def delivery_key(self, event: Event) -> str | None:
        return event.data.get("id")

    def run_key(self, event: Event) -> str | None:
        return event.data["run"] if "run" in event.data else self.delivery_key(event)


class Named(Source):
    """The same, whose events say in a member who they are."""

    name = "named"
    id_field = "id"


class Log(PollTrigger):
    """Emits the pages that the test prepared; afterwards the last one's cursor stays."""

    name = "log"

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        LAB.polled.append(cursor)
        place = 0 if cursor is None else cursor["page"]
        return LAB.pages[place] if place < len(LAB.pages) else Page((), {"page": place})

    def delivery_key(self, event: Event) -> str | None:
        return event.data.get("id")


class Place(Connection):
    """Somewhere that may know which domains are its own."""

    name = "place"

    def internal_domains(self, context: Context) -> Sequence[str]:
        LAB.asked_domains += 1
        if isinstance(LAB.domains, Exception):
            raise LAB.domains
        return LAB.domains


class Door(Log):
    """Emits the prepared pages through a place."""

    name = "door"
    connection = "lab.place"


class Shift(Transform):
    """Drops events whose `drop` is true."""

    name = "shift"

    def apply(self, context: Context, events: Sequence[Event]) -> Sequence[Event]:
        return [event for event in events if not event.data.get("drop")]


class Store(Sink):
    """Keeps records under a name; raises what the test queued for that name."""

    name = "store"
    max_record_bytes = 10_000

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        name = self.arguments["to"]
        if LAB.refusals[name]:
            raise LAB.refusals[name].popleft()
        if any(LAB.refuses(one.raw) for one in records):
            raise RejectedError("413: too much")
        LAB.taken[name] += [one.raw for one in records]
        return [Receipt(f"{name}-{len(LAB.taken[name])}") for _ in records]


class Lines(BulkSink):
    """Keeps records under a name, each with the name before it; notes which threads encode."""

    name = "lines"
    encodes_early = True

    def encode(self, raw: Any) -> bytes:
        LAB.encoding[self.arguments["to"]].add(threading.current_thread().name.rsplit(" ", 1)[-1])
        try:
            return f"{self.arguments['to']}: {str(raw, 'utf-8')}".encode()
        except UnicodeDecodeError as error:
            raise RejectedError("no text") from error

    def send(self, context: Context, parts: Sequence[bytes]) -> Sequence[Receipt]:
        LAB.taken[self.arguments["to"]] += parts
        return [Receipt(f"line {place}") for place, _ in enumerate(parts)]


class Act(Action):
    """Does what the test says, without an effect."""

    name = "act"

    def run(self, context: StepContext) -> JsonObject:
        LAB.acted.append(self.arguments["what"])
        return LAB.act(context, self.arguments)


class Press(Act):
    """An effect that the wire does not see; `settle` is its argument `what`."""

    name = "press"
    effect = True

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.settle = arguments["what"]

    def target(self) -> str | None:
        return "button"

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        return LAB.read_back if LAB.acted else None


@hookimpl
def counterplay_modules() -> Iterable[type[Module]]:
    """The modules of this plugin."""
    return [Source, Named, Log, Place, Door, Shift, Store, Lines, Act, Press]


@hookimpl
def counterplay_before_effect(intent: EffectIntent) -> EffectVerdict | None:
    """The test is the guard."""
    return LAB.guard(intent)


@hookimpl
def counterplay_after_effect(intent: EffectIntent, outcome: JsonObject) -> None:
    """What guards are told afterwards."""
    LAB.ended.append(outcome)
    if outcome.get("status") == "done" and intent.target == "T-listener":
        raise KeyError("a listener's fault")
