"""`playbook check`: everything that is wrong, before anything runs."""

from __future__ import annotations

import sys

import click

from counterplay.cli.output import json_option, print_json
from counterplay.errors import ConfigError


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.option("--all", "check_all", is_flag=True, help="Check every playbook, shipped ones included.")
@json_option
def check(names: tuple[str, ...], check_all: bool, as_json: bool) -> None:
    """Check playbooks: YAML, schema, modules and their arguments, references, expressions, connections.

    Without a name it checks the workspace's own playbooks, or the shipped ones where there is no
    workspace; counterplay.yaml in any case. Prints every finding as `file:line:column: what is wrong;
    what to write`.

    Exits 0 when nothing is wrong, 2 when something is.
    """
    from counterplay.cli.loading import load_playbook, members, open_workspace
    from counterplay.language import PlaybookError, PlaybookSet

    workspace = open_workspace()
    if not names:
        every = workspace.playbooks()
        own = [
            name
            for name, file in every.items()
            if workspace.root and str(file).startswith(str(workspace.root))
        ]
        names = tuple(every if check_all or not own else own)
    wrong: list[dict[str, object]] = []
    lines: list[str] = []
    for name in (None, *names):
        try:
            if name is None:
                _ = workspace.config  # every run reads it, also of a playbook that names no connection
                continue
            found = load_playbook(workspace, name)
            if isinstance(found, PlaybookSet):
                members(workspace, found, {})
        except PlaybookError as error:
            lines += [str(finding) for finding in error.findings]
            wrong += [
                {
                    "file": finding.path,
                    "line": finding.line,
                    "column": finding.column,
                    "message": finding.message,
                    "hint": finding.hint,
                }
                for finding in error.findings
            ]
        except ConfigError as error:
            lines.append(str(error))
            wrong.append(
                {"file": str(error.path or name or ""), "message": error.message, "hint": error.hint or ""}
            )
    lines = list(dict.fromkeys(lines))
    wrong = [one for place, one in enumerate(wrong) if one not in wrong[:place]]
    if as_json:
        print_json({"checked": list(names), "findings": wrong})
    else:
        for line in lines:
            click.echo(line)
        if not lines:
            click.echo(f"{len(names)} playbook{'s' if len(names) != 1 else ''} checked, nothing is wrong")
    if lines:
        sys.exit(2)
