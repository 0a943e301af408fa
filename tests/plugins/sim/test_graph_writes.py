"""What a change leaves behind: state, journal, directory audit, audit feed; and the ways to refuse one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.graph import GraphRules
from counterplay_sim.strictness import Strictness


@pytest.fixture
def pair(start: Any) -> tuple[Any, Any]:
    """A tenant whose application may do everything that changes something, and its client."""
    simulator, client = start(strictness=Strictness(graph=GraphRules(throttle_scale=0)))
    simulator.tenant.grants["graph"] = [
        "AppRoleAssignment.ReadWrite.All",
        "Application.ReadWrite.All",
        "AuditLog.Read.All",
        "AuditLogsQuery.Read.All",
        "DelegatedPermissionGrant.ReadWrite.All",
        "Device.ReadWrite.All",
        "Directory.Read.All",
        "IdentityRiskEvent.Read.All",
        "IdentityRiskyUser.ReadWrite.All",
        "MailboxSettings.ReadWrite",
        "RoleManagement.ReadWrite.Directory",
        "SecurityAlert.ReadWrite.All",
        "SecurityData.Manage.All",
        "SecurityIncident.ReadWrite.All",
        "ThreatHunting.Read.All",
        "User.ReadWrite.All",
        "UserAuthenticationMethod.ReadWrite.All",
    ]
    return simulator, client


@pytest.fixture
def victim(pair: Any) -> str:
    return str(pair[0].tenant.row.doc["truth"]["victim"])


Change = Callable[[Any, Any, str], Any]


def _rule(simulator: Any, user: str) -> str:
    rule = next(one for one in simulator.tenant.rules[user] if not one["isReadOnly"])
    return f"/users/{user}/mailFolders/inbox/messageRules/{rule['id']}"


def _first(simulator: Any, kind: str, **wanted: Any) -> str:
    return next(
        str(one["id"])
        for one in simulator.tenant.objects[kind].values()
        if all(one.get(name) == value for name, value in wanted.items())
    )


CHANGES: dict[str, tuple[Change, list[str], list[str]]] = {
    "block": (
        lambda s, c, u: c.graph("PATCH", f"/users/{u}", {"accountEnabled": False}),
        ["Update user", "Disable account"],
        ["Update user.", "Disable account."],
    ),
    "revoke": (
        lambda s, c, u: c.graph("POST", f"/users/{u}/revokeSignInSessions"),
        ["Update StsRefreshTokenValidFrom Timestamp"],
        ["Update StsRefreshTokenValidFrom Timestamp."],
    ),
    "disable rule": (
        lambda s, c, u: c.graph("PATCH", _rule(s, u), {"isEnabled": False}),
        [],
        ["Disable-InboxRule"],
    ),
    "change rule": (
        lambda s, c, u: c.graph("PATCH", _rule(s, u), {"displayName": "x", "actions": {"markAsRead": True}}),
        [],
        ["Set-InboxRule"],
    ),
    "delete rule": (lambda s, c, u: c.graph("DELETE", _rule(s, u)), [], ["Remove-InboxRule"]),
    "remove consent": (
        lambda s, c, u: c.graph("DELETE", f"/oauth2PermissionGrants/{_first(s, 'oauth2PermissionGrant')}"),
        ["Remove delegated permission grant"],
        ["Remove delegated permission grant."],
    ),
    "disable app": (
        lambda s, c, u: c.graph(
            "PATCH",
            f"/servicePrincipals/{_first(s, 'servicePrincipal', displayName='Travel Planner')}",
            {"accountEnabled": False},
        ),
        ["Update service principal"],
        ["Update service principal."],
    ),
    "disable device": (
        lambda s, c, u: c.graph("PATCH", f"/devices/{_first(s, 'device')}", {"accountEnabled": False}),
        ["Update device"],
        ["Update device."],
    ),
    "remove from role": (
        lambda s, c, u: c.graph(
            "DELETE",
            "/roleManagement/directory/roleAssignments/"
            + _first(s, "roleAssignment", roleDefinitionId="5d6b6bb7-de71-4623-b4af-96380a352509"),
        ),
        ["Remove member from role"],
        ["Remove member from role."],
    ),
    "confirm compromised": (
        lambda s, c, u: c.graph(
            "POST", "/identityProtection/riskyUsers/confirmCompromised", {"userIds": [u]}
        ),
        ["ConfirmAccountCompromised"],
        [],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows_in_the_audit_log_some_minutes_later(
    pair: Any, victim: str, clock: Any, name: str
) -> None:
    """In `directoryAudits` after five minutes, in the feed after twenty, under the real services' names."""
    simulator, client = pair
    change, directory, feed = CHANGES[name]
    before = client.drain("2026-03-02T00:00:00", "2026-03-02T11:00:00")

    answer = change(simulator, client, victim)
    assert answer.status_code < 300, answer.text

    assert _own(client) == []
    assert client.drain("2026-03-02T00:00:00", "2026-03-02T11:00:00") == before
    clock.advance(timedelta(minutes=21))
    assert sorted(one["activityDisplayName"] for one in _own(client)) == sorted(directory)
    after = client.drain("2026-03-02T00:00:00", "2026-03-02T11:00:00")
    known = {body for bodies in before.values() for body in bodies}
    new = [json.loads(one) for bodies in after.values() for one in bodies if one not in known]
    assert sorted(one["Operation"] for one in new) == sorted(feed)
    assert all(client.tenant["client_id"] in json.dumps(one) for one in new)
    assert simulator.oracle().verdict().effects or name in ("disable app", "remove consent")


def _own(client: Any) -> list[dict[str, Any]]:
    """The directory audits of this application."""
    found = client.graph("GET", "/auditLogs/directoryAudits").json()["value"]
    return [one for one in found if (one["initiatedBy"]["app"] or {}).get("displayName") == "counterplay"]


def test_a_merge_moves_alerts_and_leaves_a_husk(pair: Any) -> None:
    """The older incident survives, the other one names it and can be neither changed nor merged again."""
    _, client = pair
    incidents = client.graph("GET", "/security/incidents", **{"$expand": "alerts"}).json()["value"]
    young, old = incidents[0], incidents[-1]

    answer = client.graph(
        "POST",
        "/security/incidents/mergeIncidents",
        {"incidentIds": [young["id"], old["id"]], "incidentComment": "same"},
    )

    assert answer.json() == {"targetIncidentId": old["id"]}
    husk = client.graph("GET", f"/security/incidents/{young['id']}", **{"$expand": "alerts"}).json()
    assert (husk["status"], husk["redirectIncidentId"], husk["alerts"]) == ("redirected", old["id"], [])
    kept = client.graph("GET", f"/security/incidents/{old['id']}/alerts").json()["value"]
    assert {one["id"] for one in kept} == {one["id"] for one in (*young["alerts"], *old["alerts"])}
    assert (
        client.graph("PATCH", f"/security/incidents/{young['id']}", {"status": "resolved"}).status_code == 400
    )
    again = {"incidentIds": [young["id"], incidents[1]["id"]]}
    assert client.graph("POST", "/security/incidents/mergeIncidents", again).status_code == 400


def test_alerts_are_triaged_commented_and_moved(pair: Any) -> None:
    """Each answer holds the new state, and what cannot be written is refused."""
    _, client = pair
    alert = client.graph("GET", "/security/alerts_v2").json()["value"][0]
    path = f"/security/alerts_v2/{alert['id']}"
    triage = {"status": "resolved", "classification": "truePositive", "determination": "compromisedAccount"}

    changed = client.graph("PATCH", path, triage).json()
    one = client.graph("POST", f"{path}/comments", {"comment": "first"}).json()["value"]
    two = client.graph("POST", f"{path}/comments", [{"comment": "second"}, {"comment": "third"}]).json()[
        "value"
    ]
    moved = client.graph(
        "POST", "/security/alerts_v2/microsoft.graph.security.moveAlerts", {"alertIds": [alert["id"]]}
    ).json()

    assert {name: changed[name] for name in triage} == triage
    assert changed["resolvedDateTime"] == changed["lastUpdateDateTime"]
    assert [each["comment"] for each in one] == ["first"]
    assert [each["comment"] for each in two] == ["first", "second", "third"]
    assert two[0]["createdByDisplayName"] == "counterplay"
    assert client.graph("GET", path).json()["incidentId"] == moved["targetIncidentId"] != alert["incidentId"]
    assert client.graph("PATCH", path, {"title": "x"}).status_code == 400
    assert client.graph("PATCH", path, {"determination": "nonsense"}).status_code == 400
    assert client.graph("POST", f"{path}/comments", {"comment": ""}).status_code == 400


def test_an_application_is_registered_and_gets_tokens_with_what_was_granted(pair: Any) -> None:
    """The whole set-up by Graph: registration, principal, secret, permission, token."""
    simulator, client = pair
    made = client.graph("POST", "/applications", {"displayName": "robot"}).json()
    own = client.graph("POST", "/servicePrincipals", {"appId": made["appId"]}).json()
    graph = client.graph("GET", "/servicePrincipals(appId='00000003-0000-0000-c000-000000000000')").json()
    role = next(one["id"] for one in graph["appRoles"] if one["value"] == "SecurityAlert.Read.All")
    secret = client.graph(
        "POST", f"/applications/{made['id']}/addPassword", {"passwordCredential": {}}
    ).json()
    body = {"principalId": own["id"], "resourceId": graph["id"], "appRoleId": role}

    def status() -> int:
        form = {"client_id": made["appId"], "client_secret": secret["secretText"]}
        token = client.token(client.tenant["graph_url"], **form).json()["access_token"]
        url = f"{client.tenant['graph_url']}/v1.0/security/alerts_v2"
        return int(client.session.get(url, headers={"Authorization": f"Bearer {token}"}).status_code)

    assert status() == 403
    given = client.graph("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", body)
    assert given.status_code == 201
    assert (
        client.graph("POST", f"/servicePrincipals/{graph['id']}/appRoleAssignedTo", body).status_code == 400
    )
    assert status() == 200
    path = f"/servicePrincipals/{own['id']}/appRoleAssignments/{given.json()['id']}"
    assert client.graph("DELETE", path).status_code == 204
    assert status() == 403
    assert secret["secretText"] not in client.graph("GET", f"/applications/{made['id']}").text
    assert secret["secretText"] not in str(simulator.oracle().verdict().to_dict())


def test_methods_go_in_their_order(pair: Any, victim: str) -> None:
    """The default one last, a password never; a second delete finds nothing."""
    _, client = pair
    path = f"/users/{victim}/authentication"
    phone = f"{path}/phoneMethods/3179e48a-750b-4051-897c-87b9720928f7"
    app = client.graph("GET", f"{path}/microsoftAuthenticatorMethods").json()["value"][0]["id"]

    assert client.graph("DELETE", f"{path}/microsoftAuthenticatorMethods/{app}").status_code == 400
    assert client.graph("DELETE", phone).status_code == 204
    assert client.graph("DELETE", phone).status_code == 404
    assert client.graph("DELETE", f"{path}/microsoftAuthenticatorMethods/{app}").status_code == 204
    assert [one["@odata.type"] for one in client.graph("GET", f"{path}/methods").json()["value"]] == [
        "#microsoft.graph.passwordAuthenticationMethod"
    ]


def test_confirming_and_dismissing_move_the_risk_and_are_remembered(pair: Any, victim: str) -> None:
    """State, level, history; a user's risk is found by the user's own id."""
    _, client = pair
    risky = f"/identityProtection/riskyUsers/{victim}"

    client.graph("POST", "/identityProtection/riskyUsers/confirmCompromised", {"userIds": [victim]})
    high = client.graph("GET", risky).json()
    client.graph("POST", "/identityProtection/riskyUsers/dismiss", {"userIds": [victim]})
    none = client.graph("GET", risky).json()

    assert (high["riskLevel"], high["riskState"]) == ("high", "confirmedCompromised")
    assert (none["riskLevel"], none["riskState"]) == ("none", "dismissed")
    assert len(client.graph("GET", f"{risky}/history").json()["value"]) == 2
    for body in ({"userIds": []}, {"userIds": ["x"]}, {"userIds": [victim] * 61}, {"users": [victim]}, {}):
        answer = client.graph("POST", "/identityProtection/riskyUsers/dismiss", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")


def test_an_audit_search_runs_and_then_has_records(pair: Any, victim: str, clock: Any) -> None:
    """Not started, running, succeeded; records with the wire's spellings; refused before."""
    _, client = pair
    body = {
        "displayName": "rules",
        "filterStartDateTime": "2026-03-01T00:00:00Z",
        "filterEndDateTime": "2026-03-03T00:00:00Z",
        "operationFilters": ["New-InboxRule"],
        "userPrincipalNameFilters": ["alice@contoso.example"],
    }
    made = client.graph("POST", "/security/auditLog/queries", body)
    path = f"/security/auditLog/queries/{made.json()['id']}"

    assert (made.status_code, made.json()["status"]) == (201, "notStarted")
    assert client.graph("GET", f"{path}/records").status_code == 400
    clock.advance(timedelta(minutes=2))
    assert client.graph("GET", path).json()["status"] == "running"
    clock.advance(timedelta(minutes=2))
    assert client.graph("GET", path).json()["status"] == "succeeded"
    (record,) = client.graph("GET", f"{path}/records").json()["value"]
    assert (record["auditLogRecordType"], record["operation"]) == ("ExchangeAdmin", "New-InboxRule")
    assert record["userPrincipalName"] == "alice@contoso.example"
    assert record["auditData"]["ObjectId"] == "alice\\."
    wrong = {**body, "filterEndDateTime": "2026-02-01T00:00:00Z"}
    assert client.graph("POST", "/security/auditLog/queries", wrong).status_code == 400


def test_an_audit_search_shows_only_what_the_permission_covers(pair: Any, clock: Any) -> None:
    """With the right for Entra alone there is no Exchange record."""
    simulator, client = pair
    simulator.tenant.grants["graph"] = ["AuditLogsQuery-Entra.Read.All"]
    body = {"filterStartDateTime": "2026-03-01T00:00:00Z", "filterEndDateTime": "2026-03-03T00:00:00Z"}
    path = (
        f"/security/auditLog/queries/{client.graph('POST', '/security/auditLog/queries', body).json()['id']}"
    )
    clock.advance(timedelta(minutes=4))

    found = client.graph("GET", f"{path}/records").json()["value"]

    assert {one["service"] for one in found} == {"AzureActiveDirectory"}


def test_hunting_reads_the_tables_of_the_tenant(pair: Any) -> None:
    """The rule's creation in CloudAppEvents, the victim in AlertEvidence; bad KQL says why."""
    _, client = pair

    def hunt(query: str, **more: str) -> Any:
        return client.graph("POST", "/security/runHuntingQuery", {"Query": query, **more})

    rows = hunt(
        'CloudAppEvents | where ActionType == "New-InboxRule" | project Timestamp, AccountId, ObjectName'
    ).json()
    assert [one["name"] for one in rows["schema"]] == ["Timestamp", "AccountId", "ObjectName"]
    assert [one["AccountId"] for one in rows["results"]] == ["alice@contoso.example"]
    seen = hunt("AlertEvidence | where EntityType =~ 'user' | summarize n=count() by AccountUpn").json()[
        "results"
    ]
    assert "alice@contoso.example" in [one["AccountUpn"] for one in seen]
    assert hunt("AADSignInEventsBeta | where ErrorCode == 50126 | count").json()["results"][0]["Count"] >= 8
    assert hunt("CloudAppEvents | count", Timespan="PT1S").json()["results"] == [{"Count": 0}]
    for wrong in (
        "",
        "Nothing",
        "AlertInfo | where Nope == 1",
        "AlertInfo | join x",
        "AlertInfo | where (",
        "AlertInfo | " * 900,
    ):
        assert hunt(wrong).status_code == 400, wrong
    assert hunt("AlertInfo", Timespan="yesterday").status_code == 400


# Batches


def test_a_batch_answers_each_request_on_its_own(pair: Any, victim: str) -> None:
    """In no particular order; what depends on a failure is 424."""
    _, client = pair
    json_type = {"Content-Type": "application/json"}
    requests = [
        {"id": "read", "method": "GET", "url": f"/users/{victim}?$select=id"},
        {"id": "gone", "method": "GET", "url": "/users/nobody"},
        {"id": "after", "method": "GET", "url": "/organization", "dependsOn": ["gone"]},
        {
            "id": "block",
            "method": "PATCH",
            "url": f"users/{victim}",
            "headers": json_type,
            "body": {"accountEnabled": False},
        },
        {"id": "bare", "method": "PATCH", "url": f"/users/{victim}", "body": {"accountEnabled": True}},
        {
            "id": "then",
            "method": "GET",
            "url": f"/users/{victim}?$select=accountEnabled",
            "dependsOn": ["block"],
        },
    ]

    answer = client.graph("POST", "/$batch", {"requests": requests})

    found = {one["id"]: one for one in answer.json()["responses"]}
    assert {key: one["status"] for key, one in found.items()} == {
        "read": 200,
        "gone": 404,
        "after": 424,
        "block": 204,
        "bare": 400,
        "then": 200,
    }
    assert list(found) != [one["id"] for one in requests]
    assert found["read"]["body"]["id"] == victim
    assert found["then"]["body"]["accountEnabled"] is False


@pytest.mark.parametrize(
    "requests",
    [
        [],
        "all",
        [{"id": str(number), "method": "GET", "url": "/organization"} for number in range(21)],
        [{"id": "1", "method": "GET", "url": "/organization"}] * 2,
        [{"id": "1", "method": "GET", "url": "https://graph.microsoft.com/v1.0/organization"}],
        [{"id": "1", "method": "LOOK", "url": "/organization"}],
        [{"id": 1, "method": "GET", "url": "/organization"}],
        [{"id": "1", "method": "GET", "url": "/organization", "dependsOn": ["2"]}],
        [{"id": "1", "method": "GET", "url": "/organization", "dependsOn": ["1"]}],
    ],
)
def test_a_malformed_batch_is_refused_as_a_whole(pair: Any, requests: Any) -> None:
    """Outer 400, nothing done."""
    answer = pair[1].graph("POST", "/$batch", {"requests": requests})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")


def test_an_inner_throttle_leaves_the_batch_whole(start: Any) -> None:
    """Outer 200, inner 429 with its own wait."""
    simulator, client = start(strictness=Strictness(graph=GraphRules(throttle_scale=0.2)))
    simulator.tenant.grants["graph"] = ["AuditLog.Read.All"]
    one = {"method": "GET", "url": "/auditLogs/directoryAudits"}

    answer = client.graph("POST", "/$batch", {"requests": [{"id": "1", **one}, {"id": "2", **one}]})

    found = {each["id"]: each for each in answer.json()["responses"]}
    assert (answer.status_code, found["1"]["status"], found["2"]["status"]) == (200, 200, 429)
    assert found["2"]["headers"]["Retry-After"] == "10"


# Bad requests


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("PUT", "/users/{v}", b"{}", {}, 405),
        ("GET", "/users/{v}/x/y/z", b"", {}, 400),
        ("PATCH", "/users/{v}", b"{", {}, 400),
        ("PATCH", "/users/{v}", b"\xff", {}, 400),
        ("PATCH", "/users/{v}", b"null", {}, 400),
        ("PATCH", "/users/{v}", b'{"accountEnabled": false}', {"Content-Type": "text/plain"}, 400),
        ("PATCH", "/users/{v}", b'{"nothing": 1}', {}, 400),
        ("PATCH", "/users/{v}", b'{"id": "x"}', {}, 400),
        ("PATCH", "/users/{v}", b'{"accountEnabled": null, "displayName": 5}', {}, 400),
        ("PATCH", "/users/{v}", b"[" * 100_000, {}, 400),
        ("PATCH", "/users/{v}", b'{"jobTitle": "' + b"x" * 5_000_000 + b'"}', {}, 413),
        ("POST", "/users/{v}/mailFolders/inbox/messageRules", b"{}", {}, 400),
        (
            "POST",
            "/users/{v}/mailFolders/inbox/messageRules",
            b'{"displayName":"x","actions":{"delete":"yes"}}',
            {},
            400,
        ),
        ("POST", "/oauth2PermissionGrants", b'{"clientId":"x","consentType":"Principal"}', {}, 400),
        (
            "POST",
            "/security/alerts_v2/moveAlerts",
            b'{"alertIds":["x"],"newCorrelationReasons":"luck"}',
            {},
            400,
        ),
        ("DELETE", "/oauth2PermissionGrants/%00", b"", {}, 404),
        ("GET", "/users?$filter=" + "(" * 3000, b"", {}, 400),
        ("GET", "/users?$filter=id%20eq%20%27x", b"", {}, 400),
        ("GET", "/users?$skip=-1", b"", {}, 400),
    ],
)
def test_a_bad_request_gets_the_documented_error(
    pair: Any, victim: str, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Never a traceback, never a closed connection: code, message and ids."""
    _, client = pair
    url = f"{client.tenant['graph_url']}/v1.0{path.replace('{v}', victim)}"
    sent = {"Content-Type": "application/json", **client._bearer(client.tenant["graph_url"]), **headers}

    answer = client.session.request(method, url, data=body, headers=sent)

    assert answer.status_code == status, answer.text[:200]
    assert set(answer.json()["error"]) == {"code", "message", "innerError"}
    assert client.graph("GET", "/organization").status_code == 200
