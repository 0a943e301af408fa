"""What travels between modules: events as the bytes the source sent, and the units they came in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from typing import Any, NamedTuple

JsonObject = dict[str, Any]


def encoded(data: Any) -> bytes:
    """Compact JSON; text that UTF-8 cannot carry (a lone surrogate) is written as escapes."""
    import orjson

    try:
        return orjson.dumps(data)
    except TypeError:
        return json.dumps(data, separators=(",", ":")).encode("ascii")


class Event:
    """One JSON object from a trigger: the bytes that the source sent, decoded only when somebody looks.

    `raw` is forwarded as it is and never re-encoded. `meta` says where the event came from:
    `{"feed", "unit", "connection", "tenant", ...}` plus what the trigger adds (`content_type`).
    `position` is its place in its unit, counted before anything was dropped.
    """

    __slots__ = ("_data", "key", "meta", "position", "raw")

    def __init__(
        self,
        raw: bytes,
        meta: Mapping[str, Any] | None = None,
        *,
        position: int = 0,
        key: str | None = None,
        data: JsonObject | None = None,
    ) -> None:
        self.raw = raw
        self.meta = meta or {}
        self.position = position
        self.key = key
        self._data = data

    @property
    def data(self) -> JsonObject:
        """The decoded object. Treat it as read-only: `raw` does not follow changes.

        ValueError: the bytes are no JSON. A lone surrogate escape (a cut-off emoji) is.
        """
        if self._data is None:
            import orjson

            try:
                self._data = orjson.loads(self.raw)
            except orjson.JSONDecodeError:
                self._data = json.loads(self.raw)
        return self._data

    def replaced(self, data: JsonObject) -> Event:
        """The same event with other content, as a Transform returns it; key and position stay."""
        return Event(encoded(data), self.meta, position=self.position, key=self.key, data=data)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a source lists, and what is fetched, acknowledged or lost as one (a blob, a page).

    `id` is unique within its feed and the same each time the source lists it. `locator` is what
    `fetch` needs (an address). `created` is when the source made it available, `expires` when it
    will stop to.
    """

    id: str
    locator: Mapping[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time range that can never be read any more, and why. The ledger keeps it."""

    start: datetime
    end: datetime
    cause: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one `PollTrigger.poll` read.

    `events` are JSON objects as bytes; `cursor` is where the next poll goes on, stored together
    with the events; `more` asks to poll again at once. `gap` is what the source no longer keeps.
    """

    events: tuple[bytes, ...]
    cursor: JsonObject
    more: bool = False
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class PushRequest:
    """One HTTP request that somebody sent to a push trigger. Header names are lower-case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """The events of a request, and the answer that is sent once they are stored.

    `wakes` names triggers (`m365.audit_log`) whose feeds of the same connection look for news at once.
    """

    events: tuple[bytes, ...] = ()
    status: int = 202
    body: bytes = b""
    content_type: str = "application/json"
    wakes: tuple[str, ...] = ()


class Receipt(NamedTuple):
    """A sink's proof for one record: `remote_id` as the receiver gave it, or empty."""

    # no dataclass as its neighbours: there is one for each event, and this costs half

    remote_id: str = ""

    @classmethod
    def each(cls, remote_ids: Iterable[str]) -> list[Receipt]:
        """A receipt for each id, in order; made at once they cost half."""
        return list(map(tuple.__new__, repeat(cls), zip(remote_ids)))


@dataclass(frozen=True, slots=True)
class Inverse:
    """The step that takes an effect back: the module to use and its arguments."""

    uses: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Need:
    """What one use of a module asks of its connection, for `playbook doctor`.

    `permissions`, `licences` and `roles` are the schema's `x-permissions`, `x-licences` and `x-roles`.
    """

    uses: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    permissions: tuple[Mapping[str, Any], ...] = ()
    licences: tuple[Mapping[str, Any], ...] = ()
    roles: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line of `playbook doctor`: whether something would work, and why not.

    `about` is the `uses` of a need, or what else was looked at (`sign-in`, `clock`). `ok` is None for
    what could not be told. `grant` names permissions and roles (`resource: name`) that would mend it.
    `need` is the need that it answers, which tells one use of a module from another.
    """

    about: str
    ok: bool | None
    detail: str = ""
    grant: tuple[str, ...] = ()
    need: Need | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of `connections check`: what was tried, whether it worked, and what to do if not."""

    name: str
    ok: bool
    detail: str = ""
