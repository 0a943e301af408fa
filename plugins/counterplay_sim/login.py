"""The token end-point: client credentials and device code, discovery, and admin consent."""

from __future__ import annotations

import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from counterplay_sim import apps_registry, assertions, device_code
from counterplay_sim.apps_registry import App
from counterplay_sim.clock import NANOSECONDS, Clock, stamp
from counterplay_sim.device_code import DeviceCodes
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import ACTIVITY, DEFENDER, GRAPH, LIFETIME, Tokens

Doc = dict[str, Any]
Form = Mapping[str, str]

#: The authorities of the clouds. As the first part of a path they stand for that host, since everything
#: here answers on one: `https://127.0.0.1:PORT/login.microsoftonline.us/<tenant>/...`.
CLOUDS = {
    "login.microsoftonline.com": "global",
    "login.windows.net": "global",
    "login.microsoftonline.us": "usgov",
    "login.partner.microsoftonline.cn": "china",
    "login.chinacloudapi.cn": "china",
}
RESOURCES = {"graph": GRAPH, "activity": ACTIVITY, "defender": DEFENDER}
_PATH = re.compile(
    r"(?:/(login[a-z.]+))?/([^/]+)/(oauth2/v2\.0/token|oauth2/token|oauth2/v2\.0/devicecode|v2\.0/adminconsent|adminconsent"
    r"|(?:v2\.0/)?\.well-known/openid-configuration|discovery/(?:v2\.0/)?keys|discovery/instance)"
)
_NOBODYS = ("common", "organizations", "consumers")
_ON_BEHALF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_DEVICE_PAGE = "/devicelogin"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


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
        """`resources` maps the base URLs that may be asked for to `graph`, `activity` or `defender`."""
        self._tokens = tokens
        self._find = find
        self._clock = clock
        self._resources = resources
        self._codes = DeviceCodes()
        self._asked: dict[tuple[str, ...], deque[int]] = {}
        self._lock = threading.Lock()

    def handle(self, request: Request) -> Answer:
        if request.path == _DEVICE_PAGE:
            return self._enter_code(request)
        match = _PATH.fullmatch(request.path)
        if match is None:
            return self._refuse(_RefusalError(404, "invalid_request", 90002, "No such address."))
        host, name, operation = match.groups()
        cloud = CLOUDS.get(host or request.headers.get("host", "").partition(":")[0].lower())
        try:
            if operation == "discovery/instance":
                return self._instance(request)
            if "openid-configuration" in operation:
                return self._metadata(request, name, cloud, host)
            if operation.endswith("keys"):
                return _json({"keys": []})
            if operation.endswith("adminconsent"):
                return self._consent(request, name)
            if request.method != "POST":
                raise _RefusalError(
                    405, "invalid_request", 900561, "The endpoint only accepts POST requests."
                )
            if operation.endswith("devicecode"):
                return self._device_code(request, name)
            return self._token(request, name, cloud, v2="v2.0" in operation)
        except _RefusalError as refusal:
            return self._refuse(refusal)

    def failure(self, status: int, text: str) -> Answer:
        return self._refuse(
            _RefusalError(status, "server_error" if status >= 500 else "invalid_request", 90033, text)
        )

    # Discovery

    def _metadata(self, request: Request, name: str, cloud: str | None, host: str | None) -> Answer:
        tenant = self._find(name)
        if tenant is None and name in _NOBODYS:
            return _json(_openid(f"{_base(request, host)}/{name}", "{tenantid}", request))
        if tenant is None:
            raise _no_tenant(name)
        if cloud not in (None, _cloud(tenant)):
            raise _RefusalError(
                400,
                "invalid_request",
                90038,
                f"Tenant '{name}' request is being redirected to the National Cloud"
                f" '{_host(_cloud(tenant))}'.",
            )
        return _json(_openid(f"{_base(request, host)}/{tenant.id}", tenant.id, request))

    def _instance(self, request: Request) -> Answer:
        query = request.query()
        asked = query.get("authorization_endpoint", "")
        tenant = asked.partition("://")[2].partition("/")[2].partition("/")[0] or "common"
        base = f"https://{request.headers.get('host', '127.0.0.1')}"
        by_cloud: dict[str, list[str]] = {}
        for host, cloud in CLOUDS.items():
            by_cloud.setdefault(cloud, []).append(host)
        return _json(
            {
                "tenant_discovery_endpoint": f"{base}/{tenant}/v2.0/.well-known/openid-configuration",
                "api-version": query.get("api-version", "1.1"),
                "metadata": [
                    {"preferred_network": hosts[0], "preferred_cache": hosts[-1], "aliases": hosts}
                    for hosts in by_cloud.values()
                ],
            }
        )

    # Consent

    def _consent(self, request: Request, name: str) -> Answer:
        """What an administrator who follows the link does, at once: agree, and be sent back.

        `&sim_user=declines` and `&sim_user=member` are two other people.
        """
        query = request.query()
        tenant = self._tenant(name)
        app = apps_registry.find_app(tenant, query.get("client_id", ""))
        if app is None:
            raise _no_app(query.get("client_id", ""), tenant)
        back = query.get("redirect_uri", "")
        if not back:
            raise _missing("redirect_uri")
        told: dict[str, str] = {}
        match query.get("sim_user", "administrator"):
            case "declines":
                told = {
                    "error": "access_denied",
                    "error_description": "AADSTS65004: User declined to consent to access the app.",
                }
            case "member":
                text = "AADSTS90094: An administrator of the tenant has set a policy that prevents you from"
                told = {
                    "error": "access_denied",
                    "error_description": f"{text} granting the app the permissions it is requesting.",
                }
            case _:
                self._grant_all(tenant, app)
                scope = query.get("scope", "https://graph.microsoft.com/.default")
                told = {"admin_consent": "True", "tenant": tenant.id, "scope": scope}
        told |= {"state": query["state"]} if "state" in query else {}
        joint = "&" if "?" in back else "?"
        return Answer(302, headers=(("Location", f"{back}{joint}{urlencode(told)}"),))

    def _grant_all(self, tenant: Tenant, app: App) -> None:
        """Every application permission that the registration lists."""
        held = {
            (one["resourceId"], one["appRoleId"])
            for one in tenant.objects["appRoleAssignment"].where("principalId", app.principal)
        }
        with tenant.transaction():
            for wanted in app.application.get("requiredResourceAccess", ()):
                resource = _resource_principal(tenant, wanted["resourceAppId"])
                for access in wanted["resourceAccess"] if resource else ():
                    if access["type"] == "Role" and resource and (resource["id"], access["id"]) not in held:
                        made = _assignment(app, resource, access["id"], stamp(self._clock.now()))
                        tenant.objects["appRoleAssignment"].put(made["id"], made)

    # Device code

    def _device_code(self, request: Request, name: str) -> Answer:
        """A code to show to somebody who signs in elsewhere."""
        form = _form(request)
        tenant = self._tenant(name)
        client = form.get("client_id", "")
        if not client:
            raise _missing("client_id")
        if client not in device_code.FIRST_PARTY:
            raise _no_app(client, tenant)
        wanted = [one for one in form.get("scope", "").split() if "://" in one]
        resources = {one.rpartition("/")[0] for one in wanted}
        if len(resources) != 1:
            raise _RefusalError(
                400, "invalid_scope", 70011, f"The scope {form.get('scope', '')} is not valid."
            )
        (resource,) = resources
        if resource.lower() not in self._resources():
            raise _no_resource(resource)
        scopes = tuple(one.rpartition("/")[2] for one in wanted)
        asked = self._codes.begin(tenant, client, resource, scopes, self._clock.now())
        return _json(device_code.shown(asked, f"{_base(request, None)}{_DEVICE_PAGE}"))

    def _enter_code(self, request: Request) -> Answer:
        """What an administrator who opens the page and enters a code does, at once: sign in and agree.

        `&sim_user=declines` and `&sim_user=member` are two other people.
        """
        query = request.query()
        answer = query.get("sim_user", "administrator")
        if not self._codes.enter(query.get("user_code", ""), answer, self._clock.now()):
            return Answer(400, b"That code didn't work. Add it as ?user_code=CODE.", "text/plain")
        return Answer(200, b"You have signed in. You may now close this window.", "text/plain")

    def _for_device_code(self, tenant: Tenant, form: Form) -> Answer:
        asked = self._codes.find(form.get("device_code", ""))
        if asked is None or (asked.tenant.id, asked.client_id) != (tenant.id, form.get("client_id")):
            raise _RefusalError(400, "bad_verification_code", 70018, "Invalid verification code.")
        if asked.until <= self._clock.now():
            raise _RefusalError(400, "expired_token", 70019, "Verification code expired.")
        if asked.answer == "pending":
            raise _RefusalError(
                400,
                "authorization_pending",
                70016,
                "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
            )
        self._codes.spend(asked.device_code)
        if asked.answer == "declines":
            raise _RefusalError(400, "access_denied", 65004, "User declined to consent to access the app.")
        user = device_code.administrator(tenant)
        if asked.answer != "administrator" or user is None:
            text = "An administrator of the tenant has set a policy that prevents you from"
            raise _RefusalError(
                400, "access_denied", 90094, f"{text} granting the app the permissions it is requesting."
            )
        token = self._tokens.issue_to_user(tenant, asked.resource, asked.scopes, asked.client_id, user)
        scope = " ".join(f"{asked.resource}/{one}" for one in asked.scopes)
        return _json({**self._grant(token, asked.resource, v2=True), "scope": scope})

    # Tokens

    def _token(self, request: Request, name: str, cloud: str | None, *, v2: bool) -> Answer:
        form = _form(request)
        tenant = self._tenant(name)
        if cloud not in (None, _cloud(tenant)):
            text = "Confidential Client is not supported in Cross Cloud request."
            raise _RefusalError(400, "invalid_request", 900382 if v2 else 900432, text)
        if form.get("grant_type") == _DEVICE_CODE and v2:
            return self._for_device_code(tenant, form)
        self._check_grant(form)
        app = self._authenticate(request, tenant, form)
        resource = self._resource(form, v2=v2)
        self._refuse_floods(tenant, app, resource)
        kind = self._resources().get(resource.rstrip("/").lower(), "")
        principal = _resource_principal(tenant, RESOURCES.get(kind, ""))
        if principal is None:
            raise _no_resource(resource)
        _check_resource(app, kind, principal)
        roles = apps_registry.granted(tenant, app, kind, principal)
        token = self._tokens.issue(tenant, resource.rstrip("/"), roles, app)
        no_store = (("Cache-Control", "no-store, no-cache"), ("Pragma", "no-cache"))
        return Answer(200, orjson.dumps(self._grant(token, resource, v2=v2)), headers=no_store)

    def _tenant(self, name: str) -> Tenant:
        if name in _NOBODYS:
            raise _RefusalError(
                400,
                "invalid_request",
                50059,
                "No tenant-identifying information found in either the request or implied by any provided"
                " credentials.",
            )
        tenant = self._find(name)
        if tenant is None:
            raise _no_tenant(name)
        return tenant

    @staticmethod
    def _check_grant(form: Form) -> None:
        kind = form.get("grant_type", "")
        if kind == _ON_BEHALF:
            raise _RefusalError(
                400,
                "invalid_grant",
                65001,
                "The user or administrator has not consented to use the application with ID"
                f" '{form.get('client_id', '')}'. Send an interactive authorization request for this user and"
                " resource.",
            )
        if kind != "client_credentials":
            raise _RefusalError(
                400, "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{kind}'."
            )

    def _authenticate(self, request: Request, tenant: Tenant, form: Form) -> App:
        client = form.get("client_id", "")
        if not client:
            raise _missing("client_id")
        app = apps_registry.find_app(tenant, client)
        if app is None:
            raise _no_app(client, tenant)
        if "client_assertion" in form:
            if form.get("client_assertion_type") != _ASSERTION:
                raise _missing("client_assertion_type")
            try:
                audiences = _assertion_audiences(request, tenant)
                app = assertions.check(form["client_assertion"], app, tenant, audiences, self._clock.now())
            except assertions.AssertionRefusedError as error:
                raise _RefusalError(401, "invalid_client", error.number, error.text) from None
        else:
            app = self._check_secret(app, form)
        _refuse_disabled(app)
        return app

    def _check_secret(self, app: App, form: Form) -> App:
        secret = form.get("client_secret")
        if not secret:
            raise _RefusalError(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or"
                " 'client_secret'.",
            )
        known, end = app.secret_until(secret)
        if not known:
            raise _RefusalError(
                401,
                "invalid_client",
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client"
                " secret value, not the client secret ID, for a secret added to app"
                f" '{form['client_id']}'.",
            )
        if end is not None and end <= self._clock.now():
            raise _RefusalError(
                401,
                "invalid_client",
                7000222,
                f"The provided client secret keys for app '{app.client_id}' are expired. Visit the Azure"
                " portal to create new keys for your app.",
            )
        return app.proved("secret")

    @staticmethod
    def _resource(form: Form, *, v2: bool) -> str:
        if not v2:
            if not form.get("resource"):
                raise _missing("resource")
            return form["resource"]
        scope = form.get("scope", "").strip()
        if not scope:
            raise _missing("scope")
        if " " in scope:
            raise _RefusalError(
                400,
                "invalid_scope",
                70011,
                "The provided request must include a 'scope' input parameter. The provided value for the"
                f" input parameter 'scope' is not valid. The scope {scope} is not valid.",
            )
        if not scope.endswith("/.default"):
            raise _RefusalError(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {scope} is not valid. Client credential flows must have a"
                " scope value with /.default suffixed to the resource identifier (application ID URI).",
            )
        return scope.removesuffix("/.default")

    def _refuse_floods(self, tenant: Tenant, app: App, resource: str) -> None:
        rules = tenant.strictness.graph
        if self._more_than(rules.token_requests, (tenant.id,)):
            raise _RefusalError(
                429, "temporarily_unavailable", 90055, "The tenant is throttled. Try again later."
            )
        if self._more_than(rules.token_loop, (tenant.id, app.client_id, resource)):
            raise _RefusalError(
                400,
                "invalid_grant",
                50196,
                "The server terminated an operation because it encountered a client request loop. Please"
                " contact your app vendor.",
            )

    def _more_than(self, most: int, who: tuple[str, ...]) -> bool:
        """Count a request; whether it is one too many within a minute."""
        now = self._clock.now_ns()
        with self._lock:
            times = self._asked.setdefault(who, deque())
            while times and times[0] <= now - 60 * NANOSECONDS:
                times.popleft()
            if len(times) >= most:
                return True
            times.append(now)
            return False

    def _grant(self, token: str, resource: str, *, v2: bool) -> Doc:
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


def _json(document: Doc) -> Answer:
    return Answer(200, orjson.dumps(document))


def _base(request: Request, host: str | None) -> str:
    return f"https://{request.headers.get('host', '127.0.0.1')}" + (f"/{host}" if host else "")


def _openid(base: str, tenant: str, request: Request) -> Doc:
    return {
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": f"{base}/discovery/v2.0/keys",
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": f"https://{request.headers.get('host', '127.0.0.1')}/{tenant}/v2.0",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
    }


def _cloud(tenant: Tenant) -> str:
    return str(tenant.row.doc.get("cloud", "global"))


def _host(cloud: str) -> str:
    return next(host for host, of in CLOUDS.items() if of == cloud)


def _form(request: Request) -> dict[str, str]:
    sent = request.headers.get("content-type", "")
    if sent and "x-www-form-urlencoded" not in sent.lower():
        raise _malformed()
    try:
        return dict(parse_qsl(request.body.decode("utf-8"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise _malformed() from None


def _assertion_audiences(request: Request, tenant: Tenant) -> frozenset[str]:
    """The token end-points and the issuer of the tenant, here and at the real authorities."""
    bases = [f"https://{request.headers.get('host', '127.0.0.1')}", *(f"https://{host}" for host in CLOUDS)]
    bases += [f"{bases[0]}/{host}" for host in CLOUDS]
    names = (tenant.id, tenant.domain)
    ends = ("oauth2/v2.0/token", "oauth2/token", "v2.0", "")
    return frozenset(
        f"{base}/{name}/{end}".rstrip("/").lower() for base in bases for name in names for end in ends
    )


def _refuse_disabled(app: App) -> None:
    if app.application.get("disabledByMicrosoftStatus"):
        raise _RefusalError(
            400,
            "unauthorized_client",
            70001,
            f"Application with identifier '{app.client_id}' is disabled by Microsoft.",
        )
    if not app.enabled:
        name = app.service_principal["displayName"]
        raise _RefusalError(
            400, "unauthorized_client", 7000112, f"Application '{app.client_id}'({name}) is disabled."
        )
    blocked = app.service_principal.get("@sim.blocked")  # 53003 or 530032: a Conditional Access policy
    if blocked:
        text = "Access has been blocked by Conditional Access policies."
        raise _RefusalError(400, "interaction_required", int(blocked), text)


def _resource_principal(tenant: Tenant, app: str) -> Doc | None:
    if not app:
        return None
    found: Doc | None = next(iter(tenant.objects["servicePrincipal"].where("appId", app)), None)
    return found


def _check_resource(app: App, kind: str, principal: Doc) -> None:
    """The resource must be enabled, and the registration must list it if it lists anything."""
    name = principal["displayName"]
    if not principal.get("accountEnabled", True):
        raise _RefusalError(
            400,
            "invalid_resource",
            500014,
            f"The service principal for resource '{principal['appId']}' is disabled. This indicate that a"
            " subscription within the tenant has lapsed, or that the administrator for this tenant has"
            " disabled the application.",
        )
    listed = app.application.get("requiredResourceAccess") or ()
    if not listed:
        return
    entry = next((one for one in listed if one["resourceAppId"] == RESOURCES[kind]), None)
    if entry is None:
        raise _RefusalError(
            400,
            "invalid_resource",
            650057,
            "Invalid resource. The client has requested access to a resource which is not listed in the"
            " requested permissions in the client's application registration. Client app ID:"
            f" {app.client_id}. Resource value from request: {name}.",
        )
    if not entry.get("resourceAccess"):
        raise _RefusalError(
            400,
            "invalid_client",
            650056,
            f"Misconfigured application. The client has not listed any permissions for '{name}' in the"
            " requested permissions in the client's application registration.",
        )


def _assignment(app: App, resource: Doc, role: str, now: str) -> Doc:
    return {
        "id": uuid.uuid4().hex,
        "deletedDateTime": None,
        "appRoleId": role,
        "createdDateTime": now,
        "principalDisplayName": app.service_principal["displayName"],
        "principalId": app.principal,
        "principalType": "ServicePrincipal",
        "resourceDisplayName": resource["displayName"],
        "resourceId": resource["id"],
    }


def _missing(name: str) -> _RefusalError:
    text = f"The request body must contain the following parameter: '{name}'."
    return _RefusalError(400, "invalid_request", 900144, text)


def _malformed() -> _RefusalError:
    return _RefusalError(400, "invalid_request", 9002313, "Invalid request. Request is malformed or invalid.")


def _no_tenant(name: str) -> _RefusalError:
    return _RefusalError(
        400,
        "invalid_request",
        90002,
        f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into"
        " the correct cloud. Check with your subscription administrator, this may happen if there are no"
        " active subscriptions for the tenant.",
    )


def _no_app(client: str, tenant: Tenant) -> _RefusalError:
    return _RefusalError(
        400,
        "unauthorized_client",
        700016,
        f"Application with identifier '{client}' was not found in the directory"
        f" '{tenant.organization['displayName']}'. This can happen if the application has not been"
        " installed by the administrator of the tenant or consented to by any user in the tenant. You"
        " may have sent your authentication request to the wrong tenant.",
    )


def _no_resource(resource: str) -> _RefusalError:
    return _RefusalError(
        400,
        "invalid_resource",
        500011,
        f"The resource principal named {resource} was not found in the tenant named Contoso"
        " (simulated). This can happen if the application has not been installed by the administrator"
        " of the tenant or consented to by any user in the tenant. You might have sent your"
        " authentication request to the wrong tenant.",
    )
