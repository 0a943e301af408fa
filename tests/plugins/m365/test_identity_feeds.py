"""The triggers m365.risk_detections, risky_users, sign_ins and directory_audits: what each asks for."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from counterplay import Context, Event
from counterplay_m365.following import GraphTrigger
from counterplay_m365.triggers.directory_audits import DirectoryAudits
from counterplay_m365.triggers.risk_detections import RiskDetections
from counterplay_m365.triggers.risky_users import RiskyUsers
from counterplay_m365.triggers.sign_ins import SignIns

GRAPH = "https://graph.microsoft.com"
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def clock(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    moments = [NOW]
    monkeypatch.setattr(context, "now", lambda: moments[0], raising=False)
    return moments


def span(member: str) -> str:
    return f"{member} ge 2026-03-01T08:00:00Z and {member} le 2026-03-02T08:00:00Z"


@pytest.mark.parametrize(
    ("trigger", "url", "condition", "top"),
    [
        (
            RiskDetections({"risk_level": ["high", "medium"]}),
            "/v1.0/identityProtection/riskDetections",
            f"{span('lastUpdatedDateTime')} and (riskLevel eq 'high' or riskLevel eq 'medium')",
            "500",
        ),
        (
            RiskyUsers({"risk_state": ["atRisk"]}),
            "/v1.0/identityProtection/riskyUsers",
            f"{span('riskLastUpdatedDateTime')} and riskState eq 'atRisk'",
            "500",
        ),
        (SignIns({}), "/v1.0/auditLogs/signIns", span("createdDateTime"), "1000"),
        (
            SignIns({"kinds": ["nonInteractiveUser"]}),
            "/beta/auditLogs/signIns",
            f"{span('createdDateTime')} and signInEventTypes/any(t: t eq 'nonInteractiveUser')",
            "1000",
        ),
        (
            DirectoryAudits({"category": ["It's"]}),
            "/v1.0/auditLogs/directoryAudits",
            f"{span('activityDateTime')} and category eq 'It''s'",
            "1000",
        ),
    ],
)
def test_each_feed_is_followed_by_its_own_time(
    context: Context,
    clock: list[datetime],
    wire: responses.RequestsMock,
    trigger: GraphTrigger,
    url: str,
    condition: str,
    top: str,
) -> None:
    """Path, filter, page size, and pages that are not larger than the service takes."""
    wire.get(f"{GRAPH}{url}", json={"value": [{"id": "a"}]})

    page = trigger.poll(context, None, SINCE)

    assert page.events == (b'{"id": "a"}',)
    query = parse_qs(urlsplit(str(wire.calls[-1].request.url)).query)
    assert query == {"$filter": [condition], "$top": [top]}
    assert wire.calls[-1].request.headers["Prefer"] == "include-unknown-enum-members"


@pytest.mark.parametrize(
    ("trigger", "event", "delivery", "run"),
    [
        (RiskDetections({}), {"id": "d", "lastUpdatedDateTime": "t"}, "d|t", "d"),
        (RiskyUsers({}), {"id": "u", "riskLastUpdatedDateTime": "t"}, "u|t", "u|t"),
        (SignIns({}), {"id": "s", "createdDateTime": "t"}, "s", "s"),
        (DirectoryAudits({}), {"id": "e"}, "e", "e"),
        (RiskDetections({}), {"id": "d"}, None, "d"),
        (SignIns({}), {"id": 5}, None, None),
        (SignIns({}), [], None, None),
    ],
)
def test_keys_tell_repeats_from_news(trigger: GraphTrigger, event: Any, delivery: Any, run: Any) -> None:
    """A risk that changes is news; a user who is at risk again starts another run, a log entry never does."""
    found = Event(json.dumps(event).encode())

    assert (trigger.delivery_key(found), trigger.run_key(found)) == (delivery, run)


def test_what_was_handed_out_is_not_handed_out_again(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """The overlap is asked for at each poll, and costs no storage; what came late is new."""
    url = f"{GRAPH}/v1.0/auditLogs/signIns"
    wire.get(url, json={"value": [{"id": "b"}, {"id": "a"}]})
    wire.get(url, json={"value": [{"id": "c"}, {"id": "late"}, {"id": "b"}, {"id": "a"}]})
    trigger = SignIns({})
    first = trigger.poll(context, None, SINCE)
    clock[0] = NOW + timedelta(seconds=10)

    second = trigger.poll(context, first.cursor, SINCE)

    assert [json.loads(raw)["id"] for raw in first.events] == ["b", "a"]
    assert [json.loads(raw)["id"] for raw in second.events] == ["c", "late"]
    again = parse_qs(urlsplit(str(wire.calls[-1].request.url)).query)["$filter"][0]
    assert again.startswith("createdDateTime ge 2026-03-02T07:30:00Z")


def test_a_page_that_was_not_stored_is_handed_out_again(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """When the host comes back with the older cursor, nothing of the page counts as delivered."""
    wire.get(f"{GRAPH}/v1.0/auditLogs/signIns", json={"value": [{"id": "a"}]})
    trigger = SignIns({})
    trigger.poll(context, None, SINCE)

    assert trigger.poll(context, None, SINCE).events == (b'{"id": "a"}',)


def test_a_new_process_hands_out_the_overlap_once_more(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """Its memory is empty; the ledger drops the repeats."""
    wire.get(f"{GRAPH}/v1.0/auditLogs/signIns", json={"value": [{"id": "a"}]})
    cursor = SignIns({}).poll(context, None, SINCE).cursor

    assert SignIns({}).poll(context, cursor, SINCE).events == (b'{"id": "a"}',)


P1 = {
    "id": "sku",
    "capabilityStatus": "Enabled",
    "servicePlans": [
        {"servicePlanId": "41781fb2-bc02-4b7c-bd55-b576c07bb09d", "provisioningStatus": "Success"}
    ],
}


@pytest.mark.parametrize(
    ("days", "skus", "lost"),
    [
        (6, None, None),
        (8, {"json": {"value": []}}, (1, "the service keeps it for 7 days without Entra ID P1")),
        (8, {"json": {"value": [P1]}}, None),
        (31, {"json": {"value": [P1]}}, (1, "the service keeps it for 30 days")),
        (
            8,
            {"status": 403, "json": {"error": {"code": "Authorization_RequestDenied", "message": "no"}}},
            (1, "the service keeps it for 7 days, or for 30 with Entra ID P1, and the plans cannot be read"),
        ),
    ],
)
def test_what_the_service_forgot_before_it_was_asked_is_named(
    context: Context,
    clock: list[datetime],
    wire: responses.RequestsMock,
    days: int,
    skus: dict[str, Any] | None,
    lost: tuple[int, str] | None,
) -> None:
    """Once, by what the licence keeps; the plans are asked for only when they decide."""
    wire.get(f"{GRAPH}/v1.0/auditLogs/directoryAudits", json={"value": []})
    if skus is not None:
        wire.get(f"{GRAPH}/v1.0/subscribedSkus", **skus)
    trigger = DirectoryAudits({})
    mark = NOW - timedelta(days=days)
    first = trigger.poll(context, {"mark": mark.strftime("%Y-%m-%dT%H:%M:%SZ")}, SINCE)
    second = trigger.poll(context, first.cursor, SINCE)

    found = None if first.gap is None else ((first.gap.end - first.gap.start).days, first.gap.cause)
    assert found == lost
    assert first.gap is None or first.gap.start == mark
    assert second.gap is None
