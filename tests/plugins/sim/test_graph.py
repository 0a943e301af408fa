"""The Graph subset: users, sessions, inbox rules, alerts, permissions and error bodies."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def victim(simulator: Any) -> str:
    """The object id of the compromised user."""
    return str(simulator.tenant.row.doc["truth"]["victim"])


def _rules(client: Any, user: str) -> list[dict[str, Any]]:
    return list(client.graph("GET", f"/users/{user}/mailFolders/inbox/messageRules").json()["value"])


def test_a_user_has_default_properties_without_account_enabled(client: Any, victim: str) -> None:
    """Whether an account is enabled is only told when `$select` asks for it."""
    plain = client.graph("GET", "/users/alice@contoso.example").json()
    chosen = client.graph("GET", f"/users/{victim}", **{"$select": "accountEnabled,city,otherMails"}).json()

    assert plain["id"] == victim
    assert "accountEnabled" not in plain
    assert len(plain) == 12
    chosen.pop("@odata.context")
    assert chosen == {"id": victim, "accountEnabled": True, "city": None, "otherMails": []}


def test_names_are_found_whatever_their_spelling(client: Any, victim: str) -> None:
    """Ids and principal names in any case, quoted, or percent-encoded."""
    for name in (
        "/users/ALICE@contoso.example",
        "/users('alice@contoso.example')",
        f"/users/{victim.upper()}",
    ):
        assert client.graph("GET", name).json()["id"] == victim


def test_blocking_shows_and_is_journalled(simulator: Any, client: Any, victim: str) -> None:
    """204, no body; the next read shows it, and the oracle knows who did it."""
    answer = client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False})

    assert (answer.status_code, answer.content) == (204, b"")
    shown = client.graph("GET", f"/users/{victim}", **{"$select": "accountEnabled"}).json()
    assert shown["accountEnabled"] is False
    effects = simulator.oracle().verdict().effects["alice@contoso.example"]
    assert (effects.blocked, effects.changes) == (
        True,
        (("update_user", victim, {"accountEnabled": False}),),
    )


def test_revoking_ends_every_session(simulator: Any, client: Any, victim: str) -> None:
    """The answer is an OData boolean, and the sessions issued before are gone."""
    before = simulator.oracle().verdict().victim.sessions

    answer = client.graph("POST", f"/users/{victim}/revokeSignInSessions")

    assert before > 1
    assert answer.json() == {
        "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#Edm.Boolean",
        "value": True,
    }
    assert simulator.oracle().verdict().victim.sessions == 0
    chosen = client.graph("GET", f"/users/{victim}", **{"$select": "signInSessionsValidFromDateTime"})
    assert chosen.json()["signInSessionsValidFromDateTime"] == "2026-03-02T10:30:00Z"


def test_one_rule_of_the_victim_is_malicious_and_can_be_switched_off(
    simulator: Any, client: Any, victim: str
) -> None:
    """The rule called `.` forwards outside and deletes; the others stay as they were."""
    rules = _rules(client, victim)
    bad = next(rule for rule in rules if rule["displayName"] == ".")
    path = f"/users/{victim}/mailFolders/inbox/messageRules/{bad['id']}"

    answer = client.graph("PATCH", path, {"isEnabled": False})

    assert bad["actions"]["forwardTo"][0]["emailAddress"]["address"] == "collect@evil.example"
    assert (answer.status_code, answer.json()["isEnabled"]) == (200, False)
    assert [rule["isEnabled"] for rule in _rules(client, victim)] == [False, True, True]
    verdict = simulator.oracle().verdict()
    assert (verdict.victim.malicious_rules_on, verdict.harmless_rules_off) == ((), ())
    assert client.graph("GET", path).json()["isEnabled"] is False


def test_a_read_only_rule_shows_no_content_and_cannot_be_changed(client: Any, simulator: Any) -> None:
    """A rule of another client is listed without conditions and actions, and refuses."""
    found = [
        (user, rule) for user in simulator.tenant.users for rule in _rules(client, user) if rule["isReadOnly"]
    ]
    assert found
    user, rule = found[0]
    assert not {"conditions", "actions"} & set(rule)

    refused = client.graph(
        "PATCH", f"/users/{user}/mailFolders/inbox/messageRules/{rule['id']}", {"isEnabled": False}
    )

    assert refused.status_code == 400
    assert simulator.oracle().verdict().effects == {}


def test_the_alert_names_user_address_and_rule(client: Any, simulator: Any, victim: str) -> None:
    """The high alert leads to the compromised account by id, name, address and rule."""
    answer = client.graph("GET", "/security/alerts_v2", **{"$filter": "severity eq 'high'"}).json()

    (alert,) = answer["value"]
    user, address, rule = alert["evidence"]
    assert alert["status"] == "new"
    assert user["userAccount"]["azureAdUserId"] == victim
    assert user["userAccount"]["userPrincipalName"] == "alice@contoso.example"
    assert address["ipAddress"] == simulator.tenant.row.doc["truth"]["attacker"]
    assert [rule["configurationId"]] == simulator.tenant.row.doc["truth"]["malicious_rules"]
    whole = client.graph("GET", f"/security/alerts_v2/{alert['id']}").json()
    whole.pop("@odata.context")
    assert whole == alert


def test_alerts_come_newest_first_in_pages_that_links_join(client: Any) -> None:
    """`$top` limits a page, the link leads on verbatim, `$orderby` turns the order."""
    everything = client.graph("GET", "/security/alerts_v2").json()["value"]
    answer = client.graph(
        "GET", "/security/alerts_v2", **{"$top": "4", "$filter": "severity ne 'none'"}
    ).json()
    paged = answer["value"]
    while "@odata.nextLink" in answer:
        answer = client.graph("GET", answer["@odata.nextLink"]).json()
        paged += answer["value"]

    assert [one["id"] for one in paged] == [one["id"] for one in everything]
    created = [one["createdDateTime"] for one in everything]
    assert created == sorted(created, reverse=True)
    turned = client.graph("GET", "/security/alerts_v2", **{"$orderby": "createdDateTime asc"}).json()["value"]
    assert [one["id"] for one in turned] == [one["id"] for one in reversed(everything)]


def test_a_poll_sees_only_what_its_window_holds(client: Any) -> None:
    """Half-open windows over the last update tile the alerts."""
    everything = client.graph("GET", "/security/alerts_v2").json()["value"]

    def between(start: str, end: str) -> list[str]:
        text = f"lastUpdateDateTime ge {start} and lastUpdateDateTime lt {end}"
        answer = client.graph("GET", "/security/alerts_v2", **{"$filter": text}).json()
        return [one["id"] for one in answer["value"]]

    early = between("2026-03-01T00:00:00Z", "2026-03-02T06:00:00Z")
    late = between("2026-03-02T06:00:00Z", "2026-03-02T10:30:00.1234567Z")
    assert early
    assert late
    assert sorted(early + late) == sorted(one["id"] for one in everything)


@pytest.mark.parametrize(
    "query",
    [
        {"$filter": "title eq 'x'"},
        {"$filter": "severity eq"},
        {"$filter": "severity eq 'high' and"},
        {"$filter": "(severity eq 'high'"},
        {"$filter": "severity lt 5"},
        {"$filter": "(" * 5000},
        {"$filter": "severity is 'high'"},
        {"$orderby": "title"},
        {"$orderby": "severity sideways"},
        {"$top": "0"},
        {"$top": "many"},
        {"$skiptoken": "%%%"},
    ],
)
def test_a_query_that_the_service_does_not_know_is_refused(client: Any, query: dict[str, str]) -> None:
    """400 with the error body of Graph, never a guess."""
    answer = client.graph("GET", "/security/alerts_v2", **query)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/users/nobody@contoso.example", None, 404, "Request_ResourceNotFound"),
        ("GET", "/users/nobody/mailFolders/inbox/messageRules", None, 404, "ErrorInvalidUser"),
        ("GET", "/users/{v}/mailFolders/sent/messageRules", None, 404, "ErrorItemNotFound"),
        ("PATCH", "/users/{v}/mailFolders/inbox/messageRules/x", {}, 404, "ErrorItemNotFound"),
        ("GET", "/security/alerts_v2/nothing", None, 404, "ResourceNotFound"),
        ("GET", "/nothing", None, 400, "BadRequest"),
        ("DELETE", "/users/{v}", None, 405, "Request_BadRequest"),
        ("PATCH", "/users/{v}", {"accountEnabled": "no"}, 400, "Request_BadRequest"),
        ("PATCH", "/users/{v}", ["accountEnabled"], 400, "BadRequest"),
        ("PATCH", "/users/{v}", {"department": "x"}, 403, "Authorization_RequestDenied"),
    ],
)
def test_errors_have_the_body_of_graph(
    client: Any, victim: str, method: str, path: str, body: Any, status: int, code: str
) -> None:
    """Code, message, and the request's ids, in the body and in the headers."""
    answer = client.graph(
        method, path.replace("{v}", victim), body, headers={"client-request-id": "my-own-id"}
    )

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["innerError"] == {
        "date": "2026-03-02T10:30:00",
        "request-id": answer.headers["request-id"],
        "client-request-id": "my-own-id",
    }
    assert answer.headers["client-request-id"] == "my-own-id"


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/users/{v}", None, "Authorization_RequestDenied"),
        ("PATCH", "/users/{v}", {"accountEnabled": False}, "Authorization_RequestDenied"),
        ("POST", "/users/{v}/revokeSignInSessions", None, "Authorization_RequestDenied"),
        ("GET", "/users/{v}/mailFolders/inbox/messageRules", None, "ErrorAccessDenied"),
        ("GET", "/security/alerts_v2", None, "Authorization_RequestDenied"),
        ("GET", "/organization", None, "Authorization_RequestDenied"),
    ],
)
def test_each_call_needs_its_permission(
    simulator: Any, client: Any, victim: str, method: str, path: str, body: Any, code: str
) -> None:
    """Without roles nothing is read or changed."""
    simulator.tenant.grants["graph"] = []

    answer = client.graph(method, path.replace("{v}", victim), body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
    assert simulator.oracle().verdict().effects == {}


def test_blocking_needs_the_right_to_read_users_too(simulator: Any, client: Any, victim: str) -> None:
    """`User.EnableDisableAccount.All` alone is not enough, as documented."""
    simulator.tenant.grants["graph"] = ["User.EnableDisableAccount.All"]

    assert client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False}).status_code == 403


def test_users_come_in_pages(client: Any, simulator: Any) -> None:
    """Forty users, fifteen at a time, filtered by what the directory can filter."""
    answer = client.graph("GET", "/users", **{"$top": "15", "$select": "userPrincipalName"}).json()
    users = answer["value"]
    while "@odata.nextLink" in answer:
        answer = client.graph("GET", answer["@odata.nextLink"]).json()
        users += answer["value"]

    assert [user["id"] for user in users] == list(simulator.tenant.users)
    found = client.graph(
        "GET", "/users", **{"$filter": "userPrincipalName eq 'alice@contoso.example'"}
    ).json()
    assert [user["userPrincipalName"] for user in found["value"]] == ["alice@contoso.example"]


def test_the_organisation_tells_its_domains(client: Any) -> None:
    """What counts as inside the tenant can be read."""
    (organisation,) = client.graph("GET", "/organization").json()["value"]

    assert organisation["id"] == client.tenant["tenant_id"]
    assert "contoso.example" in [domain["name"] for domain in organisation["verifiedDomains"]]
