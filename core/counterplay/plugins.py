"""PluginHost: finds plugins by their entry points, loads them, and names their modules.

A plugin that cannot be used takes itself out with one line in `problems`; the rest works, and
whatever needs one of its modules says why that module is missing.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import Any

import pluggy

from counterplay import hookspecs
from counterplay._data_files import schemas_of
from counterplay.errors import ConfigError, PluginLoadError
from counterplay.events import JsonObject, Need
from counterplay.modules import Action, Connection, Kind, Module, Sink, Transform, Trigger
from counterplay.plugin_lock import Lock, distribution_of, lock_here

GROUP = "counterplay"
API_VERSION = "1.0"
"""Of the contracts that plugins build on: a higher second number adds, another first one changes."""
_KINDS = (Trigger, Transform, Action, Sink, Connection)


@dataclass(frozen=True)
class ModuleInfo:
    """A module as playbooks name it. `uses` is `<plugin>.<name>`."""

    uses: str
    cls: type[Module]
    plugin: str
    distribution: str
    schema_folder: Traversable

    @property
    def kind(self) -> Kind:
        return self.cls.kind

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.cls.__doc__ or "").strip().split("\n", 1)[0]

    @cached_property
    def schema(self) -> JsonObject:
        """The JSON Schema (2020-12) of the module's arguments; its result under `$defs/result`."""
        file = self.schema_folder / f"{self.cls.name}.json"
        try:
            schema: JsonObject = json.loads(file.read_text("utf-8"))
            if not isinstance(schema, dict):
                raise ValueError(f"{file} is not a JSON object")
        except (OSError, ValueError) as error:
            raise PluginLoadError(
                f"module {self.uses} has no readable schema: {error}",
                hint=f"reinstall {self.distribution}",
            ) from error
        return schema

    @cached_property
    def result_schema(self) -> JsonObject | None:
        """What an action's result looks like, as a schema that stands alone."""
        described = self.schema.get("$defs", {}).get("result")
        return {"$defs": self.schema["$defs"], **described} if isinstance(described, dict) else None

    @property
    def permissions(self) -> list[JsonObject]:
        """What the connection's identity must be allowed: `{"resource", "any": [...], "for"}` each."""
        found: list[JsonObject] = self.schema.get("x-permissions", [])
        return found

    @property
    def licences(self) -> list[JsonObject]:
        """What the connection's organisation must have bought: `{"name", "any": [...], "for"}` each.

        With `optional` it works without, too, and `for` says what there would be more.
        """
        found: list[JsonObject] = self.schema.get("x-licences", [])
        return found

    @property
    def roles(self) -> list[JsonObject]:
        """What the connection's identity has to be besides: `{"any": [...], "for", "always"}` each.

        `always`: without any of these roles it never works; else only what `for` says does not.
        """
        found: list[JsonObject] = self.schema.get("x-roles", [])
        return found

    def need(self, arguments: JsonObject) -> Need:
        """What one use of the module asks of its connection."""
        return Need(self.uses, arguments, tuple(self.permissions), tuple(self.licences), tuple(self.roles))


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that was found: `problem` says why it takes no part, or is None."""

    name: str
    distribution: str
    version: str
    point: EntryPoint
    modules: tuple[str, ...] = ()
    problem: str | None = None
    refused: bool = False
    """The workspace's lock does not hold it as it is, so it was not imported."""
    api: str = ""
    """The API that it was written for, from its `COUNTERPLAY_API`; empty when it does not say."""
    hosts: tuple[str, ...] = ()
    """The hosts that it talks to, from its `COUNTERPLAY_HOSTS`; a connection's settings may name others."""


class PluginHost:
    """All plugins of this installation. Build one with `PluginHost.load()`."""

    def __init__(self) -> None:
        self.plugins: dict[str, PluginInfo] = {}
        self.modules: dict[str, ModuleInfo] = {}
        self.disabled: frozenset[str] = frozenset()
        self._manager = pluggy.PluginManager("counterplay")
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def load(cls, points: Iterable[EntryPoint] | None = None, *, unagreed: bool = False) -> PluginHost:
        """Load every plugin that is installed and not named in COUNTERPLAY_DISABLE (comma-separated).

        Where the current directory's workspace has a lock, others than those of it are not imported,
        `unagreed` excepted. ConfigError: the lock cannot be read.
        """
        host = cls()
        lock = None if unagreed else lock_here()
        disabled = {name.strip() for name in os.environ.get("COUNTERPLAY_DISABLE", "").split(",")} - {""}
        host.disabled = frozenset(disabled)
        by_name: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=GROUP) if points is None else points:
            found = by_name.setdefault(point.name, [])
            if (point, distribution_of(point)) not in [(known, distribution_of(known)) for known in found]:
                found.append(point)
        for name, claims in sorted(by_name.items()):
            host._add(name, claims, name in disabled, lock)
        return host

    @property
    def hook(self) -> pluggy.HookRelay:
        """Calls the hooks of all plugins."""
        return self._manager.hook

    @property
    def problems(self) -> list[PluginInfo]:
        """Plugins that take no part though nobody disabled them."""
        return [info for info in self.plugins.values() if info.problem and info.problem != "disabled"]

    def module(self, uses: str) -> ModuleInfo:
        """The module of that name. ConfigError: there is none; the message says why or what is near."""
        if uses in self.modules:
            return self.modules[uses]
        plugin = self.plugins.get(uses.partition(".")[0])
        if plugin is not None and plugin.problem is not None:
            why = "is disabled by COUNTERPLAY_DISABLE" if plugin.problem == "disabled" else plugin.problem
            raise ConfigError(f"no module is called {uses!r}: the plugin {plugin.name} {why}")
        removed = self._removed.get(uses)
        if removed is not None:
            raise ConfigError(f"{uses} does not exist any more", hint=removed)
        near = difflib.get_close_matches(uses, self.modules, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`playbook modules` lists them"
        raise ConfigError(f"no module is called {uses!r}", hint=hint)

    def unreadable(self) -> dict[str, str]:
        """The modules whose schema cannot be read, and why. It reads all that are not read yet."""
        found = {}
        for uses, info in self.modules.items():
            try:
                _ = info.schema
            except PluginLoadError as error:
                found[uses] = str(error)
        return found

    @cached_property
    def _removed(self) -> dict[str, str]:
        """What to write instead of the modules that plugins no longer have."""
        return {
            f"{impl.plugin_name}.{name}": advice
            for impl in self.hook.counterplay_removed_modules.get_hookimpls()
            for name, advice in impl.function().items()  # type: ignore[attr-defined]  # pluggy types it as object
        }

    @cached_property
    def template_filters(self) -> Mapping[str, Callable[..., Any]]:
        """The filters that plugins add to expressions, by name.

        ConfigError: one has not its plugin's name before it, and could stand in for another's.
        """
        filters: dict[str, Callable[..., Any]] = {}
        for impl in self.hook.counterplay_template_filters.get_hookimpls():
            plugin, offered = impl.plugin_name, impl.function()
            for name, function in offered.items():  # type: ignore[attr-defined]  # pluggy types it as object
                if not name.startswith(f"{plugin}_"):
                    raise ConfigError(
                        f"the plugin {plugin} offers the filter {name!r}, whose name has to begin with"
                        f" '{plugin}_'",
                        hint=f"tell its authors; COUNTERPLAY_DISABLE={plugin} goes on without it",
                    )
                filters[name] = function
        return filters

    def _add(self, name: str, claims: list[EntryPoint], disabled: bool, lock: Lock | None) -> None:
        distributions = [distribution_of(point) for point in claims]
        about = PluginInfo(name, " and ".join(d for d, _ in distributions), distributions[0][1], claims[0])
        if disabled:
            self.plugins[name] = _without(about, "disabled")
        elif len(claims) > 1:
            self.plugins[name] = _without(
                about, f"is claimed by {about.distribution}, so both are out: uninstall one of them"
            )
        elif lock is not None and (why := lock.refusal(claims[0])) is not None:
            self.plugins[name] = replace(about, refused=True, problem=f"{why}, so it was not loaded")
        else:
            try:
                self._register(name, claims[0], about)
            except PluginLoadError as error:
                self._forget(name)
                self.plugins[name] = _without(about, f"({about.distribution}) cannot be used: {error}")

    def _register(self, name: str, point: EntryPoint, about: PluginInfo) -> None:
        try:
            plugin = point.load()
            self._manager.register(plugin, name)
            self._manager.check_pending()  # a hook that nobody specified would never be called
            classes = [
                found
                for impl in self.hook.counterplay_modules.get_hookimpls()
                if impl.plugin_name == name
                for found in impl.function()  # type: ignore[attr-defined]  # pluggy types it as object
            ]
            folder = schemas_of(point.module, name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            text = " ".join(str(error).split())
            raise PluginLoadError(f"{type(error).__name__}: {text}") from error
        about = replace(
            about, api=_checked_api(plugin), hosts=tuple(getattr(plugin, "COUNTERPLAY_HOSTS", ()))
        )
        infos = [_module_info(name, cls, about.distribution, folder) for cls in classes]
        names = [info.uses for info in infos]
        twice = sorted({uses for uses in names if names.count(uses) > 1})
        if twice:
            raise PluginLoadError(f"it names {', '.join(twice)} twice")
        self.modules.update((info.uses, info) for info in infos)
        self.plugins[name] = replace(about, modules=tuple(names))

    def _forget(self, name: str) -> None:
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)


def _checked_api(plugin: object) -> str:
    """The API that the plugin was written for. PluginLoadError: it is not this one."""
    said = str(getattr(plugin, "COUNTERPLAY_API", ""))
    if not said:
        return ""
    try:
        wanted = tuple(int(part) for part in said.split("."))
    except ValueError as error:
        raise PluginLoadError(
            f"COUNTERPLAY_API is {said!r}, which is no version like {API_VERSION}"
        ) from error
    have = tuple(int(part) for part in API_VERSION.split("."))
    if wanted[:1] != have[:1] or wanted > have:
        raise PluginLoadError(
            f"it was written for the plugin API {said}, and this counterplay has {API_VERSION}",
            hint="upgrade counterplay" if wanted > have else "upgrade the plugin",
        )
    return said


def _module_info(plugin: str, cls: object, distribution: str, folder: Traversable) -> ModuleInfo:
    if not (isinstance(cls, type) and issubclass(cls, _KINDS)):
        raise PluginLoadError(
            f"counterplay_modules gave {cls!r}",
            hint="give classes derived from Trigger, Transform, Action, Sink or Connection",
        )
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise PluginLoadError(
            f"the module {cls.__qualname__} has no usable name", hint="set `name` to one identifier"
        )
    return ModuleInfo(f"{plugin}.{name}", cls, plugin, distribution, folder)


def _without(info: PluginInfo, problem: str) -> PluginInfo:
    return replace(info, problem=problem)
