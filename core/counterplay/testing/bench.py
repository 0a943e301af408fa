"""What the kit needs to know about a plugin to see its modules at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from counterplay.events import JsonObject, PushRequest

CONNECTION = "bench"
"""The name under which a bench's connections stand in the kit's playbooks."""


@dataclass(frozen=True, slots=True)
class Example:
    """One use of a module that works, and, for an action, changes something.

    `arguments` is its `with:` block. `first` names actions that bring the service into the state in which
    this one has something to do, as (`uses`, arguments); where the way back from one of them is this module,
    its arguments may be left out. `events` is what a transform or a sink is given,
    `request` what a push trigger gets, `since` where a trigger begins (default: its look-back before now).
    """

    arguments: JsonObject = field(default_factory=dict)
    first: Sequence[tuple[str, JsonObject]] = ()
    events: Sequence[JsonObject] = ({"id": "E-1"}, {"id": "E-2", "text": "Grüße"})
    request: PushRequest | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """A running service, and the examples that go with it.

    `connections` holds the settings of each kind of connection, secrets in clear. `examples` has one entry
    for each module with required arguments; others are used without arguments unless one is given. `state`
    reads from the service what effects change: two equal values mean that nothing was changed between them.
    """

    connections: Mapping[str, JsonObject] = field(default_factory=dict)
    examples: Mapping[str, Example] = field(default_factory=dict)
    state: Callable[[], object] = lambda: None
