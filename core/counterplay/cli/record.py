"""`playbook record`: a run that was seen becomes a test."""

from __future__ import annotations

import sys

import click

from counterplay.errors import ConfigError

HEADER = """\
# yaml-language-server: $schema=../../.counterplay/playbook-test.schema.json
# Recorded from a run: people, machines and tenants are replaced. Look through it before you pass it on.
"""


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--keep", "kept", multiple=True, metavar="TEXT", help="Leave this text as it is, word for word."
)
def record(run_id: str, kept: tuple[str, ...]) -> None:
    """Write a test that repeats RUN, for `playbooks/tests/`. RUN may be cut short.

    What the modules gave becomes recorded answers, what people said stays said, and what the run did is
    expected. Names, addresses and ids are replaced, the same by the same; times and the playbook's own
    words are kept. The test is played once before it is written.

    Exits 0 when the test passes, 1 when it does not show what the run did (it is written all the same).
    """
    import yaml

    from counterplay.cases.record import record as recorded
    from counterplay.cases.runner import Bench
    from counterplay.cli.audit import store
    from counterplay.cli.loading import open_workspace
    from counterplay.store.runs import RunStore

    with Bench(open_workspace()) as bench, store() as database:
        found = RunStore(database).find(run_id)
        run = next((one for one in found if one.id == run_id), found[0] if len(found) == 1 else None)
        if run is None:
            few = f"{len(found)} runs begin with {run_id!r}" if found else f"there is no run {run_id!r}"
            raise ConfigError(few, hint="`playbook runs list` shows them")
        made = recorded(database, run, bench, kept)
    text = yaml.safe_dump(made.document, sort_keys=False, allow_unicode=True, width=110)
    click.echo(HEADER + text, nl=False)
    for line in made.wrong:
        click.echo(f"this is not as in the run: {line}", err=True)
    if made.wrong:
        sys.exit(1)
