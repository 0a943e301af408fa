"""Defender for Endpoint's machine actions: a second API with its own audience and its own error shape.

It answers beside Graph, under `/defender/api/`: pending, in progress, succeeded; an action on a machine that
is offline (`@sim.offline`) stays pending.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from counterplay_sim import odata
from counterplay_sim.clock import NANOSECONDS, Clock, stamp, to_ns
from counterplay_sim.graph.errors import GraphError
from counterplay_sim.graph.throttle import Limit, Throttle
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.licences import licence
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import DEFENDER, Claims

Doc = dict[str, Any]

PREFIX = "/defender"
LIMITS = (Limit("machines", 100, 60, "Tenant"), Limit("machinesAnHour", 1500, 3600, "Tenant"))
_TYPES = {"isolate": "Isolate", "unisolate": "Unisolate"}
_OPEN = ("Pending", "InProgress")
_SCOPES = ("Full", "Selective", "UnManagedDevice")
_BEGINS, _ENDS = timedelta(seconds=10), timedelta(seconds=40)
_ACTION_FILTERS = ("id", "machineId", "status", "type", "requestor", "creationDateTimeUtc")
_FILTERS = ("computerDnsName", "aadDeviceId", "id", "healthStatus", "riskScore", "osPlatform")


class _MachineError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def audiences(url: str) -> frozenset[str]:
    """The audiences of tokens that this service takes, in lower case; `url` is Graph's."""
    real = ("https://api.securitycenter.microsoft.com", "https://api.security.microsoft.com")
    return frozenset({f"{url}{PREFIX}", *real, DEFENDER})


class Machines:
    """`api.security.microsoft.com` for the simulated tenants."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._throttle = Throttle(clock)

    def handle(self, request: Request, tenant: Tenant, claims: Claims) -> Answer:
        """Answer a request whose token is good for this service."""
        try:
            return self._operate(request, tenant, claims)
        except (_MachineError, GraphError) as error:
            headers = error.headers if isinstance(error, GraphError) else ()
            return _error(error.status, error.code, error.message, headers)
        except odata.ODataError as error:
            return _error(400, "BadRequest", str(error))

    def _operate(self, request: Request, tenant: Tenant, claims: Claims) -> Answer:
        parts = request.path.removeprefix(PREFIX).strip("/").split("/")[1:]
        roles = set(claims.get("roles", ()))
        if not licence(tenant.licence).machines:
            raise _MachineError(403, "Forbidden", "The tenant has no license for this feature.")
        self._throttle.take(tenant.strictness.graph, LIMITS, {"Tenant": tenant.id})
        match request.method, parts:
            case "GET", ["machines"]:
                _need(roles, "Machine.Read.All", "Machine.ReadWrite.All", "Machine.Isolate")
                return self._list(request, tenant)
            case "GET", ["machines", key]:
                _need(roles, "Machine.Read.All", "Machine.ReadWrite.All", "Machine.Isolate")
                return _json(_shown(_machine(tenant, key)))
            case "POST", ["machines", key, ("isolate" | "unisolate") as verb]:
                _need(roles, "Machine.Isolate")
                return self._act(request, tenant, claims, key, verb)
            case "GET", ["machineactions"]:
                _need(roles, "Machine.Read.All", "Machine.ReadWrite.All", "Machine.Isolate")
                return self._list_actions(request, tenant)
            case "GET", ["machineactions", key]:
                _need(roles, "Machine.Read.All", "Machine.ReadWrite.All", "Machine.Isolate")
                return _json(self._now(tenant, _action(tenant, key)))
            case "POST", ["machineactions", key, "cancel"]:
                _need(roles, "Machine.Isolate")
                return self._cancel(request, tenant, claims, key)
        raise _MachineError(404, "ResourceNotFound", "Resource not found")

    def _list(self, request: Request, tenant: Tenant) -> Answer:
        found = [_shown(one) for one in tenant.objects["machine"].values()]
        return _collection(request, found, "Machines", _FILTERS, "Microsoft.WindowsDefenderATP.machine")

    def _list_actions(self, request: Request, tenant: Tenant) -> Answer:
        found = [self._now(tenant, one) for one in tenant.objects["machineAction"].values()]
        kind = "Microsoft.WindowsDefenderATP.machineAction"
        return _collection(request, found, "MachineActions", _ACTION_FILTERS, kind)

    def _act(self, request: Request, tenant: Tenant, claims: Claims, key: str, verb: str) -> Answer:
        body = _body(
            request, {"Comment": str, "IsolationType": str} if verb == "isolate" else {"Comment": str}
        )
        scope = body.get("IsolationType", "Full")
        if scope not in _SCOPES:
            raise _MachineError(400, "InvalidRequestBody", "IsolationType is not one of those that exist.")
        machine = _machine(tenant, key)
        if not str(machine["osPlatform"]).startswith("Windows"):
            raise _MachineError(
                400, "OsPlatformNotSupported", "The machine's platform does not support the action."
            )
        kind = _TYPES[verb]
        known = tenant.objects["machineAction"].where("machineId", key)
        latest = max(known, key=lambda one: int(one["@sim.began"]), default=None)  # the others are overtaken
        if latest is not None and latest["type"] == kind and self._now(tenant, latest)["status"] in _OPEN:
            raise _MachineError(400, "ActiveRequestAlreadyExists", "Action is already in progress")
        made = _new_action(
            self._clock, machine, kind, scope if verb == "isolate" else None, body["Comment"], claims
        )
        with tenant.transaction():
            tenant.objects["machineAction"].put(made["id"], made)
            tenant.objects["machine"].put(key, {**machine, "@sim.isolated": verb == "isolate"})
            before, after = (
                {"isolated": bool(machine.get("@sim.isolated"))},
                {"isolated": verb == "isolate"},
            )
            _journal(tenant, verb, machine, before, after, claims, made["id"])
        return _json(self._now(tenant, made), 201)

    def _cancel(self, request: Request, tenant: Tenant, claims: Claims, key: str) -> Answer:
        body = _body(request, {"Comment": str})
        found = _action(tenant, key)
        if self._now(tenant, found)["status"] != "Pending":
            raise _MachineError(400, "ActionCannotBeCancelled", "Only a pending action can be cancelled.")
        at = stamp(self._clock.now(), 7)
        changed = {
            **found,
            "status": "Cancelled",
            "cancellationRequestor": str(claims["appid"]),
            "cancellationComment": body["Comment"],
            "cancellationDateTimeUtc": at,
        }
        machine = _machine(tenant, found["machineId"])
        undone = found["type"] != "Isolate"
        with tenant.transaction():
            tenant.objects["machineAction"].put(key, changed)
            tenant.objects["machine"].put(machine["id"], {**machine, "@sim.isolated": undone})
            _journal(
                tenant,
                "cancel_machine_action",
                machine,
                {"isolated": not undone},
                {"isolated": undone},
                claims,
                key,
            )
        return _json(self._now(tenant, changed))

    def _now(self, tenant: Tenant, action: Doc) -> Doc:
        """The action as it stands by now."""
        shown = {name: value for name, value in action.items() if not name.startswith("@sim.")}
        if action["status"] != "Pending" or _machine(tenant, action["machineId"]).get("@sim.offline"):
            return shown
        age = self._clock.now_ns() - action["@sim.began"]
        if age >= _ENDS.total_seconds() * NANOSECONDS:
            shown["status"] = "Succeeded"
        elif age >= _BEGINS.total_seconds() * NANOSECONDS:
            shown["status"] = "InProgress"
        return shown


def _need(roles: set[str], *alternatives: str) -> None:
    if not roles & set(alternatives):
        raise _MachineError(403, "Forbidden", "Application context does not contain required roles")


def _body(request: Request, kinds: Mapping[str, type]) -> Doc:
    """Names are case-sensitive, and `Comment` is needed."""
    try:
        document = orjson.loads(request.body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or any(
        not isinstance(v, kinds.get(k, ())) for k, v in document.items()
    ):
        raise _MachineError(400, "InvalidRequestBody", "Request body is incorrect")
    if not document.get("Comment"):
        raise _MachineError(400, "MissingRequiredParameter", "Parameter Comment is missing")
    return document


def _machine(tenant: Tenant, key: str) -> Doc:
    found: Doc | None = tenant.objects["machine"].get(key)
    if found is None:
        raise _MachineError(404, "ResourceNotFound", f"Machine {key} was not found")
    return found


def _action(tenant: Tenant, key: str) -> Doc:
    found: Doc | None = tenant.objects["machineAction"].get(key)
    if found is None:
        raise _MachineError(404, "ResourceNotFound", f"Machine action {key} was not found")
    return found


def _new_action(
    clock: Clock, machine: Doc, kind: str, scope: str | None, comment: str, claims: Claims
) -> Doc:
    now: datetime = clock.now()
    return {
        "id": str(uuid.uuid4()),
        "type": kind,
        "scope": scope,
        "requestor": str(claims["appid"]),
        "requestorComment": comment,
        "status": "Pending",
        "machineId": machine["id"],
        "computerDnsName": machine["computerDnsName"],
        "creationDateTimeUtc": stamp(now, 7),
        "lastUpdateDateTimeUtc": stamp(now, 7),
        "title": None,
        "externalId": None,
        "requestSource": "PublicApi",
        "errorHResult": 0,
        "commands": [],
        "relatedFileInfo": None,
        "cancellationRequestor": None,
        "cancellationComment": None,
        "cancellationDateTimeUtc": None,
        "@sim.began": to_ns(now),
    }


def _journal(
    tenant: Tenant, action: str, machine: Doc, before: Doc, after: Doc, claims: Claims, request: str
) -> None:
    tenant.journal(
        action,
        user=str(machine.get("@sim.owner") or ""),
        target=machine["id"],
        before=before,
        after=after,
        app=str(claims["appid"]),
        request=request,
    )


def _shown(document: Doc) -> Doc:
    return {name: value for name, value in document.items() if not name.startswith("@sim.")}


def _collection(request: Request, found: list[Doc], name: str, filters: tuple[str, ...], kind: str) -> Answer:
    text = request.query().get("$filter")
    if text:
        test = odata.parse_filter(text, filters, kind)
        found = [one for one in found if test(one)]
    context = f"https://api.securitycenter.microsoft.com/api/$metadata#{name}"
    return _json({"@odata.context": context, "value": found})


def _json(document: Doc, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(document))


def _error(status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    body = {"error": {"code": code, "message": message, "target": uuid.uuid4().hex}}
    return Answer(status, orjson.dumps(body), headers=headers)
