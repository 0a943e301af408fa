"""What most commands begin with: the host, the workspace, and playbooks by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import click

from counterplay.errors import ConfigError
from counterplay.language import Playbook, PlaybookSet, load
from counterplay.language.findings import did_you_mean
from counterplay.plugins import PluginHost
from counterplay.workspace import Workspace, shown


def open_workspace() -> Workspace:
    """The workspace of the current directory, with all plugins; a broken plugin is told on stderr."""
    host = PluginHost.load()
    for plugin in host.problems:
        click.echo(f"warning: the plugin {plugin.name} {plugin.problem}", err=True)
    for name in sorted(host.disabled - set(host.plugins)):
        click.echo(f"warning: COUNTERPLAY_DISABLE names {name!r}, and no plugin is called so", err=True)
    return Workspace(host)


def introduce(workspace: Workspace) -> None:
    """Before a third party's plugin is first used here, say on stderr what it may do and where it goes.

    ConfigError: the workspace has a lock, and the plugins are not those of it.
    """
    from counterplay.plugin_lock import newcomers, refuse_others

    refuse_others(workspace.host, workspace.root)
    for line in declared(workspace.host, newcomers(workspace.host, workspace.state_dir)):
        click.echo(line, err=True)


def declared(host: PluginHost, names: Collection[str] | None = None) -> list[str]:
    """What each plugin (or those named) says that it may do and where it goes, a few lines each."""
    lines: list[str] = []
    for plugin in host.plugins.values():
        if (
            plugin.problem is not None
            or not plugin.modules
            or (names is not None and plugin.name not in names)
        ):
            continue
        api = f"API {plugin.api}" if plugin.api else "no declared API"
        lines.append(f"{plugin.name} ({plugin.distribution} {plugin.version}, {api})")
        infos = [host.modules[uses] for uses in plugin.modules]
        hosts = ", ".join(plugin.hosts) or "those of its connections"
        lines.append(
            f"  hosts: {hosts if any(one.cls.connection for one in infos) or plugin.hosts else 'none'}"
        )
        granted = sorted(
            {f"{need['resource']}: {' or '.join(need['any'])}" for one in infos for need in one.permissions}
        )
        lines += [f"  permission: {one}" for one in granted]
        changes = sorted(one.uses for one in infos if getattr(one.cls, "effect", False))
        lines += [f"  changes things: {', '.join(changes)}"] if changes else []
    return lines


class Renamed:
    """The workspace's connections under the names that a set or `--connection` gives them."""

    def __init__(self, workspace: Workspace, renames: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._renames = renames

    def names(self) -> Collection[str]:
        return sorted({*self._workspace.names(), *self._renames})

    def kinds(self, name: str) -> Collection[str]:
        return self._workspace.kinds(self._renames.get(name, name))

    def labelled(self, labels: Sequence[str], kind: str) -> Sequence[str]:
        return self._workspace.labelled(labels, kind)


def load_playbook(
    workspace: Workspace, name: str, renames: Mapping[str, str] | None = None
) -> Playbook | PlaybookSet:
    """The playbook or set of that name (or file), checked.

    The names of connections in a shipped playbook are examples: they are held against the workspace
    only where a set or the command line says what they stand for.
    """
    file = workspace.playbook_file(name)
    own = workspace.root is not None and file not in workspace.shipped.values()
    catalogue = Renamed(workspace, renames or {}) if own or renames else None
    return load(shown(file), workspace.host, catalogue)


def members(
    workspace: Workspace, found: PlaybookSet, renames: Mapping[str, str], seen: Sequence[str] = ()
) -> list[tuple[Playbook, dict[str, str]]]:
    """The playbooks of a set, each with the connections that it uses instead of those it names."""
    for old, new in found.connections.items():
        target = renames.get(new, new)
        if not workspace.kinds(target):
            known = workspace.names()
            raise ConfigError(
                f"the set {found.name!r} uses {target!r} as {old!r}, and there is no connection {target!r}",
                hint=did_you_mean(target, known, f"there are: {', '.join(known) or 'none'}"),
            )
    if found.name in seen:
        raise ConfigError(f"the set {found.name!r} contains itself", hint="remove it from its own playbooks")
    result: list[tuple[Playbook, dict[str, str]]] = []
    for name in found.playbooks:
        own = {key: renames.get(value, value) for key, value in found.connections.items()}
        own = {**own, **renames}
        member = load_playbook(workspace, name, own)
        if isinstance(member, PlaybookSet):
            result += members(workspace, member, own, [*seen, found.name])
        else:
            result.append((member, own))
    return result


def known_renames(workspace: Workspace, renames: Mapping[str, str]) -> Mapping[str, str]:
    """The renames of the command line. ConfigError: one of them leads to no connection."""
    for old, new in renames.items():
        if not workspace.kinds(new):
            known = workspace.names()
            raise ConfigError(
                f"--connection {old}={new}: there is no connection {new!r}",
                hint=did_you_mean(new, known, f"there are: {', '.join(known) or 'none'}"),
            )
    return renames
