"""The trigger m365.audit_search: one job for each window, found again by whoever goes on."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import responses

from counterplay import Context, Event, Page, PermanentError
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


def test_a_job_that_fails_is_started_again_twice(context: Context, wire: responses.RequestsMock) -> None:
    """After that it is an error that names the window."""
    wire.post(JOBS, status=201, json={"id": "j1"})
    wire.get(f"{JOBS}/j1", json={"status": "failed"})

    with pytest.raises(PermanentError) as caught:
        drained(AuditSearch(SPAN), context)

    assert str(caught.value) == (
        "the search of the audit log from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z ended as failed "
        "3 times; choose a shorter `window`, or fewer operations"
    )
    assert len([call for call in wire.calls if call.request.url == JOBS]) == 3


def test_a_stop_while_the_job_runs_keeps_it(context: Context, wire: responses.RequestsMock) -> None:
    """The next start waits for the same job."""
    wire.get(f"{JOBS}/j1", json={"status": "running"})
    context.stop.set()
    cursor = {"mark": "2026-01-01T00:00:00Z", "job": "j1", "until": "x", "version": "v1.0"}

    page = AuditSearch(SPAN).poll(context, cursor, SINCE)

    assert (page.events, page.cursor, page.more) == ((), cursor, False)


def test_records_are_known_by_their_id() -> None:
    """A window that is searched again brings no second copy."""
    assert AuditSearch({}).delivery_key(Event(b'{"id":"a"}')) == "a"
    assert AuditSearch({}).delivery_key(Event(b"{}")) is None
