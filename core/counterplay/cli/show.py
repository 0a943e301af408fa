"""`playbook show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from counterplay.cli.output import json_option, print_json

if TYPE_CHECKING:
    from counterplay.language import Playbook
    from counterplay.plugins import PluginHost


@click.command()
@click.argument("name")
@click.option("--mermaid", "as_chart", is_flag=True, help="Print a Mermaid flow chart, for documents.")
@json_option
def show(name: str, as_chart: bool, as_json: bool) -> None:
    """Show what the playbook NAME does as a tree: its trigger, its steps, where a run begins, its sinks."""
    from counterplay.cli.loading import load_playbook, members, open_workspace
    from counterplay.language import PlaybookSet

    workspace = open_workspace()
    found = load_playbook(workspace, name)
    if as_json:
        print_json(found.document)
        return
    if as_chart:
        from counterplay.cli.tree import mermaid

        one = [found] if not isinstance(found, PlaybookSet) else [p for p, _ in members(workspace, found, {})]
        for playbook in one:
            click.echo(mermaid(playbook, workspace.host))
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
    from counterplay.cli.tree import tree

    click.echo(click.style(playbook.name, bold=True))
    click.echo(_indented(playbook.description))
    for name, schema in playbook.inputs.items():
        default = f", default {schema['default']!r}" if "default" in schema else ", required"
        click.echo(f"  input    {name} ({schema.get('type', 'any')}{default})")
    for line in tree(playbook, host):
        click.echo(f"  {line}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
