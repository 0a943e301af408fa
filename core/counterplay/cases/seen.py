"""What came of a case, as far as it can be expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from counterplay.events import JsonObject

Fact = tuple[str, str, str]
"""(playbook, point, branch) that was taken: `("contain", "step block", "skipped")`."""


@dataclass(frozen=True, slots=True)
class SeenStep:
    """A step that was reached. `whole`: a group, `parallel` or loop, whose parts have steps of their own."""

    name: str
    status: str
    result: Any
    error: str | None
    whole: bool


@dataclass(frozen=True, slots=True)
class SeenLook:
    """A later look at an effect. `held` is None when that cannot be told; `report` what people are told."""

    step: str
    after: str
    held: bool | None
    report: str | None


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run with all that belongs to it."""

    id: str
    status: str
    error: str | None
    steps: Mapping[str, SeenStep]
    effects: tuple[JsonObject, ...]
    questions: tuple[str, ...]
    looks: tuple[SeenLook, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a case. `records` are the bytes that each sink took; `trouble` is what cannot be right."""

    runs: tuple[SeenRun, ...] = ()
    records: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    given: tuple[bytes, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    took: timedelta = timedelta(0)
    tenant: JsonObject | None = None
    trouble: tuple[str, ...] = ()
    facts: frozenset[Fact] = frozenset()
