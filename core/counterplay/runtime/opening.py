"""Opens what playbooks name: connections with their secrets, and the sessions that carry them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from counterplay.budgets import Budgets
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language import Labels, Playbook, Use, connection_of, load, with_defaults
from counterplay.language.arguments import problems
from counterplay.modules import Connection
from counterplay.places import FILE
from counterplay.plugins import PluginHost
from counterplay.runtime.internal import Internal
from counterplay.runtime.planning_wire import PlanningWire
from counterplay.secrets import Secrets
from counterplay.wire import Wire
from counterplay.workspace import (
    ConnectionEntry,
    Workspace,
    settings_with_plain_references,
    shown,
    with_article,
)


class Opener:
    """Connections by (name, kind), each opened once in a process."""

    def __init__(self, workspace: Workspace, stop: threading.Event | None = None) -> None:
        self.workspace = workspace
        self.secrets: Secrets = workspace.secrets
        self._stop = stop or threading.Event()
        self.budgets = Budgets()
        self.internal = Internal(self)
        self._open: dict[tuple[str, str], Connection] = {}
        self._lock = threading.Lock()

    @property
    def host(self) -> PluginHost:
        return self.workspace.host

    def connection(self, name: str, kind: str) -> Connection:
        """The connection of that name and kind. ConfigError: there is none, or its settings are wrong."""
        with self._lock:
            if (name, kind) not in self._open:
                self._open[name, kind] = self._opened(name, kind)
            return self._open[name, kind]

    def token_ages(self) -> list[tuple[str, str, float]]:
        """(connection, service, seconds) of each token that is in use."""
        with self._lock:
            connections = list(self._open.items())
        return [
            (name, service, age)
            for (name, _), connection in connections
            for service, age in sorted(connection.token_ages().items())
        ]

    def connection_for(
        self, use: Use, playbook: Playbook, renames: Mapping[str, str], meta: Mapping[str, Any]
    ) -> Connection | None:
        """The connection of a step or sink: its own, else the one that the event came through."""
        kind = self.host.module(use.uses).cls.connection
        if kind is None:
            return None
        named = connection_of(use, playbook, self.host)
        if use.connection is None and named is not None and meta.get("connection"):
            return self.connection(str(meta["connection"]), kind)
        if named is None or isinstance(named, Labels):
            raise ConfigError(f"{use.uses} needs a connection of kind {kind}", hint="write `connection:`")
        return self.connection(renames.get(named, named), kind)

    def playbook(self, name: str) -> Playbook:
        """The playbook of that name as it stands now, checked. ConfigError: there is none, or it is wrong."""
        found = load(self.workspace.playbook_file(name), self.host, None)
        if not isinstance(found, Playbook):
            raise ConfigError(f"{name!r} is a set; only a single playbook can be called")
        return found

    def wire(self, connection: Connection | None, timeout: float | None = None) -> Wire:
        """A session for the connection's services; `timeout` is its total deadline in seconds."""
        return Wire(
            connection, stop=self._stop, budgets=self.budgets, mask=self.secrets.mask, timeout=timeout
        )

    def inside(self, connection: Connection | None) -> Callable[[], JsonObject]:
        """What `StepContext.internal` says on a connection."""
        return lambda: self.internal.for_connection(connection)

    def planning_wire(self, connection: Connection | None, *, writes: bool) -> PlanningWire:
        """The same for a plan: it reads, and writes down what would be written."""
        return PlanningWire(
            connection,
            stop=self._stop,
            budgets=self.budgets,
            mask=self.secrets.mask,
            writes=writes,
            timeout=300,
        )

    def _opened(self, name: str, kind: str) -> Connection:
        info = self.host.module(kind)
        cls = info.cls
        if not issubclass(cls, Connection):
            raise ConfigError(f"{kind} is {with_article(info.kind)}, not a connection")
        entry = self._entry(name, kind)
        try:
            settings = settings_with_plain_references(entry, info.schema, self.secrets.plain)
            for problem in problems(settings, info.schema):
                where = ".".join(["connections", name, *(str(part) for part in problem.path)])
                raise ConfigError(f"{where}: {problem.message}", hint=problem.hint or None)
            self._try_secrets(name, settings, info.schema)
        except ConfigError as error:
            if name in self.workspace.entries:
                error.path = error.path or shown(self.workspace.base / FILE)
            raise
        return cls(name, with_defaults(info.schema, settings), self.secrets)

    def _try_secrets(self, name: str, settings: JsonObject, schema: JsonObject) -> None:
        """Resolve each secret once and drop it: one that is missing is told before anything runs."""
        for key, value in settings.items():
            if schema.get("properties", {}).get(key, {}).get("writeOnly"):
                self.secrets.resolve(value, where=f"connections.{name}.{key}")

    def _entry(self, name: str, kind: str) -> ConnectionEntry:
        configured = self.workspace.entries.get(name)
        if configured is not None and configured.uses == kind:
            return configured
        offer = self.workspace.offers.get((name, kind))
        if offer is not None:
            return ConnectionEntry(name, kind, (), self._offered(offer.open(), kind))
        kinds = sorted(self.workspace.kinds(name))
        if kinds:
            raise ConfigError(f"the connection {name!r} is of kind {', '.join(kinds)}, not {kind}")
        raise ConfigError(
            f"there is no connection {name!r} of kind {kind}",
            hint=f"add it under `connections:` in {shown(self.workspace.base / FILE)}, "
            f"or run with `--connection {name}=sim`",
        )

    def _offered(self, settings: JsonObject, kind: str) -> JsonObject:
        described = self.host.module(kind).schema.get("properties", {})
        for key, value in settings.items():
            if described.get(key, {}).get("writeOnly"):
                self.secrets.remember(str(value))
        return settings
