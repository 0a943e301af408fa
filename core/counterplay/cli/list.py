"""`playbook list`."""

from __future__ import annotations

import click

from counterplay.cli.output import json_option, print_json, print_table


@click.command("list")
@json_option
def list_playbooks(as_json: bool) -> None:
    """List the playbooks that can be run: the workspace's own, and the shipped ones."""
    from counterplay.cli.loading import load_playbook, open_workspace
    from counterplay.errors import ConfigError
    from counterplay.language import PlaybookSet

    workspace = open_workspace()
    rows = []
    for name, file in workspace.playbooks().items():
        own = workspace.root is not None and str(file).startswith(str(workspace.root))
        where = "workspace" if own else "shipped"
        try:
            found = load_playbook(workspace, name)
        except ConfigError as error:
            first = str(error).splitlines()[0]
            rows.append({"name": name, "kind": "invalid", "from": where, "description": first})
            continue
        kind = "set" if isinstance(found, PlaybookSet) else "playbook"
        description = " ".join(found.description.split())
        rows.append({"name": name, "kind": kind, "from": where, "description": description})
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "KIND", "FROM", "DESCRIPTION"],
        [[row["name"], row["kind"], row["from"], _first_sentence(row["description"])] for row in rows],
    )


def _first_sentence(text: str) -> str:
    head, stop, _ = text.partition(". ")
    return head + ("." if stop else "")
