"""`playbook show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from counterplay.cli.output import json_option, print_json

if TYPE_CHECKING:
    from counterplay.language import Playbook, Step, Use
    from counterplay.plugins import PluginHost


@click.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the playbook NAME does: its trigger, its steps, where a run begins, its sinks."""
    from counterplay.cli.loading import load_playbook, members, open_workspace
    from counterplay.language import PlaybookSet

    workspace = open_workspace()
    found = load_playbook(workspace, name)
    if as_json:
        print_json(found.document)
        return
    if not isinstance(found, PlaybookSet):
        _print_playbook(found, workspace.host)
        return
    click.echo(click.style(found.name, bold=True) + f": a set{', ends by itself' if found.once else ''}")
    click.echo(_indented(found.description))
    for playbook, renames in members(workspace, found, {}):
        click.echo("")
        _print_playbook(playbook, workspace.host)
        for old, new in renames.items():
            click.echo(f"  with connection {old} = {new}")


def _print_playbook(playbook: Playbook, host: PluginHost) -> None:
    click.echo(click.style(playbook.name, bold=True))
    click.echo(_indented(playbook.description))
    for name, schema in playbook.inputs.items():
        default = f", default {schema['default']!r}" if "default" in schema else ", required"
        click.echo(f"  input    {name} ({schema.get('type', 'any')}{default})")
    click.echo(f"  trigger  {_use(playbook.trigger, host)}")
    if playbook.filter is not None:
        click.echo(f"  filter   {playbook.filter.source}")
    for step in playbook.batch_steps:
        click.echo(f"  batch    {_step(step, host)}")
    if playbook.run_steps:
        click.echo("  ── each event that is left becomes a durable run ──")
    for step in playbook.run_steps:
        click.echo(f"  step     {_step(step, host)}")
    for use in playbook.sinks:
        click.echo(f"  sink     {_use(use, host)}")


def _step(step: Step, host: PluginHost) -> str:
    text = f"{step.id}: {_use(step.use, host)}" if step.use is not None else step.id
    if step.when is not None:
        text += f", when {step.when.source}"
    if step.on_error != "stop":
        text += f", on error {step.on_error}"
    return text


def _use(use: Use, host: PluginHost) -> str:
    from counterplay.language import Labels
    from counterplay.modules import Action

    info = host.module(use.uses)
    text = use.uses
    if isinstance(use.connection, Labels):
        text += f" on every connection labelled {', '.join(use.connection.labels)}"
    elif use.connection is not None:
        text += f" on {use.connection}"
    if issubclass(info.cls, Action) and info.cls.effect:
        text += " [changes something]"
    return f"{text} - {info.summary}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
