"""Switches of the alerts, the incidents, the audit trail and its searches, each seen on the wire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.grants import grant, parse_grants
from counterplay_sim.graph import GraphRules
from counterplay_sim.strictness import Strictness

Open = Callable[..., tuple[Any, Any]]
SEARCHES = "/security/auditLog/queries"


@pytest.fixture
def opened(start: Any) -> Open:
    """Starts a tenant whose application may do everything, under the given switches."""

    def made(rules: dict[str, Any] | None = None, **switches: Any) -> tuple[Any, Any]:
        graph = GraphRules(throttle_scale=0, **(rules or {}))
        simulator, client = start(strictness=Strictness(graph=graph, **switches))
        grant(simulator.tenant, parse_grants("all"))
        return simulator, client

    return made


def test_alerts_page_is_how_many_alerts_come_without_top(opened: Open) -> None:
    """`$top` wins over it."""
    simulator, client = opened(alerts_page=2)
    alert = next(iter(simulator.tenant.alerts.values()))
    for number in range(4):
        simulator.tenant.alerts.put(f"da{number}", {**alert, "id": f"da{number}"})

    first = client.graph("GET", "/security/alerts_v2").json()
    second = client.graph("GET", first["@odata.nextLink"]).json()

    assert len(first["value"]) == len(second["value"]) == 2
    assert not {one["id"] for one in first["value"]} & {one["id"] for one in second["value"]}
    assert len(client.graph("GET", "/security/alerts_v2", **{"$top": "3"}).json()["value"]) == 3


@pytest.mark.parametrize("minutes", [2, 50])
def test_audit_latency_is_when_a_change_is_in_the_audit_feed(opened: Open, clock: Any, minutes: int) -> None:
    """Not a second before."""
    simulator, client = opened(audit_latency=timedelta(minutes=minutes))
    victim = simulator.tenant.row.doc["truth"]["victim"]
    start = f"{clock.now() - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    assert client.graph("POST", f"/users/{victim}/revokeSignInSessions").status_code == 200

    def listed() -> bool:
        end = f"{clock.now() + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"
        events = client.drain(start, end).get("Audit.AzureActiveDirectory", [])
        return any(b"Update StsRefreshTokenValidFrom Timestamp" in one for one in events)

    clock.advance(timedelta(minutes=minutes, seconds=-1))
    assert not listed()
    clock.advance(timedelta(seconds=2))
    assert listed()


@pytest.mark.parametrize("minutes", [1, 30])
def test_directory_audit_latency_is_when_a_change_is_in_directory_audits(
    opened: Open, clock: Any, minutes: int
) -> None:
    """Not a second before, and without regard to the audit feed's."""
    simulator, client = opened({"directory_audit_latency": timedelta(minutes=minutes)})
    victim = simulator.tenant.row.doc["truth"]["victim"]
    activity = "Update StsRefreshTokenValidFrom Timestamp"
    query = {"$filter": f"activityDisplayName eq '{activity}'"}

    def listed() -> int:
        return len(client.graph("GET", "/auditLogs/directoryAudits", **query).json()["value"])

    before = listed()
    assert client.graph("POST", f"/users/{victim}/revokeSignInSessions").status_code == 200
    clock.advance(timedelta(minutes=minutes, seconds=-1))
    assert listed() == before
    clock.advance(timedelta(seconds=2))
    assert listed() == before + 1


def test_incident_orderby_is_refused_by_default(opened: Open) -> None:
    """As was seen, though it is documented."""
    query = {"$orderby": "createdDateTime desc"}
    assert opened()[1].graph("GET", "/security/incidents", **query).status_code == 400


def test_incident_orderby_may_be_taken(opened: Open) -> None:
    """In either direction."""
    simulator, client = opened({"incident_orderby": True})
    incident = next(iter(simulator.tenant.objects["incident"].values()))
    for number in range(3):
        made = {**incident, "id": f"90{number}", "createdDateTime": f"2026-03-0{(2, 1, 3)[number]}T00:00:00Z"}
        simulator.tenant.objects["incident"].put(made["id"], made)

    def times(direction: str) -> list[str]:
        answer = client.graph("GET", "/security/incidents", **{"$orderby": f"createdDateTime {direction}"})
        assert answer.status_code == 200
        return [one["createdDateTime"] for one in answer.json()["value"]]

    assert times("asc") == sorted(times("asc"))
    assert times("desc") == sorted(times("asc"), reverse=True)
    assert len(set(times("asc"))) >= 3


def _search(simulator: Any, client: Any, clock: Any, version: str = "v1.0") -> Any:
    """The answer that begins an audit search over the last day."""
    body = {
        "filterStartDateTime": f"{clock.now() - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
        "filterEndDateTime": f"{clock.now():%Y-%m-%dT%H:%M:%SZ}",
    }
    return client.graph("POST", f"{client.tenant['graph_url']}/{version}{SEARCHES}", body)


@pytest.mark.parametrize(("there", "status"), [(True, 201), (False, 404)])
def test_audit_search_v1_is_whether_searches_exist_in_v1(
    opened: Open, clock: Any, there: bool, status: int
) -> None:
    """Beta has them anyway."""
    simulator, client = opened({"audit_search_v1": there})

    assert _search(simulator, client, clock).status_code == status
    assert client.graph("GET", SEARCHES).status_code == (200 if there else 404)
    assert _search(simulator, client, clock, "beta").status_code == 201


@pytest.mark.parametrize("pascal", [True, False])
def test_audit_search_pascal_is_how_enumerations_begin(opened: Open, clock: Any, pascal: bool) -> None:
    """With a capital as on the wire, or without one as documented."""
    simulator, client = opened({"audit_search_pascal": pascal})
    key = _search(simulator, client, clock).json()["id"]
    clock.advance(timedelta(minutes=10))

    records = client.graph("GET", f"{SEARCHES}/{key}/records").json()["value"]

    assert records
    for one in records:
        assert one["auditLogRecordType"][0].isupper() is pascal
        assert one["userType"][0].isupper() is pascal
