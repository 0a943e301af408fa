"""Which connection a use of a module works with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from counterplay.language.model import ConnectionRef, Playbook, Use
from counterplay.plugins import PluginHost


class ConnectionCatalogue(Protocol):
    """What a workspace knows: connections by (name, kind), as one name may stand for several; playbooks."""

    def kinds(self, name: str) -> Collection[str]:
        """The kinds of connection of that name, e.g. `{"m365.tenant"}`; none: there is no such name."""
        ...

    def labelled(self, labels: Sequence[str], kind: str) -> Sequence[str]:
        """The names of the connections of a kind that carry all the labels."""
        ...

    def names(self) -> Collection[str]:
        """All names."""
        ...

    def playbooks(self) -> Collection[str]:
        """The names of the playbooks that a step can call."""
        ...


def connection_of(use: Use, playbook: Playbook, host: PluginHost) -> ConnectionRef | None:
    """The connection of a use: its own, else the trigger's if the kind fits; None: it needs none."""
    return resolved(use.uses, use.connection, playbook.trigger.uses, playbook.trigger.connection, host)


def resolved(
    uses: str,
    own: ConnectionRef | None,
    trigger: str,
    trigger_connection: ConnectionRef | None,
    host: PluginHost,
) -> ConnectionRef | None:
    """`connection_of`, on names."""
    wanted = host.module(uses).cls.connection
    if wanted is None:
        return None
    if own is not None:
        return own
    return trigger_connection if host.module(trigger).cls.connection == wanted else None
