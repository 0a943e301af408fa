"""`playbook workers`: the processes that work on the store."""

from __future__ import annotations

import click

from counterplay.cli.output import json_option, print_json, print_table


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """List the workers that share the store, with what they hold.

    One that is silent for longer than `workers.dead_after` in counterplay.yaml (30 seconds by default)
    counts as dead: the others take over its runs and feeds. A SQLite file has one worker.
    """
    from dataclasses import asdict

    from counterplay.cli.loading import open_workspace
    from counterplay.store.database import existing_database, holder_of
    from counterplay.store.workers import WorkerStore

    with existing_database(open_workspace().store_url) as database:
        found = WorkerStore(database).listed() if database is not None else []
        alone = holder_of(database.path) if database is not None and database.path is not None else None
    if as_json:
        print_json([asdict(one) for one in found] if alone is None else [alone])
        return
    if alone is not None:
        click.echo(f"process {alone['pid']}, `{alone['purpose']}`, since {alone['since']}")
        return
    print_table(
        ["WORKER", "HOST", "PROCESS", "PURPOSE", "SINCE", "SILENT", "RUNS", "FEEDS"],
        [
            [
                one.id,
                one.host,
                str(one.pid),
                one.purpose,
                one.started[:19] + "Z",
                f"{one.silent:.0f}s" + (" (dead)" if one.dead else ""),
                str(one.runs),
                str(one.feeds),
            ]
            for one in found
        ],
    )
