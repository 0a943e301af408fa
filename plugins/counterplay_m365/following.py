"""The base of the triggers that follow a Graph collection by a time: alerts, risks, logs."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar

from counterplay import Context, Event, Gap, JsonObject, Page, PollTrigger
from counterplay_m365 import times
from counterplay_m365.graph import Graph
from counterplay_m365.keeping import Kept
from counterplay_m365.licences import Licence
from counterplay_m365.recall import SERIAL, Recall, digest
from counterplay_m365.slices import lenient
from counterplay_m365.sweeps import Recipe, Records, turn


class GraphTrigger(PollTrigger):
    """Follows one collection. A subclass says where it is, and which time its records go by."""

    connection = "m365.tenant"
    path: ClassVar[str]
    """Below the version: `/security/alerts_v2`."""
    what: ClassVar[str]
    """What people call the records: `alerts`."""
    moment: ClassVar[str]
    """The property by which records are followed, also in filters."""
    created: ClassVar[str | None] = None
    """The property with the time at which a record was made, where `moment` moves."""
    moves: ClassVar[bool] = False
    """Whether an update gives a record a new `moment`."""
    permission: ClassVar[str]
    licence: ClassVar[Licence | None] = None
    page_size: ClassVar[int]
    overlap: ClassVar[timedelta] = timedelta(minutes=10)
    """Asked for again each time: a record can become visible late."""
    revisit: ClassVar[timedelta] = timedelta(hours=2)
    """Asked for again once an hour."""
    filters: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Arguments that are lists of values, each with the property that has to be one of them."""
    kept: ClassVar[Kept | None] = None
    """How long the service keeps records; None where nobody says."""
    version: str = "v1.0"

    def __init__(self, arguments: Any) -> None:
        super().__init__(arguments)
        self._recall = Recall()

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        known = self._recall.resume(cursor)
        recipe = Recipe(self.what, self.overlap, self.revisit, self.moves)
        graph, now = Graph(context), context.now()
        found = turn(Collection(self, graph), recipe, cursor, since, now)
        records: list[bytes] = []
        added: list[bytes] = []
        for raw in self.completed(context, found.records):
            key = self.delivery_key(Event(raw))
            mark = None if key is None else digest(key)
            if mark is None or mark not in known:
                records.append(raw)
                added += [mark] if mark is not None else []
        return Page(
            tuple(records),
            {**found.cursor, SERIAL: self._recall.onward(known, added)},
            more=found.more,
            gap=self._gap(graph, cursor, since, now),
        )

    def _gap(self, graph: Graph, cursor: JsonObject | None, since: datetime, now: datetime) -> Gap | None:
        """What the service forgot before a sweep that begins now."""
        if self.kept is None or (cursor is not None and "goal" in cursor):
            return None
        mark = since if cursor is None else times.parse(cursor.get("mark"))
        return None if mark is None else self.kept.gap(graph, mark, now)

    def completed(self, context: Context, records: Any) -> Any:
        """The records of a page, with what else belongs to them. Default: as they are."""
        return records

    def query(self) -> dict[str, str]:
        """Query options besides `$filter` and `$top`."""
        return {}

    def conditions(self) -> list[str]:
        """What else the filter asks for, besides the time."""
        found: list[str] = []
        for argument, member in self.filters:
            chosen: list[str] = self.arguments.get(argument) or []
            either = " or ".join(f"{member} eq '{quoted(value)}'" for value in chosen)
            if either:
                found.append(f"({either})" if len(chosen) > 1 else either)
        return found

    def delivery_key(self, event: Event) -> str | None:
        found = members_of(event)
        identity = text(found.get("id"))
        if identity is None or not self.moves:
            return identity
        moment = text(found.get(self.moment))
        return f"{identity}|{moment}" if moment else None

    def run_key(self, event: Event) -> str | None:
        return text(members_of(event).get("id"))


class Collection:
    """The collection of a trigger, as sweeps ask for it."""

    def __init__(self, trigger: GraphTrigger, graph: Graph) -> None:
        self._trigger = trigger
        self._graph = graph

    def first(self, start: str, until: str) -> Records:
        one = self._trigger
        parts = [f"{one.moment} ge {start}", f"{one.moment} le {until}", *one.conditions()]
        return self._page({"$filter": " and ".join(parts), "$top": str(one.page_size), **one.query()})

    def follow(self, link: str) -> Records:
        one = self._trigger
        return self._graph.records_at(link, one.what, needs=one.permission, licence=one.licence)

    def moved_since(self, until: str) -> bool:
        one = self._trigger
        parts = [f"{one.moment} gt {until}", *([f"{one.created} le {until}"] if one.created else [])]
        page = self._page({"$filter": " and ".join(parts), "$top": "1"})
        return bool(page.records) or page.next_link is not None

    def _page(self, query: dict[str, str]) -> Records:
        one = self._trigger
        return self._graph.records(
            one.path, query, one.what, needs=one.permission, licence=one.licence, version=one.version
        )


def members_of(event: Event) -> dict[str, Any]:
    """The members of an event; empty when it is no JSON object. Half of a surrogate pair is no harm."""
    import msgspec  # not at the top: a third of what naming all modules takes

    try:
        found: dict[str, Any] = _object_decoder().decode(event.raw)
        return found
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = lenient(event.raw)
        return data if isinstance(data, dict) else {}


def text(value: object) -> str | None:
    """A member that is a text of the service; None for anything else, and for an empty one."""
    import msgspec

    if isinstance(value, msgspec.Raw):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = lenient(bytes(memoryview(value)))  # type: ignore[arg-type]  # typed as an object, is a buffer
    return value if isinstance(value, str) and value else None


def quoted(value: str) -> str:
    """A text as an OData literal takes it between its quotes."""
    return value.replace("'", "''")


@cache
def _object_decoder() -> Any:
    import msgspec

    return msgspec.json.Decoder(dict[str, msgspec.Raw])
