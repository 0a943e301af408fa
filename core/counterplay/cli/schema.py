"""`playbook schema`: what an editor needs to complete and check while one types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.workspace import Workspace

FILE = "playbook.schema.json"
TEST_FILE = "playbook-test.schema.json"


@click.command()
@click.option("--write", is_flag=True, help=f"Write it to .counterplay/{FILE} of the workspace.")
@click.option("--output", metavar="FILE", help="Write it to FILE.")
def schema(write: bool, output: str | None) -> None:
    """Print one JSON Schema of the language, with the arguments of every module that is installed.

    Any YAML language server completes and checks a playbook by it that begins with the line
    `# yaml-language-server: $schema=../.counterplay/playbook.schema.json`. Run it again with --write when
    plugins come or go.
    """
    from counterplay.cli.loading import open_workspace

    if write and output is not None:
        raise ConfigError("--write and --output name two places", hint="give one of them")
    workspace = open_workspace()
    if write:
        if workspace.root is None:
            raise ConfigError("there is no workspace here", hint="`playbook init` makes one, or use --output")
        click.echo(f"wrote {write_schema(workspace)}")
    elif output is not None:
        Path(output).write_text(text_of(workspace), "utf-8")
        click.echo(f"wrote {output}")
    else:
        click.echo(text_of(workspace), nl=False)


def write_schema(workspace: Workspace) -> Path:
    """Bring the workspace's schemas up to date: that of playbooks, and beside it that of their tests."""
    from counterplay.workspace import shown

    workspace.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = workspace.state_dir / FILE
    file.write_text(text_of(workspace), "utf-8")
    (workspace.state_dir / TEST_FILE).write_text(cases_text(), "utf-8")
    return shown(file)


def text_of(workspace: Workspace) -> str:
    """The schema of what is installed, with the connections of the workspace."""
    from counterplay.language.editor import editor_schema

    for why in workspace.host.unreadable().values():
        click.echo(f"warning: left out: {why}", err=True)
    return json.dumps(editor_schema(workspace.host, workspace.names()), indent=2, ensure_ascii=False) + "\n"


def cases_text() -> str:
    """The schema of files of cases."""
    from counterplay.cases.read import cases_schema

    return json.dumps(cases_schema(), indent=2, ensure_ascii=False) + "\n"
