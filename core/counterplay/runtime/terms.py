"""What was agreed about a run before it began, and has to hold before each of its effects.

A run that carries out an approved plan stops to ask when the state is not the one that was shown, or
when it would send something else. A run that takes effects back stops where somebody has changed the
target since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from counterplay.errors import CounterplayError, InterruptedWork
from counterplay.events import JsonObject
from counterplay.language.build import all_steps, step_ids
from counterplay.modules import Action, StepContext
from counterplay.runtime.opening import Opener
from counterplay.runtime.planning import rehearse
from counterplay.runtime.plans import Agreed
from counterplay.runtime.results import Outcome
from counterplay.runtime.undo import Undone
from counterplay.store.runs import StoredRun


class Terms(Protocol):
    """Asked once, after the target's state was captured and before anything is journalled or sent."""

    def check(self, action: Action, context: StepContext, before: JsonObject) -> Outcome | None:
        """How the step ends instead of having its effect; None: it may go on."""
        ...


def terms_of(run: StoredRun, step_id: str, opener: Opener) -> Terms | None:
    """The terms of one step, from what the run's row says; None for an ordinary run."""
    agreed = Agreed.of(run.meta)
    if agreed is not None:
        return AsPlanned(agreed, planned_name(run, step_id), opener)
    return Undone.of(run.meta, step_id, opener)


def planned_name(run: StoredRun, step_id: str) -> str:
    """What a plan calls a step of this run: `block[2]` in a third element, `call/block` in a called playbook.

    The run's id tells where it is: `<run>/<step>/<place>/...`.
    """
    steps = {own: step for step, own in _named_steps(run.document)}
    parts = run.id.split("/")[1:]
    prefix, suffix, inside = "", "", set[str]()
    for around, place in zip(parts[::2], parts[1::2], strict=False):
        step = steps.get(around)
        if step is None:  # it stands in the playbook that called this one
            prefix, suffix, inside = f"{prefix}{around}{suffix}/", "", set()
        elif "for_each" in step and around not in inside:
            suffix += f"[{place}]"
            inside.add(around)
    return f"{prefix}{step_id}{suffix}"


def _named_steps(document: JsonObject) -> Iterator[tuple[JsonObject, str]]:
    ids = step_ids(document)
    return ((step, ids[id(step)]) for step in all_steps(document))


@dataclass(frozen=True, slots=True)
class AsPlanned:
    """The step of a plan that a person approved."""

    agreed: Agreed
    step_id: str
    opener: Opener

    def check(self, action: Action, context: StepContext, before: JsonObject) -> Outcome | None:
        planned = self.agreed.steps.get(self.step_id)
        if planned is None:
            return _ask("the plan that was approved does not hold this effect")
        mask: Any = self.opener.secrets.mask_json
        if not planned.shares_target and planned.before != mask(before):
            changed = sorted(
                key for key in {*before, *planned.before} if before.get(key) != planned.before.get(key)
            )
            return _ask(f"the target is not as it was when the plan was made: {', '.join(changed)} differs")
        if planned.calls is None or planned.shares_target:
            return None  # the plan itself said that they would be known only now
        with self.opener.planning_wire(context.connection, writes=True) as http:
            try:
                _, calls, _ = rehearse(action, replace(context, http=http))
            except InterruptedWork:
                raise
            except CounterplayError as error:
                return Outcome("failed", error=str(error))
        if mask(calls) != planned.calls:
            return _ask(
                f"it would send {_listed(calls)}, and the approved plan says {_listed(planned.calls)}"
            )
        return None


@dataclass(frozen=True, slots=True)
class Waived:
    """Terms whose question a person has agreed to; what they refuse is refused all the same."""

    terms: Terms

    def check(self, action: Action, context: StepContext, before: JsonObject) -> Outcome | None:
        given = self.terms.check(action, context, before)
        return None if given is not None and given.status == "paused" else given


def _ask(reason: str) -> Outcome:
    text = f"{reason}; cancel the run and make a new plan, or agree to it"
    return Outcome("paused", error=text, asks="plan")


def _listed(calls: list[JsonObject]) -> str:
    return ", ".join(f"{one['method']} {one['url']} {one['body']}" for one in calls) or "nothing"
