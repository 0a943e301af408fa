"""Identity protection: risk detections, risky users and their history, confirming and dismissing."""

from __future__ import annotations

import re
from typing import Any

from counterplay_sim.graph import audit
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import bad_request, no_object, not_licensed
from counterplay_sim.graph.users import target
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

DETECTION = "microsoft.graph.riskDetection"
RISKY = "microsoft.graph.riskyUser"
HISTORY = "microsoft.graph.riskyUserHistoryItem"
MOST_USERS = 60
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OVER = "Invalid page size specified"
#: Detections that every licence shows by name; the others are premium.
_PLAIN = frozenset({"anonymizedIPAddress", "leakedCredentials", "adminConfirmedUserCompromised", "generic"})
_DETECTIONS = Listing(
    DETECTION,
    filters=frozenset(
        [
            "id",
            "userId",
            "userPrincipalName",
            "userDisplayName",
            "ipAddress",
            "riskLevel",
            "riskState",
            "riskDetail",
            "riskEventType",
            "source",
            "activity",
            "activityDateTime",
            "detectedDateTime",
            "lastUpdatedDateTime",
            "detectionTimingType",
            "correlationId",
            "requestId",
            "tokenIssuerType",
        ]
    ),
    orders=frozenset({"activityDateTime", "detectedDateTime", "lastUpdatedDateTime"}),
    page=20,
    most=500,
    over=_OVER,
    options=frozenset({"$filter", "$select", "$top", "$orderby", "$count"}),
)
_USERS = Listing(
    RISKY,
    orders=frozenset({"riskLastUpdatedDateTime"}),
    page=20,
    most=500,
    over=_OVER,
    options=frozenset({"$filter", "$select", "$top", "$orderby", "$count"}),
)
_HISTORY = Listing(HISTORY, page=20, most=500, over=_OVER)


def _reduced(call: Call, document: Doc) -> Doc:
    """Without Entra ID P2 the level is hidden, and so is what a premium detection found."""
    if call.licence.risk == "full":
        return document
    made = {**document, "riskLevel": "hidden", "riskDetail": "hidden"}
    if made.get("riskEventType") not in (None, *_PLAIN):
        made["riskEventType"] = "generic"
    return made


def _by_time(documents: list[Doc], name: str) -> list[Doc]:
    return sorted(documents, key=lambda one: str(one.get(name) or ""), reverse=True)


def _detections(call: Call) -> Answer:
    found = [_reduced(call, one) for one in call.every("riskDetection")]
    return call.collection("riskDetections", _by_time(found, "detectedDateTime"), _DETECTIONS)


def _detection(call: Call, key: str) -> Answer:
    found = call.find("riskDetection", key)
    if found is None:
        raise no_object(key)
    return call.entity("riskDetections", _reduced(call, found), DETECTION)


def _users(call: Call) -> Answer:
    found = [_reduced(call, one) for one in call.every("riskyUser")]
    return call.collection("riskyUsers", _by_time(found, "riskLastUpdatedDateTime"), _USERS)


def _user(call: Call, key: str) -> Answer:
    found = call.find("riskyUser", key)
    if found is None:
        raise no_object(key)
    return call.entity("riskyUsers", _reduced(call, found), RISKY)


def _history(call: Call, key: str) -> Answer:
    if call.find("riskyUser", key) is None:
        raise no_object(key)
    found = _by_time(call.where("riskyUserHistory", "userId", key), "riskLastUpdatedDateTime")
    return call.collection(f"riskyUsers('{key}')/history", [_reduced(call, one) for one in found], _HISTORY)


def _act(action: str, activity: str, state: str, level: str, detail: str) -> Any:
    def answer(call: Call) -> Answer:
        wanted = call.arguments(userIds=list)["userIds"]
        if not wanted or len(wanted) > MOST_USERS:
            raise bad_request(f"The number of user ids must be between 1 and {MOST_USERS}.")
        for key in wanted:
            if not isinstance(key, str) or not _GUID.fullmatch(key):
                raise bad_request(f"Invalid GUID: {key}")
        if call.licence.risk != "full":
            raise not_licensed()
        found = []
        for key in wanted:
            user = call.find("user", key.lower())
            if user is None:
                raise no_object(key)
            found.append(user)
        with call.tenant.transaction():
            for user in found:
                _set(
                    call,
                    user,
                    action,
                    activity,
                    {"riskState": state, "riskLevel": level, "riskDetail": detail},
                )
        return Answer(204)

    return answer


def _set(call: Call, user: Doc, action: str, activity: str, values: Doc) -> None:
    known = call.find("riskyUser", user["id"]) or {}
    changed = {
        "id": user["id"],
        "isDeleted": False,
        "isProcessing": False,
        "userDisplayName": user["displayName"],
        "userPrincipalName": user["userPrincipalName"],
        **values,
        "riskLastUpdatedDateTime": call.now,
    }
    call.put("riskyUser", changed)
    item = {
        **changed,
        "id": f"{user['id']}{len(call.tenant.objects['riskyUserHistory']):06d}",
        "userId": user["id"],
        "initiatedBy": call.app,
        "activity": {"detail": values["riskDetail"], "riskEventTypes": []},
    }
    call.put("riskyUserHistory", item)
    if action == "confirm_compromised":
        call.put("riskDetection", _confirmed(call, user))
    else:
        _settle_detections(call, user, values)
    before = {name: known.get(name) for name in values}
    audit.journal(call, action, user=user["id"], target=user["id"], before=before, after=values)
    audit.directory(call, activity, "Other", target(user), operation="Update", service="Identity Protection")


def _settle_detections(call: Call, user: Doc, values: Doc) -> None:
    for one in call.where("riskDetection", "userId", user["id"]):
        if one["riskState"] in ("atRisk", "confirmedCompromised"):
            changed = {"riskState": values["riskState"], "riskDetail": values["riskDetail"]}
            call.put("riskDetection", {**one, **changed, "lastUpdatedDateTime": call.now})


def _confirmed(call: Call, user: Doc) -> Doc:
    """Confirming is a detection of its own."""
    return {
        "id": call.new_id(),
        "requestId": None,
        "correlationId": call.request_id,
        "riskEventType": "adminConfirmedUserCompromised",
        "riskState": "confirmedCompromised",
        "riskLevel": "high",
        "riskDetail": "adminConfirmedUserCompromised",
        "source": "IdentityProtection",
        "detectionTimingType": "offline",
        "activity": "user",
        "tokenIssuerType": "AzureAD",
        "ipAddress": None,
        "activityDateTime": call.now,
        "detectedDateTime": call.now,
        "lastUpdatedDateTime": call.now,
        "userId": user["id"],
        "userDisplayName": user["displayName"],
        "userPrincipalName": user["userPrincipalName"],
        "additionalInfo": "[]",
        "location": None,
    }


_RISKY = "/identityProtection/riskyUsers"
ROUTES = {
    "GET /identityProtection/riskDetections": _detections,
    "GET /identityProtection/riskDetections/{}": _detection,
    f"GET {_RISKY}": _users,
    f"GET {_RISKY}/{{}}": _user,
    f"GET {_RISKY}/{{}}/history": _history,
    f"POST {_RISKY}/confirmCompromised": _act(
        "confirm_compromised",
        "ConfirmAccountCompromised",
        "confirmedCompromised",
        "high",
        "adminConfirmedUserCompromised",
    ),
    f"POST {_RISKY}/confirmSafe": _act(
        "confirm_safe", "ConfirmAccountSafe", "confirmedSafe", "none", "adminConfirmedAccountSafe"
    ),
    f"POST {_RISKY}/dismiss": _act(
        "dismiss_risk", "DismissUser", "dismissed", "none", "adminDismissedAllRiskForUser"
    ),
}
