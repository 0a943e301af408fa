"""The connection m365.tenant: tokens, what refusals mean, and its check."""

import threading
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import requests
import responses

from counterplay import BlockedError, ConfigError, Context, PermanentError, RetryableError
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.clouds import CLOUDS
from counterplay_m365.tenant import Tenant

TENANT = "11111111-2222-4333-8444-555555555555"
SECRET = "the-client-secret-of-contoso"
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"
TOKEN = f"{AUTHORITY}/oauth2/v2.0/token"
DISCOVERY = f"{AUTHORITY}/v2.0/.well-known/openid-configuration"
GRAPH = "https://graph.microsoft.com/v1.0"
FEED = f"https://manage.office.com/api/v1.0/{TENANT}/activity/feed"
Connect = Callable[..., Tenant]


def context_of(connection: Tenant) -> Context:
    return Context(http=Wire(connection, attempts=2, backoff=0), connection=connection)


DOCTOR = "; `playbook doctor` tells what playbooks miss"


def refusal(code: int, text: str = "said so") -> dict[str, Any]:
    return {
        "error": "invalid_client",
        "error_description": f"AADSTS{code}: {text}\r\nTrace ID: 1",
        "error_codes": [code],
        "trace_id": "t-1",
    }


def test_each_service_gets_the_token_that_was_made_for_it(context, entra, wire) -> None:
    """Graph and the audit feed see different tokens, each asked for once with its own scope."""
    wire.get(f"{GRAPH}/users/ana", json={})
    wire.get(f"{FEED}/subscriptions/list", json=[])

    for _ in range(2):
        graph = context.http.get(f"{GRAPH}/users/ana")
        feed = context.http.get(f"{FEED}/subscriptions/list")

    assert [form["scope"] for form in entra.asked] == [
        "https://graph.microsoft.com/.default",
        "https://manage.office.com/.default",
    ]
    assert entra.asked[0]["client_secret"] == SECRET
    assert graph.request.headers["Authorization"] != feed.request.headers["Authorization"]


def test_the_age_of_each_token_is_known(context, entra, wire, monkeypatch) -> None:
    """Since it was given, service by service; one that nobody asked for has none."""
    wire.get(f"{GRAPH}/users/ana", json={})
    present = time.monotonic()
    assert context.connection.token_ages() == {}
    context.http.get(f"{GRAPH}/users/ana")

    monkeypatch.setattr(time, "monotonic", lambda: present + 600.0)
    (found,) = context.connection.token_ages().items()

    assert found[0] == "Microsoft Graph"
    assert 590 < found[1] <= 600
    context.connection.forget_tokens()
    assert context.connection.token_ages() == {}


def test_threads_share_one_token(entra, connect: Connect) -> None:
    """Eight threads that start together ask for a token once."""
    connection = connect()
    tokens = connection._token_source()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokens.bearer("https://graph.microsoft.com")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(entra.asked) == 1


def test_a_refused_token_is_replaced_once(context, entra, wire) -> None:
    """A 401 drops the token, and the request goes out again with a new one."""
    wire.get(f"{GRAPH}/users/ana", status=401, json={"error": {"code": "InvalidAuthenticationToken"}})
    wire.get(f"{GRAPH}/users/ana", json={"id": "1"})

    assert context.http.get(f"{GRAPH}/users/ana").json() == {"id": "1"}
    assert len(entra.asked) == 2


def test_a_missing_feed_permission_asks_for_no_new_token(context, entra, wire) -> None:
    """AF10001 is a 401 that a new token cannot cure."""
    wire.get(
        f"{FEED}/subscriptions/list",
        status=401,
        json={"error": {"code": "AF10001", "message": "The permission set () sent in the request."}},
    )

    with pytest.raises(BlockedError) as caught:
        context.http.get(f"{FEED}/subscriptions/list")

    assert str(caught.value) == (
        "Management Activity API answered 401 AF10001: The permission set () sent in the request; "
        "grant the application permission ActivityFeed.Read with admin consent"
    )
    assert len(entra.asked) == 1


def test_a_rotated_secret_is_picked_up(wire, entra, connect: Connect) -> None:
    """The next token is asked for with the secret as it is then."""
    connection = connect()
    tokens = connection._token_source()
    tokens.bearer("https://graph.microsoft.com")
    connection.settings["client_secret"] = "the-next-secret-of-contoso"
    tokens.forget()
    tokens.bearer("https://graph.microsoft.com")

    assert [form["client_secret"] for form in entra.asked] == [SECRET, "the-next-secret-of-contoso"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            7000215,
            "Microsoft Entra ID gave no token for 'contoso': AADSTS7000215: the client secret is wrong; "
            "paste the secret's value, not its ID, into `client_secret`",
        ),
        (
            7000222,
            "Microsoft Entra ID gave no token for 'contoso': AADSTS7000222: the client secret has expired; "
            "make a new one in the app registration",
        ),
        (
            700016,
            "Microsoft Entra ID gave no token for 'contoso': AADSTS700016: the app is not known in this "
            "tenant; check `client_id` and `tenant_id`, then give consent there",
        ),
        (
            123456,
            "Microsoft Entra ID gave no token for 'contoso': AADSTS123456: said so; "
            "https://login.microsoftonline.com/error?code=123456",
        ),
    ],
)
def test_a_refusal_of_entra_is_explained(wire, discovery, connect: Connect, code: int, message: str) -> None:
    """The code is named with its fact and what to do; a person has to act."""
    wire.post(TOKEN, status=401, json=refusal(code))

    with pytest.raises(BlockedError) as caught:
        context_of(connect()).http.get(f"{GRAPH}/users/ana")

    assert str(caught.value) == message
    assert caught.value.request_id == "t-1"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        *(7000215, 7000222, 700016, 90002, 7000112, 70001, 700027, 700030, 7000218, 700213, 7002131, 700229),
        *(65001, 650056, 650057, 65004, 90094, 500011, 70011, 1002012, 9002313, 53003, 530032, 50196),
        *(90038, 900382, 900432),
    ],
)
def test_every_known_code_says_what_to_do(wire, discovery, connect: Connect, code: int) -> None:
    """None of them falls back to Microsoft's look-up page."""
    wire.post(TOKEN, status=401, json=refusal(code))

    with pytest.raises(BlockedError) as caught:
        context_of(connect()).http.get(f"{GRAPH}/users/ana")

    assert f"AADSTS{code}: " in str(caught.value)
    assert "said so" not in str(caught.value)
    assert caught.value.hint
    assert "error?code=" not in caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "body": "<html>"},
        {"status": 503, "json": {}},
        {"status": 429, "json": {}, "headers": {"Retry-After": "7"}},
        {"status": 400, "json": refusal(90055)},
        {"status": 200, "body": "<html>hello</html>"},
        {"body": responses.ConnectionError("reset")},
    ],
)
def test_a_passing_fault_of_entra_is_retryable(wire, discovery, connect: Connect, answer: Any) -> None:
    """Server errors, rate limits, pages and a broken connection are no verdict on the credentials."""
    wire.post(TOKEN, **answer)

    http = context_of(connect()).http
    http.attempts = 1
    with pytest.raises(RetryableError, match="Microsoft Entra ID"):
        http.get(f"{GRAPH}/users/ana")


def test_an_authority_that_is_not_trusted_is_named(wire, connect: Connect) -> None:
    """A certificate that no authority vouches for is for a person to look at."""
    said = "(Caused by SSLError(1, '[SSL: X_FAILED] certificate verify failed: self-signed (_ssl.c:1)'))"
    wire.get(DISCOVERY, body=requests.exceptions.SSLError(said))

    with pytest.raises(BlockedError) as caught:
        context_of(connect()).http.get(f"{GRAPH}/users/ana")

    assert str(caught.value) == (
        "no TLS connection to Microsoft Entra ID at login.microsoftonline.com: certificate verify failed: "
        "self-signed; check `authority` and the certificate authorities (`ca_file`)"
    )


def test_entra_is_asked_again_after_a_fault(wire, discovery, entra, connect: Connect) -> None:
    """A failure of the token end-point is repeated like any other: nothing was sent yet."""
    wire.remove("POST", TOKEN)
    wire.post(TOKEN, status=503)
    wire.add_callback("POST", TOKEN, entra.answer)
    wire.get(f"{GRAPH}/users/ana", json={})
    http = context_of(connect()).http

    assert http.get(f"{GRAPH}/users/ana").status_code == 200


def test_the_rate_limit_of_entra_says_how_long(wire, discovery, connect: Connect) -> None:
    """`Retry-After` reaches whoever repeats the work."""
    wire.post(TOKEN, status=429, headers={"Retry-After": "7"})

    http = context_of(connect()).http
    http.attempts = 1
    with pytest.raises(RetryableError) as caught:
        http.get(f"{GRAPH}/users/ana")

    assert caught.value.retry_after == 7


def test_an_unknown_tenant_is_explained_when_the_authority_is_discovered(wire, connect: Connect) -> None:
    """AADSTS90002 already comes with the description of the authority."""
    wire.get(DISCOVERY, status=400, json={"error": "invalid_tenant", "error_description": "AADSTS90002: no"})

    with pytest.raises(BlockedError) as caught:
        context_of(connect()).http.get(f"{GRAPH}/users/ana")

    assert str(caught.value) == (
        "Microsoft Entra ID gave no token for 'contoso': AADSTS90002: the tenant does not exist; "
        "check `tenant_id` and `cloud`"
    )


def test_an_authority_that_is_none_is_named(wire, connect: Connect) -> None:
    """JSON that describes no end-points is a wrong `authority`, not a traceback."""
    wire.get(DISCOVERY, json={"hello": "world"})

    with pytest.raises(BlockedError) as caught:
        context_of(connect()).http.get(f"{GRAPH}/users/ana")

    assert str(caught.value) == (
        f"{AUTHORITY} does not describe itself as an authority of Microsoft Entra ID; "
        "check `authority`, and set `instance_discovery: false` for a private one"
    )


def test_a_private_authority_needs_no_word_of_microsoft(wire, connect: Connect) -> None:
    """With `instance_discovery: false`, nothing is asked of login.microsoftonline.com."""
    base = f"https://localhost:8443/{TENANT}"
    wire.get(
        f"{base}/v2.0/.well-known/openid-configuration",
        json={"authorization_endpoint": f"{base}/a", "token_endpoint": f"{base}/oauth2/v2.0/token"},
    )
    wire.post(f"{base}/oauth2/v2.0/token", json={"access_token": "opaque", "expires_in": 3599})
    wire.get("https://localhost:9443/v1.0/users/ana", json={})
    connection = connect(
        authority="https://localhost:8443/", instance_discovery=False, graph_url="https://localhost:9443"
    )

    answer = context_of(connection).http.get("https://localhost:9443/v1.0/users/ana")

    assert answer.request.headers["Authorization"] == "Bearer opaque"
    assert {call.request.url.split("/")[2] for call in wire.calls} == {"localhost:8443", "localhost:9443"}


def test_the_configured_authorities_win_over_the_environment(
    wire, entra, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ca_file` is used for tokens even where REQUESTS_CA_BUNDLE is set."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere/bundle.pem")
    connect(ca_file="/own/ca.pem")._token_source().bearer("https://graph.microsoft.com")

    assert {call.request.req_kwargs["verify"] for call in wire.calls} == {"/own/ca.pem"}


@pytest.mark.parametrize("tenant_id", ["contoso.com", "", "11111111-2222-4333-8444", f"{TENANT}\n"])
def test_a_tenant_id_that_is_no_guid_is_refused(connect: Connect, tenant_id: str) -> None:
    """The schema refuses it, and so does the connection, which says what to enter instead."""
    with pytest.raises(ConfigError) as caught:
        connect(tenant_id=tenant_id)

    assert str(caught.value) == (
        f"connections.contoso.tenant_id: {tenant_id!r} is not a GUID; "
        "copy the Directory (tenant) ID of the app registration; a domain name does not do"
    )
    schema = PluginHost.load().module("m365.tenant").schema["properties"]["tenant_id"]
    if not tenant_id.endswith("\n"):  # `$` of a regular expression lets that one pass
        assert not jsonschema.Draft202012Validator(schema).is_valid(tenant_id)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cloud_sets_all_addresses(connect: Connect, cloud: str) -> None:
    """Sign-in, Graph, audit feed and Defender belong to one cloud unless an address is given."""
    connection = connect(cloud=cloud)
    known = CLOUDS[cloud]

    assert connection.authority == known.authority
    assert list(connection.origins()) == [one for one in (known.graph, known.activity, known.defender) if one]
    assert connect(cloud=cloud, graph_url="https://proxy:1/").graph_url == "https://proxy:1"


def test_the_schema_offers_the_clouds_that_exist() -> None:
    """One list of clouds, in code and in the schema."""
    assert PluginHost.load().module("m365.tenant").schema["properties"]["cloud"]["enum"] == list(CLOUDS)


def test_no_other_host_sees_a_token(context) -> None:
    """An address out of an answer that leads elsewhere is refused before anything is sent."""
    with pytest.raises(PermanentError, match="refused to send the credentials of 'contoso' to https://evil"):
        context.http.get("https://evil.example/x")


def test_one_host_for_both_services_is_told_apart_by_path(connect: Connect) -> None:
    """Behind one address, `/activity/feed/` is the audit feed and the rest is Graph."""
    connection = connect(graph_url="https://one:1/graph", activity_url="https://one:1")

    assert connection.service("https://one:1") == "Microsoft 365"
    assert connection._service_of("https://one:1/graph/v1.0/users/1") == "Microsoft Graph"
    assert (
        connection._service_of(f"https://one:1/api/v1/{TENANT}/activity/feed/x") == "Management Activity API"
    )
    assert connection._service_of("https://one:1/graph/v1.0/users?x=/activity/feed/") == "Microsoft Graph"
    odd = connect(graph_url="https://activity/feed/graph", activity_url="https://activity")
    assert odd._service_of("https://activity/feed/graph/v1.0/users") == "Microsoft Graph"
    assert odd._service_of("https://activity/x/activity/feed/y") == "Management Activity API"


def test_the_check_proves_every_part(context, wire) -> None:
    """A token and its permissions for each service, the subscriptions, and a page of alerts."""
    wire.get(
        f"{FEED}/subscriptions/list",
        json=[{"contentType": "Audit.General", "status": "enabled", "webhook": None}],
    )
    wire.get(f"{GRAPH}/security/alerts_v2", json={"value": []})

    found = [(one.name, one.ok, one.detail) for one in context.connection.check(context)]

    assert found == [
        ("token for Microsoft Graph", True, "granted"),
        (
            "permissions for Microsoft Graph",
            True,
            "granted: MailboxSettings.ReadWrite, SecurityAlert.Read.All, User.EnableDisableAccount.All, "
            "User.Read.All, User.RevokeSessions.All; `playbook doctor` tells what playbooks miss",
        ),
        ("token for Management Activity API", True, "granted"),
        ("permissions for Management Activity API", True, f"granted: ActivityFeed.Read{DOCTOR}"),
        ("audit subscriptions", True, "Audit.General enabled"),
        ("alerts", True, "readable, and there are none"),
    ]


def test_the_check_names_permissions_and_goes_on(context, entra, wire) -> None:
    """A service that grants nothing fails, and one failure does not hide the next."""
    entra.roles = {"https://graph.microsoft.com": ("User.Read.All",), "https://manage.office.com": ()}
    wire.get(f"{FEED}/subscriptions/list", status=500)
    wire.get(
        f"{GRAPH}/security/alerts_v2", status=403, json={"error": {"code": "Forbidden", "message": "No."}}
    )

    found = {one.name: (one.ok, one.detail) for one in context.connection.check(context)}

    assert found["permissions for Microsoft Graph"] == (True, f"granted: User.Read.All{DOCTOR}")
    assert found["permissions for Management Activity API"] == (False, f"granted: none{DOCTOR}")
    assert found["audit subscriptions"] == (False, "Management Activity API answered 500")
    assert found["alerts"] == (
        False,
        "Microsoft Graph answered 403 Forbidden: No.; "
        "grant the application permission SecurityAlert.Read.All with admin consent",
    )


def test_the_check_of_a_refused_app_says_why(wire, discovery, connect: Connect) -> None:
    """Without a token each part fails with the explained code, and nothing raises."""
    wire.post(TOKEN, status=401, json=refusal(7000215))
    context = context_of(connect())

    found = list(context.connection.check(context))  # type: ignore[union-attr]  # it was given above

    assert [one.ok for one in found] == [False] * 4
    assert all("AADSTS7000215: the client secret is wrong" in one.detail for one in found)
