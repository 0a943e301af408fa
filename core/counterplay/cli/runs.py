"""`playbook runs`: what people see of durable runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.store.runs import RunStore, StoredRun


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def runs(context: click.Context, as_json: bool) -> None:
    """List runs, or show one with its steps and effects."""
    if context.invoked_subcommand is None:
        context.invoke(list_runs, as_json=as_json)


@runs.command("list")
@click.option("--playbook", "name", help="Only runs of this playbook.")
@click.option(
    "--status",
    type=click.Choice(["queued", "running", "waiting", "blocked", "succeeded", "failed", "cancelled"]),
    help="Only runs in this status.",
)
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many."
)
@json_option
def list_runs(name: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List runs, newest first."""
    with _store() as store:
        found = store.newest(playbook=name, status=status, limit=limit) if store is not None else []
    if as_json:
        print_json([_about(one) for one in found])
        return
    print_table(
        ["RUN", "PLAYBOOK", "STATUS", "CREATED", "ERROR"],
        [[one.id, one.playbook, one.status, one.created[:19] + "Z", one.error or ""] for one in found],
    )


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@json_option
def show_run(run_id: str, as_json: bool) -> None:
    """Show one run: its steps with results, its effects with the state before them. RUN may be cut short."""
    with _store() as store:
        found = store.find(run_id) if store is not None else []
        if not found:
            raise ConfigError(f"there is no run {run_id!r}", hint="`playbook runs list` shows them")
        if len(found) > 1:
            raise ConfigError(f"{len(found)} runs begin with {run_id!r}", hint="write more of its id")
        assert store is not None
        run = found[0]
        steps = store.steps(run.id)
        effects = store.effects(run.id)
    if as_json:
        print_json(
            {
                **_about(run),
                "event": _decoded(run.event),
                "inputs": run.inputs,
                "steps": [_fields(one) for one in steps],
                "effects": [_fields(one) for one in effects],
            }
        )
        return
    click.echo(click.style(f"{run.id}  {run.playbook}  {run.status}", bold=True))
    click.echo(f"  tenant {run.tenant}, created {run.created}, ended {run.ended or '-'}")
    if run.error:
        click.echo(f"  error: {run.error}")
    for step in steps:
        attempts = f", {step.attempts} attempts" if step.attempts > 1 else ""
        click.echo(f"\n  {step.step_id}  {step.uses}  {step.status}{attempts}")
        if step.error:
            click.echo(f"      error: {step.error}")
        for title, value in (("with", step.arguments), ("result", step.result)):
            if value not in (None, {}):
                click.echo(f"      {title}: {_short(value)}")
        for effect in (one for one in effects if one.step_id == step.step_id):
            held = {None: "", True: ", read back: it holds", False: ", read back: it does NOT hold"}
            click.echo(
                f"      effect: {effect.status}{held[effect.verified]} on {effect.subject or effect.target}"
            )
            if effect.settled:
                click.echo(f"      settled: {effect.settled}")
            click.echo(f"      before: {_short(effect.before)}")
            for call in effect.calls:
                body = _short(call["body"]) if call["body"] else ""
                click.echo(f"      sent: {call['method']} {call['url']} {body}")


@contextmanager
def _store() -> Iterator[RunStore | None]:
    """The store, opened beside a worker; None when nothing has run yet."""
    from pathlib import Path

    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import open_database
    from counterplay.store.runs import RunStore

    url = open_workspace().store_url
    if not Path(url.removeprefix("sqlite:///")).exists():
        yield None
        return
    database = open_database(url, create=False)
    try:
        yield RunStore(database)
    finally:
        database.close()


def _about(run: StoredRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "playbook": run.playbook,
        "tenant": run.tenant,
        "status": run.status,
        "error": run.error,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "wake": run.wake,
    }


def _fields(record: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)


def _decoded(raw: bytes) -> Any:
    from counterplay.events import Event

    return Event(raw).data


def _short(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + f"… ({len(text):,} characters; --json shows all)"
