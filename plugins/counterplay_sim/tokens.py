"""Access tokens: made and checked by the simulator alone, with the permissions that were granted by then."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from counterplay_sim.apps_registry import App
from counterplay_sim.clock import NANOSECONDS, Clock
from counterplay_sim.http_server import Request
from counterplay_sim.tenant import Tenant

Claims = Mapping[str, Any]

LIFETIME = 3599
GRAPH = "00000003-0000-0000-c000-000000000000"
ACTIVITY = "c5393580-f805-4401-95e8-94b7a6ef2fc2"
DEFENDER = "fc780465-2017-40d4-a0c5-307022471b92"
_MOST_CACHED = 1000


class Tokens:
    """Makes and checks bearer tokens: HS256, so that only this simulator can make them."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._checked: dict[str, Claims] = {}
        self._lock = threading.Lock()

    def issue(self, tenant: Tenant, audience: str, roles: list[str], app: App | None = None) -> str:
        """A token for an audience with these permissions; to the tenant's own app if none is named."""
        client = app.client_id if app else tenant.client_id
        principal = app.principal if app else str(uuid.uuid5(uuid.UUID(tenant.id), client))
        return self._signed(
            tenant,
            audience,
            appid=client,
            appidacr="2" if app and app.proved_by == "certificate" else "1",
            idtyp="app",
            oid=principal,
            sub=principal,
            **({"roles": roles} if roles else {}),
        )

    def issue_to_user(
        self, tenant: Tenant, audience: str, scopes: tuple[str, ...], client: str, user: Mapping[str, Any]
    ) -> str:
        """A token for a client that acts for a person who signed in."""
        return self._signed(
            tenant,
            audience,
            appid=client,
            appidacr="0",
            idtyp="user",
            oid=user["id"],
            sub=user["id"],
            scp=" ".join(scopes),
            upn=user["userPrincipalName"],
        )

    def _signed(self, tenant: Tenant, audience: str, **about: Any) -> str:
        now = self._clock.now_ns() // NANOSECONDS
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{tenant.id}/",
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME + 1,
            "idp": f"https://sts.windows.net/{tenant.id}/",
            "tid": tenant.id,
            "uti": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
            "ver": "1.0",
            **about,
        }
        signed = _encode({"typ": "JWT", "alg": "HS256", "kid": "simulated"}) + b"." + _encode(claims)
        return (signed + b"." + self._signature(signed)).decode()

    def claims(self, request: Request) -> Claims | None:
        """The claims of a request's bearer token, or None when it has none that is valid now."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        claims = self._checked.get(token) or self._check(token)
        if claims is None or claims["exp"] * NANOSECONDS <= self._clock.now_ns():
            return None
        return claims

    def _check(self, token: str) -> Claims | None:
        signed, _, signature = token.encode("latin-1", "replace").rpartition(b".")
        if not hmac.compare_digest(signature, self._signature(signed)):
            return None
        claims: Claims = orjson.loads(_decode(signed.rpartition(b".")[2]))
        with self._lock:
            if len(self._checked) >= _MOST_CACHED:
                self._checked.clear()
            self._checked[token] = claims
        return claims

    def _signature(self, signed: bytes) -> bytes:
        return base64.urlsafe_b64encode(hmac.digest(self._key, signed, "sha256")).rstrip(b"=")


def _encode(value: Claims) -> bytes:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=")


def _decode(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def signing_key(saved: str | None) -> tuple[bytes, str]:
    """The key for tokens, made from what was saved or a new one; and what to save."""
    text = saved or uuid.uuid4().hex + uuid.uuid4().hex
    return hashlib.sha256(text.encode()).digest(), text
