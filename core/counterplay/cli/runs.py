"""`playbook runs`: what people see of durable runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import json_option, print_json, print_table, say
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

    from counterplay.store.runs import RunStore, StoredRun


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def runs(context: click.Context, as_json: bool) -> None:
    """List runs, show or follow one, cancel one, let one that failed go on."""
    if context.invoked_subcommand is None:
        context.invoke(list_runs, as_json=as_json)


@runs.command("list")
@click.option("--playbook", "name", help="Only runs of this playbook.")
@click.option(
    "--status",
    type=click.Choice(["queued", "running", "waiting", "blocked", "succeeded", "failed", "cancelled"]),
    help="Only runs in this status.",
)
@click.option("--entity", help="Only runs that touched this user or object, or whose event names it.")
@click.option(
    "--since", metavar="TIME", help="Only runs created since: 2026-03-02T08:00, or 4h for four hours ago."
)
@click.option("--until", metavar="TIME", help="Only runs created until then.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many."
)
@json_option
def list_runs(
    name: str | None,
    status: str | None,
    entity: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List runs, newest first."""
    first, last = _moment("--since", since), _moment("--until", until)
    with _store() as store:
        found = (
            store.newest(
                playbook=name,
                status=status,
                limit=limit,
                entity=entity,
                since=first,
                until=last,
                inside=False,
            )
            if store is not None
            else []
        )
    if as_json:
        print_json([_about(one) for one in found])
        return
    print_table(
        ["RUN", "PLAYBOOK", "STATUS", "CREATED", "ERROR"],
        [[one.id, one.playbook, one.status, one.created[:19] + "Z", _why(one)] for one in found],
    )


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@json_option
def show_run(run_id: str, as_json: bool) -> None:
    """Show one run as a timeline: attempts, durations, results, questions, effects. RUN may be cut short."""
    with _store() as store:
        store, run = _one(store, run_id)
        if not as_json:
            from counterplay.cli.timeline import print_timeline
            from counterplay.cli.undo import print_prospects

            print_timeline(store, run)
            print_prospects(store, run)
            return
        from counterplay.store.approvals import ApprovalStore
        from counterplay.store.watches import WatchStore

        print_json(
            {
                **_about(run),
                "event": _decoded(run.event),
                "inputs": run.inputs,
                "steps": [_fields(one) for one in store.steps(run.id)],
                "attempts": [_fields(one) for one in store.attempts(run.id)],
                "effects": [_fields(one) for one in store.effects(run.id)],
                "approvals": [_fields(one) for one in ApprovalStore(store.database).of_run(run.id)],
                "watches": [_fields(one) for one in WatchStore(store.database).of_run(run.id)],
                "inside": [
                    {
                        **_about(one),
                        "steps": [_fields(each) for each in store.steps(one.id)],
                        "effects": [_fields(each) for each in store.effects(one.id)],
                    }
                    for one in store.within(run.id)
                ],
            }
        )


@runs.command("cancel")
@click.argument("run_id", metavar="RUN")
def cancel(run_id: str) -> None:
    """Ask a run to end: it stops at its next step; `finally` and the sinks still follow."""
    from counterplay.people import this_person
    from counterplay.runtime.steering import cancel_run

    with _store() as store:
        store, run = _one(store, run_id)
        cancel_run(store, run, this_person())
    click.echo(f"{run.id} is asked to end; a worker (`playbook up`, or any `playbook run`) carries it out")


@runs.command("retry")
@click.argument("run_id", metavar="RUN")
@click.option("--from", "from_step", metavar="STEP", help="Go back to this step; all that follow run again.")
def retry(run_id: str, from_step: str | None) -> None:
    """Let a run that failed or was cancelled go on where it ended. What succeeded is not repeated."""
    from counterplay.people import this_person
    from counterplay.runtime.steering import retry_run

    with _store() as store:
        store, run = _one(store, run_id)
        again = retry_run(store, run, this_person(), from_step)
    what = f" from {', '.join(again)}" if again else ""
    click.echo(f"{run.id} goes on{what}; a worker (`playbook up`, or any `playbook run`) carries it out")


@runs.command("follow")
@click.argument("run_id", metavar="RUN")
def follow(run_id: str) -> None:
    """Print what a run does until it ends. Exits 0 when it succeeded, else 1."""
    import sys
    import time

    said: dict[tuple[str, str], str] = {}
    with _store() as store:
        store, run = _one(store, run_id)
        while True:
            current = store.get(run.id) or run
            for part in (current, *store.within(run.id)):
                for step in store.steps(part.id):
                    if said.get((part.id, step.step_id)) != step.status:
                        said[part.id, step.step_id] = step.status
                        error = f": {step.error}" if step.error else ""
                        say(f"{part.id}  {step.step_id}  {step.uses}  {step.status}{error}")
            reason = f": {current.error}" if current.error else ""
            if said.get((run.id, "")) != current.status + reason:
                said[run.id, ""] = current.status + reason
                say(f"{run.id}  {current.status}{reason}")
            if current.ended is not None:
                sys.exit(0 if current.status == "succeeded" else 1)
            time.sleep(_LOOK)


_LOOK = 0.5


def _one(store: RunStore | None, run_id: str) -> tuple[RunStore, StoredRun]:
    """The run whose id begins with the text. ConfigError: none does, or several do."""
    from counterplay.store.retention import was_deleted

    found = store.find(run_id) if store is not None else []
    exact = [one for one in found if one.id == run_id]
    whole = exact or [one for one in found if one.parent is None] or found
    if store is None or not whole:
        deleted = was_deleted(store.database, run_id) if store is not None else None
        if deleted is not None:
            raise ConfigError(
                f"run {run_id} was deleted at {deleted}: it was older than `retention:` says",
                hint="`playbook audit export` still has what it changed",
            )
        raise ConfigError(f"there is no run {run_id!r}", hint="`playbook runs list` shows them")
    if len(whole) > 1:
        raise ConfigError(f"{len(whole)} runs begin with {run_id!r}", hint="write more of its id")
    return store, whole[0]


def _moment(option: str, text: str | None) -> datetime | None:
    from datetime import UTC, datetime

    from counterplay.clock import now
    from counterplay.language import parse_duration

    if text is None:
        return None
    try:
        if not text[:1].isdigit() or "-" not in text:
            return now() - parse_duration(text)
        found = datetime.fromisoformat(text)
    except (ConfigError, ValueError) as error:
        raise ConfigError(
            f"{option} {text}: no time", hint="write 2026-03-02T08:00 (UTC), or 4h for four hours ago"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@contextmanager
def _store() -> Iterator[RunStore | None]:
    """The store, opened beside a worker; None when nothing has run yet."""
    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import existing_database
    from counterplay.store.runs import RunStore

    with existing_database(open_workspace().store_url) as database:
        yield RunStore(database) if database is not None else None


def _why(run: StoredRun) -> str:
    """What went wrong, or what it waits for; of one that goes on that is over."""
    return run.error or "" if run.status != "queued" else ""


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
        "parent": run.parent,
        "cancel": run.cancel,
    }


def _fields(record: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)


def _decoded(raw: bytes) -> Any:
    from counterplay.events import Event

    return Event(raw).data
