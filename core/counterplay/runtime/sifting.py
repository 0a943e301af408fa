"""Which events of a unit a playbook wants: its filter and leading transforms, at no more cost than needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from counterplay.events import Event
from counterplay.modules import BulkSink
from counterplay.runtime.subscribers import Subscriber
from counterplay.runtime.units import Opened


@dataclass(frozen=True, slots=True)
class Plan:
    """What a playbook's batch path has to see of an event.

    `fields`: the top-level members that its filter names; `whole`: its filter looks at all of it.
    `slices`: its bytes are enough for everything that comes after the filter.
    """

    fields: frozenset[str]
    whole: bool
    slices: bool


@dataclass(slots=True)
class Selected:
    """The events that go on, by index, and as objects where the playbook needs them."""

    indices: Sequence[int]
    events: Sequence[Event] | None
    filtered: int = 0
    condition_errors: int = 0
    dropped: int = 0
    first_error: str | None = None
    unreadable: list[tuple[int, str]] = field(default_factory=list)


def plan_of(taker: Subscriber) -> Plan:
    """What the playbook needs, known before the first event."""
    names: set[str] = set()
    whole = False
    condition = taker.playbook.filter
    for reference in condition.references if condition is not None else ():
        if reference.path[0] != "event":
            continue
        if len(reference.path) > 1 and isinstance(reference.path[1], str):
            names.add(reference.path[1])
        else:
            whole = True
    slices = (
        not taker.starts_runs
        and not taker.transforms
        and all(isinstance(pipe.sink, BulkSink) for pipe in taker.sinks)
    )
    return Plan(frozenset(() if whole else names), whole, slices)


def select(taker: Subscriber, plan: Plan, opened: Opened, indices: Sequence[int]) -> Selected:
    """Filter, then the leading transforms. What a transform raises passes through.

    So does what `internal` raises, before any event is judged without knowing what is inside.
    """
    chosen = Selected(indices, None)
    scope = taker.scope(opened.meta)
    if taker.playbook.filter is not None:
        _filter(taker, scope, plan, opened, chosen)
    if plan.slices:
        return chosen
    events: Sequence[Event] = [opened.event(index) for index in chosen.indices]
    before = len(events)
    for transform, context in taker.transforms:
        events = transform.apply(context, events)
    chosen.events = events
    chosen.dropped = before - len(events)
    return chosen


def _filter(taker: Subscriber, scope: dict[str, Any], plan: Plan, opened: Opened, chosen: Selected) -> None:
    condition = taker.playbook.filter
    assert condition is not None
    evaluate = condition.evaluate
    fields = opened.fields if opened.complete or not plan.whole else None
    kept: list[int] = []
    for index in chosen.indices:
        if fields is not None:
            scope["event"] = fields[index]
        else:
            try:
                scope["event"] = _decoded(opened, index)
            except (ValueError, RecursionError) as error:
                chosen.unreadable.append((index, f"the event cannot be read: {error}"))
                continue
        truth = evaluate(scope)
        if truth.error is not None:
            chosen.condition_errors += 1
            chosen.first_error = chosen.first_error or truth.error
        if truth.value:
            kept.append(index)
    chosen.filtered = len(chosen.indices) - len(kept) - len(chosen.unreadable)
    chosen.indices = kept


def _decoded(opened: Opened, index: int) -> Mapping[str, Any]:
    raw = opened.raws[index]
    try:
        found: Mapping[str, Any] = orjson.loads(memoryview(raw))
    except orjson.JSONDecodeError:
        found = json.loads(bytes(raw))
    return found
