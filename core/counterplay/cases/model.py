"""What a test of a playbook says: circumstances and expectations, read and ready to be tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from counterplay.events import JsonObject
from counterplay.language.durations import parse_duration

BEGINNING = datetime(2026, 3, 2, 8, tzinfo=UTC)
"""When a case begins that does not say when."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step's module gives in one attempt, instead of asking its service.

    `looks`: what a later look at its effect shows, by the time as the step's `verify` writes it; a text is
    why the target cannot be read then.
    """

    result: JsonObject = field(default_factory=dict)
    before: JsonObject = field(default_factory=dict)
    error: str | None = None
    kind: str = "permanent"
    verified: bool | None = None
    takes: timedelta = timedelta(0)
    looks: Mapping[str, bool | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saying:
    """What one person says to a question, and how long after it was put."""

    say: Literal["approve", "deny", "nothing"]
    by: str = "somebody"
    after: timedelta = timedelta(0)
    comment: str = ""
    form: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class GivenEvent:
    """An event that arrives, so long after the one before it."""

    event: JsonObject
    after: timedelta = timedelta(0)
    meta: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What others do to the simulated tenant, so long after the case began: its state from then on."""

    after: timedelta
    tenant: JsonObject


@dataclass(frozen=True, slots=True)
class Given:
    """The circumstances of a case. `tenant` is None when nothing is simulated.

    `asked`: the steps that have to ask, because this very case says what people answer.
    """

    now: datetime = BEGINNING
    inputs: JsonObject = field(default_factory=dict)
    events: tuple[GivenEvent, ...] = ()
    tenant: JsonObject | None = None
    meanwhile: tuple[Meanwhile, ...] = ()
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)
    approvals: Mapping[str, tuple[Saying, ...]] = field(default_factory=dict)
    guardrails: JsonObject = field(default_factory=dict)
    internal: JsonObject = field(default_factory=dict)
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `expect` is as it stands in the file; `line` is where the case begins."""

    name: str
    given: Given
    expect: JsonObject
    line: int = 1


@dataclass(frozen=True, slots=True)
class TestFile:
    """A file of cases about one playbook, by name or as a file."""

    __test__ = False  # pytest takes it for a test otherwise

    path: str
    playbook: str
    cases: tuple[Case, ...]


def given_from(shared: JsonObject, own: JsonObject) -> Given:
    """The circumstances of a case: what the file says of all its cases, overridden by the case's own.

    Inputs, answers and approvals are overridden one by one. A case that simulates a tenant takes none of
    the file's answers: its steps really run.
    """
    replaced = {"event", "events"} & set(own) and {"event", "events"}
    dropped = {*replaced, *(("answers",) if "tenant" in own else ())}
    shared = {name: value for name, value in shared.items() if name not in dropped}
    data = {**shared, **own}
    for name in ("inputs", "answers", "approvals"):
        if name in shared and name in own:
            data[name] = {**shared[name], **own[name]}
    events = [{"event": data["event"]}] if "event" in data else data.get("events", [])
    meta = data.get("meta", {})
    return Given(
        now=datetime.fromisoformat(data["now"]) if "now" in data else BEGINNING,
        inputs=data.get("inputs", {}),
        events=tuple(
            GivenEvent(one["event"], _duration(one.get("after")), {**meta, **one.get("meta", {})})
            for one in events
        ),
        tenant=data.get("tenant"),
        meanwhile=tuple(
            Meanwhile(_duration(one["after"]), one["tenant"]) for one in data.get("meanwhile", [])
        ),
        answers={
            step: tuple(Answer(**{**one, "takes": _duration(one.get("takes"))}) for one in _several(answers))
            for step, answers in data.get("answers", {}).items()
        },
        approvals={
            step: tuple(Saying(**{**one, "after": _duration(one.get("after"))}) for one in _several(said))
            for step, said in data.get("approvals", {}).items()
        },
        guardrails=data.get("guardrails", {}),
        asked=tuple(own.get("approvals", {})),
        internal=data.get("internal", {}),
    )


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _duration(text: str | None) -> timedelta:
    return parse_duration(text) if text is not None else timedelta(0)
