"""Runs, their steps and effects as they pass between the store and those who work on them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from counterplay.events import JsonObject

ENDED = ("succeeded", "failed", "cancelled")


def run_id(tenant: str, playbook: str, run_key: str) -> str:
    """The identity of a run: the same event cannot start it twice, whatever the playbook says by then."""
    digest = hashlib.sha256("\0".join((tenant, playbook, run_key)).encode("utf-8", "surrogatepass"))
    return f"r-{digest.hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be started: `document` is the playbook snapshot, `connections` the renaming of its set."""

    id: str
    tenant: str
    playbook: str
    run_key: str
    document: JsonObject
    event: bytes
    meta: JsonObject
    inputs: JsonObject
    connections: JsonObject
    once: OnceKey | None = None


@dataclass(frozen=True, slots=True)
class OnceKey:
    """What `once_per` says of an event: at most one run for the key within the window."""

    key: str
    window: timedelta


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it stands. `outcome` is how its steps ended, known before its sinks are done.

    `parent`, `parent_step` and `origin` are those of a child: `origin["role"]` is `branch` (of
    `parallel`), `element` (of `for_each`) or `call` (a playbook that was called).
    """

    id: str
    tenant: str
    playbook: str
    document: JsonObject
    event: bytes
    meta: JsonObject
    inputs: JsonObject
    connections: JsonObject
    status: str
    segment: int
    outcome: str | None
    error: str | None
    created: str
    started: str | None
    ended: str | None
    wake: str | None
    rank: str = ""
    parent: str | None = None
    parent_step: str | None = None
    place: int | None = None
    origin: JsonObject = field(default_factory=dict)
    stop: JsonObject | None = None
    cancel: JsonObject | None = None
    failed_at: JsonObject | None = None
    tell: str | None = None


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt that did not end its step."""

    step_id: str
    number: int
    status: str
    error: str | None
    started: str
    ended: str | None


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as it stands. `result` is what the action returned; `due` when its wait or back-off ends."""

    step_id: str
    uses: str
    status: str
    attempts: int
    arguments: Any
    result: Any
    error: str | None
    started: str
    ended: str | None
    due: str | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class StoredEffect:
    """An entry of the effect journal."""

    run_id: str
    step_id: str
    uses: str
    tenant: str
    connection: str
    target: str | None
    subject: str | None
    arguments: JsonObject
    before: JsonObject
    calls: list[JsonObject]
    status: str
    result: Any
    error: str | None
    verified: bool | None
    settled: str | None
    at: str


@dataclass(frozen=True, slots=True)
class EffectEnd:
    """What became of an effect: `status` is done, failed, refused or unknown, `after` the target's state."""

    status: str
    result: Any = None
    error: str | None = None
    verified: bool | None = None
    settled: str | None = None
    after: Any = None
