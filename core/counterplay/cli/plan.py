"""`playbook plan`: what a run would do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import counted, json_option, print_json, say, visible
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.events import Event
    from counterplay.language import Playbook
    from counterplay.modules import Connection
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.plans import Plan, PlannedStep
    from counterplay.store.database import Database

_WORDS = {
    "reads": "reads",
    "changes": "CHANGES",
    "delivers": "delivers",
    "asks": "asks a person",
    "waits": "waits",
    "calls": "calls",
    "stops": "stops the run",
    "transforms": "transforms",
    "skipped": "skipped",
    "fails": "FAILS",
}


@click.command()
@click.argument("name")
@click.option(
    "--event", "event_file", metavar="FILE", help="Plan for the events in FILE (as `playbook run --event`)."
)
@click.option("--live", is_flag=True, help="Plan for the newest events that the playbook's source has now.")
@click.option(
    "--limit",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="With --live: so many events.",
)
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="Give an input of the playbook.")
@click.option(
    "--connection",
    "connections",
    multiple=True,
    metavar="NAME=OTHER",
    help="Use the connection OTHER where the playbook names NAME; `sim` is the simulated one.",
)
@json_option
def plan(
    name: str,
    event_file: str | None,
    live: bool,
    limit: int,
    inputs: tuple[str, ...],
    connections: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what a run of the playbook NAME would do, step by step, and change nothing.

    Reads are made; writes are listed in order with method, URL, body, permission and whom they touch,
    and are not sent. What depends on an unsent write, on an approval or on a wait is listed with its
    condition. `--json` makes a file that `playbook run NAME --plan-file FILE` carries out.

    Exits 0, or 1 when a step would fail or a guard would refuse it, 2 when the input is invalid.
    """
    make_plans(name, event_file, live, limit, inputs, connections, as_json)


def make_plans(
    name: str,
    event_file: str | None,
    live: bool,
    limit: int,
    inputs: tuple[str, ...],
    connections: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make the plans and print them."""
    from counterplay.cli.loading import open_to_run
    from counterplay.cli.run import chosen, pairs, read_events
    from counterplay.runtime.opening import Opener

    if event_file is None and not live:
        raise ConfigError(
            "there is no event to plan for",
            hint="give one with --event FILE, or plan for the newest with --live",
        )
    workspace = open_to_run()
    renames = pairs(connections, "--connection", "NAME=OTHER")
    _, tasks = chosen(workspace, name, pairs(inputs, "--input", "NAME=VALUE"), renames)
    events = read_events(event_file) if event_file is not None else None
    from counterplay.store.database import existing_database

    opener = Opener(workspace)
    plans: list[Plan] = []
    with existing_database(workspace.store_url) as database:
        for task in tasks:
            plans += plans_of(opener, task.playbook, task.inputs, task.renames, events, limit, database)
    if as_json:
        documents = [opener.secrets.mask_json(one.to_document()) for one in plans]
        from counterplay.runtime.plans import digest_of

        print_json({"plans": documents, "digests": [digest_of(one) for one in documents]})
    else:
        for one_plan in plans:
            print_plan(one_plan)
        if not plans:
            click.echo("nothing to plan for: no event is there, or passes the filter")
    if any(step.would_fail for one_plan in plans for step in one_plan.steps):
        raise SystemExit(1)


def plans_of(
    opener: Opener,
    playbook: Playbook,
    inputs: dict[str, Any],
    renames: Mapping[str, str],
    events: Sequence[bytes] | None,
    limit: int,
    database: Database | None,
) -> list[Plan]:
    """One plan for each event and connection of the trigger; of live events only those that start a run."""
    from counterplay.runtime.live import connections_of, live_events
    from counterplay.runtime.planning import Planner

    planner = Planner(opener, playbook, inputs, dict(renames), database=database)
    plans: list[Plan] = []
    for connection in connections_of(opener, playbook, dict(renames)):
        tenant = connection.tenant if connection is not None else "local"
        if events is not None:
            meta = {"connection": connection.label, "tenant": tenant} if connection is not None else {}
            plans += [planner.plan(one, tenant) for one in _given(events, meta)]
            continue
        if not playbook.run_steps:  # it starts no runs: which events it delivers changes nothing
            plans.append(planner.plan(_no_event(connection), tenant))
            continue
        made = (planner.plan(one, tenant) for one in live_events(opener, playbook, inputs, connection))
        plans += islice((one for one in made if one.filtered is None), limit - len(plans))
    return plans


def _no_event(connection: Connection | None) -> Event:
    from counterplay.events import Event

    return Event(b"{}", {"connection": connection.label} if connection is not None else {})


def _given(events: Sequence[bytes], meta: dict[str, Any]) -> Iterator[Event]:
    from counterplay.events import Event

    return (Event(raw, meta) for raw in events)


def print_plan(one: Plan) -> None:
    say(f"{one.playbook}: what a run would do", bold=True)
    if not one.document.get("steps"):
        click.echo("  it starts no runs: each event that passes is delivered")
    event = json.dumps(one.event, ensure_ascii=False)
    if one.event:
        say(f"  event {event if len(event) <= 120 else event[:120] + '…'}")
    if one.filtered is not None:
        say(f"  nothing: no run starts ({one.filtered})")
        click.echo()
        return
    if one.once_per is not None:
        say(f"  once per {one.once_per!r}: a run that holds this key would suppress it")
    for step in one.steps:
        _print_step(step)
    changes = one.effects
    writes = sum(len(step.calls or ()) for step in changes)
    lasting = sorted({step.uses for step in changes if step.lasts})
    named = sorted(step.subject or step.target or "(not known yet)" for step in changes)
    people = {name.casefold(): name for name in named}.values()  # an account as its directory writes it
    in_all = f"{counted(len(changes), 'change')}, {counted(writes, 'write')}"
    say(f"  in all: {in_all}" + (f", on {', '.join(people)}" if people else ""))
    if lasting:
        say(f"  cannot be taken back: {', '.join(lasting)}")
    click.echo("  nothing was sent\n")


def _print_step(step: PlannedStep) -> None:
    whom = f" {step.subject or step.target}" if step.subject or step.target else ""
    on = f" on {step.connection}" if step.connection else ""
    style: dict[str, Any] = {"CHANGES": {"fg": "yellow"}, "FAILS": {"fg": "red"}}.get(_WORDS[step.does], {})
    word = click.style(_WORDS[step.does], **style)
    click.echo(f"  {visible(step.step):<14} {step.uses}{on} {word}{visible(whom)}")
    for condition in step.conditions:
        say(f"      {condition}")
    if step.does in ("delivers", "asks", "waits") and step.arguments:
        say(f"      with {json.dumps(_shown(step.arguments), ensure_ascii=False)[:300]}")
    for call in step.calls or ():
        body = "" if call["body"] is None else f"  {json.dumps(call['body'], ensure_ascii=False)[:300]}"
        say(f"      {call['method']} {call['url']}{body}")
    if step.does == "changes":
        if step.calls is None:
            click.echo("      its writes are known when it runs")
        for permission in step.permissions:
            say(f"      needs {permission}")
        if step.undo:
            say(f"      taken back by {step.undo}")
        elif step.undo_note:
            say(f"      {step.undo_note}")
        if step.guard:
            say(f"      guard {step.guard}", fg="red")
    if step.note:
        say(f"      {step.note}")


def _shown(value: Any) -> Any:
    from counterplay.runtime.plans import plain

    return plain(value)
