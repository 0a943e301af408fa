"""What a step can tell the run instead of doing something: wait, ask a person, call a playbook, stop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from counterplay.events import JsonObject

OnTimeout = Literal["deny", "approve", "fail"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Go on after this time. The result is `{"until": time}`."""

    duration: timedelta


@dataclass(frozen=True, slots=True)
class Ask:
    """Go on when people answered, or when the time is up; `on_timeout` is the answer then.

    `people` is how many different ones have to approve; one who denies decides. `form` is a JSON Schema
    of what whoever approves fills in. The result is `{"approved", "by", "comment", "answers", "at",
    "timed_out"}`.
    """

    question: str
    timeout: timedelta | None = None
    on_timeout: OnTimeout = "deny"
    people: int = 1
    form: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Run another playbook to its end; `event` is the run's own where none is given.

    The result is `{"run", "status", "error", "steps"}`; a call that fails fails the step.
    """

    playbook: str
    inputs: JsonObject
    event: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run here; `finally` and the sinks still follow."""

    status: Literal["succeeded", "failed"]
    reason: str = ""


Directive = Pause | Ask | Call | Stop
