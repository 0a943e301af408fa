"""`playbook plugins`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from counterplay.cli.output import json_option, print_json, print_table

_KINDS = ("trigger", "transform", "action", "sink", "connection")  # without importing the scaffold


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List the plugins that are installed, and what keeps one from working.

    COUNTERPLAY_DISABLE=NAME,NAME takes plugins out.
    """
    if context.invoked_subcommand is not None:
        return
    from counterplay.plugins import PluginHost

    host = PluginHost.load()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "distribution": one.distribution,
                    "version": one.version,
                    "api": one.api,
                    "hosts": list(one.hosts),
                    "modules": list(one.modules),
                    "problem": one.problem,
                }
                for one in host.plugins.values()
            ]
        )
        return
    print_table(
        ["NAME", "DISTRIBUTION", "VERSION", "MODULES", "STATE"],
        [
            [one.name, one.distribution, one.version, str(len(one.modules)), one.problem or "works"]
            for one in host.plugins.values()
        ],
    )


@plugins.command()
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="A kind of module to begin with; may be given more than once (default: one of each).",
)
@click.option("--into", default=".", metavar="FOLDER", help="Where the distribution's folder is made.")
def new(name: str, kinds: tuple[str, ...], into: str) -> None:
    """Make a distribution with a plugin NAME: modules, schemas, tests, a CI file and a README.

    It builds, installs, passes its tests and the conformance kit as it is; change it from there.
    """
    from counterplay.scaffold import checked_name, distribution_of, new_plugin, write_files

    folder = Path(into) / distribution_of(checked_name(name))
    files = new_plugin(name, kinds or _KINDS)
    write_files(folder, files)
    for file in sorted(files):
        click.echo(f"made    {folder / file}")
    click.echo(f"\nTry: cd {folder} && python -m pip install -e '.[dev]'")
    click.echo(f"     python -m pytest --counterplay-plugin {name}")


@plugins.command("import-sekoia")
@click.argument("module_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="The plugin's name (default: from the module's slug).")
@click.option("--into", default=".", metavar="FOLDER", help="Where the distribution's folder is made.")
def import_sekoia(module_dir: Path, name: str | None, into: str) -> None:
    """Make a plugin's skeleton with the schemas of a Sekoia module.

    Reads manifest.json, action_*.json, trigger_*.json and connector_*.json in MODULE_DIR. What the
    modules do is left to write: until then each raises an error that says so.
    """
    from counterplay.scaffold import checked_name, distribution_of, write_files
    from counterplay.scaffold.sekoia import read_module, skeleton

    module = read_module(module_dir)
    chosen = checked_name(name or module.name)
    folder = Path(into) / distribution_of(chosen)
    files, notes = skeleton(module, chosen)
    write_files(folder, files)
    for file in sorted(files):
        click.echo(f"made    {folder / file}")
    for note in notes:
        click.echo(f"note    {note}", err=True)
    click.echo(f"\nTry: cd {folder} && python -m pip install -e '.[dev]'")


@plugins.command()
def lock() -> None:
    """Pin the plugins that are installed, by version and content, in counterplay.lock of the workspace.

    While the file is there, nothing runs with a plugin that is not in it, or that is another one.
    """
    from counterplay.cli.loading import declared, open_workspace
    from counterplay.errors import ConfigError
    from counterplay.plugin_lock import LOCK, locked, write_lock

    workspace = open_workspace(unagreed=True)
    if workspace.root is None:
        raise ConfigError("there is no workspace here", hint="make one with `playbook init`")
    entries = locked(workspace.host)
    for line in declared(workspace.host):
        click.echo(line)
    write_lock(workspace.root, entries)
    click.echo(f"pinned {len(entries)} plugins in {LOCK}")


@plugins.command()
@json_option
def check(as_json: bool) -> None:
    """Say what each plugin may do and where it goes, and what differs from counterplay.lock.

    A plugin that differs is described from its files: it is not loaded.

    Exits 0 when all plugins work and fit the lock, 1 when one does not.
    """
    from counterplay.cli.loading import declared
    from counterplay.places import find_root
    from counterplay.plugin_lock import differences
    from counterplay.plugins import PluginHost

    host, root = PluginHost.load(), find_root()
    wrong = [f"the plugin {one.name} {one.problem}" for one in host.problems if not one.refused]
    wrong += host.unreadable().values()
    wrong += differences(host, root) if root is not None else []
    if as_json:
        print_json({"plugins": declared(host), "problems": wrong})
    else:
        for line in declared(host):
            click.echo(line)
        for line in wrong:
            click.echo(f"error: {line}", err=True)
    sys.exit(1 if wrong else 0)
