"""Writes that a schema lets pass and the service does not, and writes that come all at once."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from counterplay_sim.graph import GraphRules
from counterplay_sim.strictness import Strictness

RULE = {"displayName": "x", "actions": {"delete": True}}


@pytest.fixture
def pair(start: Any) -> tuple[Any, Any]:
    """A tenant whose application may write, and its client."""
    simulator, client = start(strictness=Strictness(graph=GraphRules(throttle_scale=0)))
    simulator.tenant.grants["graph"] = [
        "Application.ReadWrite.All",
        "MailboxSettings.ReadWrite",
        "SecurityAlert.ReadWrite.All",
        "ThreatHunting.Read.All",
        "User.ReadWrite.All",
    ]
    client.graph("GET", "/users")  # has its token
    return simulator, client


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def _at_once(client: Any, writes: Sequence[tuple[str, str, Any]], connections: int = 4) -> list[int]:
    """The statuses of all these writes, sent over so many connections at the same time."""

    def send(part: Sequence[tuple[str, str, Any]]) -> list[int]:
        with requests.Session() as session:
            session.trust_env, session.verify = False, client.session.verify
            session.headers.update(client._bearer(client.tenant["graph_url"]))
            base = f"{client.tenant['graph_url']}/v1.0"
            return [session.request(how, base + path, json=body).status_code for how, path, body in part]

    with ThreadPoolExecutor(connections) as pool:
        parts = pool.map(send, [writes[number::connections] for number in range(connections)])
        return [status for part in parts for status in part]


def test_no_rule_is_lost_when_many_are_made_at_once(pair: Any) -> None:
    """What was answered 201 is listed."""
    simulator, client = pair
    path = f"/users/{list(simulator.tenant.users)[3]}/mailFolders/inbox/messageRules"
    before = {one["id"] for one in client.graph("GET", path).json()["value"]}

    done = _at_once(client, [("POST", path, {**RULE, "displayName": f"rule {n}"}) for n in range(40)])

    added = [one for one in client.graph("GET", path).json()["value"] if one["id"] not in before]
    assert done == [201] * 40
    assert {one["displayName"] for one in added} == {f"rule {n}" for n in range(40)}


def test_no_comment_and_no_property_is_lost_when_many_write_at_once(pair: Any) -> None:
    """Comments are appended to those that are there by then; a property changes alone."""
    simulator, client = pair
    alert, user = next(iter(simulator.tenant.alerts)), list(simulator.tenant.users)[3]
    comments = [
        ("POST", f"/security/alerts_v2/{alert}/comments", {"comment": f"comment {n}"}) for n in range(40)
    ]
    names = ("city", "country", "department", "jobTitle", "givenName", "surname", "state", "companyName")
    changes = [("PATCH", f"/users/{user}", {name: f"new {name}"}) for name in names]

    done = _at_once(client, [*comments, *changes])

    assert set(done) <= {200, 204}
    kept = [one["comment"] for one in client.graph("GET", f"/security/alerts_v2/{alert}").json()["comments"]]
    assert {f"comment {n}" for n in range(40)} <= set(kept)
    shown = client.graph("GET", f"/users/{user}", **{"$select": ",".join(names)}).json()
    assert {name: shown[name] for name in names} == {name: f"new {name}" for name in names}


def test_writes_of_two_batches_do_not_undo_each_other(pair: Any) -> None:
    """Each request of a batch is one change of its own."""
    simulator, client = pair
    path = f"/users/{list(simulator.tenant.users)[3]}/mailFolders/inbox/messageRules"

    def batch(number: int) -> tuple[str, str, Any]:
        wanted = [
            {
                "id": str(one),
                "method": "POST",
                "url": path,
                "headers": {"Content-Type": "application/json"},
                "body": {**RULE, "displayName": f"batch {number}.{one}"},
            }
            for one in range(10)
        ]
        return "POST", "/$batch", {"requests": wanted}

    assert _at_once(client, [batch(number) for number in range(4)]) == [200] * 4

    listed = {one["displayName"] for one in client.graph("GET", path).json()["value"]}
    assert {f"batch {number}.{one}" for number in range(4) for one in range(10)} <= listed


@pytest.mark.parametrize(
    "values",
    [
        {"userPrincipalName": None},
        {"userPrincipalName": ""},
        {"userPrincipalName": "x"},
        {"userPrincipalName": "a b@example.com"},
        {"displayName": None},
        {"displayName": ""},
        {"accountEnabled": None},
        {"mailNickname": None},
    ],
)
def test_what_every_user_has_cannot_be_taken_away(pair: Any, values: dict[str, Any]) -> None:
    """The user stays as it was, and can be found."""
    simulator, client = pair
    user = list(simulator.tenant.users)[3]
    before = client.graph("GET", f"/users/{user}").json()

    assert _code(client.graph("PATCH", f"/users/{user}", values)) == (400, "Request_BadRequest")

    assert client.graph("GET", f"/users/{user}").json() == before


def test_two_users_cannot_have_one_name(pair: Any) -> None:
    """In no spelling; one's own name in other capitals is fine."""
    simulator, client = pair
    users = list(simulator.tenant.users.values())
    path, taken = f"/users/{users[3]['id']}", users[4]["userPrincipalName"].upper()

    answer = client.graph("PATCH", path, {"userPrincipalName": taken})

    assert _code(answer) == (400, "Request_BadRequest")
    assert "already exists" in answer.json()["error"]["message"]
    own = {"userPrincipalName": users[3]["userPrincipalName"].upper()}
    assert client.graph("PATCH", path, own).status_code == 204


@pytest.mark.parametrize(
    "values",
    [
        {"isEnabled": None},
        {"displayName": None},
        {"displayName": ""},
        {"sequence": None},
        {"sequence": -1},
        {"sequence": 2**31},
        {"actions": None},
        {"actions": {"forwardTo": [{}]}},
        {"actions": {"forwardTo": [{"emailAddress": None}]}},
        {"actions": {"redirectTo": [{"emailAddress": {}}]}},
        {"actions": {"forwardAsAttachmentTo": [{"emailAddress": {"address": None}}]}},
        {"conditions": {"fromAddresses": [{"emailAddress": {"name": "x"}}]}},
    ],
)
def test_a_rule_that_could_not_run_is_refused(pair: Any, values: dict[str, Any]) -> None:
    """Neither a new one nor a changed one."""
    simulator, client = pair
    path = f"/users/{list(simulator.tenant.users)[3]}/mailFolders/inbox/messageRules"
    made = client.graph("POST", path, RULE).json()

    refused = (400, "ErrorInvalidRequest")
    assert _code(client.graph("POST", path, {**RULE, **values})) == refused
    assert _code(client.graph("PATCH", f"{path}/{made['id']}", values)) == refused
    assert client.graph("GET", f"{path}/{made['id']}").json() == made


def _password(end: str) -> tuple[str, str, Any]:
    return "POST", "/addPassword", {"passwordCredential": {"endDateTime": end}}


def _key(key: str) -> tuple[str, str, Any]:
    return "PATCH", "", {"keyCredentials": [{"type": "AsymmetricX509Cert", "usage": "Verify", "key": key}]}


@pytest.mark.parametrize(
    "write",
    [
        _password("9999-99-99T00:00:00Z"),
        _password("2026-02-30T00:00:00Z"),
        _password("0001-01-01T00:00:00+14:00"),
        _key("not base64!"),
        _key(base64.b64encode(b"no certificate").decode()),
        ("PATCH", "", {"keyCredentials": [{"endDateTime": "9999-99-99T00:00:00Z"}]}),
        ("PATCH", "", {"requiredResourceAccess": [{}]}),
        ("PATCH", "", {"requiredResourceAccess": [{"resourceAppId": "x", "resourceAccess": [{}]}]}),
        ("PATCH", "", {"appRoles": [{}]}),
        ("PATCH", "", {"displayName": None}),
    ],
)
def test_credentials_that_no_token_could_come_of_are_refused(pair: Any, write: tuple[str, str, Any]) -> None:
    """The application goes on getting tokens."""
    simulator, client = pair
    own = next(iter(simulator.tenant.objects["application"].where("appId", simulator.tenant.client_id)))
    method, rest, body = write

    assert client.graph(method, f"/applications/{own['id']}{rest}", body).status_code == 400

    assert client.token(client.tenant["graph_url"]).status_code == 200


@pytest.mark.parametrize("headers", ["x", [1], 3])
def test_headers_of_a_batch_request_are_an_object(pair: Any, headers: Any) -> None:
    """Else the batch is malformed."""
    inner = {"id": "1", "method": "GET", "url": "/users", "headers": headers}

    assert _code(pair[1].graph("POST", "/$batch", {"requests": [inner]})) == (400, "BadRequest")


@pytest.mark.parametrize(
    "query",
    [
        "AlertInfo | where Timestamp > ago(99999999d)",
        f"AlertInfo | where Timestamp > ago({'9' * 400}d)",
        f"AlertInfo | where {'(' * 3000}Title == 'x'{')' * 3000}",
        f"AlertInfo | where {'not(' * 3000}Title == 'x'{')' * 3000}",
        f"AlertInfo | take {'9' * 5000}",
        f"AlertInfo | where Title == {'9' * 5000}",
        "CloudAppEvents | order by RawEventData",
    ],
)
def test_a_hunting_query_beyond_all_measure_is_refused(pair: Any, query: str) -> None:
    """With the documented shape, and not with what the interpreter says."""
    answer = pair[1].graph("POST", "/security/runHuntingQuery", {"Query": query})

    assert _code(answer) == (400, "BadRequest")
    assert "recursion" not in answer.json()["error"]["message"]


def test_a_hunting_query_with_many_conditions_is_answered(pair: Any) -> None:
    """A long list of alternatives is no deep one."""
    either, both = (f" {word} ".join(["Title != ''"] * 2000) for word in ("or", "and"))
    query = f"AlertInfo | where ({either}) and {both}"

    answer = pair[1].graph("POST", "/security/runHuntingQuery", {"Query": query})

    assert answer.status_code == 200
    assert answer.json()["results"]
