"""What stands in for the world: modules that give recorded answers, sinks that keep what they take.

Everything between them is the real thing: the language, the interpreter, guards, the journal. A class
that stands in is derived from the module's own, so that what it says of itself (its target, its way
back, its batches) is what the module says.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol

import pluggy
import requests

from counterplay.cases.lenient import lenient
from counterplay.cases.model import Answer
from counterplay.errors import (
    BlockedError,
    GoneError,
    PermanentError,
    RejectedError,
    RetryableError,
    UnknownOutcomeError,
    WorkError,
)
from counterplay.events import Event, JsonObject, Receipt, Unit
from counterplay.hookspecs import EffectVerdict
from counterplay.language import Playbook
from counterplay.modules import Action, Connection, Context, Control, Module, Sink, StepContext, Trigger
from counterplay.plugins import ModuleInfo, PluginHost
from counterplay.runtime.planning_wire import _Nothing
from counterplay.wire import Wire

_ERRORS: dict[str, type[WorkError]] = {
    "permanent": PermanentError,
    "retryable": RetryableError,
    "blocked": BlockedError,
    "gone": GoneError,
    "rejected": RejectedError,
    "unknown": UnknownOutcomeError,
}


class Stage(Protocol):
    """The case that is being played, as the stand-ins ask it."""

    def answer(self, context: StepContext) -> Answer | None:
        """The recorded answer to this attempt, or None."""
        ...

    def held(self, answer: Answer) -> bool | None:
        """Whether an effect with a recorded answer holds now: right after it, or at a later look."""
        ...

    def unanswered(self, context: StepContext, request: str) -> None:
        """A step without an answer has asked its service for something."""
        ...

    def pass_time(self, by: timedelta) -> None:
        """Let the case's time pass."""
        ...

    def take(self, uses: str, records: Sequence[bytes]) -> None:
        """A sink was given these records."""
        ...


class Theatre:
    """Where the case that is played now stands, for the classes that stand in: one for a host."""

    def __init__(self) -> None:
        self.stage: Stage | None = None

    @property
    def current(self) -> Stage:
        assert self.stage is not None, "no case is played"
        return self.stage


class _Unheard:
    """A hook that nobody listens to."""

    def __call__(self, **_: Any) -> None: ...

    def get_hookimpls(self) -> list[Any]:
        return []


class _CaseHooks:
    """The hooks of the plugins, as far as they belong into a case.

    A guard that would have to ask a service, where the case only has recorded answers, has no say;
    listeners are not told: nothing has happened.
    """

    def __init__(self, relay: pluggy.HookRelay) -> None:
        self._relay = relay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relay, name)

    def counterplay_before_effect(self, **given: Any) -> list[EffectVerdict]:
        found = []
        for guard in reversed(self._relay.counterplay_before_effect.get_hookimpls()):
            try:
                verdict: Any = guard.function(*(given[name] for name in guard.argnames))
            except Unanswered:
                continue
            if verdict is not None:
                found.append(verdict)
        return found

    counterplay_after_effect = counterplay_run_started = counterplay_run_finished = _Unheard()


@dataclass(frozen=True)
class _Played(ModuleInfo):
    """A module whose answers are recorded ones: they hold what the playbook looks at, not all."""

    @cached_property
    def result_schema(self) -> JsonObject | None:
        found: JsonObject | None = lenient(super().result_schema)
        return found


class CaseHost(PluginHost):
    """The plugins of a host, with stand-ins for their actions and sinks."""

    def __init__(self, host: PluginHost) -> None:
        super().__init__()
        self.theatre = Theatre()
        self.parsed: dict[str, Playbook] = {}
        """The playbooks of snapshots: compiling their expressions takes longer than a case's own work."""
        self.plugins = host.plugins
        self.disabled = host.disabled
        self._manager = host._manager
        self.modules = {
            uses: _Played(
                uses,
                _stand_in(info.cls, uses, self.theatre),
                info.plugin,
                info.distribution,
                info.schema_folder,
            )
            for uses, info in host.modules.items()
        }

    @property
    def hook(self) -> Any:
        return _CaseHooks(super().hook)


def _stand_in(cls: type[Module], uses: str, theatre: Theatre) -> type[Module]:
    bases: tuple[type, ...]
    if issubclass(cls, Control):
        return cls  # it directs the run, which is what is tested
    if issubclass(cls, Action):
        bases = (_Answering, cls)
    elif issubclass(cls, Sink):
        bases = (_Keeping, cls)
    else:
        return cls
    return type(cls.__name__, bases, {"_uses": uses, "_theatre": theatre, "__module__": cls.__module__})


class _Answering(Action):
    """Gives the recorded answer where there is one; else it is the action itself."""

    _theatre: Theatre

    def _recorded(self, context: StepContext) -> Answer | None:
        return self._theatre.current.answer(context)

    @contextmanager
    def _really(self, context: StepContext) -> Iterator[None]:
        """The action itself is at work, and what it asks nobody for is told to the author."""
        try:
            yield
        except Unanswered as error:
            self._theatre.current.unanswered(context, error.request)
            raise

    def capture(self, context: StepContext) -> JsonObject:
        recorded = self._recorded(context)
        if recorded is not None:
            return dict(recorded.before)
        with self._really(context):
            return super().capture(context)

    def run(self, context: StepContext) -> JsonObject:
        recorded = self._recorded(context)
        if recorded is None:
            with self._really(context):
                return super().run(context)
        self._spend(recorded, context.http)
        sent = self._send_to_nobody(context) if self.effect else 0
        if recorded.error is not None:
            context.http.doubtful += recorded.kind == "unknown"
            raise _ERRORS[recorded.kind](recorded.error)
        context.http.landed += sent
        return dict(recorded.result)

    def _spend(self, recorded: Answer, http: Wire) -> None:
        if not recorded.takes:
            return
        left = None if http.deadline is None else timedelta(seconds=http.deadline - time.monotonic())
        self._theatre.current.pass_time(recorded.takes)
        if left is not None and recorded.takes >= left:
            raise RetryableError("the deadline has passed")

    def _send_to_nobody(self, context: StepContext) -> int:
        """Let the action write to a wire that leads nowhere; how many writes it made.

        The journal has them, as far as they do not depend on answers.
        """
        with NowhereWire(context.http) as http:
            try:
                super().run(replace(context, http=http))
            except Exception:
                pass  # it needed an answer, and what it sent before that is on record
            return http.landed

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        recorded = self._recorded(context)
        return super().settled(context, before) if recorded is None else None

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        recorded = self._recorded(context)
        if recorded is not None:
            return self._theatre.current.held(recorded)
        return super().verify(context, before, result)


class _Keeping(Sink):
    """Takes every record that the sink itself can encode."""

    _uses: str
    _theatre: Theatre

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.encodes_early = False  # it keeps what it encodes
        self._raws: dict[bytes, bytes] = {}

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        self._theatre.current.take(self._uses, [one.raw for one in records])
        return [Receipt(f"kept-{place + 1}") for place, _ in enumerate(records)]

    def encode(self, raw: Any) -> bytes:
        """As a `BulkSink` is asked."""
        encoded: bytes = super().encode(raw)  # type: ignore[misc]  # only a `BulkSink` comes here
        self._raws[encoded] = bytes(memoryview(raw))
        return encoded

    def encode_all(self, raws: Sequence[Any]) -> list[bytes]:
        """As a `BulkSink` is asked."""
        return [self.encode(raw) for raw in raws]

    def send(self, context: Context, parts: Sequence[bytes]) -> Sequence[Receipt]:
        """As a `BulkSink` is asked."""
        self._theatre.current.take(self._uses, [self._raws[part] for part in parts])
        return [Receipt(f"kept-{place + 1}") for place, _ in enumerate(parts)]


class NowhereWire(Wire):
    """Writes are told to whoever keeps the journal and answered with nothing; a read has no answer."""

    def __init__(self, real: Wire) -> None:
        super().__init__(real.connection, before_write=real.before_write)

    def _until_final(self, request: requests.PreparedRequest, write: bool, *_more: Any) -> requests.Response:
        self._pinned_origin(request)
        if not write:
            raise PermanentError("nothing answers here")
        if self.before_write is not None:
            self.before_write(request)
        self.landed += 1
        return _Nothing(request)


class Unanswered(PermanentError):
    """Somebody asked a service, and the case holds no answer."""

    def __init__(self, request: str) -> None:
        super().__init__(f"the case holds no answer to {request}")
        self.request = request


class OfflineWire(Wire):
    """Refuses everything: what a case needs from a service stands in the case."""

    def _until_final(self, request: requests.PreparedRequest, *_more: Any) -> requests.Response:
        raise Unanswered(f"{request.method} {request.url}")


def stand_in_connection(cls: type[Connection]) -> type[Connection]:
    """A connection that leads nowhere: it signs nothing in, and gives its secrets to nobody."""
    return type(cls.__name__, (_Nowhere, cls), {"__module__": cls.__module__})


class _Nowhere(Connection):
    def own_names(self) -> Collection[str]:
        return ()

    def authorize(self, request: requests.PreparedRequest) -> None:
        """Nobody sees the request."""

    def secret(self, key: str) -> str:
        raise Unanswered(f"a sign-in with `{key}` of the connection {self.label}")


class GivenTrigger(Trigger):
    """Hands out given events under the keys that the playbook's own trigger tells for them."""

    name = "given"

    def __init__(self, real: Trigger, meta: JsonObject) -> None:
        super().__init__(real.arguments)
        self._real = real
        self._meta = meta

    def delivery_key(self, event: Event) -> str | None:
        return self._real.delivery_key(event)

    def run_key(self, event: Event) -> str | None:
        return self._real.run_key(event)

    def meta(self, unit: Unit) -> JsonObject:
        return self._meta
