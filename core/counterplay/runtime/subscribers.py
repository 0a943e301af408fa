"""A playbook as a feed sees it: what it lets through, what it delivers, what it starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterplay.errors import PermanentError
from counterplay.events import Event, JsonObject
from counterplay.language import Playbook
from counterplay.modules import Context, Sink, Transform
from counterplay.store.runs import OnceKey

BLOCKED_RETRY = 60.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass
class SinkPipe:
    """One sink of a playbook, ready to use. `name` identifies it in the ledger."""

    name: str
    sink: Sink
    context: Context


@dataclass
class Subscriber:
    """A playbook that subscribes to a feed, with everything that its batch path needs."""

    playbook: Playbook
    inputs: JsonObject
    renames: JsonObject
    transforms: Sequence[tuple[Transform, Context]] = ()
    sinks: Sequence[SinkPipe] = ()
    pause: Pause = field(default_factory=lambda: Pause())
    internal: Callable[[Mapping[str, Any]], JsonObject] = field(default=lambda _meta: {})
    """What counts as inside for an event with such `meta`; asked when the playbook wants to know."""
    starter: str | None = None
    """Who gave the events by hand; they may not approve what needs two people."""

    def once_key(self, event: Event) -> OnceKey | None:
        """What `once_per` says of the event. PermanentError: its key fails, or is empty."""
        rule = self.playbook.once_per
        if rule is None:
            return None
        scope = {"event": event.data, **self.scope(event.meta)}
        key = rule.key.render(scope)
        if key is None or key == "" or key == [] or key == {}:
            raise PermanentError("once_per.key is empty")
        text = key if isinstance(key, str) else json.dumps(key, sort_keys=True)
        return OnceKey(text, rule.window)

    def scope(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """What filter and `once_per` see besides the event. Raises what `internal` raises."""
        scope: dict[str, Any] = {"meta": meta, "inputs": self.inputs}
        if self.playbook.selects_by_internal:
            scope["internal"] = self.internal(meta)
        return scope

    @property
    def name(self) -> str:
        return self.playbook.name

    @property
    def starts_runs(self) -> bool:
        return bool(self.playbook.run_steps)


@dataclass
class Pause:
    """Back-pressure of one playbook: its sinks refuse, and the others go on."""

    until: float = 0.0
    failures: int = 0
    reason: str | None = None
    blocked: bool = False
    unanswered: bool = False
    """Its sink said nothing for long. What it says in the end counts more than that."""

    @property
    def active(self) -> bool:
        return time.monotonic() < self.until

    def begin(
        self, reason: str, *, blocked: bool, seconds: float | None = None, unanswered: bool = False
    ) -> None:
        """Hold the playbook back; each failure in a row doubles the time."""
        self.failures += 1
        if not seconds:  # `Retry-After: 0` must not become a busy loop
            seconds = (
                BLOCKED_RETRY
                if blocked
                else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.failures - 1, 5))
            )
        self.until = time.monotonic() + seconds
        self.reason = reason
        self.blocked = blocked
        self.unanswered = unanswered

    def clear(self) -> None:
        self.until, self.failures, self.reason = 0.0, 0, None
        self.blocked = self.unanswered = False
