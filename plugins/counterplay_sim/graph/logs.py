"""Sign-ins and directory audits, newest first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.graph.call import ALL_OPTIONS, Call, Listing
from counterplay_sim.graph.errors import no_object
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

SIGN_IN = "microsoft.graph.signIn"
AUDIT = "microsoft.graph.directoryAudit"
_FILTERS = [
    "id",
    "createdDateTime",
    "userId",
    "userPrincipalName",
    "userDisplayName",
    "appId",
    "appDisplayName",
    "ipAddress",
    "status/errorCode",
    "location/city",
    "location/state",
    "location/countryOrRegion",
    "conditionalAccessStatus",
    "clientAppUsed",
    "deviceDetail/*",
    "correlationId",
    "riskState",
    "riskLevelDuringSignIn",
    "riskLevelAggregated",
    "riskDetail",
    "resourceId",
    "resourceDisplayName",
    "isInteractive",
]
_BETA_FILTERS = ("signInEventTypes", "sessionId", "uniqueTokenIdentifier", "authenticationRequirement")
_OPTIONS = ALL_OPTIONS - {"$expand", "$skip", "$count"}
_AUDITS = Listing(
    AUDIT,
    filters=frozenset(
        [
            "id",
            "activityDateTime",
            "activityDisplayName",
            "category",
            "loggedByService",
            "correlationId",
            "operationType",
            "result",
            "initiatedBy/*",
            "targetResources",
        ]
    ),
    orders=frozenset({"activityDateTime"}),
    page=1000,
    most=1000,
    over="cap",
    options=_OPTIONS,
)
_INTERACTIVE = "interactiveUser"
#: How long the logs are kept with and without Entra ID P1.
KEPT, KEPT_FREE = timedelta(days=30), timedelta(days=7)


def _kept(call: Call, documents: list[Doc], name: str) -> list[Doc]:
    life = KEPT if call.licence.premium else KEPT_FREE
    oldest = stamp(call.clock.now() - life, 7)
    found = [one for one in documents if str(one[name]) >= oldest]
    return sorted(found, key=lambda one: str(one[name]), reverse=True)


def _seen(call: Call, document: Doc) -> bool:
    """v1.0 shows interactive sign-ins of users only; beta the others when asked for them by type."""
    kinds = document.get("signInEventTypes") or [_INTERACTIVE]
    if call.version == "beta" and "signInEventTypes" in call.query.get("$filter", ""):
        return True
    return _INTERACTIVE in kinds


def _versioned(call: Call, document: Doc) -> Doc:
    """Members that only beta has stay out of v1.0."""
    known = call.contract.properties(SIGN_IN)
    return {name: value for name, value in document.items() if name in known or name.startswith("@")}


def _sign_ins(call: Call) -> Answer:
    listing = Listing(
        SIGN_IN,
        filters=frozenset(_FILTERS + (list(_BETA_FILTERS) if call.version == "beta" else [])),
        orders=frozenset({"createdDateTime"}),
        page=1000,
        most=1000,
        over="cap",
        options=_OPTIONS,
    )
    seen = [_versioned(call, one) for one in call.every("signIn") if _seen(call, one)]
    return call.collection("auditLogs/signIns", _kept(call, seen, "createdDateTime"), listing)


def _sign_in(call: Call, key: str) -> Answer:
    found = call.find("signIn", key)
    if found is None or (call.version != "beta" and not _seen(call, found)):
        raise no_object(key)
    return call.entity("auditLogs/signIns", _versioned(call, found), SIGN_IN)


def _audits(call: Call) -> Answer:
    found = _kept(call, list(call.every("directoryAudit")), "activityDateTime")
    return call.collection("auditLogs/directoryAudits", found, _AUDITS)


def _audit(call: Call, key: str) -> Answer:
    found = call.find("directoryAudit", key)
    if found is None:
        raise no_object(key)
    return call.entity("auditLogs/directoryAudits", found, AUDIT)


ROUTES = {
    "GET /auditLogs/signIns": _sign_ins,
    "GET /auditLogs/signIns/{}": _sign_in,
    "GET /auditLogs/directoryAudits": _audits,
    "GET /auditLogs/directoryAudits/{}": _audit,
}
