"""Microsoft Graph v1.0, the part that a response needs: users, sessions, inbox rules, alerts.

Permissions are checked per operation as the contract lists them; errors have Graph's shape, and every
answer carries `request-id` and echoes `client-request-id`.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

import orjson

from counterplay_sim import graph_schema as schema
from counterplay_sim import odata
from counterplay_sim.clock import Clock, stamp
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.meter import Meter
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import GRAPH, Claims, Tokens

Doc = dict[str, Any]

_QUOTED = re.compile(r"(\w+)\('((?:[^']|'')*)'\)")


class _GraphError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class _Call:
    """One request on its way through: who asks what of which tenant."""

    request: Request
    tenant: Tenant
    claims: Claims
    query: dict[str, str]
    request_id: str
    base: str

    @property
    def app(self) -> str:
        return str(self.claims["appid"])

    def may(self, *alternatives: str, code: str = "Authorization_RequestDenied") -> None:
        """Refuse unless the token has one of the permissions (`a+b` means both)."""
        roles = set(self.claims.get("roles", ()))
        if any(set(wanted.split("+")) <= roles for wanted in alternatives):
            return
        if code == "ErrorAccessDenied":
            raise _GraphError(403, code, "Access is denied. Check credentials and try again.")
        raise _GraphError(403, code, "Insufficient privileges to complete the operation.")

    def body(self) -> Doc:
        """The request's JSON object."""
        try:
            document = orjson.loads(self.request.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise _GraphError(
                400,
                "BadRequest",
                "Unable to read JSON request payload. Please ensure Content-Type"
                " header is set and payload is of valid JSON format.",
            )
        return document


Handler = Callable[[_Call, tuple[str, ...]], Answer]


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
        # A route is its fixed segments; `*` stands for an identifier. Its operations go by method.
        self._routes: dict[tuple[str, ...], dict[str, Handler]] = {
            ("users",): {"GET": self._list_users},
            ("users", "*"): {"GET": self._get_user, "PATCH": self._update_user},
            ("users", "*", "revokeSignInSessions"): {"POST": self._revoke_sessions},
            ("users", "*", "mailFolders", "*", "messageRules"): {"GET": self._list_rules},
            ("users", "*", "mailFolders", "*", "messageRules", "*"): {
                "GET": self._get_rule,
                "PATCH": self._update_rule,
            },
            ("security", "alerts_v2"): {"GET": self._list_alerts},
            ("security", "alerts_v2", "*"): {"GET": self._get_alert},
            ("organization",): {"GET": self._list_organizations},
        }

    def handle(self, request: Request) -> Answer:
        request_id = str(uuid.uuid4())
        try:
            answer = self._dispatch(request, request_id)
        except odata.ODataError as error:
            answer = self._error(request, request_id, _GraphError(400, "BadRequest", str(error)))
        except _GraphError as error:
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
        answer = self._error(None, request_id, _GraphError(status, code, text))
        answer.headers += (("request-id", request_id),)
        return answer

    def _error(self, request: Request | None, request_id: str, error: _GraphError) -> Answer:
        client = request.headers.get("client-request-id", request_id) if request else request_id
        inner = {
            "date": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": request_id,
            "client-request-id": client,
        }
        document = {"error": {"code": error.code, "message": error.message, "innerError": inner}}
        headers: tuple[tuple[str, str], ...] = ()
        if error.status == 401:
            headers = (
                (
                    "WWW-Authenticate",
                    'Bearer realm="", authorization_uri="https://login.microsoftonline.com"',
                ),
            )
        return Answer(error.status, orjson.dumps(document), schema.JSON, headers)

    def _dispatch(self, request: Request, request_id: str) -> Answer:
        version, _, rest = request.raw_path.lstrip("/").partition("/")
        if version != "v1.0":
            raise _GraphError(400, "BadRequest", f"Invalid version: {version}")
        claims = self._claims(request)
        tenant = self._find(str(claims["tid"]))
        if tenant is None:
            raise _GraphError(401, "InvalidAuthenticationToken", "Access token validation failure.")
        segments = _segments(rest)
        shape, identifiers = _match(segments, self._routes)
        operations = self._routes.get(shape)
        if operations is None:
            raise _GraphError(400, "BadRequest", f"Resource not found for the segment '{segments[-1]}'.")
        self._meter.count(tenant.id, self.name, "/".join(shape))
        handler = operations.get(request.method)
        if handler is None:
            raise _GraphError(
                405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target."
            )
        base = f"https://{request.headers.get('host', '127.0.0.1')}/v1.0"
        return handler(_Call(request, tenant, claims, request.query(), request_id, base), identifiers)

    def _claims(self, request: Request) -> Claims:
        code = "InvalidAuthenticationToken"
        if not request.headers.get("authorization"):
            raise _GraphError(401, code, "Access token is empty.")
        claims = self._tokens.claims(request)
        if claims is None:
            raise _GraphError(401, code, "Lifetime validation failed, the token is expired or not valid.")
        if str(claims["aud"]).lower() not in self._audiences():
            raise _GraphError(401, code, "Access token validation failure. Invalid audience.")
        return claims

    # Users

    def _list_users(self, call: _Call, _: tuple[str, ...]) -> Answer:
        call.may(*schema.READ_USERS)
        users = list(call.tenant.users.values())
        page, link = _page(call, users, schema.USER_FILTERS, schema.USER_TYPE, default=100, most=999)
        names = _selected(call, schema.USER_PROPERTIES, schema.USER_TYPE, schema.USER_DEFAULTS)
        return _collection(call, "users", [_user(user, names) for user in page], link)

    def _get_user(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may(*schema.READ_USERS)
        user = _find_user(call, identifiers[0])
        names = _selected(call, schema.USER_PROPERTIES, schema.USER_TYPE, schema.USER_DEFAULTS)
        return _entity(call, "users", _user(user, names))

    def _update_user(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        values = call.body()
        may_all = ("User.ReadWrite.All", "Directory.ReadWrite.All")
        if set(values) == {"accountEnabled"}:
            call.may(*may_all, "User.EnableDisableAccount.All+User.Read.All")
        else:
            call.may(*may_all)
        user = _find_user(call, identifiers[0])
        for name, value in values.items():
            if name not in schema.USER_WRITABLE:
                raise _GraphError(400, "Request_BadRequest", f"Invalid property '{name}'.")
            if not isinstance(value, schema.USER_WRITABLE[name]):
                raise _GraphError(
                    400,
                    "Request_BadRequest",
                    f"Invalid value specified for property '{name}' of resource 'User'.",
                )
        call.tenant.change_user(user, values, app=call.app, request=call.request_id)
        return Answer(204)

    def _revoke_sessions(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may("User.RevokeSessions.All", "User.ReadWrite.All", "Directory.ReadWrite.All")
        user = _find_user(call, identifiers[0])
        _end_sessions(call, user)
        context = "https://graph.microsoft.com/v1.0/$metadata#Edm.Boolean"
        return _answer({"@odata.context": context, "value": True})

    # Mail

    def _list_rules(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may("MailboxSettings.Read", "MailboxSettings.ReadWrite", code="ErrorAccessDenied")
        user = _find_mailbox(call, identifiers)
        context = f"users('{quote(identifiers[0])}')/mailFolders('inbox')/messageRules"
        return _collection(call, context, list(call.tenant.rules.get(user["id"], ())), None)

    def _get_rule(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may("MailboxSettings.Read", "MailboxSettings.ReadWrite", code="ErrorAccessDenied")
        _, rule = _find_rule(call, identifiers)
        return _entity(call, f"users('{quote(identifiers[0])}')/mailFolders('inbox')/messageRules", rule)

    def _update_rule(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may("MailboxSettings.ReadWrite", code="ErrorAccessDenied")
        user, rule = _find_rule(call, identifiers)
        values = call.body()
        if rule["isReadOnly"]:
            raise _GraphError(400, "ErrorInvalidRequest", "The rule is read-only and cannot be modified.")
        for name, value in values.items():
            if name not in schema.RULE_WRITABLE:
                raise _GraphError(400, "ErrorInvalidProperty", f"The property '{name}' cannot be set.")
            if not isinstance(value, schema.RULE_WRITABLE[name]):
                raise _GraphError(400, "RequestBodyRead", f"Cannot convert the value of property '{name}'.")
        rule = _set_rule(call, user, rule, values)
        return _entity(call, f"users('{quote(identifiers[0])}')/mailFolders('inbox')/messageRules", rule)

    # Security

    def _list_alerts(self, call: _Call, _: tuple[str, ...]) -> Answer:
        call.may("SecurityAlert.Read.All", "SecurityAlert.ReadWrite.All")
        alerts = sorted(
            call.tenant.alerts.values(), key=lambda one: str(one["createdDateTime"]), reverse=True
        )
        page, link = _page(
            call,
            alerts,
            schema.ALERT_FILTERS,
            schema.ALERT_TYPE,
            default=self._strictness.alerts_page,
            most=1000,
        )
        return _collection(call, "security/alerts_v2", page, link)

    def _get_alert(self, call: _Call, identifiers: tuple[str, ...]) -> Answer:
        call.may("SecurityAlert.Read.All", "SecurityAlert.ReadWrite.All")
        alert = call.tenant.alerts.get(identifiers[0])
        if alert is None:
            raise _GraphError(
                404, "ResourceNotFound", f"Resource not found for the alert '{identifiers[0]}'."
            )
        return _entity(call, "security/alerts_v2", alert)

    # Directory

    def _list_organizations(self, call: _Call, _: tuple[str, ...]) -> Answer:
        call.may("Organization.Read.All", "Organization.ReadWrite.All", "Directory.Read.All", "User.Read.All")
        return _collection(call, "organization", [call.tenant.organization], None)


def _end_sessions(call: _Call, user: Doc) -> None:
    tenant, now = call.tenant, stamp(call.tenant.clock.now())
    before = {
        "sessions": len(tenant.sessions[user["id"]]),
        "signInSessionsValidFromDateTime": user["signInSessionsValidFromDateTime"],
    }
    with tenant.transaction():
        live = [session for session in tenant.sessions[user["id"]] if session["issued"] > now]
        tenant.sessions.put(user["id"], live)
        tenant.users.put(user["id"], {**user, "signInSessionsValidFromDateTime": now})
        after = {"sessions": len(live), "signInSessionsValidFromDateTime": now}
        tenant.journal(
            "revoke_sessions",
            user=user["id"],
            target=user["id"],
            before=before,
            after=after,
            app=call.app,
            request=call.request_id,
        )


def _set_rule(call: _Call, user: Doc, rule: Doc, values: Doc) -> Doc:
    tenant, changed = call.tenant, {**rule, **values}
    with tenant.transaction():
        rules = tenant.rules[user["id"]]
        tenant.rules.put(user["id"], [changed if one is rule else one for one in rules])
        tenant.journal(
            "update_rule",
            user=user["id"],
            target=rule["id"],
            before={name: rule.get(name) for name in values},
            after=values,
            app=call.app,
            request=call.request_id,
        )
    return changed


def audiences(url: str) -> frozenset[str]:
    """The audiences of tokens that this service takes, in lower case."""
    return frozenset({url, "https://graph.microsoft.com", GRAPH})


def _segments(path: str) -> list[str]:
    """Path segments, decoded; `users('a@b')` is the two segments users and a@b."""
    found: list[str] = []
    for part in path.rstrip("/").split("/"):
        segment = unquote(part)
        match = _QUOTED.fullmatch(segment)
        found += [match[1], match[2].replace("''", "'")] if match else [segment]
    return found


def _match(
    segments: list[str], routes: Mapping[tuple[str, ...], object]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for shape in routes:
        if len(shape) == len(segments) and all(a in ("*", b) for a, b in zip(shape, segments, strict=True)):
            return shape, tuple(b for a, b in zip(shape, segments, strict=True) if a == "*")
    return (), ()


def _find_user(call: _Call, name: str) -> Doc:
    user = call.tenant.user(name)
    if user is None:
        raise _GraphError(
            404,
            "Request_ResourceNotFound",
            f"Resource '{name}' does not exist or one of its queried reference-property objects are not"
            " present.",
        )
    return user


def _find_mailbox(call: _Call, identifiers: tuple[str, ...]) -> Doc:
    user = call.tenant.user(identifiers[0])
    if user is None:
        raise _GraphError(404, "ErrorInvalidUser", f"The requested user '{identifiers[0]}' is invalid.")
    if identifiers[1].lower() != "inbox":
        raise _GraphError(404, "ErrorItemNotFound", "The specified object was not found in the store.")
    return user


def _find_rule(call: _Call, identifiers: tuple[str, ...]) -> tuple[Doc, Doc]:
    user = _find_mailbox(call, identifiers)
    for rule in call.tenant.rules.get(user["id"], ()):
        if rule["id"] == identifiers[2]:
            return user, rule
    raise _GraphError(404, "ErrorItemNotFound", "The specified object was not found in the store.")


def _user(user: Doc, names: list[str]) -> Doc:
    return {name: user[name] if name in user else schema.unset(name) for name in names}


def _selected(call: _Call, known: frozenset[str], type_name: str, default: tuple[str, ...]) -> list[str]:
    text = call.query.get("$select", "")
    if not text:
        return list(default)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise odata.no_property(name, type_name)
    return names if "id" in names else ["id", *names]


def _page(
    call: _Call, documents: list[Doc], properties: frozenset[str], type_name: str, *, default: int, most: int
) -> tuple[list[Doc], str | None]:
    """The page that was asked for, and the link to the next one."""
    query = call.query
    if "$filter" in query:
        test = odata.parse_filter(query["$filter"], properties, type_name)
        documents = [document for document in documents if test(document)]
    if "$orderby" in query:
        documents = odata.order(documents, query["$orderby"], properties, type_name)
    size = odata.number(query["$top"], "$top", most) if "$top" in query else default
    first = _first(query.get("$skiptoken"))
    page = documents[first : first + size]
    if first + size >= len(documents):
        return page, None
    token = base64.urlsafe_b64encode(orjson.dumps([first + size])).decode()
    rest = {name: value for name, value in query.items() if name != "$skiptoken"}
    target = call.request.raw_path.removeprefix("/v1.0")
    return page, f"{call.base}{target}?{urlencode({**rest, '$skiptoken': token}, safe='$')}"


def _first(token: str | None) -> int:
    if token is None:
        return 0
    try:
        (first,) = orjson.loads(base64.urlsafe_b64decode(token.encode()))
        return max(0, int(first))
    except (ValueError, TypeError):
        raise odata.ODataError("Skip token is invalid.") from None


def _entity(call: _Call, context: str, document: Doc) -> Answer:
    return _answer({"@odata.context": f"{_CONTEXT}{context}/$entity", **document})


def _collection(call: _Call, context: str, documents: list[Doc], link: str | None) -> Answer:
    answer: Doc = {"@odata.context": f"{_CONTEXT}{context}"}
    if link:
        answer["@odata.nextLink"] = link
    answer["value"] = documents
    return _answer(answer)


_CONTEXT = "https://graph.microsoft.com/v1.0/$metadata#"


def _answer(document: Doc) -> Answer:
    return Answer(200, orjson.dumps(document), schema.JSON)
