"""`playbook export`: a playbook in a form that others read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from counterplay.errors import ConfigError

CREATED = "1970-01-01T00:00:00.000Z"
"""Where nobody says when a playbook was created: it must not change from one version to the next."""


@click.command()
@click.argument("name")
@click.option("--cacao", "as_cacao", is_flag=True, help="As an OASIS CACAO Security Playbook 2.0 (JSON).")
@click.option("--created", metavar="TIME", help="When the playbook was created; keep it in later versions.")
@click.option(
    "--modified", metavar="TIME", help="When this version was made.  [default: when its file was changed]"
)
@click.option("--output", metavar="FILE", help="Write it to FILE instead of stdout.")
def export(name: str, as_cacao: bool, created: str | None, modified: str | None, output: str | None) -> None:
    """Export the playbook NAME.

    A CACAO playbook has the same id wherever it is exported from. What CACAO cannot say stands in an
    extension of it, and is told on stderr line by line.
    """
    from counterplay.cli.loading import load_playbook, open_workspace
    from counterplay.language import PlaybookSet
    from counterplay.language.cacao import cacao, timestamp

    if not as_cacao:
        raise ConfigError("no form is named", hint="write --cacao")
    workspace = open_workspace()
    found = load_playbook(workspace, name)
    if isinstance(found, PlaybookSet):
        members = ", ".join(found.playbooks)
        raise ConfigError(f"{found.name} is a set", hint=f"export its playbooks one by one: {members}")
    made = timestamp(modified) if modified is not None else _changed(workspace.playbook_file(name))
    began = timestamp(created) if created is not None else CREATED
    if began > made:
        raise ConfigError(f"it was created ({began}) after it was modified ({made})")
    exported = cacao(found, workspace.host, created=began, modified=made)
    text = json.dumps(exported.document, indent=2, ensure_ascii=False) + "\n"
    if output is not None:
        Path(output).write_text(text, "utf-8")
        click.echo(f"wrote {output}")
    else:
        click.echo(text, nl=False)
    for line in exported.not_carried:
        click.echo(f"not carried: {line}", err=True)
    if created is None:
        click.echo(f"not carried: when it was created; give it with --created (it says {CREATED})", err=True)


def _changed(file: object) -> str:
    """When the file was changed. One inside an archive has no such time."""
    from counterplay.language.cacao import timestamp

    path = Path(str(file))
    if not path.is_file():
        return CREATED
    return timestamp(datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat())
