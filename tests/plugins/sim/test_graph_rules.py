"""Each strictness rule of the simulated Graph, seen on the wire."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.graph import GraphRules
from counterplay_sim.strictness import Strictness

ALL = [
    "AuditLog.Read.All",
    "AuditLogsQuery.Read.All",
    "Directory.ReadWrite.All",
    "IdentityRiskEvent.Read.All",
    "IdentityRiskyUser.ReadWrite.All",
    "MailboxSettings.ReadWrite",
    "RoleEligibilitySchedule.Read.Directory",
    "SecurityAlert.ReadWrite.All",
    "SecurityData.Manage.All",
    "SecurityEvents.Read.All",
    "SecurityIncident.ReadWrite.All",
    "ThreatHunting.Read.All",
    "User.EnableDisableAccount.All",
    "User.ReadWrite.All",
    "User.RevokeSessions.All",
    "User-PasswordProfile.ReadWrite.All",
    "UserAuthenticationMethod.ReadWrite.All",
]
Open = Callable[..., tuple[Any, Any]]


@pytest.fixture
def open_graph(start: Any) -> Open:
    """Starts a tenant whose application may do nearly everything, under the given rules of Graph."""

    def opened(**rules: Any) -> tuple[Any, Any]:
        rules.setdefault("throttle_scale", 0.0)
        simulator, client = start(strictness=Strictness(graph=GraphRules(**rules)))
        simulator.tenant.grants["graph"] = list(ALL)
        return simulator, client

    return opened


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _put(simulator: Any, kind: str, *documents: dict[str, Any]) -> None:
    for one in documents:
        simulator.tenant.objects[kind].put(one["id"], one)


# Users


def test_an_administrator_cannot_be_changed_unless_the_app_holds_a_role(open_graph: Open) -> None:
    """Directly, or in a role-assignable group; a plain user can; revoking is no sensitive action."""
    simulator, client = open_graph()
    users = list(simulator.tenant.users)
    block = {"accountEnabled": False}

    assert _code(client.graph("PATCH", f"/users/{users[1]}", block)) == (403, "Authorization_RequestDenied")
    assert _code(client.graph("PATCH", f"/users/{users[15]}", block)) == (403, "Authorization_RequestDenied")
    assert client.graph("PATCH", f"/users/{users[1]}", {"department": "x"}).status_code == 204
    assert client.graph("POST", f"/users/{users[1]}/revokeSignInSessions").status_code == 200
    assert client.graph("PATCH", f"/users/{users[2]}", block).status_code == 204
    _give_role(simulator, "7be44c8a-adaf-4e2a-84d6-ab2649e08a13")
    assert client.graph("PATCH", f"/users/{users[1]}", block).status_code == 204


def _give_role(simulator: Any, role: str) -> None:
    tenant = simulator.tenant
    own = next(iter(tenant.objects["servicePrincipal"].where("appId", tenant.client_id)))
    _put(
        simulator,
        "roleAssignment",
        {"id": role, "principalId": own["id"], "roleDefinitionId": role, "directoryScopeId": "/"},
    )


@pytest.mark.parametrize(("mode", "status"), [("refuse", 400), ("accept", 204)])
def test_a_synced_user_is_refused_or_taken(open_graph: Open, mode: str, status: int) -> None:
    """Both were reported."""
    simulator, client = open_graph(synced_users=mode)
    synced = next(key for key, user in simulator.tenant.users.items() if user["onPremisesSyncEnabled"])

    answer = client.graph("PATCH", f"/users/{synced}", {"accountEnabled": False})

    assert answer.status_code == status
    assert status == 204 or "on-premises mastered Directory Sync objects" in answer.json()["error"]["message"]


def test_a_password_takes_a_role_and_some_complexity(open_graph: Open) -> None:
    """The permission alone is refused, a weak one too, and it ends every session."""
    simulator, client = open_graph()
    path = f"/users/{simulator.tenant.row.doc['truth']['victim']}"

    def put(password: str) -> Any:
        return client.graph("PATCH", path, {"passwordProfile": {"password": password}})

    assert put("Str0ng!enough").status_code == 403
    _give_role(simulator, "fe930be7-5e62-47db-91af-98c3a49a38b1")
    assert _code(put("weak")) == (400, "Request_BadRequest")
    assert put("Str0ng!enough").status_code == 204
    assert simulator.tenant.sessions[simulator.tenant.row.doc["truth"]["victim"]] == []
    assert "Str0ng" not in str([simulator.tenant.users[key] for key in simulator.tenant.users])


@pytest.mark.parametrize(
    "query",
    [
        {"$filter": "department ne 'Sales'"},
        {"$filter": "not(department eq 'Sales')"},
        {"$filter": "endswith(mail,'@contoso.example')"},
    ],
)
def test_advanced_queries_need_header_and_count(open_graph: Open, query: dict[str, str]) -> None:
    """One of both is not enough."""
    _, client = open_graph()
    eventual = {"ConsistencyLevel": "eventual"}

    assert _code(client.graph("GET", "/users", **query)) == (400, "Request_UnsupportedQuery")
    assert _code(client.graph("GET", "/users", headers=eventual, **query)) == (
        400,
        "Request_UnsupportedQuery",
    )
    answer = client.graph("GET", "/users", headers=eventual, **{**query, "$count": "true"})
    assert answer.json()["@odata.count"] >= len(answer.json()["value"]) > 0
    assert client.graph("GET", "/users/$count", headers=eventual).text == "40"


# Pages


@pytest.mark.parametrize(
    ("path", "top", "message"),
    [
        (
            "/security/incidents",
            "100",
            "The limit of '50' for Top query has been exceeded."
            " The value from the incoming request is '100'.",
        ),
        ("/identityProtection/riskDetections", "501", "Invalid page size specified"),
        ("/identityProtection/riskyUsers", "501", "Invalid page size specified"),
        ("/users", "1000", "Invalid page size specified: '1000'. Must be between 1 and 999 inclusive."),
    ],
)
def test_a_page_can_be_too_large(open_graph: Open, path: str, top: str, message: str) -> None:
    """400 with the text of each service; the sign-in log gives fewer instead."""
    _, client = open_graph()

    answer = client.graph("GET", path, **{"$top": top})

    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
    assert client.graph("GET", "/auditLogs/signIns", **{"$top": "5000"}).status_code == 200


def test_pages_have_the_documented_default_sizes(open_graph: Open, start: Any) -> None:
    """Twenty risk detections, fifty incidents."""
    simulator, client = open_graph()
    times = {"detectedDateTime": "2026-03-02T09:00:00Z", "riskLevel": "low", "riskState": "atRisk"}
    _put(simulator, "riskDetection", *({"id": str(n), "userId": "u", **times} for n in range(30)))
    when = {"createdDateTime": "2026-03-02T09:00:00Z", "lastUpdateDateTime": "2026-03-02T09:00:00Z"}
    _put(
        simulator,
        "incident",
        *({"id": f"9{n:03}", "status": "active", "severity": "low", **when} for n in range(60)),
    )

    for path, size in (("/identityProtection/riskDetections", 20), ("/security/incidents", 50)):
        assert len(client.graph("GET", path).json()["value"]) == size


@pytest.mark.parametrize("status", [400, 410])
def test_a_link_ends(open_graph: Open, clock: Any, status: int) -> None:
    """After its life it is refused, and a forged one always."""
    _, client = open_graph(link_life=timedelta(minutes=10), expired_link_status=status)
    link = client.graph("GET", "/users", **{"$top": "5"}).json()["@odata.nextLink"]

    clock.advance(timedelta(minutes=9))
    assert client.graph("GET", link).status_code == 200
    clock.advance(timedelta(minutes=1))
    assert _code(client.graph("GET", link)) == (status, "Directory_ExpiredPageToken")
    assert client.graph("GET", "/users", **{"$skiptoken": "W10="}).status_code == 400


def test_an_empty_page_may_carry_a_link(open_graph: Open) -> None:
    """Whoever stops at the first empty page misses the rest."""
    simulator, client = open_graph(empty_page_every=2)
    answer = client.graph("GET", "/users", **{"$top": "10"}).json()
    sizes, found = [len(answer["value"])], answer["value"]
    while "@odata.nextLink" in answer:
        answer = client.graph("GET", answer["@odata.nextLink"]).json()
        sizes.append(len(answer["value"]))
        found += answer["value"]

    assert sizes[:4] == [10, 0, 10, 0]
    assert [user["id"] for user in found] == list(simulator.tenant.users)


# What is shown


def test_new_members_of_enumerations_are_hidden_until_asked_for(open_graph: Open) -> None:
    """At the top, and inside evidence; with the header they are themselves."""
    simulator, client = open_graph()
    alert = {
        **next(iter(simulator.tenant.alerts.values())),
        "id": "new",
        "serviceSource": "microsoftSentinel",
    }
    alert["evidence"] = [{**alert["evidence"][0], "remediationStatus": "active"}]
    _put(simulator, "alert", alert)

    plain = client.graph("GET", "/security/alerts_v2/new").json()
    asked = client.graph(
        "GET", "/security/alerts_v2/new", headers={"Prefer": "a=b, include-unknown-enum-members"}
    ).json()

    assert (plain["serviceSource"], plain["evidence"][0]["remediationStatus"]) == ("unknownFutureValue",) * 2
    assert (asked["serviceSource"], asked["evidence"][0]["remediationStatus"]) == (
        "microsoftSentinel",
        "active",
    )
    answer = client.graph("PATCH", "/security/alerts_v2/new", {"status": "InProgress"})
    assert answer.status_code == 400


def test_a_hidden_rule_and_the_content_of_a_read_only_one_stay_out(open_graph: Open) -> None:
    """And neither can be removed."""
    simulator, client = open_graph()
    user = simulator.tenant.row.doc["truth"]["victim"]
    base = simulator.tenant.rules[user][0]
    secret = {**base, "id": "h", "@sim.hidden": True}
    locked = {**base, "id": "l", "isReadOnly": True, "hasError": True}
    simulator.tenant.rules.put(user, [*simulator.tenant.rules[user], secret, locked])
    path = f"/users/{user}/mailFolders/inbox/messageRules"

    shown = {rule["id"]: rule for rule in client.graph("GET", path).json()["value"]}

    assert "h" not in shown
    assert set(shown["l"]) == {"id", "displayName", "sequence", "isEnabled", "hasError", "isReadOnly"}
    assert shown["l"]["hasError"] is True
    assert _code(client.graph("DELETE", f"{path}/h")) == (404, "ErrorItemNotFound")
    assert _code(client.graph("DELETE", f"{path}/l")) == (400, "ErrorInvalidRequest")


def test_what_is_not_visible_yet_cannot_be_read(open_graph: Open, clock: Any) -> None:
    """A late record shows up in its order once its time has come."""
    simulator, client = open_graph()
    one = {
        "id": "late",
        "createdDateTime": "2026-03-02T08:00:00Z",
        "userId": "u",
        "@sim.visible": "2026-03-02T10:40:00Z",
    }
    _put(simulator, "signIn", one)

    def ids() -> list[str]:
        return [each["id"] for each in client.graph("GET", "/auditLogs/signIns").json()["value"]]

    assert "late" not in ids()
    clock.advance(timedelta(minutes=10))
    assert "late" in ids()
    assert "@sim.visible" not in client.graph("GET", "/auditLogs/signIns/late").json()


def test_a_change_may_be_invisible_for_a_while(open_graph: Open, clock: Any) -> None:
    """Eventual consistency: the answer says yes, the next read says no, a later one yes."""
    simulator, client = open_graph(settle=timedelta(seconds=30))
    path = f"/users/{simulator.tenant.row.doc['truth']['victim']}"

    def enabled() -> bool:
        return bool(client.graph("GET", path, **{"$select": "accountEnabled"}).json()["accountEnabled"])

    assert client.graph("PATCH", path, {"accountEnabled": False}).status_code == 204
    assert enabled()
    clock.advance(timedelta(seconds=31))
    assert not enabled()


# Filters


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "/auditLogs/signIns",
            "signInEventTypes/any(t: t eq 'nonInteractiveUser')",
            "Could not find a property named 'signInEventTypes' on type 'microsoft.graph.signIn'.",
        ),
        (
            "/security/alerts_v2",
            "title eq 'x'",
            "The property 'title' cannot be used in the $filter query option.",
        ),
        ("/users", "aboutMe eq 'x'", "The property 'aboutMe' cannot be used in the $filter query option."),
        (
            "/users",
            "nothing eq 'x'",
            "Could not find a property named 'nothing' on type 'microsoft.graph.user'.",
        ),
    ],
)
def test_each_resource_filters_by_its_own_properties(
    open_graph: Open, path: str, text: str, message: str
) -> None:
    """The text says whether the property does not exist or just cannot be filtered on."""
    _, client = open_graph()

    answer = client.graph("GET", path, **{"$filter": text})

    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_beta_shows_the_other_sign_ins_when_asked_by_type(open_graph: Open) -> None:
    """v1.0 knows interactive ones only."""
    simulator, client = open_graph()
    one = {
        "id": "n",
        "createdDateTime": "2026-03-02T08:00:00Z",
        "userId": "u",
        "signInEventTypes": ["nonInteractiveUser"],
    }
    _put(simulator, "signIn", one)
    beta = f"{client.tenant['graph_url']}/beta/auditLogs/signIns"

    found = client.graph(
        "GET", beta, **{"$filter": "signInEventTypes/any(t: t eq 'nonInteractiveUser')"}
    ).json()

    assert [each["id"] for each in found["value"]] == ["n"]
    assert "n" not in [each["id"] for each in client.graph("GET", beta).json()["value"]]
    assert client.graph("GET", "/auditLogs/signIns/n").status_code == 404


def test_alerts_are_found_by_their_evidence(open_graph: Open) -> None:
    """The lambda with a cast that Microsoft's migration article shows."""
    _, client = open_graph()
    path = "e/microsoft.graph.security.userEvidence/userAccount/userPrincipalName"

    found = client.graph(
        "GET", "/security/alerts_v2", **{"$filter": f"evidence/any(e: {path} eq 'alice@contoso.example')"}
    ).json()["value"]

    assert found
    assert all("alice@contoso.example" in str(one["evidence"]) for one in found)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/security/incidents", {"$orderby": "createdDateTime"}),
        ("/security/incidents", {"$expand": "nothing"}),
        ("/subscribedSkus", {"$top": "1"}),
        ("/users", {"$select": "nothing"}),
        ("/users", {"$nonsense": "1"}),
        ("/users", {"$search": "x"}),
    ],
)
def test_options_that_a_resource_does_not_take(open_graph: Open, path: str, query: dict[str, str]) -> None:
    """Refused, not ignored."""
    _, client = open_graph()

    assert client.graph("GET", path, **query).status_code == 400


# Licences


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("free", {"signIns": 403, "risk": 403, "alerts": 401, "hunting": 401, "rules": 404, "pim": 400}),
        (
            "business_basic",
            {"signIns": 403, "risk": 403, "alerts": 401, "hunting": 401, "rules": 200, "pim": 400},
        ),
        ("p1", {"signIns": 200, "risk": 200, "alerts": 401, "hunting": 401, "rules": 200, "pim": 400}),
        ("p2", {"signIns": 200, "risk": 200, "alerts": 401, "hunting": 401, "rules": 200, "pim": 200}),
        (
            "business_premium",
            {"signIns": 200, "risk": 200, "alerts": 200, "hunting": 403, "rules": 200, "pim": 400},
        ),
        ("e3", {"signIns": 200, "risk": 200, "alerts": 200, "hunting": 403, "rules": 200, "pim": 400}),
        ("e5", {"signIns": 200, "risk": 200, "alerts": 200, "hunting": 200, "rules": 200, "pim": 200}),
        ("no_xdr", {"signIns": 200, "risk": 200, "alerts": 401, "hunting": 401, "rules": 200, "pim": 200}),
    ],
)
def test_a_licence_decides_what_is_answered(open_graph: Open, licence: str, expected: dict[str, int]) -> None:
    """Each profile, each feature."""
    simulator, client = open_graph()
    simulator.tenant.licence = licence
    user = simulator.tenant.row.doc["truth"]["victim"]

    found = {
        "signIns": client.graph("GET", "/auditLogs/signIns"),
        "risk": client.graph("GET", "/identityProtection/riskDetections"),
        "alerts": client.graph("GET", "/security/alerts_v2"),
        "hunting": client.graph("POST", "/security/runHuntingQuery", {"Query": "AlertInfo"}),
        "rules": client.graph("GET", f"/users/{user}/mailFolders/inbox/messageRules"),
        "pim": client.graph("GET", "/roleManagement/directory/roleEligibilityScheduleInstances"),
    }

    assert {name: answer.status_code for name, answer in found.items()} == expected


def test_missing_licences_speak_the_documented_words(open_graph: Open) -> None:
    """Status, code and text of each."""
    simulator, client = open_graph()
    simulator.tenant.licence = "free"

    def words(path: str) -> tuple[int, str, str]:
        error = (answer := client.graph("GET", path)).json()["error"]
        return answer.status_code, error["code"], error["message"]

    assert words("/auditLogs/signIns") == (
        403,
        "Authentication_RequestFromNonPremiumTenantOrB2CTenant",
        "Neither tenant is B2C or tenant doesn't have premium license",
    )
    assert words("/identityProtection/riskyUsers") == (
        403,
        "Forbidden",
        "Your tenant is not licensed for this feature.",
    )
    assert words("/security/incidents") == (
        401,
        "Unauthorized",
        "Unauthorized request - Account is not provisioned.",
    )
    assert (
        words("/roleManagement/directory/roleEligibilityScheduleInstances")[1] == "AadPremiumLicenseRequired"
    )


def test_without_p2_risk_is_hidden(open_graph: Open) -> None:
    """Levels are `hidden`, premium detections `generic`; confirming is refused."""
    simulator, client = open_graph()
    simulator.tenant.licence = "p1"
    times = {"detectedDateTime": "2026-03-02T09:00:00Z", "riskLevel": "high", "riskState": "atRisk"}
    _put(simulator, "riskDetection", {"id": "x", "userId": "u", "riskEventType": "passwordSpray", **times})

    shown = client.graph("GET", "/identityProtection/riskDetections/x").json()

    assert (shown["riskLevel"], shown["riskEventType"]) == ("hidden", "generic")
    body = {"userIds": [simulator.tenant.row.doc["truth"]["victim"]]}
    refused = client.graph("POST", "/identityProtection/riskyUsers/confirmCompromised", body)
    assert _code(refused) == (403, "Forbidden")


def test_the_premium_refusal_comes_now_and_then_to_a_licensed_tenant(open_graph: Open) -> None:
    """One in three here."""
    _, client = open_graph(premium_refusal_every=3)

    assert [client.graph("GET", "/auditLogs/signIns").status_code for _ in range(6)] == [200, 200, 403] * 2


# Limits


def test_identity_protection_takes_one_a_second_and_names_no_wait(open_graph: Open, clock: Any) -> None:
    """The tenant's limit, without `Retry-After`."""
    _, client = open_graph(throttle_scale=1.0)

    assert client.graph("GET", "/identityProtection/riskyUsers").status_code == 200
    refused = client.graph("GET", "/identityProtection/riskDetections")
    assert _code(refused) == (429, "TooManyRequests")
    assert "Retry-After" not in refused.headers
    clock.advance(timedelta(seconds=1))
    assert client.graph("GET", "/identityProtection/riskDetections").status_code == 200


@pytest.mark.parametrize(
    ("path", "limit", "seconds"),
    [
        ("/security/alerts_v2", 15, 60),
        ("/auditLogs/directoryAudits", 1, 10),
        ("/users/alice@contoso.example", 175, 10),
    ],
)
def test_each_service_has_its_limit(
    open_graph: Open, clock: Any, path: str, limit: int, seconds: int
) -> None:
    """A tenth of the documented one here, half of it in resource units; the wait is told and enough."""
    _, client = open_graph(throttle_scale=0.1)
    asked = 0
    while (answer := client.graph("GET", path)).status_code == 200:
        asked += 1

    assert asked == limit
    assert answer.headers["Retry-After"] == str(seconds)
    assert answer.headers["x-ms-throttle-scope"].startswith("Application_Tenant/")
    clock.advance(timedelta(seconds=seconds))
    assert client.graph("GET", path).status_code == 200


def test_answers_tell_when_a_limit_is_near_and_what_they_cost(open_graph: Open) -> None:
    """Above 80 % a header says so; reads of the directory tell their resource units."""
    _, client = open_graph(throttle_scale=0.1)

    shares = [
        client.graph("GET", "/security/alerts_v2").headers.get("x-ms-throttle-limit-percentage")
        for _ in range(15)
    ]

    assert shares == [None] * 12 + ["0.87", "0.93", "1.00"]
    path = "/users"
    assert client.graph("GET", path).headers["x-ms-resource-unit"] == "2"
    assert client.graph("GET", path, **{"$select": "id", "$top": "5"}).headers["x-ms-resource-unit"] == "1"


def test_a_refusal_may_hide_the_wait(open_graph: Open) -> None:
    """`retry_after` off: a bare 429."""
    _, client = open_graph(throttle_scale=0.1, retry_after=False)
    answers = [client.graph("GET", "/auditLogs/directoryAudits") for _ in range(2)]

    assert answers[1].status_code == 429
    assert "Retry-After" not in answers[1].headers


def test_a_mailbox_works_on_four_requests_at_a_time(open_graph: Open, connect: Any) -> None:
    """The fifth is refused; another mailbox is not concerned."""
    simulator, client = open_graph(mailbox_seconds=0.25)
    client.graph("GET", "/organization")  # the token is there before it starts
    user = simulator.tenant.row.doc["truth"]["victim"]
    found: list[tuple[int, str]] = []
    ready = threading.Barrier(6)

    def ask() -> None:
        own = connect(simulator)
        own._tokens.update(client._tokens)
        ready.wait()
        answer = own.graph("GET", f"/users/{user}/mailFolders/inbox/messageRules")
        found.append((answer.status_code, answer.json().get("error", {}).get("code", "")))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [(200, "")] * 4 + [(429, "ApplicationThrottled")] * 2


# Other switches


@pytest.mark.parametrize(("mode", "status"), [("empty", 200), ("404", 404), ("410", 410)])
def test_the_legacy_alerts_are_gone_in_one_of_three_ways(open_graph: Open, mode: str, status: int) -> None:
    """Whatever it is, no alert comes."""
    _, client = open_graph(legacy_alerts=mode)

    answer = client.graph("GET", "/security/alerts")

    assert answer.status_code == status
    assert status != 200 or answer.json()["value"] == []


def test_an_inner_error_may_be_spelled_in_lower_case(open_graph: Open) -> None:
    """Both spellings are on the wire."""
    _, client = open_graph(inner_error="innererror")

    assert "innererror" in client.graph("GET", "/users/nobody").json()["error"]


def test_switches_are_taken_from_json_and_checked() -> None:
    """Spans in seconds; a typo is an error."""
    rules = Strictness.parse({"graph": {"throttle_scale": 2, "settle": 1.5}}).graph

    assert (rules.throttle_scale, rules.settle) == (2.0, timedelta(seconds=1.5))
    assert GraphRules.parse(rules.to_dict()) == rules
    for wrong in ({"settel": 1}, {"throttle_scale": "1"}, {"legacy_alerts": "500"}, {"retry_after": 1}):
        with pytest.raises(ValueError, match="Graph"):
            GraphRules.parse(wrong)
