"""Audit searches: a query that runs for some minutes over the audit log, then its records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from counterplay_sim.clock import stamp, to_ns
from counterplay_sim.graph import audit
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import GraphError, bad_request
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

QUERY = "microsoft.graph.security.auditLogQuery"
RECORD = "microsoft.graph.security.auditLogRecord"
MOST = 50_000
_WRITABLE = frozenset(
    [
        "displayName",
        "filterStartDateTime",
        "filterEndDateTime",
        "recordTypeFilters",
        "operationFilters",
        "userPrincipalNameFilters",
        "ipAddressFilters",
        "objectIdFilters",
        "administrativeUnitIdFilters",
        "serviceFilters",
        "keywordFilter",
    ]
)
_QUERIES = Listing(QUERY, page=100, most=1000)
_RECORDS = Listing(
    RECORD, page=150, most=999, filters=frozenset({"operation", "service", "userPrincipalName"})
)

#: Which workloads a narrow permission shows; the broad one shows all.
_WORKLOADS = {
    "AuditLogsQuery-Entra.Read.All": {"AzureActiveDirectory"},
    "AuditLogsQuery-Exchange.Read.All": {"Exchange"},
    "AuditLogsQuery-OneDrive.Read.All": {"OneDrive"},
    "AuditLogsQuery-SharePoint.Read.All": {"SharePoint"},
    "AuditLogsQuery-Endpoint.Read.All": {"Endpoint"},
    "AuditLogsQuery-CRM.Read.All": {"CRM"},
}
#: Names of the record types that the simulated log holds.
TYPES = {
    1: "ExchangeAdmin",
    2: "ExchangeItem",
    3: "ExchangeItemGroup",
    4: "SharePoint",
    6: "SharePointFileOperation",
    8: "AzureActiveDirectory",
    9: "AzureActiveDirectoryAccountLogon",
    11: "ComplianceDLPSharePoint",
    13: "ComplianceDLPExchange",
    14: "SharePointSharingOperation",
    15: "AzureActiveDirectoryStsLogon",
    18: "SecurityComplianceCenterEOPCmdlet",
    25: "MicrosoftTeams",
    28: "ThreatIntelligence",
    30: "MicrosoftFlow",
    33: "ComplianceDLPSharePointClassification",
    36: "SharePointListOperation",
    40: "SecurityComplianceAlerts",
    41: "ThreatIntelligenceUrl",
    47: "ThreatIntelligenceAtpContent",
    50: "ExchangeItemAggregated",
    55: "SharePointContentTypeOperation",
    56: "SharePointFieldOperation",
    63: "DLPEndpoint",
    65: "Quarantine",
    66: "MicrosoftForms",
    72: "MipAutoLabelSharePointItem",
    82: "SensitivityLabelPolicyMatch",
    83: "SensitivityLabelAction",
}
_USERS = {
    0: "Regular",
    1: "Reserved",
    2: "Admin",
    3: "DcAdmin",
    4: "System",
    5: "Application",
    6: "ServicePrincipal",
}
_OWN = "@sim.ready"


def _need(call: Call) -> None:
    """Some tenants have the searches in beta only."""
    if call.version == "v1.0" and not call.rules.audit_search_v1:
        raise GraphError(404, "UnknownError", "")


def _shown(call: Call, query: Doc) -> Doc:
    now = call.clock.now_ns()
    runs = call.rules.audit_search_runs
    status = "succeeded"
    if now < query[_OWN]:
        began = query[_OWN] - to_ns(datetime.fromisoformat("1970-01-01T00:00:00+00:00") + runs)
        status = "notStarted" if (now - began) * 4 < query[_OWN] - began else "running"
    return {**query, "status": status}


def _create(call: Call) -> Answer:
    _need(call)
    values = call.body(QUERY)
    for name in values:
        if name not in _WRITABLE and not name.startswith("@odata."):
            raise bad_request(f"The property '{name}' is read-only.")
    if not values.get("filterStartDateTime") or not values.get("filterEndDateTime"):
        raise bad_request("filterStartDateTime and filterEndDateTime are required.")
    start, end = (_moment(values[name]) for name in ("filterStartDateTime", "filterEndDateTime"))
    if start >= end:
        raise bad_request("filterStartDateTime must be before filterEndDateTime.")
    runs = to_ns(datetime.fromisoformat("1970-01-01T00:00:00+00:00") + call.rules.audit_search_runs)
    made = {
        "displayName": None,
        "recordTypeFilters": [],
        "operationFilters": [],
        "userPrincipalNameFilters": [],
        "ipAddressFilters": [],
        "objectIdFilters": [],
        "administrativeUnitIdFilters": [],
        "serviceFilters": [],
        "keywordFilter": None,
        **values,
        "id": call.new_id(),
        "status": "notStarted",
        _OWN: call.clock.now_ns() + runs,
    }
    with call.tenant.transaction():
        call.put("auditLogQuery", made)
        audit.journal(call, "audit_search", user="", target=made["id"], before={}, after=values)
    return call.entity("security/auditLog/queries", _shown(call, made), QUERY, status=201)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(
            f"Cannot convert the literal '{text}' to the expected type 'Edm.DateTimeOffset'."
        ) from None


def _find(call: Call, key: str) -> Doc:
    _need(call)
    found = call.find("auditLogQuery", key)
    if found is None:
        raise GraphError(404, "UnknownError", "")
    return _shown(call, found)


def _list(call: Call) -> Answer:
    _need(call)
    return call.collection(
        "security/auditLog/queries", [_shown(call, one) for one in call.every("auditLogQuery")], _QUERIES
    )


def _get(call: Call, key: str) -> Answer:
    return call.entity("security/auditLog/queries", _find(call, key), QUERY)


def _records(call: Call, key: str) -> Answer:
    query = _find(call, key)
    if query["status"] != "succeeded":
        raise bad_request(f"The audit log query is {query['status']}; records come when it has succeeded.")
    found = [_record(call, event) for event in _matching(call, query)]
    return call.collection(f"security/auditLog/queries('{key}')/records", found, _RECORDS)


def _matching(call: Call, query: Doc) -> Iterator[Doc]:
    """The events of the log that the query asks for and this application may see."""
    start, end = (to_ns(_moment(query[name])) for name in ("filterStartDateTime", "filterEndDateTime"))
    tests = _tests(call, query)
    seen: set[str] = set()
    for event in events(call, start, query[_OWN]):
        at = to_ns(datetime.fromisoformat(f"{event['CreationTime']}+00:00"))
        if start <= at < end and event["Id"] not in seen and all(test(event) for test in tests):
            seen.add(event["Id"])
            yield event
            if len(seen) >= MOST:
                return


def events(call: Call, start: int, until: int) -> Iterator[Doc]:
    """The events of the log that were taken in within [start, until) in ns, decoded."""
    from counterplay_sim.scenario.noise import CONTENT_TYPES

    until = min(until, call.clock.now_ns())
    for content_type in CONTENT_TYPES:
        for body in call.tenant.blobs.between(content_type, start, until):
            try:
                event = orjson.loads(body)
            except ValueError:  # a fault made it so
                continue
            if isinstance(event, dict) and "Id" in event and "CreationTime" in event:
                yield event


def _tests(call: Call, query: Doc) -> list[Any]:
    tests: list[Any] = []

    def among(name: str, read: Any) -> None:
        wanted = {str(one).lower() for one in query.get(name) or ()}
        if wanted:
            tests.append(lambda event: str(read(event)).lower() in wanted)

    among("operationFilters", lambda event: event.get("Operation"))
    among("userPrincipalNameFilters", lambda event: event.get("UserId"))
    among("ipAddressFilters", lambda event: event.get("ClientIP"))
    among("objectIdFilters", lambda event: event.get("ObjectId"))
    among("serviceFilters", lambda event: event.get("Workload"))
    among("recordTypeFilters", lambda event: type_name(event))
    if query.get("keywordFilter"):
        word = query["keywordFilter"].lower()
        tests.append(lambda event: word in orjson.dumps(event).decode().lower())
    if not call.may("AuditLogsQuery.Read.All"):
        allowed = {one for name, of in _WORKLOADS.items() if call.may(name) for one in of}
        tests.append(lambda event: event.get("Workload") in allowed)
    return tests


def type_name(event: Doc) -> str:
    """The record type's name, PascalCase as on the wire."""
    return TYPES.get(event.get("RecordType", -1), str(event.get("RecordType")))


def _record(call: Call, event: Doc) -> Doc:
    """With the quirks seen: `userId` is the key, `userPrincipalName` the id, `clientIp` null."""
    kind, user = type_name(event), _USERS.get(event.get("UserType", 0), "Regular")
    if not call.rules.audit_search_pascal:
        kind, user = kind[:1].lower() + kind[1:], user[:1].lower() + user[1:]
    at = datetime.fromisoformat(f"{event['CreationTime']}+00:00")
    return {
        "id": event["Id"],
        "createdDateTime": stamp(at),
        "auditLogRecordType": kind,
        "operation": event.get("Operation"),
        "organizationId": event.get("OrganizationId"),
        "userType": user,
        "userId": event.get("UserKey"),
        "userPrincipalName": event.get("UserId"),
        "service": event.get("Workload"),
        "objectId": event.get("ObjectId"),
        "clientIp": None,
        "administrativeUnits": [""],
        "auditData": {
            "@odata.type": "#microsoft.graph.security.defaultAuditData",
            **{name: "__NULL__" if value is None else value for name, value in event.items()},
            "Version@odata.type": "#Int64",
        },
    }


_PATH = "/security/auditLog/queries"
ROUTES = {
    f"GET {_PATH}": _list,
    f"POST {_PATH}": _create,
    f"GET {_PATH}/{{}}": _get,
    f"GET {_PATH}/{{}}/records": _records,
}
