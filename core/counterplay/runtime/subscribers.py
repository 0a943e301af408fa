"""A playbook as a feed sees it: what it lets through, what it delivers, what it starts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from counterplay.errors import PermanentError
from counterplay.events import Event, JsonObject
from counterplay.language import Playbook
from counterplay.modules import Context, Sink, Transform
from counterplay.store.runs import OnceKey

BLOCKED_RETRY = 60.0
_LONGEST_PAUSE = 60.0


@dataclass
class SinkPipe:
    """One sink of a playbook, ready to use. `name` identifies it in the ledger."""

    name: str
    sink: Sink
    context: Context


@dataclass
class Sifted:
    """What the batch path made of a unit's events."""

    events: Sequence[Event]
    filtered: int
    condition_errors: int
    dropped: int
    first_error: str | None = None
    unreadable: Sequence[tuple[Event, str]] = ()


@dataclass
class Subscriber:
    """A playbook that subscribes to a feed, with everything that its batch path needs."""

    playbook: Playbook
    inputs: JsonObject
    renames: JsonObject
    transforms: Sequence[tuple[Transform, Context]] = ()
    sinks: Sequence[SinkPipe] = ()
    pause: Pause = field(default_factory=lambda: Pause())
    starter: str | None = None
    """Who gave the events by hand; they may not approve what needs two people."""

    def once_key(self, event: Event) -> OnceKey | None:
        """What `once_per` says of the event. PermanentError: its key fails, or is empty."""
        rule = self.playbook.once_per
        if rule is None:
            return None
        scope = {"event": event.data, "meta": event.meta, "inputs": self.inputs}
        key = rule.key.render(scope)
        if key is None or key == "" or key == [] or key == {}:
            raise PermanentError("once_per.key is empty")
        text = key if isinstance(key, str) else json.dumps(key, sort_keys=True)
        return OnceKey(text, rule.window)

    @property
    def name(self) -> str:
        return self.playbook.name

    @property
    def starts_runs(self) -> bool:
        return bool(self.playbook.run_steps)

    def sift(self, events: Sequence[Event]) -> Sifted:
        """Filter, then the leading transforms."""
        kept: list[Event] = []
        condition_errors = 0
        first_error: str | None = None
        unreadable: list[tuple[Event, str]] = []
        condition = self.playbook.filter
        for event in events:
            if condition is not None:
                try:
                    data = event.data
                except (ValueError, RecursionError) as error:
                    unreadable.append((event, f"the event cannot be read: {error}"))
                    continue
                truth = condition.evaluate({"event": data, "meta": event.meta, "inputs": self.inputs})
                if truth.error is not None:
                    condition_errors += 1
                    first_error = first_error or truth.error
                if not truth.value:
                    continue
            kept.append(event)
        filtered = len(events) - len(kept) - len(unreadable)
        passed: Sequence[Event] = kept
        for transform, context in self.transforms:
            passed = transform.apply(context, passed)
        dropped = len(kept) - len(passed)
        return Sifted(passed, filtered, condition_errors, dropped, first_error, unreadable)


@dataclass
class Pause:
    """Back-pressure of one playbook: its sinks refuse, and the others go on."""

    until: float = 0.0
    failures: int = 0
    reason: str | None = None
    blocked: bool = False

    @property
    def active(self) -> bool:
        return time.monotonic() < self.until

    def begin(self, reason: str, *, blocked: bool, seconds: float | None) -> None:
        """Hold the playbook back; each failure in a row doubles the time."""
        self.failures += 1
        if not seconds:  # `Retry-After: 0` must not become a busy loop
            seconds = BLOCKED_RETRY if blocked else min(_LONGEST_PAUSE, 2.0 ** min(self.failures, 6) / 2)
        self.until = time.monotonic() + seconds
        self.reason = reason
        self.blocked = blocked

    def clear(self) -> None:
        self.until, self.failures, self.reason, self.blocked = 0.0, 0, None, False
