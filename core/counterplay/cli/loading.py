"""What most commands begin with: the host, the workspace, and playbooks by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import click

from counterplay.errors import ConfigError, PluginLoadError
from counterplay.language import Playbook, PlaybookSet, load
from counterplay.language.findings import did_you_mean
from counterplay.places import find_root
from counterplay.plugins import PluginHost, PluginInfo
from counterplay.workspace import Workspace, shown


def open_workspace(*, unagreed: bool = False) -> Workspace:
    """The workspace of the current directory, with its plugins; a broken plugin is told on stderr.

    `unagreed`: with those that its lock does not hold, too.
    """
    return _told(PluginHost.load(unagreed=unagreed))


def open_to_run() -> Workspace:
    """The same, to run playbooks in it: a third party's plugin is introduced before it is first used here.

    ConfigError: the workspace has a lock, and the plugins are not those of it.
    """
    from counterplay.plugin_lock import newcomers, refuse_others

    host = PluginHost.load()
    refuse_others(host, find_root())
    workspace = _told(host)
    for line in declared(host, newcomers(host, workspace.state_dir)):
        click.echo(line, err=True)
    return workspace


def _told(host: PluginHost) -> Workspace:
    for plugin in host.problems:
        click.echo(f"warning: the plugin {plugin.name} {plugin.problem}", err=True)
    for name in sorted(host.disabled - set(host.plugins)):
        click.echo(f"warning: COUNTERPLAY_DISABLE names {name!r}, and no plugin is called so", err=True)
    return Workspace(host)


def declared(host: PluginHost, names: Collection[str] | None = None) -> list[str]:
    """What each plugin (or those named) says that it may do and where it goes, a few lines each."""
    lines: list[str] = []
    for plugin in host.plugins.values():
        if names is not None and plugin.name not in names:
            continue
        if plugin.refused:
            lines += _declared_in_files(plugin)
        elif plugin.problem is None and plugin.modules:
            try:
                lines += [*_declared_in_code(host, plugin)]
            except PluginLoadError as error:  # only a playbook that uses the module has to fail
                lines.append(f"{plugin.name} ({plugin.distribution} {plugin.version}): {error}")
    return lines


def _declared_in_code(host: PluginHost, plugin: PluginInfo) -> Iterator[str]:
    yield _titled(plugin, plugin.api)
    infos = [host.modules[uses] for uses in plugin.modules]
    hosts = ", ".join(plugin.hosts) or "those of its connections"
    yield f"  hosts: {hosts if any(one.cls.connection for one in infos) or plugin.hosts else 'none'}"
    granted = {f"{need['resource']}: {' or '.join(need['any'])}" for one in infos for need in one.permissions}
    yield from (f"  permission: {one}" for one in sorted(granted))
    changes = sorted(one.uses for one in infos if getattr(one.cls, "effect", False))
    if changes:
        yield f"  changes things: {', '.join(changes)}"


def _declared_in_files(plugin: PluginInfo) -> Iterator[str]:
    """Of a plugin that must not be imported."""
    from counterplay.plugin_files import declaration

    found = declaration(plugin.point)
    yield f"{_titled(plugin, found.api)}, not loaded; its files say:"
    yield f"  hosts: {', '.join(found.hosts) or 'those of its connections'}"
    yield from (f"  permission: {one}" for one in found.permissions)
    yield f"  modules: {', '.join(found.modules) or 'none with a schema'}"


def _titled(plugin: PluginInfo, api: str) -> str:
    said = f"API {api}" if api else "no declared API"
    return f"{plugin.name} ({plugin.distribution} {plugin.version}, {said})"


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

    def playbooks(self) -> Collection[str]:
        return self._workspace.playbooks()


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
