"""`playbook modules`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from counterplay.plugins import ModuleInfo


@click.command()
@click.argument("name", required=False)
@json_option
def modules(name: str | None, as_json: bool) -> None:
    """List the modules, or explain the module NAME.

    For one module: what it does, its arguments, the permissions that it needs, and what it promises
    about delivery and repetition.
    """
    from counterplay.plugins import PluginHost

    host = PluginHost.load()
    if name is not None:
        info = host.module(name)
        if as_json:
            print_json(_about(info))
        else:
            _explain(info)
        return
    found = sorted(host.modules.values(), key=lambda one: one.uses)
    if as_json:
        print_json([_about(info) for info in found])
        return
    print_table(["MODULE", "KIND", "WHAT IT DOES"], [[info.uses, info.kind, info.summary] for info in found])


def _about(info: ModuleInfo) -> dict[str, Any]:
    return {
        "uses": info.uses,
        "kind": info.kind,
        "plugin": info.plugin,
        "distribution": info.distribution,
        "connection": info.cls.connection if info.kind != "connection" else None,
        "summary": info.summary,
        "description": inspect.cleandoc(info.cls.__doc__ or ""),
        "schema": info.schema,
        "promises": dict(_promises(info)),
    }


def _explain(info: ModuleInfo) -> None:
    click.echo(click.style(f"{info.uses}", bold=True) + f" ({info.kind} of {info.distribution})")
    click.echo("")
    click.echo(inspect.cleandoc(info.cls.__doc__ or ""))
    if info.cls.connection and info.kind != "connection":
        click.echo(f"\nConnection: {info.cls.connection}")
    properties = info.schema.get("properties", {})
    required = set(info.schema.get("required", ()))
    click.echo("\nArguments:" if properties else "\nArguments: none")
    for key, described in properties.items():
        click.echo(f"  {key} ({_type(described)}{_default(described, key in required)})")
        click.echo(f"      {' '.join(str(described.get('description', '')).split())}")
    permissions = info.permissions
    if permissions:
        click.echo("\nPermissions:")
    for need in permissions:
        click.echo(
            f"  {need['resource']}: {' or '.join(need['any'])}"
            + (f" ({need['for']})" if need.get("for") else "")
        )
    for need in info.roles:
        named = " or ".join(need["any"])
        click.echo(f"  a role of the identity itself: {named} (for {need['for']})")
    for title, text in _promises(info):
        click.echo(f"\n{title}: {text}")


def _type(described: dict[str, Any]) -> str:
    if "enum" in described:
        return " | ".join(str(one) for one in described["enum"])
    kind = described.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text}, secret" if described.get("writeOnly") else text


def _default(described: dict[str, Any], required: bool) -> str:
    if required:
        return ", required"
    if "default" in described:
        import json

        return f", default {json.dumps(described['default'])}"
    return ""


def _promises(info: ModuleInfo) -> list[tuple[str, str]]:
    """What the contract of its kind promises: delivery, effect, repetition."""
    from counterplay.modules import Action, FeedTrigger, PollTrigger, PushTrigger, Sink

    cls = info.cls
    if issubclass(cls, Sink):
        return [("Delivery", cls.delivery)]
    if issubclass(cls, Action):
        if not cls.effect:
            return [("Effect", "none, it only reads")]
        how = {
            "read": "an attempt with unknown outcome is settled by reading the target",
            "repeat": "an attempt with unknown outcome is repeated, which is harmless",
            "ask": "an attempt with unknown outcome is left for a person to look at",
        }[cls.settle]
        undo = "it has one" if cls.inverse is not Action.inverse else "none"
        return [("Effect", f"it changes something; {how}"), ("Way back", undo)]
    if issubclass(cls, FeedTrigger):
        kept = f"; the source lists {cls.retention} back" if cls.retention else ""
        return [
            ("Delivery", f"every unit that the source lists is in the ledger and acknowledged once{kept}")
        ]
    if issubclass(cls, PollTrigger):
        return [("Delivery", "pages are stored with their cursor before anybody sees them")]
    if issubclass(cls, PushTrigger):
        return [("Delivery", "a request is answered only after its events are stored")]
    return []
