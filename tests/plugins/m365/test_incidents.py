"""The trigger m365.incidents: all alerts of each incident, and merges followed."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import responses

from counterplay import Context, Event
from counterplay_m365.triggers.incidents import MAX_HOPS, Incidents

URL = "https://graph.microsoft.com/v1.0/security/incidents"
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)


def incident(identity: str, into: str | None = None, **rest: Any) -> dict[str, Any]:
    status = "redirected" if into else "active"
    return {
        "id": identity,
        "status": status,
        "redirectIncidentId": into,
        "lastUpdateDateTime": "2026-03-01T09:00:00Z",
        "alerts": [],
        **rest,
    }


def given(wire: responses.RequestsMock, *incidents: dict[str, Any]) -> None:
    """Each incident can be asked for by its id."""
    for one in incidents:
        wire.get(f"{URL}/{one['id']}", json=one)


def test_incidents_come_with_their_alerts_as_they_were_sent(
    context: Context, wire: responses.RequestsMock
) -> None:
    """Fifty a page, alerts expanded, byte for byte."""
    raw = b'{"id":"28", "alerts":[ {"id":"a"} ], "redirectIncidentId":null}'
    wire.get(URL, body=b'{"value":[' + raw + b"]}")

    page = Incidents({"severity": ["high"]}).poll(context, None, SINCE)

    assert page.events == (raw,)
    query = parse_qs(urlsplit(str(wire.calls[-1].request.url)).query)
    assert query["$top"] == ["50"]
    assert query["$expand"] == ["alerts"]
    assert query["$filter"][0].endswith(" and severity eq 'high'")


def test_alerts_that_graph_sent_in_parts_are_put_together(
    context: Context, wire: responses.RequestsMock
) -> None:
    """However many alerts an incident has, its event has them all."""
    first = [{"id": f"a{number}"} for number in range(3)]
    link = f"{URL}/28/alerts?$skiptoken=1"
    wire.get(URL, json={"value": [incident("28", alerts=first, **{"alerts@odata.nextLink": link})]})
    wire.get(link, json={"value": [{"id": "a3"}], "@odata.nextLink": f"{URL}/28/alerts?$skiptoken=2"})
    wire.get(f"{URL}/28/alerts?$skiptoken=2", json={"value": [{"id": "a4"}]})

    (raw,) = Incidents({}).poll(context, None, SINCE).events

    found = json.loads(raw)
    assert [one["id"] for one in found["alerts"]] == ["a0", "a1", "a2", "a3", "a4"]
    assert "alerts@odata.nextLink" not in found


def test_a_merged_incident_comes_after_the_one_it_went_into(
    context: Context, wire: responses.RequestsMock
) -> None:
    """The chain is followed to its end; husk and survivor share a run, which begins with the survivor."""
    wire.get(URL, json={"value": [incident("1", into="2")]})
    given(wire, incident("2", into="3"), incident("3", alerts=[{"id": "a"}]))
    trigger = Incidents({})

    survivor, husk = (json.loads(raw) for raw in trigger.poll(context, None, SINCE).events)

    assert survivor == incident("3", alerts=[{"id": "a"}])
    assert husk == {**incident("1", into="2"), "survivorIncidentId": "3"}
    keys = [trigger.run_key(Event(json.dumps(one).encode())) for one in (survivor, husk)]
    assert keys == ["3", "3"]


def test_a_chain_of_merges_that_leads_nowhere_ends(context: Context, wire: responses.RequestsMock) -> None:
    """A circle, a chain that is too long and one whose next incident is gone hold up nothing."""
    wire.get(
        URL, json={"value": [incident("1", into="2"), incident("7", into="8"), incident("c0", into="c1")]}
    )
    given(wire, incident("2", into="1"))
    wire.get(f"{URL}/8", status=404, json={"error": {"code": "ResourceNotFound", "message": "Gone."}})
    given(wire, *(incident(f"c{number}", into=f"c{number + 1}") for number in range(1, 20)))

    events = [json.loads(raw) for raw in Incidents({}).poll(context, None, SINCE).events]

    assert [one["id"] for one in events] == ["2", "1", "7", f"c{MAX_HOPS}", "c0"]
    assert Incidents({}).run_key(Event(json.dumps(events[2]).encode())) == "8"


def test_an_update_is_delivered_and_starts_no_second_run() -> None:
    """The delivery key holds the update, the run key does not."""
    trigger = Incidents({})
    event = Event(json.dumps(incident("28")).encode())

    assert trigger.delivery_key(event) == "28|2026-03-01T09:00:00Z"
    assert trigger.run_key(event) == "28"
