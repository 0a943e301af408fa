"""The trigger m365.audit_search: one job for each window, found again by whoever goes on."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses

from counterplay import Context, Event, Gap, Page, clock
from counterplay_m365.triggers import audit_search
from counterplay_m365.triggers.audit_search import AuditSearch

JOBS = "https://graph.microsoft.com/v1.0/security/auditLog/queries"
BETA = JOBS.replace("v1.0", "beta")
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)
SPAN = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T12:00:00Z", "window": "1d"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_search, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(audit_search, "_LONGEST_PAUSE", 0.001)


def drained(trigger: AuditSearch, context: Context, cursor: Any = None) -> tuple[list[Any], Page]:
    """Poll until it asks for a rest, the cursor going through JSON each time."""
    events: list[Any] = []
    while True:
        page = trigger.poll(context, cursor, SINCE)
        events += [json.loads(raw) for raw in page.events]
        cursor = json.loads(json.dumps(page.cursor))
        if not page.more:
            return events, page


def test_a_span_is_searched_window_by_window(context: Context, wire: responses.RequestsMock) -> None:
    """Each window is a job that is waited for; its records are read over all pages."""
    wire.post(JOBS, status=201, json={"id": "j1", "status": "notStarted"})
    wire.post(JOBS, status=201, json={"id": "j2", "status": "notStarted"})
    wire.get(f"{JOBS}/j1", json={"id": "j1", "status": "running"})
    wire.get(f"{JOBS}/j1", json={"id": "j1", "status": "succeeded"})
    wire.get(f"{JOBS}/j2", json={"id": "j2", "status": "Succeeded"})
    link = f"{JOBS}/j1/records?$skiptoken=2"
    wire.get(f"{JOBS}/j1/records", json={"value": [{"id": "a"}], "@odata.nextLink": link})
    wire.get(link, json={"value": [{"id": "b"}]})
    wire.get(f"{JOBS}/j2/records", json={"value": []})

    arguments = {**SPAN, "operations": ["New-InboxRule"], "services": ["Exchange"], "keyword": "fw"}
    events, page = drained(AuditSearch(arguments), context)

    assert events == [{"id": "a"}, {"id": "b"}]
    assert page.cursor == {"mark": "2026-01-02T12:00:00Z", "version": "v1.0"}
    asked = [json.loads(str(c.request.body, "utf-8")) for c in wire.calls if c.request.url == JOBS]  # type: ignore[arg-type]
    assert asked[0] == {
        "displayName": "counterplay 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z",
        "filterStartDateTime": "2026-01-01T00:00:00Z",
        "filterEndDateTime": "2026-01-02T00:00:00Z",
        "operationFilters": ["New-InboxRule"],
        "serviceFilters": ["Exchange"],
        "keywordFilter": "fw",
    }
    assert asked[1]["filterEndDateTime"] == "2026-01-02T12:00:00Z"


def test_who_goes_on_finds_the_job(context: Context, wire: responses.RequestsMock) -> None:
    """The cursor names it, so that a restart starts no second one."""
    wire.get(f"{JOBS}/j1", json={"status": "succeeded"})
    wire.get(f"{JOBS}/j1/records", json={"value": [{"id": "a"}]})
    cursor = {
        "mark": "2026-01-01T00:00:00Z",
        "job": "j1",
        "until": "2026-01-02T12:00:00Z",
        "version": "v1.0",
    }

    events, _ = drained(AuditSearch(SPAN), context, cursor)

    assert events == [{"id": "a"}]
    assert not [call for call in wire.calls if call.request.url == JOBS]


def test_a_tenant_without_version_1_is_searched_by_the_beta(
    context: Context, wire: responses.RequestsMock
) -> None:
    """404 UnknownError on v1.0 means that it is not rolled out there."""
    wire.post(JOBS, status=404, json={"error": {"code": "UnknownError", "message": ""}})
    wire.post(BETA, status=201, json={"id": "j1"})

    page = AuditSearch(SPAN).poll(context, None, SINCE)

    assert page.cursor["version"] == "beta"
    assert page.cursor["job"] == "j1"


def windows(wire: responses.RequestsMock) -> list[tuple[str, str]]:
    """The spans of the jobs that were started."""
    asked = [json.loads(str(c.request.body, "utf-8")) for c in wire.calls if c.request.url == JOBS]  # type: ignore[arg-type]
    return [(one["filterStartDateTime"][11:16], one["filterEndDateTime"][11:16]) for one in asked]


def test_a_job_that_fails_is_tried_again_then_in_parts_then_named_as_a_gap(
    context: Context, wire: responses.RequestsMock
) -> None:
    """Three times each; what is left of the window is searched all the same."""
    span = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T02:00:00Z", "window": "2h"}
    wire.post(JOBS, status=201, json={"id": "bad"})
    for _ in range(5):
        wire.post(JOBS, status=201, json={"id": "bad"})
    wire.post(JOBS, status=201, json={"id": "good"})
    wire.get(f"{JOBS}/bad", json={"status": "failed"})
    wire.get(f"{JOBS}/good", json={"status": "succeeded"})
    wire.get(f"{JOBS}/good/records", json={"value": [{"id": "a"}]})
    trigger, cursor, gaps, events = AuditSearch(span), None, [], []
    while True:
        page = trigger.poll(context, cursor, SINCE)
        cursor = page.cursor
        events += list(page.events)
        gaps += [page.gap] if page.gap else []
        if not page.more:
            break

    assert windows(wire) == [("00:00", "02:00")] * 3 + [("00:00", "01:00")] * 3 + [("01:00", "02:00")]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    cause = "the search of the audit log ended as failed 3 times"
    assert gaps == [Gap(start, start + timedelta(hours=1), cause)]
    assert events == [b'{"id": "a"}']


def test_a_search_that_finds_too_much_is_split(context: Context, wire: responses.RequestsMock) -> None:
    """What the service left out of a job's records is not taken for all there is."""
    span = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T02:00:00Z", "window": "2h"}
    for name in ("whole", "first", "second"):
        wire.post(JOBS, status=201, json={"id": name})
        wire.get(
            f"{JOBS}/{name}", json={"status": "succeeded", "isRecordCountLimitExceeded": name != "second"}
        )
        wire.get(f"{JOBS}/{name}/records", json={"value": [{"id": name}]})
    trigger, cursor = AuditSearch(span), None
    pages = []
    while not pages or pages[-1].more:
        pages.append(trigger.poll(context, cursor, SINCE))
        cursor = pages[-1].cursor

    assert windows(wire) == [("00:00", "02:00"), ("00:00", "01:00"), ("01:00", "02:00")]
    assert [raw for page in pages for raw in page.events] == [b'{"id": "first"}', b'{"id": "second"}']
    assert [(page.gap.start.hour, page.gap.end.hour, page.gap.cause) for page in pages if page.gap] == [
        (0, 1, "a search finds more than the service gives")
    ]


@pytest.mark.parametrize("status", [400, 404, 410])
def test_an_expired_link_begins_the_records_anew(
    context: Context, wire: responses.RequestsMock, status: int
) -> None:
    """A few times; the job is still there."""
    link = f"{JOBS}/j1/records?$skiptoken=2"
    wire.get(f"{JOBS}/j1", json={"status": "succeeded"})
    page = {"value": [{"id": "a"}], "@odata.nextLink": link}
    wire.get(f"{JOBS}/j1/records", json=page, match=[responses.matchers.query_param_matcher({})])
    wire.get(link, status=status, json={"error": {"code": "UnknownError", "message": "expired"}})
    wire.get(link, json={"value": [{"id": "b"}]})
    cursor = {
        "mark": "2026-01-01T00:00:00Z",
        "job": "j1",
        "until": "2026-01-02T12:00:00Z",
        "version": "v1.0",
    }

    events, _ = drained(AuditSearch(SPAN), context, cursor)

    assert [one["id"] for one in events] == ["a", "a", "b"]


def test_a_stop_while_the_job_runs_keeps_it(context: Context, wire: responses.RequestsMock) -> None:
    """The next start waits for the same job."""
    wire.get(f"{JOBS}/j1", json={"status": "running"})
    context.stop.set()
    cursor = {"mark": "2026-01-01T00:00:00Z", "job": "j1", "until": "x", "version": "v1.0"}

    page = AuditSearch(SPAN).poll(context, cursor, SINCE)

    assert (page.events, page.cursor, page.more) == ((), cursor, True)


def test_who_waits_for_a_job_is_told_its_window_and_since_when(
    context: Context, wire: responses.RequestsMock
) -> None:
    """Also by whoever goes on with it: the time is that of the job."""
    wire.post(JOBS, status=201, json={"id": "j1"})
    wire.get(f"{JOBS}/j1", json={"status": "running"})
    said: list[str] = []
    context.under_way = said.append
    with clock.read_from(lambda: datetime(2026, 3, 1, 9, tzinfo=UTC)):
        begun = AuditSearch(SPAN).poll(context, None, SINCE)
    assert said == []
    context.stop.set()

    AuditSearch(SPAN).poll(context, begun.cursor, SINCE)

    window = "from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z"
    assert said == [f"searches the audit log {window} since 2026-03-01T09:00:00Z"]


def test_what_happens_while_jobs_run_is_for_the_next_time(
    context: Context, wire: responses.RequestsMock
) -> None:
    """Without an end it comes to rest at what was the present, however long the jobs take."""
    wire.post(JOBS, status=201, json={"id": "j1"})
    wire.get(f"{JOBS}/j1", json={"status": "succeeded"})
    wire.get(f"{JOBS}/j1/records", json={"value": [{"id": "a"}]})
    moment = datetime(2026, 3, 2, 8, tzinfo=UTC)

    def later() -> datetime:
        nonlocal moment
        moment += timedelta(minutes=5)
        return moment

    with clock.read_from(later):
        events, page = drained(AuditSearch({"start": "2026-03-01T20:00:00Z", "window": "1d"}), context)

    assert events == [{"id": "a"}]
    assert windows(wire) == [("20:00", "08:10")]
    assert page.cursor == {"mark": "2026-03-02T08:10:00Z", "version": "v1.0"}


def test_records_are_known_by_their_id() -> None:
    """A window that is searched again brings no second copy."""
    assert AuditSearch({}).delivery_key(Event(b'{"id":"a"}')) == "a"
    assert AuditSearch({}).delivery_key(Event(b"{}")) is None
