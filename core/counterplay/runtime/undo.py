"""Taking effects back: which can be, the run that does it, and what has to hold before each.

An undo is a run like any other, with effects, guards, a journal and a plan: one step for each effect, the
last effect first, from the state that was captured before it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from counterplay.clock import now, to_text
from counterplay.errors import ConfigError, InterruptedWork, as_work_error
from counterplay.events import Inverse, JsonObject, encoded
from counterplay.modules import Action, StepContext
from counterplay.plugins import PluginHost
from counterplay.runtime.opening import Opener
from counterplay.runtime.results import Outcome
from counterplay.store.runs import NewRun, StoredEffect, StoredRun, run_id

_NAME = 90
"""Characters of a playbook's name that an undo's own name holds."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """One effect and how it can be taken back: `inverse`, or `why` not.

    `stands`: the effect is there, or may be, and will still be there after an undo.
    """

    effect: StoredEffect
    inverse: Inverse | None
    why: str | None = None
    stands: bool = False

    @property
    def nothing(self) -> bool:
        """The effect took place, and there was nothing to change."""
        return self.effect.status == "done" and self.inverse is None and not self.stands


def prospects(host: PluginHost, effects: Sequence[StoredEffect]) -> list[Prospect]:
    """What can be said of each effect, the last one first."""
    return [_prospect(host, one) for one in reversed(effects)]


def _prospect(host: PluginHost, effect: StoredEffect) -> Prospect:
    if effect.status in ("failed", "refused"):
        return Prospect(effect, None, "it did not take place")
    if effect.status != "done":
        return Prospect(effect, None, "whether it took place is not known: look at the target", True)
    try:
        action = _action(host, effect.uses, effect.arguments)
    except ConfigError as error:
        return Prospect(effect, None, str(error), True)
    if type(action).inverse is Action.inverse:
        return Prospect(effect, None, f"{effect.uses} cannot be taken back", True)
    try:
        inverse = action.inverse(effect.before, effect.result or {})
    except Exception as error:
        return Prospect(effect, None, str(as_work_error(error, effect.uses)), True)
    if inverse is None:
        return Prospect(effect, None, "it changed nothing, so there is nothing to take back")
    return Prospect(effect, inverse)


def undo_run(run: StoredRun, chosen: Sequence[Prospect], *, force: bool, by: str) -> NewRun:
    """The run that takes these effects back, in this order. Those without an inverse are left out."""
    able = [one for one in chosen if one.inverse is not None]
    name = f"undo-{run.playbook}"[:_NAME].rstrip("-_.")
    steps: list[JsonObject] = []
    terms: JsonObject = {}
    effects: list[JsonObject] = []
    for number, one in enumerate(able):
        assert one.inverse is not None
        step_id = f"undo_{number + 1}"
        # Arguments go through the event: as part of the document, their texts would be templates.
        path = f"event.effects[{number}].arguments"
        steps.append(
            {
                "id": step_id,
                "uses": one.inverse.uses,
                "with": {key: "{{ " + f"{path}[{_quoted(key)}]" + " }}" for key in one.inverse.arguments},
                "on_error": "continue",
                **({"connection": one.effect.connection} if one.effect.connection else {}),
            }
        )
        effects.append({"uses": one.effect.uses, "arguments": one.inverse.arguments})
        terms[step_id] = {
            "run": one.effect.run_id,
            "step": one.effect.step_id,
            "uses": one.effect.uses,
            "arguments": one.effect.arguments,
            "before": one.effect.before,
            "result": one.effect.result,
            "force": force,
        }
    document: JsonObject = {
        "name": name,
        "description": f"Take back what the run {run.id} of {run.playbook} did.",
        "trigger": run.document["trigger"],
        "steps": steps,
    }
    key = f"undo:{run.id}:{uuid.uuid4()}"
    meta = {name: value for name, value in run.meta.items() if not name.startswith("_")}
    return NewRun(
        id=run_id(run.tenant, name, key),
        tenant=run.tenant,
        playbook=name,
        run_key=key,
        document=document,
        event=encoded({"undo": run.id, "by": by, "at": to_text(now()), "effects": effects}),
        meta={**meta, "_undo": {"run": run.id, "steps": terms}},
        inputs={},
        connections={},
    )


@dataclass(frozen=True, slots=True)
class Undone:
    """The terms of one step of an undo: the effect still stands as it was made."""

    about: JsonObject
    opener: Opener

    @classmethod
    def of(cls, meta: JsonObject, step_id: str, opener: Opener) -> Undone | None:
        """The terms of a step, from its run's row; None when the run takes nothing back."""
        steps = (meta.get("_undo") or {}).get("steps") or {}
        return cls(steps[step_id], opener) if step_id in steps else None

    def check(self, action: Action, context: StepContext, before: JsonObject) -> Outcome | None:
        """Skipped when all is as it was before the effect; failed when somebody changed the target since."""
        from dataclasses import replace

        original = _action(self.opener.host, self.about["uses"], self.about["arguments"])
        with self.opener.planning_wire(context.connection, writes=False) as http:
            reading = replace(context, http=http)
            try:
                present = self.opener.secrets.mask_json(original.capture(reading))
                if present == self.about["before"]:
                    return Outcome("skipped", error="it is as it was before the effect: nothing to take back")
                if self.about["force"]:
                    return None
                held = original.verify(reading, self.about["before"], self.about["result"] or {})
            except InterruptedWork:
                raise
            except Exception as error:
                return Outcome("failed", error=str(as_work_error(error, self.about["uses"])))
        if held is False:
            return Outcome(
                "failed",
                error=f"the effect of {self.about['uses']} does not stand any more: somebody changed the "
                f"target since ({_changes(self.about['before'], present)}); --force takes it back anyway",
            )
        return None


def _action(host: PluginHost, uses: str, arguments: JsonObject) -> Action:
    action = host.module(uses).cls(arguments)
    if not isinstance(action, Action):
        raise ConfigError(f"{uses} is no action any more")
    return action


def _changes(before: JsonObject, present: Any) -> str:
    keys = sorted(key for key in {*before, *present} if before.get(key) != present.get(key))
    return f"other than before: {', '.join(keys)}" if keys else "as before"


def _quoted(text: str) -> str:
    """A text as a literal of an expression."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
