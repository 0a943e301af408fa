"""The trigger m365.audit_webhook: who may knock, and what a knock does."""

import json
from typing import Any

import pytest

from counterplay import Context, Event, PushRequest
from counterplay.wire import Wire
from counterplay_m365.tenant import Tenant
from counterplay_m365.triggers.audit_webhook import AuditWebhook

TENANT = "11111111-2222-4333-8444-555555555555"
AUTH_ID = "the-auth-id-of-contoso"


@pytest.fixture
def listener() -> Context:
    connection = Tenant(
        "contoso",
        {"tenant_id": TENANT, "client_id": "app", "client_secret": "s" * 8, "webhook_auth_id": AUTH_ID},
    )
    return Context(http=Wire(connection), connection=connection)


def request(body: Any = None, **headers: str) -> PushRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PushRequest("POST", "/push/m365.audit_webhook/contoso", {}, named, json.dumps(body).encode())


def test_the_validation_is_answered_with_200(listener: Context) -> None:
    """Only then the subscription starts."""
    answer = AuditWebhook({}).receive(
        listener, request({"validationCode": "x"}, webhook_authid=AUTH_ID, webhook_validationcode="x")
    )

    assert (answer.status, answer.events, answer.wakes) == (200, (), ())


def test_a_notification_wakes_the_audit_feeds(listener: Context) -> None:
    """Each is an event; what concerns another tenant is left to that tenant's connection."""
    ours = {"tenantId": TENANT.upper(), "contentId": "c1", "contentType": "Audit.General"}
    answer = AuditWebhook({}).receive(
        listener, request([ours, {"tenantId": "other", "contentId": "c2"}], webhook_authid=AUTH_ID)
    )

    assert (answer.status, answer.wakes) == (200, ("m365.audit_log",))
    assert [json.loads(raw) for raw in answer.events] == [ours]
    assert AuditWebhook({}).delivery_key(Event(answer.events[0])) == "c1"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request([], webhook_authid="something-else"), 403),
        (request([]), 403),
        (request({"no": "list"}, webhook_authid=AUTH_ID), 400),
        (PushRequest("POST", "/", {}, {"webhook-authid": AUTH_ID}, b"nonsense"), 400),
    ],
)
def test_a_stranger_is_refused(listener: Context, sent: PushRequest, status: int) -> None:
    """Nobody else can make the feeds poll, nor learn the id that Microsoft sends."""
    answer = AuditWebhook({}).receive(listener, sent)

    assert (answer.status, answer.events, answer.wakes) == (status, (), ())
    assert AUTH_ID.encode() not in answer.body


def test_without_an_auth_id_nobody_is_let_in(listener: Context) -> None:
    """An open door is not a default."""
    assert listener.connection is not None
    del listener.connection.settings["webhook_auth_id"]

    assert AuditWebhook({}).receive(listener, request([], webhook_authid="")).status == 403
