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


@connections.command(
    "setup", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("kind")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def setup(context: click.Context, kind: str, arguments: tuple[str, ...]) -> None:
    """Set up a connection of KIND (m365.tenant), guided; `setup KIND --help` shows its options."""
    from importlib import import_module

    from counterplay.cli.loading import open_workspace
    from counterplay.modules import Connection

    host = open_workspace().host
    guided = {
        uses: info.cls.setup_command
        for uses, info in host.modules.items()
        if issubclass(info.cls, Connection) and info.cls.setup_command
    }
    where = guided.get(kind)
    if where is None:
        raise ConfigError(
            f"there is no guided set-up for {kind!r}", hint=f"there is one for: {', '.join(guided) or 'none'}"
        )
    module, _, attribute = where.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    name = f"connections setup {kind}"
    with command.make_context(
        name, list(arguments), parent=context.find_root(), help_option_names=["--help"]
    ) as inner:
        command.invoke(inner)
