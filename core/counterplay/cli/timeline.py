"""A run as people read it: what happened, when, how long it took, and what it left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from counterplay.cli.output import say
from counterplay.clock import from_text
from counterplay.store.approvals import ApprovalStore, StoredApproval
from counterplay.store.runs import RunStore, StoredEffect, StoredRun, StoredStep

_HELD = {None: "", True: ", read back: it holds", False: ", read back: it does NOT hold"}


def print_timeline(runs: RunStore, run: StoredRun) -> None:
    """The run, its steps in order, and the runs inside it."""
    say(f"{run.id}  {run.playbook}  {run.status}", bold=True)
    ended = f", ended {_time(run.ended)} after {_took(run.created, run.ended)}" if run.ended else ""
    say(f"  tenant {run.tenant}, created {_time(run.created)}{ended}")
    if run.cancel:
        say(f"  cancelled by {run.cancel.get('by')} at {_time(run.cancel.get('at'))}")
    if run.error and run.status != "queued":  # what it waited for is over
        word = "error" if run.status in ("failed", "cancelled") else "waits for"
        say(f"  {word}: {run.error}")
    if run.wake:
        say(f"  goes on at {_time(run.wake)}")
    _print_steps(runs, run, "  ", ApprovalStore(runs.database).of_run(run.id))
    for line in _next(run):
        click.echo()
        say(f"  {line}")


def _print_steps(runs: RunStore, run: StoredRun, indent: str, questions: list[StoredApproval]) -> None:
    effects = {one.step_id: one for one in runs.effects(run.id)}
    attempts = runs.attempts(run.id)
    children = [one for one in runs.within(run.id) if one.parent == run.id]
    for step in runs.steps(run.id):
        click.echo()
        say(f"{indent}{_time(step.started)}  {step.step_id}  {step.uses}  {_how(step, run)}")
        inner = f"{indent}    "
        for one in attempts:
            if one.step_id == step.step_id:
                say(f"{inner}attempt {one.number}: {one.status}: {one.error or ''}")
        if step.error:
            say(f"{inner}error: {_where(run, step.error)}")
        for title, value in (("with", step.arguments), ("result", step.result)):
            if value not in (None, {}):
                say(f"{inner}{title}: {_short(value)}")
        for question in questions:
            if (question.run_id, question.step_id) == (run.id, step.step_id):
                _print_question(question, inner)
        if step.step_id in effects:
            _print_effect(effects[step.step_id], inner)
        for child in children:
            if child.parent_step == step.step_id:
                item = f"  item {_short(child.origin['item'])}" if "item" in child.origin else ""
                click.echo()
                say(f"{inner}{child.id}  {child.status}{item}")
                _print_steps(runs, child, inner + "  ", questions)


def _how(step: StoredStep, run: StoredRun) -> str:
    """How the step stands: what has not ended is at work only while its run is."""
    if step.status == "running" and run.status != "running":
        state = "left off" if run.ended else "queued" if run.status == "queued" else "waiting"
        return f"{state}{_attempts(step)}"
    took = f" in {_took(step.started, step.ended)}" if step.ended else ""
    return f"{step.status}{took}{_attempts(step)}"


def _attempts(step: StoredStep) -> str:
    return f", {step.attempts} attempts" if step.attempts > 1 else ""


def _where(run: StoredRun, error: str) -> str:
    """The error of a step; one of a run inside it stands there, further down."""
    return f"see {error.partition(' ')[0]}" if error.startswith(f"{run.id}/") else error


def _print_question(one: StoredApproval, indent: str) -> None:
    say(f"{indent}asked ({one.id}): {one.question}  {one.status}")
    for answer in one.answers:
        comment = f": {answer.comment}" if answer.comment else ""
        say(f"{indent}{_time(answer.at)}  {answer.person} ({answer.source}) {answer.decision}{comment}")


def _print_effect(effect: StoredEffect, indent: str) -> None:
    who = effect.subject or effect.target
    say(f"{indent}effect: {effect.status}{_HELD[effect.verified]} on {who}")
    if effect.settled:
        say(f"{indent}settled: {effect.settled}")
    say(f"{indent}before: {_short(effect.before)}")
    for call in effect.calls:
        body = f" {_short(call['body'])}" if call["body"] else ""
        say(f"{indent}sent: {call['method']} {call['url']}{body}")


def _next(run: StoredRun) -> Iterator[str]:
    """What a person can do now."""
    if run.status in ("failed", "cancelled"):
        yield f"`playbook runs retry {run.id}` goes on where it ended"
    elif run.ended is None:
        yield f"`playbook runs follow {run.id}` shows what happens; `playbook runs cancel {run.id}` ends it"


def _time(text: str | None) -> str:
    return f"{text[:19]}Z" if text else "-"


def _took(start: str, end: str | None) -> str:
    if end is None:
        return "-"
    seconds = (from_text(end) - from_text(start)).total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + f"… ({len(text):,} characters; --json shows all)"
