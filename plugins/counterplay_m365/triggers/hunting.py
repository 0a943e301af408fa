"""The trigger `m365.hunting`: a KQL query over the advanced-hunting tables, on a schedule."""

from __future__ import annotations

from datetime import datetime, timedelta

from counterplay import Context, Event, JsonObject, Page, PermanentError, PollTrigger
from counterplay_m365 import times
from counterplay_m365.following import members_of, text
from counterplay_m365.graph import Graph
from counterplay_m365.keeping import HUNTING_TABLES
from counterplay_m365.recall import SERIAL, Recall, digest
from counterplay_m365.sweeps import stamp

MOST_ROWS = 100_000
"""A result is cut here, without a word."""
_NARROWEST = timedelta(minutes=1)


class Hunting(PollTrigger):
    """Run a KQL query over the advanced-hunting tables on a schedule; each row is an event.

    Each time it asks for what happened since the last time, less an overlap for rows that arrive late.
    The host gives the time span: a query needs no condition on `Timestamp`.

    Needs:
        Graph application permission `ThreatHunting.Read.All`, and a Defender plan with advanced hunting.
    Cursor:
        `{"mark"}`: rows before it are accounted for. While a span that gave too many rows is read in
        parts, `{"until"}` is the end of the next part.
    Delivery:
        At least once; the host drops repeats by the columns in `key`, by default the whole row. A row
        starts one run.
    Limits:
        45 queries a minute for a tenant at least, and a share of processor time each 15 minutes; a query
        is cut after 3 minutes. A span with more than 100,000 rows is halved. Data is kept for 30 days:
        what nobody asked for in time becomes a gap in the ledger.
    Source:
        https://learn.microsoft.com/graph/api/security-security-runhuntingquery
    """

    name = "hunting"
    connection = "m365.tenant"

    def __init__(self, arguments: JsonObject) -> None:
        super().__init__(arguments)
        self._recall = Recall()

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        known = self._recall.resume(cursor)
        moment = context.now()
        now = times.floor(moment)
        mark = since if cursor is None else times.parse(cursor.get("mark"))
        if mark is None:
            raise PermanentError(f"the stored cursor holds no time: {cursor}")
        start = mark if cursor is None else mark - times.span(str(self.arguments["overlap"]))
        part = times.parse((cursor or {}).get("until"))
        until = max(now, mark) if part is None else part
        graph = Graph(context)
        # to the end of this second: what happened in it can be seen already, and is asked for once more
        end = times.ceil(moment) if until == now else until
        rows = graph.hunt(str(self.arguments["query"]), f"{stamp(start)}/{stamp(end)}")
        if len(rows) >= MOST_ROWS:
            if until - start < _NARROWEST:
                raise PermanentError(
                    f"the query gives more than {MOST_ROWS} rows for the time from {stamp(start)} to "
                    f"{stamp(until)}",
                    hint="narrow it with a `where` or a `summarize`",
                )
            half = max(until - (until - start) / 2, mark + timedelta(seconds=1))
            if half >= until:
                raise PermanentError(
                    f"the overlap from {stamp(start)} alone gives more than {MOST_ROWS} rows",
                    hint="choose a shorter `overlap`, or narrow the query",
                )
            kept = {**(cursor or {}), "mark": stamp(mark), "until": stamp(half)}
            return Page((), kept, more=True, gap=HUNTING_TABLES.gap(graph, mark, now))
        fresh: list[bytes] = []
        added: list[bytes] = []
        for raw in rows:
            identity = digest(self.delivery_key(Event(raw)))
            if identity not in known:
                fresh.append(raw)
                added.append(identity)
        onward = {"mark": stamp(until), SERIAL: self._recall.onward(known, added)}
        gap = HUNTING_TABLES.gap(graph, mark, now) if part is None else None
        return Page(tuple(fresh), onward, more=part is not None, gap=gap)

    def delivery_key(self, event: Event) -> str:
        row = members_of(event)
        names: list[str] = self.arguments.get("key") or sorted(row)
        parts = [
            text(row.get(name)) or bytes(row.get(name, b"null")).decode("utf-8", "replace") for name in names
        ]
        from hashlib import sha256  # it loads OpenSSL

        return sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
