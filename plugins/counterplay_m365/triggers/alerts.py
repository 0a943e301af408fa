"""The trigger `m365.alerts`: the alerts of Microsoft Defender XDR, through Graph."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from counterplay import (
    Context,
    Event,
    GoneError,
    JsonObject,
    Page,
    PermanentError,
    PollTrigger,
    RejectedError,
)
from counterplay_m365 import times
from counterplay_m365.graph import AlertPage, Graph
from counterplay_m365.slices import lenient

OVERLAP = timedelta(minutes=10)  #: asked for again each time: an update can become visible late
PAGE_SIZE = 100
MAX_PAGES = 1000
MAX_RESTARTS = 3
_FILTERS = (("severity", "severity"), ("status", "status"), ("service_source", "serviceSource"))


class Alerts(PollTrigger):
    """Collect new and changed alerts of Microsoft Defender, Entra ID Protection and the rest.

    Each update of an alert is an event; the first one of an alert starts a run.

    Needs:
        Graph application permission `SecurityAlert.Read.All`, and a Defender product or Identity
        Protection that raises alerts.
    Cursor:
        `{"mark", "until", "next", "pages", "restarts"}`: updates before `mark` are accounted for;
        while a listing up to the frozen `until` is being paged, `next` is the link of its next page.
    Delivery:
        At least once; the host drops repeats by `id` and `lastUpdateDateTime`.
    Limits:
        150 requests a minute for an app and tenant. Not in China.
    Source:
        https://learn.microsoft.com/graph/api/security-list-alerts_v2
    """

    name = "alerts"
    connection = "m365.tenant"

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        state = cursor or {"mark": _stamp(since)}
        following: str | None = state.get("next")
        mark = str(state["mark"])
        until = str(state["until"]) if following else _stamp(context.now())
        pages = int(state.get("pages", 0)) if following else 0
        restarts = int(state.get("restarts", 0)) if following else 0
        graph = Graph(context)
        try:
            page = graph.alerts_at(following) if following else self._first(graph, cursor, mark, until)
        except (GoneError, RejectedError) as error:
            if not following:
                raise
            if restarts == MAX_RESTARTS:
                raise PermanentError(
                    f"the listing of alerts from {mark} to {until} broke off {MAX_RESTARTS + 1} times: "
                    f"{error.message}",
                    status=error.status,
                    code=error.code,
                    request_id=error.request_id,
                ) from error
            pages, restarts = 0, restarts + 1  # the link has expired: the same listing from its start
            page = self._first(graph, cursor, mark, until)
        if page.next_link is None:
            return Page(page.alerts, {"mark": until})
        if page.next_link == following or pages == MAX_PAGES:
            raise PermanentError(f"the listing of alerts from {mark} to {until} has no end")
        onward = {"mark": mark, "until": until, "next": page.next_link, "pages": pages + 1}
        if restarts:
            onward["restarts"] = restarts
        return Page(page.alerts, onward, more=True)

    def delivery_key(self, event: Event) -> str | None:
        alert = _identity(event)
        if alert is None:
            return None
        updated = alert.lastUpdateDateTime
        return f"{alert.id}|{updated}" if isinstance(updated, str) and updated else None

    def run_key(self, event: Event) -> str | None:
        alert = _identity(event)
        return None if alert is None else str(alert.id)

    def _first(self, graph: Graph, cursor: JsonObject | None, mark: str, until: str) -> AlertPage:
        start = mark
        known = times.parse(mark)
        if cursor is not None and known is not None:
            start = _stamp(known - OVERLAP)
        return graph.alerts(self._condition(start, until), PAGE_SIZE)

    def _condition(self, start: str, until: str) -> str:
        parts = [f"lastUpdateDateTime ge {start}", f"lastUpdateDateTime le {until}"]
        for argument, member in _FILTERS:
            chosen: list[str] = self.arguments.get(argument) or []
            either = " or ".join(f"{member} eq '{value}'" for value in chosen)
            if either:
                parts.append(f"({either})" if len(chosen) > 1 else either)
        return " and ".join(parts)


class _Alert(msgspec.Struct):
    id: Any = None
    lastUpdateDateTime: Any = None


_ALERT = msgspec.json.Decoder(_Alert)


def _identity(event: Event) -> _Alert | None:
    """The alert's id and last update; None when it has no id."""
    try:
        found = _ALERT.decode(event.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = lenient(event.raw)
        if not isinstance(data, dict):
            return None
        found = _Alert(data.get("id"), data.get("lastUpdateDateTime"))
    return found if isinstance(found.id, str) and found.id else None


def _stamp(moment: datetime) -> str:
    return f"{times.stamp(moment)}Z"
