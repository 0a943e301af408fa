"""`playbook store`: what the store holds, and retention at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import NoStateError

if TYPE_CHECKING:
    from counterplay.store.database import Database
    from counterplay.workspace import Workspace


@click.group()
def store() -> None:
    """Where runs, the ledger and the audit log are kept."""


@store.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show where the store is, how much it holds, and how long what is done with is kept."""
    from counterplay.language import duration_text
    from counterplay.store.figures import rows_of

    with _opened() as (workspace, database):
        rows = rows_of(database)
        times = {name: duration_text(time) for name, time in asdict(workspace.retention).items()}
        about = {
            "store": database.url.render_as_string(),
            "bytes": database.path.stat().st_size if database.path is not None else None,
            "retention": times,
            "rows": rows,
        }
    if as_json:
        print_json(about)
        return
    click.echo(f"{about['store']}" + (f", {about['bytes']:,} bytes" if about["bytes"] is not None else ""))
    click.echo(f"ended runs are kept for {times['runs']}, the engine's rows of them for {times['engine']}")
    click.echo(f"units that every playbook acknowledged are kept for {times['units']}")
    print_table(["ROWS", "OF"], [[f"{count:,}", name] for name, count in rows.items()])


@store.command("prune")
@click.option("--dry-run", is_flag=True, help="Say how much would go, and delete nothing.")
@json_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Delete ended runs and delivered units that are older than `retention:` in counterplay.yaml says.

    By default that is 365 days. What the durable engine keeps for itself goes earlier (after 7 days). The
    audit log stays whole, and an event whose run was deleted does not start it again; units that were lost or
    set aside stay, too. `playbook up` does this each hour.
    """
    from counterplay.clock import now
    from counterplay.language import duration_text
    from counterplay.runtime.keeping import prune as delete
    from counterplay.store.retention import Pruned, count_old
    from counterplay.store.unit_retention import count_old_units

    with _opened() as (workspace, database):
        kept = workspace.retention
        if dry_run:
            runs = count_old(database, now() - kept.runs)
            pruned = Pruned(runs, units=count_old_units(database, now() - kept.units))
        else:
            pruned = delete(database, kept)
    if as_json:
        print_json({**asdict(pruned), "dry_run": dry_run})
    elif dry_run:
        run_time, unit_time = duration_text(kept.runs), duration_text(kept.units)
        click.echo(f"{pruned.runs:,} runs would be deleted: they ended more than {run_time} ago")
        click.echo(f"{pruned.units:,} units would be deleted: all have had them for more than {unit_time}")
    else:
        click.echo(
            f"{pruned.runs:,} runs deleted, and {pruned.segments:,} rows of the engine; "
            f"{pruned.units:,} units of the ledger"
        )


@contextmanager
def _opened() -> Iterator[tuple[Workspace, Database]]:
    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import existing_database

    workspace = open_workspace()
    with existing_database(workspace.store_url) as database:
        if database is None:
            raise NoStateError
        yield workspace, database
