"""The contracts of the building blocks: Trigger, Transform, Action, Sink, Connection.

A plugin author subclasses one of these, gives it a `name`, puts a JSON Schema of the same name beside
the package (`schemas/<name>.json`), and returns the class from the `counterplay_modules` hook. In a
playbook it is then `<plugin>.<name>`.

An instance holds the arguments of one use of the module (`self.arguments`, already checked against the
schema, with the schema's defaults filled in). It builds no HTTP session of its own: `context.http` is
one, with the connection's authentication, pinned hosts, deadline, retries and redaction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from counterplay.clock import now
from counterplay.events import (
    CheckResult,
    Diagnosis,
    Event,
    Inverse,
    JsonObject,
    Need,
    Page,
    PushAnswer,
    PushRequest,
    Receipt,
    Unit,
)

if TYPE_CHECKING:
    from mmap import mmap

    from msgspec import Raw
    from requests import PreparedRequest, Response

    from counterplay.budgets import Limit
    from counterplay.directives import Directive
    from counterplay.verdicts import Verdict
    from counterplay.wire import Wire

Kind = Literal["trigger", "transform", "action", "sink", "connection"]
Settle = Literal["read", "repeat", "ask"]


@dataclass
class Context:
    """What the host gives a module while it works.

    `http` is the only way to the network. `stop` is set when the process is asked to end: long
    work looks at it. `log` never carries secrets; they are masked.
    """

    http: Wire
    connection: Connection | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("counterplay"))
    stop: threading.Event = field(default_factory=threading.Event)
    losses: LossLedger | None = None
    """What the ledger knows to be missing; only a trigger at work sees it."""
    under_way: Callable[[str], None] = lambda text: None
    """For a trigger whose `poll` takes minutes: say what it is at, and since when. It is shown to people
    until `poll` returns."""

    def now(self) -> datetime:
        """The time, aware UTC."""
        return now()


@dataclass
class StepContext(Context):
    """A context for one attempt of a step. `idempotency_key` is the same for every attempt."""

    run_id: str = ""
    playbook: str = ""
    step_id: str = ""
    attempt: int = 1
    consent: str | None = None
    """Who agreed to this effect when a guard asked; guards do not ask again then."""
    internal: Callable[[], JsonObject] = dict
    """What counts as inside for the step's connection: `{"domains", "networks"}`, from `internal:` in
    counterplay.yaml, else the domains that the connection's service knows. Raises as `context.http` does.
    No domains where nobody knows them, and nothing outside of runs and plans."""

    @property
    def idempotency_key(self) -> str:
        """`<run>/<step>`: hand it to services that take such a key."""
        return f"{self.run_id}/{self.step_id}"


class LossLedger(Protocol):
    """The part of the ledger that says what is missing."""

    def after(self, number: int, since: datetime, limit: int) -> Sequence[tuple[int, JsonObject]]:
        """What became known after that number and not before `since`, oldest first, as (number, event)."""
        ...


class Module:
    """A configurable building block. Subclass one of the kinds below, not this.

    `name` is the module's own name, without the plugin's. `connection` names the kind of connection
    it needs (`m365.tenant`), or is None when it needs none. `permissions` says what the identity of
    the connection must be allowed to do, e.g. `("Microsoft Graph: User.Read.All",)`.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]
    connection: ClassVar[str | None] = None

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments: JsonObject = dict(arguments)


class Trigger(Module):
    """Emits events. Subclass FeedTrigger, PollTrigger or PushTrigger unless events only come by hand."""

    kind = "trigger"
    look_back: ClassVar[timedelta] = timedelta(hours=24)
    """How far before its first start a new subscriber begins."""
    id_field: ClassVar[str | None] = None
    """The member that identifies an event. Naming it lets the host read it without decoding the event."""
    time_field: ClassVar[str | None] = None
    """The member that says when an event happened; ids are remembered by its hour."""

    def delivery_key(self, event: Event) -> str | None:
        """What makes two deliveries the same: the second one is a duplicate. None: not known.

        Only asked when there is no `id_field`; the default is for those who ask for a single event.
        """
        if self.id_field is None:
            return None
        try:
            data = event.data
        except ValueError:
            return None
        found = data.get(self.id_field) if isinstance(data, dict) else None
        return found if isinstance(found, str) and found else None

    def run_key(self, event: Event) -> str | None:
        """What makes two deliveries the same occurrence: it starts one run. Default: the delivery key."""
        return self.delivery_key(event)

    def meta(self, unit: Unit) -> JsonObject:
        """What `meta.` shows of the unit in expressions, besides feed, unit and connection."""
        return {}


class FeedTrigger(Trigger):
    """A source that lists units by the time it made them available, and hands out each on request.

    The host owns windows, cursor, concurrency, retry, dedupe, quarantine and the ledger: `discover`
    and `fetch` only talk to the service, raise the errors of `counterplay.errors`, and keep no state.
    """

    tile: ClassVar[timedelta] = timedelta(hours=1)
    """Width of the aligned windows that `discover` is asked for."""
    retention: ClassVar[timedelta | None] = None
    """How far back the source can still list; None when it has no limit."""
    settle_time: ClassVar[timedelta] = timedelta(0)
    """How long after its end a window may still gain units: it stays open, and is listed again."""
    sweeps: ClassVar[Sequence[tuple[timedelta, timedelta]]] = ()
    """(how far back, how often): windows that were closed are listed again, for units that come late."""
    parallel: int = 8
    """How many units are fetched at once at most: `fetch` is called from so many threads."""

    def interruption(self, context: Context) -> str | None:
        """Why the source does not record at present (its subscription is off); None when it does.

        Asked before `prepare`, and only reads. What may have gone unrecorded since the source was last
        listed becomes a gap of that cause.
        """
        return None

    def prepare(self, context: Context) -> None:
        """Make the source ready (start a subscription).

        Called at start, then every 15 minutes, and before each attempt to list while listings fail.
        """

    def discover(self, context: Context, start: datetime, end: datetime) -> Iterable[Unit]:
        """List the units that became available in [start, end). A unit listed before is no harm.

        Raising anything means that the window is not listed: it is asked for again. Called from a few
        threads, for several windows at once.
        """
        raise NotImplementedError

    def fetch(self, context: Context, unit: Unit) -> bytes | mmap:
        """The unit's bytes: a JSON array of objects, unless `split` says otherwise.

        `context.http.bulk` is made for this: it is fast, and large bodies go through a temporary file.

        GoneError: it can never be had, and is recorded as lost. PermanentError: it is quarantined.
        """
        raise NotImplementedError

    def split(self, body: bytes) -> Iterable[bytes] | None:
        """The events in a unit that is not a JSON array; None (the default) means that it is one."""
        return None


class PollTrigger(Trigger):
    """A source that is asked from a cursor on, and whose pages cannot be fetched a second time.

    The host stores each page with the cursor in one transaction before anybody sees the events.
    """

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        """Read the next page. `cursor` is None on the first poll: begin at `since`.

        The cursor is a low-water mark: it never passes a record that the page does not hold.
        """
        raise NotImplementedError


class PushTrigger(Trigger):
    """A source that sends HTTP requests; each is answered only after its events are stored."""

    def receive(self, context: Context, request: PushRequest) -> PushAnswer:
        """Turn a request into events, or refuse it by its answer's status. Checks who sent it."""
        raise NotImplementedError


class Transform(Module):
    """Maps a batch of events to a batch, without effects. It may drop events, never invent them."""

    kind = "transform"

    def apply(self, context: Context, events: Sequence[Event]) -> Sequence[Event]:
        """The events that go on, in order; `Event.replaced` makes a changed one."""
        raise NotImplementedError


class Action(Module):
    """Does one thing for one event and returns a JSON object.

    Change things through `context.http` alone: only what it sends is journalled, guarded and planned.

    An action that changes something in somebody else's system sets `effect = True` and says how an
    attempt with unknown outcome is settled: `read` (`settled` looks at the target), `repeat` (doing it
    again is harmless) or `ask` (a person has to look).
    """

    kind = "action"
    effect: bool = False
    settle: Settle = "ask"

    def run(self, context: StepContext) -> JsonObject:
        """Do it, and return the result that the schema's `$defs/result` describes."""
        raise NotImplementedError

    def target(self) -> str | None:
        """The object that is changed, as the arguments name it; effects on one are serialised."""
        return None

    def subject(self, before: JsonObject) -> str | None:
        """What people call the target (a user's principal name), from the captured state."""
        return self.target()

    def capture(self, context: StepContext) -> JsonObject:
        """The target's present state, as far as `inverse` and `settled` need it. Reads only."""
        return {}

    def caution(self, before: JsonObject) -> str | None:
        """What people should know before it is done, seen the state before; plans print it."""
        return None

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        """After an attempt with unknown outcome: its result if it took effect, None if it did not."""
        raise NotImplementedError

    def rebased(self, before: JsonObject, present: JsonObject) -> JsonObject:
        """The state to undo to when it is done again after an attempt with unknown outcome, and the target
        is not as it was `before` that one. An effect of one request gives `present`; of several, some of
        which may have taken effect, what was there before the first.
        """
        return before

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        """Read the target back: did the effect hold? None when that cannot be told."""
        return None

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        """The step that takes it back, from the state captured before; None when nothing does."""
        return None


class Control(Action):
    """A step that directs its run instead of doing something: it waits, asks, calls a playbook, or stops.

    `direct` is called once, when the step begins; the host carries the directive out, keeps it over
    restarts, and makes the step's result.
    """

    def direct(self, context: StepContext) -> Directive:
        """What the run is to do: a `Pause`, `Ask`, `Call` or `Stop`."""
        raise NotImplementedError

    def run(self, context: StepContext) -> JsonObject:
        """Never called: the host asks `direct`."""
        raise TypeError(f"{type(self).__name__} directs its run and does nothing itself")


class Sink(Module):
    """Delivers batches of records and returns a receipt for each.

    The host cuts batches by `record_size` and the limits below, retries, bisects a batch that is
    refused down to the record at fault, and keeps receipts; `deliver` sends one batch, once.
    """

    kind = "sink"
    delivery: ClassVar[str] = "at least once"
    """What a repeated delivery does at the receiver: shown by `playbook modules`."""
    max_batch_records: int = 1000
    max_batch_bytes: int = 1_000_000
    max_record_bytes: int | None = None
    """The largest record the receiver takes, by `record_size`; a larger one becomes a dead letter."""
    batch_overhead: int = 0
    """Bytes of the envelope around a batch."""

    def record_size(self, record: Event) -> int:
        """Bytes that this record adds to the encoded body, separators included."""
        return len(record.raw) + 1

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        """Send the batch. Anything but an error means that the receiver has taken every record.

        RetryableError: send again later. BlockedError: a person must act. RejectedError: the content
        is refused (the host halves the batch).
        """
        raise NotImplementedError


class BulkSink(Sink):
    """A sink that puts each record into the body as bytes of its own, for large numbers of records.

    The host encodes a record once, cuts batches by encoded bytes and hands over the parts; nothing is
    decoded on the way. `parallel` batches are sent at once, from as many threads.
    """

    parallel: ClassVar[int] = 2
    encodes_early: bool = False
    """`encode_all` keeps and changes nothing, so that any thread may call it, and refuses what is not UTF-8.

    A unit of up to a megabyte is then encoded in the thread that fetched it, while the processor has it at
    hand, and nobody else looks for what is not UTF-8: for the first such sink of a feed, whose playbook takes
    events as they are, as long as no playbook of the feed has a condition on them. Whoever overrides `encode`
    of such a sink overrides `encode_all`, too, or sets this to False.
    """

    def encode(self, raw: bytes | Raw) -> bytes:
        """The record as it stands in the body. RejectedError: it cannot be sent at all."""
        raise NotImplementedError

    def encode_all(self, raws: Sequence[bytes | Raw]) -> list[bytes]:
        """The same for many, in order. RejectedError: one of them cannot be sent, so each is asked for.

        Only worth its own code where `encode` is so quick that calling it is a part of what it costs.
        """
        return [self.encode(raw) for raw in raws]

    def send(self, context: Context, parts: Sequence[bytes]) -> Sequence[Receipt]:
        """Send one batch of encoded records, once; raises as `deliver` does."""
        raise NotImplementedError

    def record_size(self, record: Event) -> int:
        return len(self.encode(record.raw)) + 1

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        return self.send(context, [self.encode(record.raw) for record in records])


class Connection(Module):
    """The configured identity that modules use, from `counterplay.yaml`.

    `settings` holds the plain values; a value that is `writeOnly` in the schema is read by
    `secret(key)` at the moment of use and is kept nowhere.
    """

    kind = "connection"
    setup_command: ClassVar[str | None] = None
    """`module:attribute` of a click command that guides through the set-up: `connections setup KIND`."""

    def __init__(self, name: str, settings: Mapping[str, Any], secrets: SecretSource | None = None) -> None:
        super().__init__(settings)
        self.label = name
        self._secrets = secrets

    @property
    def settings(self) -> JsonObject:
        """The connection's values as configured, secrets by reference."""
        return self.arguments

    @property
    def tenant(self) -> str:
        """The organisation that this connection belongs to; part of every run's identity."""
        return self.label

    def token_ages(self) -> Mapping[str, float]:
        """Seconds since each token in use was given, by service; for the metrics. Asks for nothing."""
        return {}

    def own_names(self) -> Collection[str]:
        """What the service calls this very identity: an effect on itself is refused."""
        return ()

    def secret(self, key: str) -> str:
        """The secret value of a setting, resolved now. Do not store it.

        ConfigError: the setting is missing, or its reference cannot be resolved.
        """
        value = self.settings.get(key)
        if self._secrets is None:
            return str(value)
        return self._secrets.resolve(value, where=f"connections.{self.label}.{key}")

    def internal_domains(self, context: Context) -> Collection[str]:
        """The domains that the organisation owns, in lower case: what `internal.domains` is by default.

        A kind that can tell implements this; the permissions that it takes stand in `x-permissions` of
        the connection's schema.
        """
        raise NotImplementedError

    def origins(self) -> Collection[str]:
        """`https://host[:port]` of the services that may see this connection's credentials: the same ones as
        long as it lives.
        """
        return ()

    def requests_per_minute(self, origin: str) -> float | None:
        """How many requests the service behind an origin grants in a minute; None when nobody knows.

        The host keeps to it for everybody who uses the connection; refusals slow it down in any case.
        """
        return None

    def limits(self, request: PreparedRequest) -> Sequence[Limit]:
        """The documented limits that a request counts against. They are waited for, never run into.

        A refusal (429) slows down what counts against the same limits, else all that goes to the origin.
        """
        return ()

    def service(self, origin: str) -> str:
        """What people call the service behind an origin, for messages; its host unless known better."""
        return origin.partition("://")[2]

    def ca_file(self) -> str | None:
        """A bundle of certificate authorities to trust instead of the system's."""
        return None

    def authorize(self, request: PreparedRequest) -> None:
        """Put the credentials on a request whose origin is one of `origins()`."""

    def renew(self, response: Response) -> bool:
        """After a refusal that fresh credentials may cure (401): drop the old ones, say if to try again."""
        return False

    def classify(self, response: Response) -> Verdict | None:
        """What an answer means for the work at hand; None leaves it to the general rules of HTTP."""
        return None

    def check(self, context: Context) -> Iterable[CheckResult]:
        """Prove that the connection works, one result for each thing tried."""
        return ()

    def examine(self, context: Context, needs: Sequence[Need]) -> Iterable[Diagnosis]:
        """Say which of the needs would be refused, and why. It only reads. Default: the check's results."""
        for one in self.check(context):
            yield Diagnosis(one.name, one.ok, one.detail)


class SecretSource:
    """Resolves the references in a connection's settings; the host has the implementation."""

    def resolve(self, value: object, *, where: str) -> str:
        """The secret that `value` is or refers to."""
        raise NotImplementedError
