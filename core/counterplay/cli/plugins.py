"""`playbook plugins`."""

from __future__ import annotations

import click

from counterplay.cli.output import json_option, print_json, print_table


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the plugins that are installed, and what keeps one from working.

    COUNTERPLAY_DISABLE=NAME,NAME takes plugins out.
    """
    from counterplay.plugins import PluginHost

    host = PluginHost.load()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "distribution": one.distribution,
                    "version": one.version,
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
