"""What counts as inside, as `internal` shows it to expressions: domains and networks.

`counterplay.yaml` says it; domains that it does not name are those that the event's own connection has
verified, asked for once a day. What cannot be told is an error and never an empty list: an address would
count as foreign that is not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from counterplay.errors import ConfigError, WorkError
from counterplay.events import JsonObject
from counterplay.modules import Connection, Context, Module

if TYPE_CHECKING:
    from counterplay.runtime.opening import Opener

FRESH = 24 * 3600.0
"""Seconds for which domains that a service told are taken for true."""
_AGAIN = 3600.0
log = logging.getLogger("counterplay.internal")


class Internal:
    """Answers for a workspace, from its configuration or its connections. Safe for threads."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._domains: dict[str, tuple[tuple[str, ...], float]] = {}
        self._lock = threading.Lock()

    def for_event(self, meta: Mapping[str, Any]) -> JsonObject:
        """`{"domains", "networks"}` for an event with this `meta`.

        ConfigError: nobody says which domains are inside. RetryableError, BlockedError: the service that
        knows them cannot be asked now.
        """
        label = str(meta.get("connection") or "")
        return self._told(lambda: self._verified(label, lambda: self._asked(label)))

    def for_connection(self, connection: Connection | None) -> JsonObject:
        """The same for a step's connection; without domains where nobody says which are inside."""
        if connection is None or not knows_domains(type(connection)):
            return self._told(tuple)
        return self._told(lambda: self._verified(connection.label, lambda: self._asked_of(connection)))

    def _told(self, otherwise: Callable[[], Sequence[str]]) -> JsonObject:
        said = self._opener.workspace.internal
        domains = said.get("domains")
        return {
            "domains": [str(one).lower() for one in (otherwise() if domains is None else domains)],
            "networks": list(said.get("networks") or ()),
        }

    def _verified(self, label: str, ask: Callable[[], tuple[str, ...]]) -> Sequence[str]:
        with self._lock:
            known, until = self._domains.get(label, ((), 0.0))
            if time.monotonic() < until:
                return known
            try:
                found = ask()
            except WorkError as error:
                if not known:
                    raise
                log.warning("the domains of %s could not be read again: %s", label, error)
                self._domains[label] = (known, time.monotonic() + _AGAIN)
                return known
            self._domains[label] = (found, time.monotonic() + FRESH)
            return found

    def _asked_of(self, connection: Connection) -> tuple[str, ...]:
        with self._opener.wire(connection) as http:
            return tuple(connection.internal_domains(Context(http=http, connection=connection)))

    def _asked(self, label: str) -> tuple[str, ...]:
        for kind in sorted(self._opener.workspace.kinds(label)):
            cls = self._opener.host.module(kind).cls
            if knows_domains(cls):
                return self._asked_of(self._opener.connection(label, kind))
        came = f"the connection {label!r} does not know them" if label else "the event came through no tenant"
        raise ConfigError(
            f"`internal.domains` is not known: {came}",
            hint="write `internal: {domains: [...]}` in counterplay.yaml",
        )


def knows_domains(cls: type[Module]) -> bool:
    """Whether connections of a kind can tell which domains are their organisation's own."""
    return issubclass(cls, Connection) and cls.internal_domains is not Connection.internal_domains
