"""Webhooks against a real listener: handshake, notifications, retries, giving up, expiry."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from counterplay_sim.testing import Strictness

EXCHANGE = "Audit.Exchange"


class Hook(HTTPServer):
    """A listener that keeps what it is told and answers as it should."""

    def __init__(self, certificate: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self.server_address[1]}/hook?x=1"
        self.status = 200
        self.heard: list[tuple[dict[str, str], Any]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook = self.server
        assert isinstance(hook, Hook)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hook.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(hook.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook(simulator: Any) -> Iterator[Hook]:
    made = Hook(str(simulator.folder / "server.pem"))
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _start(client: Any, **webhook: Any) -> Any:
    bearer = client._bearer(client.tenant["activity_url"])
    url = f"{client.feed}/subscriptions/start?contentType={EXCHANGE}"
    return client.session.post(url, json={"webhook": webhook}, headers=bearer)


def _write(simulator: Any, clock: Any, number: int) -> None:
    event = {"CreationTime": "2026-03-02T10:00:00", "Id": f"{number:08d}-0000-4000-8000-000000000000"}
    simulator.tenant.log(EXCHANGE, event, clock.now_ns())
    clock.advance(timedelta(seconds=1))


def test_a_listener_is_asked_before_it_is_taken(client: Any, hook: Hook) -> None:
    """The code comes in header and body; then the webhook is listed."""
    answer = _start(client, address=hook.address, authId="secret-1", expiration="")

    assert answer.status_code == 200
    (headers, body), *_ = hook.heard
    assert headers["webhook-validationcode"] == body["validationCode"]
    assert headers["webhook-authid"] == "secret-1"
    webhook = {"status": "enabled", "address": hook.address, "authId": "secret-1", "expiration": None}
    assert answer.json() == {"contentType": EXCHANGE, "status": "enabled", "webhook": webhook}
    assert client.activity("GET", "subscriptions/list").json() == [answer.json()]


def test_a_listener_that_refuses_changes_nothing(client: Any, hook: Hook) -> None:
    """AF20021, no subscription; with a subscription its state stays."""
    hook.status = 204

    answer = _start(client, address=hook.address)

    assert answer.json()["error"]["code"] == "AF20021"
    assert "did not return HTTP 200" in answer.json()["error"]["message"]
    assert client.activity("GET", "subscriptions/list").json() == []


@pytest.mark.parametrize(
    "address", ["https://example.net/hook", "https://10.0.0.1/", "https://[::ffff:8.8.8.8]/"]
)
def test_nobody_outside_is_called(client: Any, address: str) -> None:
    """A pretend tenant does not reach out, and says so."""
    answer = _start(client, address=address)

    assert answer.json()["error"]["code"] == "AF20021"
    assert "loopback addresses only" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("webhook", "code"),
    [
        ({"address": "http://127.0.0.1/"}, "AF20021"),
        ({"address": "https://127.0.0.1/", "expiration": "2020-01-01T00:00:00Z"}, "AF20003"),
        ({"address": "https://127.0.0.1/", "expiration": "never"}, "AF20002"),
    ],
)
def test_a_webhook_that_makes_no_sense(client: Any, webhook: dict[str, str], code: str) -> None:
    """No HTTPS, a past or unreadable expiration."""
    answer = _start(client, **webhook)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_new_content_is_told_and_attempts_are_listed(
    simulator: Any, client: Any, hook: Hook, clock: Any
) -> None:
    """An array of items that can be fetched; each attempt is in the notifications."""
    _start(client, address=hook.address, authId="secret-1")
    _write(simulator, clock, 1)

    simulator._webhooks.notify()

    headers, items = hook.heard[-1]
    assert headers["webhook-authid"] == "secret-1"
    assert set(items[0]) == {
        "tenantId",
        "clientId",
        "contentType",
        "contentId",
        "contentUri",
        "contentCreated",
        "contentExpiration",
    }
    assert client.activity("GET", items[0]["contentUri"]).json()[0]["Id"].startswith("00000001")
    window = {"contentType": EXCHANGE, "startTime": "2026-03-02T10:00:00", "endTime": "2026-03-02T11:00:00"}
    (attempt,) = client.activity("GET", "subscriptions/notifications", **window).json()
    assert attempt["notificationStatus"] == "success"
    assert attempt["contentId"] == items[0]["contentId"]
    heard = len(hook.heard)
    simulator._webhooks.notify()
    assert len(hook.heard) == heard


def test_a_failing_listener_is_tried_less_and_less_and_then_no_more(
    start: Any, clock: Any, simulator: Any, client: Any, hook: Hook
) -> None:
    """Delays double; after some failures the webhook is disabled and content stays listable."""
    simulator.tighten({"webhook_patience": 3, "webhook_retry": 60})
    _start(client, address=hook.address)
    _write(simulator, clock, 1)
    hook.status, tried = 500, []
    heard = len(hook.heard)

    for _ in range(10):
        simulator._webhooks.notify()
        tried.append(len(hook.heard) - heard)
        clock.advance(timedelta(seconds=30))

    assert tried == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    (listed,) = client.activity("GET", "subscriptions/list").json()
    assert (listed["status"], listed["webhook"]["status"]) == ("enabled", "disabled")
    hook.status = 200
    clock.advance(timedelta(minutes=15))
    assert _start(client, address=hook.address).json()["webhook"]["status"] == "enabled"


def test_a_webhook_expires(simulator: Any, client: Any, hook: Hook, clock: Any) -> None:
    """It is listed as such, and no longer called."""
    _start(client, address=hook.address, expiration="2026-03-02T10:40:00Z")
    clock.advance(timedelta(minutes=11))
    _write(simulator, clock, 1)
    heard = len(hook.heard)

    simulator._webhooks.notify()

    assert len(hook.heard) == heard
    assert client.activity("GET", "subscriptions/list").json()[0]["webhook"]["status"] == "expired"


@pytest.mark.parametrize(("switch", "left"), [("keep", True), ("remove", False)])
def test_what_a_start_without_a_body_does_to_a_webhook(
    simulator: Any, client: Any, hook: Hook, clock: Any, switch: str, left: bool
) -> None:
    """Nobody knows: it is kept (and AF20024 said), or removed."""
    _start(client, address=hook.address)
    simulator.tighten({"bodyless_start": switch})
    clock.advance(timedelta(minutes=16))

    answer = client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    assert answer.status_code == (400 if left else 200)
    assert (client.activity("GET", "subscriptions/list").json()[0]["webhook"] is not None) == left
    assert Strictness().bodyless_start == "keep"


@pytest.mark.parametrize("port", [99999, 0, "x"])
def test_an_address_with_an_impossible_port_is_refused(client: Any, port: object) -> None:
    """AF20021 and no subscription, not a failure of the service."""
    answer = _start(client, address=f"https://127.0.0.1:{port}/x")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "AF20021")
    assert client.activity("GET", "subscriptions/list").json() == []


@pytest.mark.parametrize("body", [{"webhok": {}}, {"webhook": {"adress": "https://127.0.0.1/"}}, {"a": None}])
def test_a_start_with_an_unknown_member_is_refused(client: Any, body: dict[str, Any]) -> None:
    """400 that names it, and nothing is started."""
    bearer = client._bearer(client.tenant["activity_url"])
    url = f"{client.feed}/subscriptions/start?contentType={EXCHANGE}"

    answer = client.session.post(url, json=body, headers=bearer)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "AF20002")
    assert client.activity("GET", "subscriptions/list").json() == []


@pytest.mark.parametrize("most", [1, 3])
def test_a_notification_has_at_most_webhook_items(
    simulator: Any, client: Any, hook: Hook, clock: Any, most: int
) -> None:
    """Four blobs are told in parts of so many, each once and in order."""
    simulator.tighten({"webhook_items": most, "blob_events": 1})
    _start(client, address=hook.address)
    for number in range(4):
        _write(simulator, clock, number)
    heard = len(hook.heard)

    for _ in range(5):
        simulator._webhooks.notify()

    told = [items for _, items in hook.heard[heard:]]
    assert [len(items) for items in told] == ([1, 1, 1, 1] if most == 1 else [3, 1])
    ids = [client.activity("GET", one["contentUri"]).json()[0]["Id"] for items in told for one in items]
    assert [int(one[:8]) for one in ids] == [0, 1, 2, 3]
