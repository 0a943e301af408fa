"""What people do to runs from outside: cancel one, or let one that ended go on."""

from __future__ import annotations

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language.build import step_ids
from counterplay.store.children import cancel, has_effect, reopen
from counterplay.store.runs import ENDED, RunStore, StoredRun


def cancel_run(runs: RunStore, run: StoredRun, by: str) -> None:
    """Ask a run to end. Its `finally` and its sinks still follow. ConfigError: it ended already."""
    if run.status in ENDED:
        raise ConfigError(f"run {run.id} ended already: {run.status}")
    with runs.database.write() as connection:
        cancel(connection, run.id, {"by": by, "at": to_text(now())})
        audit.append(connection, "command", {"command": "cancel"}, run_id=run.id, who=by)


def retry_run(runs: RunStore, run: StoredRun, by: str, from_step: str | None) -> list[str]:
    """Let a run that ended go on, with the playbook that it began with. Returns what is tried again.

    Without `from_step` it goes on where it failed or was cancelled: what succeeded is not repeated. With
    it, that step and all that follow run again, unless one of them changed something.

    ConfigError: it has not ended, there is nothing to try again, or that would repeat an effect.
    """
    if run.parent is not None:
        raise ConfigError(
            f"{run.id} is a part of another run", hint=f"`playbook runs retry {run.id.partition('/')[0]}`"
        )
    if run.status not in ENDED:
        raise ConfigError(f"run {run.id} has not ended: it is {run.status}")
    rows = runs.steps(run.id)
    if from_step is None:
        if run.status == "succeeded":
            raise ConfigError(f"run {run.id} succeeded", hint="name the step to go back to with --from STEP")
        failed = (run.failed_at or {}).get("steps", [])
        steps = [one.step_id for one in rows if one.step_id in failed or one.ended is None]
    else:
        steps = _from(run, from_step, [one.step_id for one in rows])
    again = [*steps, *_after_the_steps(run, [one.step_id for one in rows], steps)]
    note = f"tried again by {by}"
    with runs.database.write() as connection:
        repeated = again if from_step is not None else again[len(steps) :]
        for step_id in repeated:
            if has_effect(connection, run.id, step_id):
                if from_step is None:
                    again.remove(step_id)  # a step of `finally` that has done its work
                    continue
                raise ConfigError(
                    f"run {run.id}: the step {step_id} changed something, and would do it twice",
                    hint=f"`playbook undo {run.id}` takes it back, or retry without --from",
                )
        reopen(connection, run.id, again, note, everything=from_step is not None)
        audit.append(connection, "command", {"command": "retry", "steps": again}, run_id=run.id, who=by)
    return again


def _from(run: StoredRun, from_step: str, reached: list[str]) -> list[str]:
    order = list(step_ids(run.document).values())
    if from_step not in order:
        raise ConfigError(
            f"run {run.id} has no step {from_step!r}", hint=f"its steps: {', '.join(order) or 'none'}"
        )
    if from_step not in reached:
        raise ConfigError(
            f"run {run.id} did not come to the step {from_step!r}, or it stands in a branch or a loop",
            hint="name a step that `playbook runs show` lists for the run itself",
        )
    around = _around(run.document, from_step)
    later = order[order.index(from_step) :]
    return [one for one in reached if one in later or one in around]


def _around(document: JsonObject, step_id: str) -> list[str]:
    """The groups in which the step stands."""
    ids = step_ids(document)

    def search(steps: object) -> list[str] | None:
        for step in steps if isinstance(steps, list) else ():
            if ids[id(step)] == step_id:
                return []
            for key in ("steps", "parallel", "on_error"):
                found = search(step.get(key))
                if found is not None:
                    return [ids[id(step)], *found]
        return None

    return search(document.get("steps")) or search(document.get("finally")) or []


def _after_the_steps(run: StoredRun, reached: list[str], steps: list[str]) -> list[str]:
    """`finally` and the sinks run again: how the run ends will be told anew."""
    ids = step_ids(run.document)
    last = {ids[id(one)] for one in run.document.get("finally") or ()}
    return [one for one in reached if (one in last or one.startswith("sink:")) and one not in steps]
