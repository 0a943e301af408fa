"""What a running segment knows, and the ways in which a walk through its steps ends early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from counterplay.clock import now
from counterplay.events import JsonObject
from counterplay.language import Playbook, Step
from counterplay.store.runs import Lease, StoredRun, StoredStep


class Parked(Exception):
    """The run waits as a row; its next segment goes on from there."""


class RunStopped(Exception):
    """`std.stop` was reached, at a step of this run or of a run inside it."""

    def __init__(self, status: str, reason: str, step_id: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.step_id = step_id

    @property
    def error(self) -> str | None:
        """Why the run failed; None when it was told to end well."""
        if self.status != "failed":
            return None
        return f"step {self.step_id}: it stopped the run" + (f": {self.reason}" if self.reason else "")

    @classmethod
    def of(cls, document: JsonObject) -> RunStopped:
        return cls(document["status"], document["reason"], document["step"])

    def to_document(self) -> JsonObject:
        return {"status": self.status, "reason": self.reason, "step": self.step_id}


class RunCancelled(Exception):
    """Somebody asked the run to end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed: `chain` are the failed step and the groups around it, innermost first."""

    error: str
    chain: tuple[str, ...]
    passing: bool = False


class StepFailed(Exception):
    """A step failed, and nothing in the playbook handles it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Frame:
    """What the steps at one place see besides the run's: `item`, `error`, and when their time is up."""

    names: Mapping[str, Any] = field(default_factory=dict)
    deadline: datetime | None = None
    element_of: str | None = None

    def within(self, deadline: datetime | None) -> Frame:
        """The frame inside a step with a deadline of its own."""
        return replace(self, deadline=earliest(self.deadline, deadline), element_of=None)

    def handling(self, step_id: str, error: str) -> Frame:
        """The frame of the steps under `on_error`."""
        return replace(
            self, names={**self.names, "error": {"step": step_id, "message": error}}, element_of=None
        )

    @property
    def expired(self) -> bool:
        return self.deadline is not None and now() >= self.deadline


@dataclass
class Segment:
    """A run at work: its playbook, the rows of its steps, and what expressions see of them."""

    run: StoredRun
    playbook: Playbook
    lease: Lease
    event: JsonObject
    positions: Mapping[str, int]
    rows: dict[str, StoredStep] = field(default_factory=dict)
    steps: dict[str, JsonObject] = field(default_factory=dict)
    retried: dict[str, int] = field(default_factory=dict)
    ending: JsonObject = field(default_factory=dict)
    internal: JsonObject | None = None
    """What counts as inside, for a playbook that asks."""

    def scope(self, frame: Frame) -> Mapping[str, Any]:
        return {
            "event": self.event,
            "meta": self.run.meta,
            "inputs": self.run.inputs,
            **({} if self.internal is None else {"internal": self.internal}),
            "steps": self.steps,
            "run": {
                "id": self.run.id,
                "playbook": self.run.playbook,
                "created": self.run.created,
                **self.ending,
            },
            **frame.names,
        }

    @cached_property
    def looks(self) -> Mapping[str, Sequence[str]]:
        """When to look again whether the effect of a step still holds, by step."""
        steps = all_steps((*self.playbook.run_steps, *self.playbook.finally_steps))
        return {name: step.verify_after for name, step in steps.items() if step.verify_after}

    def position(self, step_id: str) -> int:
        return self.positions.get(step_id, len(self.positions))

    def keep(self, row: StoredStep) -> None:
        """The row as it stands now, for the walk and for expressions."""
        self.rows[row.step_id] = row
        if row.ended is not None:
            self.steps[row.step_id] = seen(row)


def seen(row: StoredStep) -> JsonObject:
    """What expressions see of a step."""
    about: JsonObject = {"status": row.status, "error": row.error}
    if row.result is not None:
        about["result"] = row.result
    return about


def at_step(run_id: str, failure: Failure) -> str:
    """Why a run failed: its step and the error, which stands alone where it names a run inside already."""
    if failure.error.startswith(f"{run_id}/"):
        return failure.error
    return f"step {failure.chain[0]}: {failure.error}"


def inside(child: StoredRun) -> str:
    """The error of a run inside another one, with its place named once, however deep that is."""
    error = child.error or child.status
    return error if error.startswith(f"{child.id}/") else f"{child.id} ({child.playbook}): {error}"


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of several times, of those that are set."""
    return min((one for one in moments if one is not None), default=None)


def all_steps(steps: tuple[Step, ...]) -> dict[str, Step]:
    """Every step by its id, at any depth."""
    found: dict[str, Step] = {}
    for step in steps:
        found[step.id] = step
        found.update(all_steps(step.steps))
        if isinstance(step.on_error, tuple):
            found.update(all_steps(step.on_error))
    return found


def back_off(step: Step, failures: int, retry_after: float | None) -> timedelta:
    """How long to wait before the next attempt: doubled each time, or as the service asked."""
    assert step.retry is not None
    doubled = step.retry.backoff * float(2 ** min(failures - 1, 30))
    own = min(doubled, step.retry.max_backoff)
    return max(own, timedelta(seconds=retry_after or 0))
