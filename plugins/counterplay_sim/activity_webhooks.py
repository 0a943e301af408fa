"""Webhooks of the audit feed: the handshake, notifications, retries, and giving up.

Only listeners on this machine's loopback addresses are called, so that a pretend tenant never reaches
out; their certificates are not checked.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import secrets
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson

from counterplay_sim.activity_subscriptions import FAILURES, NEXT_TRY, NOTIFIED, expired, spans
from counterplay_sim.blobs import Blob
from counterplay_sim.clock import Clock, from_ns, span_ns, stamp
from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]
log = logging.getLogger("counterplay_sim")

_EVERY = 0.1  # seconds between two looks for something new
_PATIENCE = 5.0  # seconds for a listener to answer


class Webhooks:
    """Validates listeners, and tells them of new content from a thread of its own."""

    def __init__(self, tenants: Callable[[], list[Tenant]], clock: Clock, base: Callable[[], str]) -> None:
        self._tenants = tenants
        self._clock = clock
        self._base = base
        self._stop = threading.Event()
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sim-webhooks", daemon=True)

    def start(self) -> None:
        """Begin to notify."""
        self._thread.start()

    def close(self) -> None:
        """End; what was not told yet is told after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def validate(self, address: str, auth_id: str) -> str | None:
        """Ask a listener to answer 200; the reason why it is refused, or None."""
        if not _is_loopback(address):
            return "This simulator calls loopback addresses only (https://127.0.0.1/ and the like)."
        if not _has_port(address):
            return "The port of the address is not a number from 1 to 65535."
        code = secrets.token_hex(16)
        status = _post(address, auth_id, {"validationCode": code}, {"Webhook-ValidationCode": code})
        return None if status == 200 else "The endpoint did not return HTTP 200."

    def notify(self) -> None:
        """Tell every listener what it has not heard of and is due."""
        with self._telling:
            for tenant in self._tenants():
                for subscription in list(tenant.subscriptions.values()):
                    webhook = subscription.get("webhook")
                    if webhook and subscription["status"] == "enabled" and webhook["status"] == "enabled":
                        self._tell(tenant, subscription, webhook)

    def _tell(self, tenant: Tenant, subscription: Doc, webhook: Doc) -> None:
        now = self._clock.now_ns()
        if now < subscription.get(NEXT_TRY, 0) or expired(webhook, from_ns(now)):
            return
        content_type = subscription["contentType"]
        since = subscription.get(NOTIFIED, now)
        blobs = list(
            tenant.blobs.listing(content_type, since, now, now, spans(subscription, tenant.strictness))
        )
        if not blobs:
            return
        told = blobs[: tenant.strictness.webhook_items]
        items = [self._item(tenant, blob) for blob in told]
        status = _post(webhook["address"], webhook["authId"], items, {})
        with tenant.lock:
            present = tenant.subscriptions[content_type]
            if present.get("webhook") != webhook:  # it was changed meanwhile: that begins anew
                return
            for item in items:
                self._keep(tenant, item, "success" if status == 200 else f"failed: {status or 'no answer'}")
            failures = 0 if status == 200 else present.get(FAILURES, 0) + 1
            changed = {**present, FAILURES: failures}
            if status == 200:
                changed[NOTIFIED] = told[-1].last + 1
            elif failures >= tenant.strictness.webhook_patience:
                changed["webhook"] = {**webhook, "status": "disabled"}
            else:
                changed[NEXT_TRY] = now + span_ns(tenant.strictness.webhook_retry) * 2 ** (failures - 1)
            tenant.put_subscription(changed)

    def _item(self, tenant: Tenant, blob: Blob) -> Doc:
        created = from_ns(blob.created)
        return {
            "tenantId": tenant.id,
            "clientId": tenant.client_id,
            "contentType": blob.content_type,
            "contentId": blob.id,
            "contentUri": f"{self._base()}/api/v1.0/{tenant.id}/activity/feed/audit/{blob.id}",
            "contentCreated": stamp(created, 3),
            "contentExpiration": stamp(created + tenant.strictness.content_life, 3),
        }

    def _keep(self, tenant: Tenant, item: Doc, status: str) -> None:
        """An attempt, for `subscriptions/notifications`."""
        attempts = tenant.objects["notification"]
        attempt = {
            **{name: value for name, value in item.items() if name not in ("tenantId", "clientId")},
            "notificationSent": stamp(self._clock.now(), 3),
            "notificationStatus": status,
        }
        attempts.put(f"{len(attempts):08d}", attempt)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            try:
                self.notify()
            except Exception:
                log.exception("the simulator's webhooks failed")


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_port(address: str) -> bool:
    try:
        return urlsplit(address).port != 0
    except ValueError:
        return False


def _post(address: str, auth_id: str, body: object, headers: dict[str, str]) -> int | None:
    """The status that a listener answers, None when it does not."""
    parts = urlsplit(address)
    context = ssl._create_unverified_context()
    if auth_id:
        headers = {**headers, "Webhook-AuthID": auth_id}
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port or 443, timeout=_PATIENCE, context=context
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        content = {"Content-Type": "application/json; charset=utf-8", **headers}
        connection.request("POST", target, orjson.dumps(body), content)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
