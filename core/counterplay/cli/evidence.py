"""`playbook evidence`: one archive about one run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from counterplay.cli.output import json_option, print_json
from counterplay.errors import ConfigError


@click.command()
@click.argument("run_id", metavar="RUN", required=False)
@click.option("--output", metavar="FILE", help="Where to write it; by default evidence-RUN.zip here.")
@click.option("--verify", "file", metavar="FILE", help="Check an archive instead; it needs no workspace.")
@json_option
def evidence(run_id: str | None, output: str | None, file: str | None, as_json: bool) -> None:
    """Write everything that was recorded about RUN into one archive that verifies by itself.

    It holds the playbook, the event, the plan, the approvals, the states before and after, the
    requests, the receipts, and the run's part of the audit log with its chain. RUN may be cut short.

    Exits 0, or 1 when a checked archive does not hold.
    """
    from counterplay import evidence as archive

    if (run_id is None) == (file is None):
        raise ConfigError("give a RUN, or an archive with --verify FILE")
    if file is not None:
        checked = archive.check(Path(file))
        if as_json:
            about = {"run": checked.run, "files": checked.files, "entries": checked.entries}
            print_json({**about, "head": checked.head, "flaws": list(checked.flaws)})
        else:
            for flaw in checked.flaws:
                click.echo(flaw)
            word = "it holds" if not checked.flaws else "it does NOT hold"
            click.echo(f"{word}: run {checked.run}, {checked.files} files, {checked.entries} audit entries")
        sys.exit(1 if checked.flaws else 0)
    from counterplay.cli.audit import store
    from counterplay.people import this_person
    from counterplay.store.runs import RunStore

    assert run_id is not None
    with store() as database:
        found = RunStore(database).find(run_id)
        if not found:
            raise ConfigError(f"there is no run {run_id!r}", hint="`playbook runs list` shows them")
        run = next((one for one in found if one.id == run_id), found[0])
        if len(found) > 1 and run.id != run_id:
            raise ConfigError(f"{len(found)} runs begin with {run_id!r}", hint="write more of its id")
        target = Path(output or f"evidence-{run.id}.zip")
        manifest = archive.write(database, run, target, this_person())
    if as_json:
        print_json({"file": str(target), **manifest})
    else:
        click.echo(f"{target}: run {run.id}, {len(manifest['files'])} files, audit head {manifest['head']}")
