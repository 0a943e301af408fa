"""`playbook connections`."""

from __future__ import annotations

import sys

import click

from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import ConfigError, CounterplayError


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def connections(context: click.Context, as_json: bool) -> None:
    """List connections, or check that one works."""
    if context.invoked_subcommand is not None:
        return
    from counterplay.cli.loading import open_workspace

    workspace = open_workspace()
    rows = [
        {"name": one.name, "kind": one.uses, "labels": list(one.labels), "from": "counterplay.yaml"}
        for one in workspace.entries.values()
    ]
    rows += [
        {"name": name, "kind": kind, "labels": [], "from": offer.description or "a plugin"}
        for (name, kind), offer in workspace.offers.items()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "KIND", "LABELS", "FROM"],
        [[str(row["name"]), str(row["kind"]), ", ".join(row["labels"]), str(row["from"])] for row in rows],
    )


@connections.command("check")
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> None:
    """Prove that the connection NAME works: credentials, permissions, reachability.

    Exits 0 when everything worked, 1 when something did not, 2 when the connection is not configured.
    """
    from counterplay.cli.loading import open_workspace
    from counterplay.modules import Context
    from counterplay.runtime.opening import Opener

    workspace = open_workspace()
    opener = Opener(workspace)
    kinds = sorted(workspace.kinds(name))
    if not kinds:
        known = ", ".join(workspace.names()) or "none"
        raise ConfigError(f"there is no connection {name!r}", hint=f"there are: {known}")
    results = []
    for kind in kinds:
        connection = opener.connection(name, kind)
        with opener.wire(connection) as http:
            try:
                found = list(connection.check(Context(http=http, connection=connection)))
            except CounterplayError as error:
                found = []
                results.append({"kind": kind, "check": "connection", "ok": False, "detail": str(error)})
        results += [
            {"kind": kind, "check": one.name, "ok": one.ok, "detail": opener.secrets.mask(one.detail)}
            for one in found
        ]
    if as_json:
        print_json(results)
    else:
        print_table(
            ["KIND", "CHECK", "RESULT", "DETAIL"],
            [
                [str(row["kind"]), str(row["check"]), "ok" if row["ok"] else "FAILED", str(row["detail"])]
                for row in results
            ],
        )
    if not all(row["ok"] for row in results):
        sys.exit(1)
