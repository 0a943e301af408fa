"""The token end-point: Entra ID's client credentials grant, v1 and v2, and the tokens that it gives out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from counterplay_sim.clock import NANOSECONDS, Clock, stamp
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.tenant import Tenant

Claims = Mapping[str, Any]

LIFETIME = 3599
GRAPH = "00000003-0000-0000-c000-000000000000"
ACTIVITY = "c5393580-f805-4401-95e8-94b7a6ef2fc2"
_PATH = re.compile(r"/([^/]+)/(oauth2/v2\.0/token|oauth2/token|(?:v2\.0/)?\.well-known/openid-configuration)")
_MOST_CACHED = 1000


class Tokens:
    """Makes and checks bearer tokens: HS256, so that only this simulator can make them."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._checked: dict[str, Claims] = {}
        self._lock = threading.Lock()

    def issue(self, tenant: Tenant, audience: str, roles: list[str]) -> str:
        """A token for an audience, with the permissions that are granted now."""
        now = self._clock.now_ns() // NANOSECONDS
        principal = str(uuid.uuid5(uuid.UUID(tenant.id), tenant.client_id))
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{tenant.id}/",
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME + 1,
            "appid": tenant.client_id,
            "appidacr": "1",
            "idp": f"https://sts.windows.net/{tenant.id}/",
            "idtyp": "app",
            "oid": principal,
            "sub": principal,
            "tid": tenant.id,
            "uti": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
            "ver": "1.0",
            **({"roles": roles} if roles else {}),
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


class _RefusalError(Exception):
    def __init__(self, status: int, error: str, number: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.number = number
        self.text = text


class LoginService:
    """`login.microsoftonline.com` for the simulated tenants."""

    name = "login"

    def __init__(
        self,
        tokens: Tokens,
        find: Callable[[str], Tenant | None],
        clock: Clock,
        resources: Callable[[], Mapping[str, str]],
    ) -> None:
        """`resources` maps the base URLs that may be asked for to `graph` or `activity`."""
        self._tokens = tokens
        self._find = find
        self._clock = clock
        self._resources = resources

    def handle(self, request: Request) -> Answer:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return self.failure(404, "AADSTS90002: no such address.")
        tenant, operation = match[1], match[2]
        if operation.endswith("openid-configuration"):
            return self._metadata(request, tenant)
        if request.method != "POST":
            return self._refuse(
                _RefusalError(405, "invalid_request", 900561, "The endpoint only accepts POST requests.")
            )
        try:
            return self._token(request, tenant, v2=operation == "oauth2/v2.0/token")
        except _RefusalError as refusal:
            return self._refuse(refusal)

    def failure(self, status: int, text: str) -> Answer:
        return self._refuse(
            _RefusalError(status, "server_error" if status >= 500 else "invalid_request", 90033, text)
        )

    def _metadata(self, request: Request, name: str) -> Answer:
        tenant = self._find(name)
        if tenant is None:
            return self._refuse(_no_tenant(name))
        base = f"https://{request.headers.get('host', '127.0.0.1')}/{tenant.id}"
        document = {
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
        }
        return Answer(200, orjson.dumps(document))

    def _token(self, request: Request, name: str, *, v2: bool) -> Answer:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        tenant = self._find(name)
        if tenant is None:
            raise _no_tenant(name)
        if form.get("grant_type") != "client_credentials":
            raise _RefusalError(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{form.get('grant_type', '')}'.",
            )
        self._authenticate(tenant, form)
        resource = self._resource(form, v2=v2)
        kind = self._resources().get(resource.rstrip("/").lower())
        if kind is None:
            raise _RefusalError(
                400,
                "invalid_resource",
                500011,
                f"The resource principal named {resource} was not found in the tenant named Contoso"
                " (simulated). This can happen if the application has not been installed by the administrator"
                " of the tenant or consented to by any user in the tenant. You might have sent your"
                " authentication request to the wrong tenant.",
            )
        token = self._tokens.issue(tenant, resource.rstrip("/"), tenant.grants[kind])
        return Answer(
            200,
            orjson.dumps(self._grant(token, resource, v2=v2)),
            headers=(("Cache-Control", "no-store, no-cache"), ("Pragma", "no-cache")),
        )

    def _authenticate(self, tenant: Tenant, form: Mapping[str, str]) -> None:
        client = form.get("client_id", "")
        if client.lower() != tenant.client_id:
            raise _RefusalError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client}' was not found in the directory 'Contoso"
                " (simulated)'. This can happen if the application has not been installed by the"
                " administrator of the tenant or consented to by any user in the tenant. You may have sent"
                " your authentication request to the wrong tenant.",
            )
        if "client_assertion" in form:
            raise _RefusalError(
                401,
                "invalid_client",
                700027,
                "The certificate with identifier used to sign the client assertion is not registered on"
                f" application. Application's Id = '{client}'.",
            )
        secret = form.get("client_secret")
        if not secret:
            raise _RefusalError(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or"
                " 'client_secret'.",
            )
        if not hmac.compare_digest(secret.encode(), tenant.client_secret.encode()):
            raise _RefusalError(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client"
                f" secret value, not the client secret ID, for a secret added to app '{client}'.",
            )

    @staticmethod
    def _resource(form: Mapping[str, str], *, v2: bool) -> str:
        if not v2:
            if "resource" not in form:
                raise _RefusalError(
                    400,
                    "invalid_request",
                    900144,
                    "The request body must contain the following parameter: 'resource'.",
                )
            return form["resource"]
        scope = form.get("scope", "")
        if not scope:
            raise _RefusalError(
                400,
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'scope'.",
            )
        if " " in scope or not scope.endswith("/.default"):
            raise _RefusalError(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {scope} is not valid. Client credential flows must have a"
                " scope value with /.default suffixed to the resource identifier (application ID URI).",
            )
        return scope.removesuffix("/.default")

    def _grant(self, token: str, resource: str, *, v2: bool) -> dict[str, Any]:
        if v2:
            return {
                "token_type": "Bearer",
                "expires_in": LIFETIME,
                "ext_expires_in": LIFETIME,
                "access_token": token,
            }
        now = self._clock.now_ns() // NANOSECONDS
        return {  # v1 gives every number as a string
            "token_type": "Bearer",
            "expires_in": str(LIFETIME),
            "ext_expires_in": str(LIFETIME),
            "expires_on": str(now + LIFETIME),
            "not_before": str(now - 300),
            "resource": resource,
            "access_token": token,
        }

    def _refuse(self, refusal: _RefusalError) -> Answer:
        now = stamp(self._clock.now()).replace("T", " ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        document = {
            "error": refusal.error,
            "error_description": f"AADSTS{refusal.number}: {refusal.text} Trace ID: {trace}"
            f" Correlation ID: {correlation} Timestamp: {now}",
            "error_codes": [refusal.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={refusal.number}",
        }
        return Answer(refusal.status, orjson.dumps(document))


def _no_tenant(name: str) -> _RefusalError:
    return _RefusalError(
        400,
        "invalid_request",
        90002,
        f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into"
        " the correct cloud. Check with your subscription administrator, this may happen if there are no"
        " active subscriptions for the tenant.",
    )


def signing_key(saved: str | None) -> tuple[bytes, str]:
    """The key for tokens, made from what was saved or a new one; and what to save."""
    text = saved or uuid.uuid4().hex + uuid.uuid4().hex
    return hashlib.sha256(text.encode()).digest(), text
