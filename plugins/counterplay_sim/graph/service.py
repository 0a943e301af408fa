"""The simulated Graph: finds the operation, checks who asks, counts against limits, and lets it answer."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import unquote

import orjson

from counterplay_sim import odata
from counterplay_sim.clock import Clock
from counterplay_sim.graph import (
    alerts,
    apps,
    audit_search,
    batch,
    directory,
    hunting,
    identities,
    incidents,
    legacy,
    logs,
    machines,
    mail,
    methods,
    risk,
    subscriptions,
    throttle,
    users,
)
from counterplay_sim.graph.call import JSON, Call, Pending
from counterplay_sim.graph.contract import contract
from counterplay_sim.graph.errors import (
    GraphError,
    bad_request,
    denied,
    mailbox_denied,
    no_mailbox,
    not_licensed,
    not_premium,
    not_provisioned,
)
from counterplay_sim.graph.extra import EXTRA, WIDER
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.licences import Licence, licence
from counterplay_sim.meter import Meter
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import GRAPH, Claims, Tokens

Handler = Callable[..., Answer]

MOST_BODY = 4 * 1024 * 1024
_KEYED = re.compile(r"(\w+)\((?:(\w+)=)?'((?:[^']|'')*)'\)")
_MODULES = (
    alerts,
    apps,
    audit_search,
    directory,
    hunting,
    identities,
    incidents,
    legacy,
    logs,
    mail,
    methods,
    risk,
    subscriptions,
    users,
)
_BETA = ("auditLogs/signIns", "roleManagement/directory", "security/auditLog")
_NO_TABLE = ("subscriptions",)  # their permission is that of the resource they watch


def routes() -> dict[str, Handler]:
    """Every operation by its name, such as `GET /users/{}`."""
    return {name: handler for module in _MODULES for name, handler in module.ROUTES.items()}


class _Routes:
    """Finds the operation of a path: fixed segments win over identifiers."""

    def __init__(self, operations: dict[str, Handler]) -> None:
        self._by_length: dict[int, list[tuple[tuple[str, ...], str, dict[str, Handler]]]] = {}
        by_path: dict[str, dict[str, Handler]] = {}
        for name, handler in operations.items():
            method, _, path = name.partition(" ")
            by_path.setdefault(path, {})[method] = handler
        for path, methods_of in sorted(by_path.items(), key=lambda one: one[0].count("{}")):
            shape = tuple(path.strip("/").split("/"))
            self._by_length.setdefault(len(shape), []).append((shape, path, methods_of))

    def find(self, segments: list[str]) -> tuple[str, dict[str, Handler], tuple[str, ...]]:
        """The path's template, its operations by method, and the identifiers in it."""
        for shape, path, operations in self._by_length.get(len(segments), ()):
            if all(a in ("{}", b) for a, b in zip(shape, segments, strict=True)):
                return path, operations, tuple(b for a, b in zip(shape, segments, strict=True) if a == "{}")
        raise bad_request(f"Resource not found for the segment '{segments[-1]}'.")


class GraphService:
    """`graph.microsoft.com` for the simulated tenants."""

    name = "graph"

    def __init__(
        self,
        tokens: Tokens,
        find: Callable[[str], Tenant | None],
        clock: Clock,
        strictness: Strictness,
        meter: Meter,
        audiences: Callable[[], frozenset[str]],
    ) -> None:
        self._tokens = tokens
        self._find = find
        self._clock = clock
        self._strictness = strictness
        self._meter = meter
        self._audiences = audiences
        self._routes = _Routes(routes())
        self._throttle = throttle.Throttle(clock)
        self._machines = machines.Machines(clock)
        self._pending = Pending()
        self._seen: Counter[tuple[str, str]] = Counter()

    def handle(self, request: Request) -> Answer:
        request_id = str(uuid.uuid4())
        try:
            answer = self._dispatch(request, request_id)
        except odata.ODataError as error:
            answer = self._error(request, request_id, bad_request(str(error)))
        except GraphError as error:
            answer = self._error(request, request_id, error)
        echoed = request.headers.get("client-request-id", request_id)
        answer.headers += (
            ("request-id", request_id),
            ("client-request-id", echoed),
            ("x-ms-ags-diagnostic", '{"ServerInfo":{"DataCenter":"Simulated","Slice":"E","Ring":"5"}}'),
            ("Cache-Control", "no-cache"),
        )
        return answer

    def failure(self, status: int, text: str) -> Answer:
        code = "InternalServerError" if status >= 500 else "BadRequest"
        request_id = str(uuid.uuid4())
        answer = self._error(None, request_id, GraphError(status, code, text))
        answer.headers += (("request-id", request_id),)
        return answer

    def _error(self, request: Request | None, request_id: str, error: GraphError) -> Answer:
        client = request.headers.get("client-request-id", request_id) if request else request_id
        inner = {
            "date": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": request_id,
            "client-request-id": client,
        }
        document = {
            "error": {"code": error.code, "message": error.message, self._strictness.graph.inner_error: inner}
        }
        headers = error.headers
        if error.status == 401:
            authority = 'authorization_uri="https://login.microsoftonline.com"'
            headers += (("WWW-Authenticate", f'Bearer realm="", {authority}'),)
        return Answer(error.status, orjson.dumps(document), JSON, headers)

    def _dispatch(self, request: Request, request_id: str) -> Answer:
        if request.raw_path.startswith(f"{machines.PREFIX}/api/"):
            return self._machine_action(request)
        version, _, rest = request.raw_path.lstrip("/").partition("/")
        if version not in ("v1.0", "beta"):
            raise bad_request(f"Invalid version: {version}")
        if len(request.body) > MOST_BODY:
            raise GraphError(413, "RequestEntityTooLarge", "The request body exceeds the allowed maximum.")
        claims = self._claims(request, self._audiences())
        tenant = self._tenant(claims)
        call = Call(
            request=request,
            tenant=tenant,
            claims=claims,
            query=request.query(),
            request_id=request_id,
            base=f"https://{request.headers.get('host', '127.0.0.1')}/{version}",
            version=version,
            contract=contract(version),
            rules=tenant.strictness.graph,
            clock=self._clock,
            licence=licence(tenant.licence),
            pending=self._pending,
        )
        if rest == "$batch":
            self._meter.count(tenant.id, self.name, "$batch")
            if request.method != "POST":
                raise _wrong_method()
            return batch.answer(call, self.handle)
        return self._operate(call, rest)

    def _machine_action(self, request: Request) -> Answer:
        """Defender for Endpoint answers on the same port, to tokens of its own."""
        url = f"https://{request.headers.get('host', '127.0.0.1')}".lower()
        claims = self._claims(request, machines.audiences(url))
        tenant = self._tenant(claims)
        self._meter.count(tenant.id, self.name, "machines")
        with _one_writer(tenant, request):
            return self._machines.handle(request, tenant, claims)

    def _tenant(self, claims: Claims) -> Tenant:
        tenant = self._find(str(claims["tid"]))
        if tenant is None:
            raise GraphError(401, "InvalidAuthenticationToken", "Access token validation failure.")
        return tenant

    def _operate(self, call: Call, path: str) -> Answer:
        segments = _segments(path)
        template, operations, identifiers = self._routes.find(segments)
        if call.version == "beta" and not template.lstrip("/").startswith(_BETA):
            raise bad_request(f"Resource not found for the segment '{segments[0]}'.")
        self._meter.count(call.tenant.id, self.name, template.lstrip("/").replace("{}", "*"))
        handler = operations.get(call.request.method)
        if handler is None:
            raise _wrong_method()
        call.operation = f"{call.request.method} {template}"
        self._authorize(call, template)
        self._license(call, template)
        with self._limits(call, template, identifiers), _one_writer(call.tenant, call.request):
            answer = handler(call, *identifiers)
        answer.headers += call.headers
        return answer

    def _claims(self, request: Request, audiences: frozenset[str]) -> Claims:
        code = "InvalidAuthenticationToken"
        if not request.headers.get("authorization"):
            raise GraphError(401, code, "Access token is empty.")
        claims = self._tokens.claims(request)
        if claims is None:
            raise GraphError(401, code, "Lifetime validation failed, the token is expired or not valid.")
        if str(claims["aud"]).lower() not in audiences:
            raise GraphError(401, code, "Access token validation failure. Invalid audience.")
        return claims

    def _authorize(self, call: Call, template: str) -> None:
        """The permissions of the contract; `users.py` knows more about those for changing a user."""
        if template.lstrip("/").startswith(_NO_TABLE):
            return
        if call.operation in EXTRA:
            wanted: list[str] | None = list(EXTRA[call.operation])
        else:
            wanted = call.contract.permissions(call.operation)
        if wanted is None or not call.may(*wanted, *WIDER.get(call.operation, ())):
            raise mailbox_denied() if "/mail" in template else denied()

    def _license(self, call: Call, template: str) -> None:
        bought: Licence = call.licence
        if (
            template.startswith("/security/")
            and not template.startswith("/security/auditLog/")
            and not bought.xdr
        ):
            raise not_provisioned()
        if template.startswith("/identityProtection/") and bought.risk == "none":
            raise not_licensed()
        if template.startswith(("/auditLogs/signIns", "/reports/")):
            every = call.rules.premium_refusal_every
            self._seen[(call.tenant.id, "premium")] += 1
            if not bought.premium or (every and self._seen[(call.tenant.id, "premium")] % every == 0):
                raise not_premium()
        if "/mail" in template and not bought.mail:
            raise no_mailbox()

    @contextmanager
    def _limits(self, call: Call, template: str, identifiers: tuple[str, ...]) -> Iterator[None]:
        tenant = call.tenant.id
        who = {"Tenant": tenant, "Application_Tenant": f"{tenant}/{call.app}"}
        slot: Any = nullcontext()
        cost = 1
        if template == "/security/runHuntingQuery":
            limits: tuple[throttle.Limit, ...] = throttle.HUNTING
        elif template.startswith("/security/"):
            limits = throttle.SECURITY
        elif template.startswith("/identityProtection/"):
            limits = throttle.PROTECTION
        elif template.startswith(("/auditLogs/", "/reports/")):
            limits = throttle.REPORTS
        elif "/mail" in template:
            limits = throttle.MAIL
            named = identifiers[0].lower()
            owner = call.tenant.user(named) if "@" in named else None
            who["Application_Mailbox"] = f"{tenant}/{owner['id'] if owner else named}/{call.app}"
            slot = self._throttle.slot(call.rules, who["Application_Mailbox"])
        elif call.request.method == "GET":
            limits, cost = throttle.reads(len(call.tenant.users)), _units(call, template)
            call.headers += (("x-ms-resource-unit", str(cost)),)
        else:
            limits = throttle.WRITES
        call.headers += self._throttle.take(call.rules, limits, who, cost)
        with slot:
            if limits is throttle.MAIL and call.rules.mailbox_seconds:
                time.sleep(call.rules.mailbox_seconds)
            yield


_DEAR = ("users", "oauth2PermissionGrants", "appRoleAssignments", "appRoleAssignedTo", "applications")


def _units(call: Call, template: str) -> int:
    """What a read costs in resource units."""
    parts = template.strip("/").split("/")
    last = parts[-1] if parts[-1] != "{}" else parts[-2]
    cost = 3 if last == "subscribedSkus" else 2 if last in _DEAR or "emberOf" in template else 1
    cost -= "$select" in call.query
    cost += "$expand" in call.query
    top = call.query.get("$top", "")
    cost -= top.isdigit() and int(top) < 20
    return max(1, cost)


def audiences(url: str) -> frozenset[str]:
    """The audiences of tokens that this service takes, in lower case."""
    return frozenset({url, "https://graph.microsoft.com", GRAPH})


def _one_writer(tenant: Tenant, request: Request) -> AbstractContextManager[Any]:
    """Held while a request is worked on that may write: what it reads is what its change is made of."""
    return nullcontext() if request.method == "GET" else tenant.lock


def _wrong_method() -> GraphError:
    return GraphError(
        405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target."
    )


def _segments(path: str) -> list[str]:
    """Path segments, decoded: `users('a@b')` is users and a@b, `x(appId='1')` is x and appId=1.

    Actions and casts may be written with their namespace, `microsoft.graph.security.moveAlerts`.
    """
    found: list[str] = []
    for part in path.rstrip("/").split("/"):
        segment = unquote(part)
        match = _KEYED.fullmatch(segment)
        if match:
            value = match[3].replace("''", "'")
            found += [match[1], f"{match[2]}={value}" if match[2] else value]
        elif segment == "microsoft.graph.directoryRole":
            found.append("graph.directoryRole")
        elif segment.startswith(("microsoft.graph.", "graph.security.")):
            found.append(segment.rpartition(".")[2].removesuffix("()"))
        else:
            found.append(segment)
    return found
