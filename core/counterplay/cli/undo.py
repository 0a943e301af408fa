"""`playbook undo`: take back what a run did."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import json_option, print_json, say
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.plans import PlannedStep
    from counterplay.runtime.undo import Prospect
    from counterplay.store.runs import RunStore, StoredEffect, StoredRun

_NOTHING = "there is nothing to take back"


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--effect",
    "numbers",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="Take back only the Nth effect, as `--plan` numbers them; may be given more than once.",
)
@click.option("--force", is_flag=True, help="Take it back even where somebody changed the target since.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be sent, and send nothing.")
@json_option
def undo(run_id: str, numbers: tuple[int, ...], force: bool, only_plan: bool, as_json: bool) -> None:
    """Take back the effects of RUN and of its children, the last one first.

    Each is taken back from the state that was captured before it, by a durable run of its own that
    guards and the journal see like any other. What was changed since is left alone, unless --force is
    given; what fails is reported, and the rest goes on. RUN may be cut short.

    Exits 0 when everything that can be taken back is, 1 when something is not, 3 when it waits.
    """
    from counterplay.cli.loading import open_workspace
    from counterplay.cli.run import signals
    from counterplay.people import this_person
    from counterplay.runtime.carrying import carry_out
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.undo import undo_run

    workspace = open_workspace()
    stop = threading.Event()
    opener = Opener(workspace, stop)
    run, chosen, numbered = _chosen(opener, run_id, numbers)
    made = undo_run(run, chosen, force=force, by=this_person())
    if only_plan:
        _show_plan(opener, run.id, made.document, made.event, made.meta, chosen, numbered, as_json)
        return
    left = [one for one in chosen if one.inverse is None]
    able = [one for one in chosen if one.inverse is not None]
    report: list[dict[str, object]] = []
    code = 0
    if able:
        with signals(stop):
            carried = carry_out(opener, made.playbook, [made], stop, lambda text: say(text, err=True))
        code = carried.exit_code
        report = _steps(opener, made.id, able)
        if any(one["status"] == "failed" for one in report):
            code = 1
    for one in left:
        report.append(
            {"uses": one.effect.uses, "on": _whom(one.effect), "status": "not taken back", "why": one.why}
        )
        if one.stands:
            code = max(code, 1) if code != 3 else 3
    if as_json:
        print_json({"run": made.id if able else None, "undoes": run.id, "exit_code": code, "effects": report})
    else:
        say(f"undo of {run.id} ({run.playbook})" + (f": {_NOTHING}" if _idle(chosen) else ""), bold=True)
        for line in report:
            why = f": {line['why']}" if line["why"] else ""
            say(f"  {line['uses']} on {line['on']}: {line['status']}{why}")
        if able:
            say(f"  `playbook runs show {made.id}` shows what was sent")
    sys.exit(code)


def _idle(chosen: Sequence[Prospect]) -> bool:
    """Whether none of the effects took place, or none of them changed anything."""
    return not any(one.stands or one.inverse is not None for one in chosen)


def _chosen(
    opener: Opener, run_id: str, numbers: tuple[int, ...]
) -> tuple[StoredRun, list[Prospect], dict[int, int]]:
    from contextlib import closing

    from counterplay.runtime.undo import prospects
    from counterplay.store.database import open_database
    from counterplay.store.runs import ENDED, RunStore

    with closing(open_database(opener.workspace.store_url, create=False)) as database:
        store = RunStore(database)
        found = store.find(run_id)
        if not found:
            raise ConfigError(f"there is no run {run_id!r}", hint="`playbook runs list` shows them")
        if len(found) > 1 and found[0].id != run_id:
            raise ConfigError(f"{len(found)} runs begin with {run_id!r}", hint="write more of its id")
        run = next((one for one in found if one.id == run_id), found[0])
        if run.status not in ENDED:
            raise ConfigError(
                f"the run {run.id} is {run.status}", hint="let it end, or cancel it, before it is taken back"
            )
        effects = effects_of(store, run.id)
    if not effects:
        raise ConfigError(
            f"the run {run.id} changed nothing: {_NOTHING}",
            hint=f"`playbook runs show {run.id}` shows its steps",
        )
    for number in numbers:
        if number > len(effects):
            raise ConfigError(f"the run {run.id} has {len(effects)} effects, not {number}")
    every = prospects(opener.host, effects)
    numbered = {id(one): len(effects) - place for place, one in enumerate(every)}
    kept = [one for one in every if not numbers or numbered[id(one)] in numbers]
    return run, kept, {place: numbered[id(one)] for place, one in enumerate(kept)}


def print_prospects(store: RunStore, run: StoredRun) -> None:
    """What of a run can be taken back, what cannot, and what later looks at its effects showed."""
    from counterplay.plugins import PluginHost
    from counterplay.runtime.undo import prospects
    from counterplay.store.runs import ENDED
    from counterplay.store.watches import WatchStore

    effects = [one for one in effects_of(store, run.id) if one.status not in ("failed", "refused")]
    if not effects:
        if run.status in ("failed", "cancelled"):
            say(f"  it changed nothing: {_NOTHING}")
        return
    click.echo()
    every = prospects(PluginHost.load(), effects)
    for one in reversed(every):
        how = f"can be taken back by {one.inverse.uses}" if one.inverse is not None else str(one.why)
        say(f"  {one.effect.uses} on {_whom(one.effect)}: {how}")
    if run.status in ENDED and any(one.inverse is not None for one in every):
        say(f"  `playbook undo {run.id}` takes that back; with --plan it shows what it would send")
    for look in WatchStore(store.database).of_run(run.id):
        say(f"  {look.step_id} looked at after {look.after}: {look.detail or f'due {look.due[:19]}Z'}")


def effects_of(store: RunStore, run_id: str) -> list[StoredEffect]:
    """The journal of a run and of everything inside it, in order."""
    from counterplay.store.tables import effect

    return store._effects(
        (effect.c.run_id == run_id) | effect.c.run_id.startswith(f"{run_id}/", autoescape=True)
    )


def _whom(effect: StoredEffect) -> str:
    return effect.subject or effect.target or effect.connection or "?"


def _steps(opener: Opener, undo_id: str, able: list[Prospect]) -> list[dict[str, object]]:
    """How each effect stands, after the run that was to take it back."""
    from contextlib import closing

    from counterplay.runtime.undo import prospects
    from counterplay.store.database import open_database
    from counterplay.store.runs import RunStore

    with closing(open_database(opener.workspace.store_url)) as database:
        steps = {one.step_id: one for one in RunStore(database).steps(undo_id)}
        idle = {
            one.effect.step_id
            for one in prospects(opener.host, effects_of(RunStore(database), undo_id))
            if one.nothing and not one.effect.calls
        }
    words = {"succeeded": "taken back", "skipped": "was as before already", "failed": "failed"}
    report: list[dict[str, object]] = []
    for number, one in enumerate(able):
        step = steps.get(f"undo_{number + 1}")
        status = step.status if step is not None else "not reached"
        if step is not None and step.ended is None:
            status = "waits"
        elif status == "succeeded" and f"undo_{number + 1}" in idle:
            status = "skipped"  # it found nothing to do, and sent nothing
        error = step.error if step is not None and status == "failed" else None
        word = "failed" if status == "failed" else words.get(status, status)
        report.append({"uses": one.effect.uses, "on": _whom(one.effect), "status": word, "why": error})
    return report


def _show_plan(
    opener: Opener,
    run_id: str,
    document: dict[str, object],
    event: bytes,
    meta: dict[str, object],
    chosen: list[Prospect],
    numbered: dict[int, int],
    as_json: bool,
) -> None:
    from counterplay.cli.plan import print_plan
    from counterplay.events import Event
    from counterplay.language import from_document
    from counterplay.runtime.planning import Planner
    from counterplay.runtime.undo import Undone

    planner = Planner(
        opener,
        from_document(document, opener.host),
        {},
        {},
        terms=lambda step_id: Undone.of(meta, step_id, opener),
    )
    shown = {key: value for key, value in meta.items() if not key.startswith("_")}
    plan = planner.plan(Event(event, shown), str(meta.get("tenant", "")))
    left = [
        {"effect": numbered[place], "uses": one.effect.uses, "on": _whom(one.effect), "why": one.why}
        for place, one in enumerate(chosen)
        if one.inverse is None
    ]
    if as_json:
        print_json({"plan": plan.to_document(), "not_taken_back": left})
    else:
        if plan.steps:
            print_plan(plan)
        else:
            say(f"{run_id}: {_NOTHING if _idle(chosen) else 'nothing of it can be taken back'}", bold=True)
        steps = iter(plan.steps)
        for place, one in enumerate(chosen):
            how = _prospect(one, next(steps) if one.inverse is not None else None)
            say(f"  effect {numbered[place]}: {one.effect.uses} on {_whom(one.effect)}: {how}")
    if any(step.would_fail for step in plan.steps):
        sys.exit(1)


def _prospect(one: Prospect, step: PlannedStep | None) -> str:
    """What would become of one effect; `step` is that of the plan which takes it back."""
    if step is None or one.inverse is None:
        return f"not taken back: {one.why}"
    if step.would_fail:
        return f"not taken back: {step.note or step.guard}"
    return "is as before already" if step.does == "skipped" else f"taken back by {one.inverse.uses}"
