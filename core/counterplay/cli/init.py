"""`playbook init`."""

from __future__ import annotations

from pathlib import Path

import click

from counterplay.errors import ConfigError

_PLAYBOOK = """\
# yaml-language-server: $schema=../.counterplay/playbook.schema.json
name: my-first-playbook
description: Greets by writing each event that it is given to a file. Needs nothing.
trigger: {uses: std.manual}
sinks:
  - uses: std.jsonl
    with: {path: greetings.jsonl}
"""
_TEST = """\
# yaml-language-server: $schema=../../.counterplay/playbook-test.schema.json
playbook: my-first-playbook
cases:
  - name: an event is written as it is
    given:
      event: {hello: world}
    expect:
      runs: 0
      sinks: {std.jsonl: events}
"""


@click.command()
def init() -> None:
    """Make a workspace in the current directory: counterplay.yaml, playbooks/ with tests, what Git ignores.

    Leaves files that are there as they are, so it can be run again; the schema for editors, which is
    made from the plugins, it brings up to date.
    """
    from counterplay.cli.loading import open_workspace
    from counterplay.cli.schema import FILE as SCHEMA
    from counterplay.cli.schema import TEST_FILE, cases_text, text_of
    from counterplay.places import FILE, STATE
    from counterplay.workspace import example_config

    here = Path.cwd()
    state = here / STATE
    files = {
        here / FILE: example_config(),
        here / "playbooks" / "my-first-playbook.yaml": _PLAYBOOK,
        here / "playbooks" / "tests" / "my-first-playbook.yaml": _TEST,
        state / SCHEMA: text_of(open_workspace()),
        state / TEST_FILE: cases_text(),
        state / ".gitignore": "*\n",
    }
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not (path.suffix == ".json" and path.read_text("utf-8") != text):
                click.echo(f"kept    {path.relative_to(here)}")
                continue
            path.write_text(text, "utf-8")
            click.echo(f"made    {path.relative_to(here)}")
        state.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"cannot write: {error.strerror}", path=error.filename) from error
    click.echo('\nTry: echo \'{"hello": "world"}\' | playbook run my-first-playbook --event -')
