"""The trigger `m365.audit_search`: a search of the audit log backwards in time, by jobs of Graph."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from counterplay import (
    Context,
    Event,
    Gap,
    GoneError,
    JsonObject,
    Page,
    PermanentError,
    PollTrigger,
    RejectedError,
)
from counterplay_m365 import times
from counterplay_m365.following import members_of, text
from counterplay_m365.graph import Graph
from counterplay_m365.sweeps import stamp

MAX_FAILURES = 3
MAX_RESTARTS = 3
NARROWEST = timedelta(hours=1)
"""A window of this is not searched in parts any more."""
MAX_PAGES = 10_000
_FIRST_PAUSE = 15.0
_LONGEST_PAUSE = 300.0
_FILTERS = (
    ("record_types", "recordTypeFilters"),
    ("operations", "operationFilters"),
    ("users", "userPrincipalNameFilters"),
    ("ip_addresses", "ipAddressFilters"),
    ("objects", "objectIdFilters"),
    ("services", "serviceFilters"),
)


class AuditSearch(PollTrigger):
    """Search the audit log for a span of the past, by jobs that Graph works off in minutes to hours.

    It begins at `start` and ends at `end`, in one job for each `window`; without an `end` it reads up to the
    present each time, and goes on from there the next time. It reaches further back than `m365.audit_log`
    (180 days or more, by licence), and is slower.

    Needs:
        Graph application permission `AuditLogsQuery.Read.All`, or that of one service
        (`AuditLogsQuery-Exchange.Read.All`), which then shows this service only; unified auditing on.
    Cursor:
        `{"mark"}`: records before it are accounted for. While a job runs, its `{"job", "until", "version",
        "begun"}`, and while its records are read, the link of the next page. A worker that takes over
        finds the job instead of starting a second one. `{"goal"}` is what was the present when it began,
        for jobs take longer than it takes to have a new present. `{"span"}` are the seconds of narrower
        windows.
    Delivery:
        At least once; the host drops repeats by `id`. A record starts one run.
    Limits:
        The global cloud only. Ten jobs at once for an account. A window that finds more than the service
        gives, or whose jobs fail, is searched in halves; what fails down to an hour is a gap in the ledger.
    Source:
        https://learn.microsoft.com/graph/api/security-auditcoreroot-post-auditlogqueries
    """

    name = "audit_search"
    connection = "m365.tenant"

    def poll(self, context: Context, cursor: JsonObject | None, since: datetime) -> Page:
        state = dict(cursor) if cursor else {"mark": stamp(self._start(context.now(), since))}
        if "next" in state:
            return self._records(context, state)
        if "job" in state:
            return self._job(context, state)
        return self._begin(context, state)

    def delivery_key(self, event: Event) -> str | None:
        return text(members_of(event).get("id"))

    def _begin(self, context: Context, state: JsonObject) -> Page:
        mark = _moment(state)
        goal = _moment(state, "goal") if "goal" in state else self._end() or times.floor(context.now())
        window = times.span(str(self.arguments["window"]))
        if "span" in state:  # a search of the whole window failed, or left records out
            window = min(window, timedelta(seconds=int(state["span"])))
        until = min(mark + window, goal)
        if until <= mark:
            return Page((), {name: value for name, value in state.items() if name != "goal"})
        search: JsonObject = {
            "displayName": f"counterplay {stamp(mark)} to {stamp(until)}",
            "filterStartDateTime": stamp(mark),
            "filterEndDateTime": stamp(until),
        }
        for argument, member in _FILTERS:
            if self.arguments.get(argument):
                search[member] = self.arguments[argument]
        if self.arguments.get("keyword"):
            search["keywordFilter"] = self.arguments["keyword"]
        graph, version = Graph(context), str(state.get("version", "v1.0"))
        try:
            job = graph.start_audit_search(search, version)
        except GoneError:
            if version == "beta":
                raise
            version = "beta"  # v1.0 is not rolled out to each tenant
            job = graph.start_audit_search(search, version)
        begun = {"job": job, "until": stamp(until), "goal": stamp(goal), "version": version}
        return Page((), {**state, **begun, "begun": stamp(context.now())}, more=True)

    def _job(self, context: Context, state: JsonObject) -> Page:
        graph, job, version = Graph(context), str(state["job"]), str(state["version"])
        since = f" since {state['begun']}" if "begun" in state else ""
        context.under_way(f"searches the audit log from {state['mark']} to {state['until']}{since}")
        pause = _FIRST_PAUSE
        while True:
            try:
                status, cut = graph.audit_search_status(job, version)
            except GoneError:
                status, cut = "gone", False
            if status not in ("notstarted", "running"):
                break
            if context.stop.wait(pause):
                return Page((), state, more=True)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        if status != "succeeded":
            return _failed(state, status)
        narrower = _narrower(state) if cut else None
        if narrower is not None:
            return Page((), narrower, more=True)
        page = graph.audit_search_records(job, version)
        found = self._onward(page.records, state, page.next_link, 1)
        return replace(found, gap=_gap(state, "a search finds more than the service gives")) if cut else found

    def _records(self, context: Context, state: JsonObject) -> Page:
        link, pages = str(state["next"]), int(state["pages"])
        try:
            page = Graph(context).records_at(link, "audit records", needs="AuditLogsQuery.Read.All")
        except (GoneError, RejectedError):  # the link has expired: the job's records from their start
            restarts = int(state.get("restarts", 0))
            if restarts == MAX_RESTARTS:
                raise
            kept = {name: value for name, value in state.items() if name not in ("next", "pages")}
            return Page((), {**kept, "restarts": restarts + 1}, more=True)
        if page.next_link == link or pages >= MAX_PAGES:
            raise PermanentError(f"the records of the audit search {state['job']} have no end")
        return self._onward(page.records, state, page.next_link, pages + 1)

    def _onward(
        self, records: tuple[bytes, ...], state: JsonObject, next_link: str | None, pages: int
    ) -> Page:
        if next_link is not None:
            return Page(records, {**state, "next": next_link, "pages": pages}, more=True)
        return Page(records, {**_kept(state), "mark": state["until"]}, more=True)

    def _start(self, now: datetime, since: datetime) -> datetime:
        given = self.arguments.get("start")
        if given is None:
            return times.floor(since)
        absolute = times.parse(given)
        return absolute if absolute is not None else times.floor(now - times.span(str(given)))

    def _end(self) -> datetime | None:
        return times.parse(self.arguments.get("end"))


def _failed(state: JsonObject, status: str) -> Page:
    """A job ended without a result: the same again, then a part of it, at last a gap in the ledger."""
    failures = int(state.get("failures", 0)) + 1
    if failures < MAX_FAILURES:
        return Page((), {**_kept(state), "failures": failures}, more=True)
    narrower = _narrower(state)
    if narrower is not None:
        return Page((), narrower, more=True)
    gap = _gap(state, f"the search of the audit log ended as {status} {failures} times")
    return Page((), {**_kept(state), "mark": state["until"]}, more=True, gap=gap)


def _kept(state: JsonObject) -> JsonObject:
    """What the cursor of the next job takes over."""
    return {name: state[name] for name in ("mark", "goal", "version", "span") if name in state}


def _narrower(state: JsonObject) -> JsonObject | None:
    """The cursor for jobs of half the window; None when it is narrow already."""
    span = _moment(state, "until") - _moment(state)
    if span <= NARROWEST:
        return None
    return {**_kept(state), "span": int(span.total_seconds() / 2)}


def _gap(state: JsonObject, cause: str) -> Gap:
    return Gap(_moment(state), _moment(state, "until"), cause)


def _moment(state: JsonObject, name: str = "mark") -> datetime:
    found = times.parse(state.get(name))
    if found is None:
        raise PermanentError(f"the stored cursor holds no time: {state}")
    return found
