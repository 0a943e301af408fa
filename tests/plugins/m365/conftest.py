"""A tenant whose services are faked on the wire; tokens are asked for by the real MSAL."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import responses
from tests.fixtures import activity_contract, graph_contract

from counterplay import StepContext
from counterplay.wire import Wire
from counterplay_m365.registration import Administrator
from counterplay_m365.tenant import Tenant

TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT = "99999999-2222-4333-8444-555555555555"
SECRET = "the-client-secret-of-contoso"
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"
GRAPH = "https://graph.microsoft.com/v1.0"
FEED = f"https://manage.office.com/api/v1.0/{TENANT}/activity/feed"
GRAPH_ROLES = (
    "MailboxSettings.ReadWrite",
    "SecurityAlert.Read.All",
    "User.EnableDisableAccount.All",
    "User.Read.All",
    "User.RevokeSessions.All",
)


def jwt(*roles: str, serial: int = 1, principal: str | None = None) -> str:
    """An access token as Entra ID makes them, unsigned."""
    said = {"roles": roles, "n": serial, **({"oid": principal} if principal else {})}
    claims = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    return f"eyJ0eXAiOiJKV1QifQ.{claims.rstrip('=')}.sig"


def graph_error(code: str, message: str, **inner: Any) -> dict[str, Any]:
    """An error body of Graph."""
    return {"error": {"code": code, "message": message, "innerError": {"request-id": "9f3c", **inner}}}


def feed_error(code: str, message: str) -> dict[str, Any]:
    """An error body of the Management Activity API."""
    return {"error": {"code": code, "message": message}}


class Entra:
    """The token end-point: `roles` by resource, whose tokens they are, and how often each was asked for."""

    def __init__(self) -> None:
        self.roles = {
            "https://graph.microsoft.com": GRAPH_ROLES,
            "https://manage.office.com": ("ActivityFeed.Read",),
        }
        self.principal: str | None = None
        self.asked: list[dict[str, str]] = []

    def answer(self, request: Any) -> tuple[int, dict[str, str], str]:
        """What it says to a request for a token."""
        from urllib.parse import parse_qsl

        form = dict(parse_qsl(request.body))
        self.asked.append(form)
        resource = form["scope"].removesuffix("/.default")
        token = jwt(*self.roles.get(resource, ()), serial=len(self.asked), principal=self.principal)
        body = {"token_type": "Bearer", "expires_in": 3599, "access_token": token}
        return 200, {}, json.dumps(body)


@pytest.fixture(autouse=True)
def _held_against_the_contracts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test exchanges with the simulated tenant is held against what Microsoft documents."""
    problems: list[str] = []
    send, send_bulk = Wire.send, Wire._send_bulk

    def hold(wire: Wire, request: Any, check: Callable[[], object]) -> None:
        known = isinstance(wire.connection, Tenant | Administrator)
        if not known or urlsplit(request.url).hostname != "127.0.0.1":
            return
        try:
            check()
        except (AssertionError, jsonschema.ValidationError, KeyError) as error:
            problems.append(f"{request.method} {request.url}: {error}")

    def held(self: Wire, request: Any, **options: Any) -> Any:
        answer = send(self, request, **options)
        if answer.status_code < 500:
            feed = activity_contract.is_activity(request.url)
            contract = activity_contract if feed else graph_contract
            hold(self, request, lambda: contract.hold(request, answer))
        return answer

    def held_bulk(self: Wire, request: Any, *rest: Any) -> Any:
        hold(self, request, lambda: activity_contract.hold_request(request))
        return send_bulk(self, request, *rest)

    monkeypatch.setattr(Wire, "send", held)
    monkeypatch.setattr(Wire, "_send_bulk", held_bulk)
    yield
    assert problems == []


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    """The network: only what a test put there answers."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def discovery(wire: responses.RequestsMock) -> None:
    """The authority describes itself."""
    wire.get(
        f"{AUTHORITY}/v2.0/.well-known/openid-configuration",
        json={
            "issuer": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "authorization_endpoint": f"{AUTHORITY}/oauth2/v2.0/authorize",
            "token_endpoint": f"{AUTHORITY}/oauth2/v2.0/token",
        },
    )


@pytest.fixture
def entra(wire: responses.RequestsMock, discovery: None) -> Entra:
    """An authority that gives tokens."""
    entra = Entra()
    wire.add_callback("POST", f"{AUTHORITY}/oauth2/v2.0/token", entra.answer)
    return entra


@pytest.fixture
def connect() -> Callable[..., Tenant]:
    """Make a connection, with other settings where a test says so."""

    def make(**settings: Any) -> Tenant:
        return Tenant(
            "contoso", {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET, **settings}
        )

    return make


@pytest.fixture
def context(entra: Entra, connect: Callable[..., Tenant]) -> StepContext:
    """A step's context on the connection `contoso`, which repeats failures at once."""
    connection = connect()
    return StepContext(http=Wire(connection, attempts=2, backoff=0), connection=connection)
