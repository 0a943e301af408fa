"""Alerts of `alerts_v2`: reading, triage, comments, and moving them between incidents."""

from __future__ import annotations

from typing import Any

import orjson

from counterplay_sim.graph import audit
from counterplay_sim.graph.call import ALL_OPTIONS, Call, Listing
from counterplay_sim.graph.errors import bad_request, no_resource
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

ALERT = "microsoft.graph.security.alert"
COMMENT = "microsoft.graph.security.alertComment"
WRITABLE = frozenset({"status", "classification", "determination", "assignedTo", "customDetails"})
REASON = "microsoft.graph.security.correlationReason"


def _filters(call: Call) -> frozenset[str]:
    documented = call.contract.filterable("GET /security/alerts_v2") or []
    return frozenset({*documented, "evidence"})


def newest_first(documents: list[Doc]) -> list[Doc]:
    """By creation, the newest first."""
    return sorted(documents, key=lambda one: str(one["createdDateTime"]), reverse=True)


def listing(call: Call, page: int) -> Listing:
    """Alerts as a collection."""
    return Listing(
        ALERT,
        filters=_filters(call),
        orders=frozenset({"createdDateTime", "lastUpdateDateTime", "severity", "status"}),
        page=page,
        most=2**31,
        options=ALL_OPTIONS - {"$expand"},
    )


def _list(call: Call) -> Answer:
    found = newest_first(list(call.every("alert")))
    return call.collection("security/alerts_v2", found, listing(call, call.tenant.strictness.alerts_page))


def find_alert(call: Call, key: str) -> Doc:
    """GraphError 404: there is none of that id."""
    found = call.find("alert", key)
    if found is None:
        raise no_resource(f"the alert '{key}'")
    return found


def _get(call: Call, key: str) -> Answer:
    return call.entity("security/alerts_v2", find_alert(call, key), ALERT)


def _update(call: Call, key: str) -> Answer:
    values = call.body(ALERT)
    alert = find_alert(call, key)
    refuse_unwritable(values, WRITABLE)
    before = {name: alert.get(name) for name in values}
    changed = {**alert, **values, "lastUpdateDateTime": call.now}
    if "status" in values:
        resolved = alert.get("resolvedDateTime") or call.now
        changed["resolvedDateTime"] = resolved if values["status"] == "resolved" else None
    with call.tenant.transaction():
        call.put("alert", changed)
        audit.journal(call, "update_alert", user="", target=key, before=before, after=values)
        touch_incident(call, alert.get("incidentId"))
    return call.entity("security/alerts_v2", changed, ALERT)


def refuse_unwritable(values: Doc, writable: frozenset[str]) -> None:
    """GraphError 400: a property cannot be set."""
    for name in values:
        if "@odata." not in name and name not in writable:
            raise bad_request(f"The property '{name}' is read-only and cannot be updated.")


def touch_incident(call: Call, key: Any) -> None:
    """An incident changes when one of its alerts does."""
    incident = call.find("incident", str(key)) if key else None
    if incident is not None:
        call.put("incident", {**incident, "lastUpdateDateTime": call.now})


def comments_of(call: Call) -> list[Doc]:
    """The comments that a request adds: one object, or a list of them."""
    try:
        document = orjson.loads(call.request.body)
    except ValueError:
        document = None
    found = document if isinstance(document, list) else [document]
    if isinstance(document, dict) and isinstance(document.get("value"), list):
        found = document["value"]
    made = []
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("comment"), str) or not one["comment"].strip():
            raise bad_request("The request body must hold a comment.")
        call.contract.check(one, COMMENT)
        made.append(new_comment(call, one["comment"]))
    if not made:
        raise bad_request("The request body must hold a comment.")
    return made


def new_comment(call: Call, text: str) -> Doc:
    """A comment of the application that asks."""
    principal = call.tenant.objects["servicePrincipal"].get(call.principal)
    name = principal["displayName"] if principal else call.app
    return {"comment": text, "createdByDisplayName": name, "createdDateTime": call.now}


def add_comments(call: Call, kind: str, document: Doc) -> Answer:
    """Append comments; the answer holds all there are."""
    added = comments_of(call)
    changed = {
        **document,
        "comments": [*(document.get("comments") or []), *added],
        "lastUpdateDateTime": call.now,
    }
    with call.tenant.transaction():
        call.put(kind, changed)
        texts = {"comments": [one["comment"] for one in added]}
        audit.journal(call, f"comment_{kind}", user="", target=document["id"], before={}, after=texts)
    context = f"https://graph.microsoft.com/{call.version}/$metadata#Collection({COMMENT})"
    return call.json({"@odata.context": context, "value": changed["comments"]})


def _comment(call: Call, key: str) -> Answer:
    return add_comments(call, "alert", find_alert(call, key))


def _move(call: Call) -> Answer:
    """Put alerts into another incident, or into a new one."""
    values = call.arguments(alertIds=list, incidentId=str, alertComment=str, newCorrelationReasons=str)
    if not values["alertIds"]:
        raise bad_request("The parameter 'alertIds' must not be empty.")
    if values["newCorrelationReasons"]:
        call.contract.check_flags(values["newCorrelationReasons"], REASON)
    found = [find_alert(call, str(key)) for key in values["alertIds"]]
    aim = values["incidentId"]
    incident = call.find("incident", aim) if aim else None
    if aim and incident is None:
        raise no_resource(f"the incident '{aim}'")
    if incident is not None and incident["status"] == "redirected":
        raise bad_request(f"The incident '{aim}' was redirected to '{incident['redirectIncidentId']}'.")
    with call.tenant.transaction():
        if incident is None:
            numbers = [int(one) for one in call.tenant.objects["incident"] if one.isdigit()]
            incident = new_incident(call, str(max(numbers, default=0) + 1), found)
        call.put("incident", {**incident, "lastUpdateDateTime": call.now})
        for alert in found:
            move_alert(call, alert, incident["id"], values["alertComment"])
        before = {"incidentIds": sorted({str(one["incidentId"]) for one in found})}
        after = {"alertIds": values["alertIds"], "incidentId": incident["id"]}
        audit.journal(call, "move_alerts", user="", target=incident["id"], before=before, after=after)
    return call.json({"targetIncidentId": incident["id"]})


def move_alert(call: Call, alert: Doc, incident: str, comment: str | None) -> None:
    """Let an alert belong to an incident."""
    comments = alert.get("comments") or []
    if comment:
        comments = [*comments, new_comment(call, comment)]
    changed = {**alert, "incidentId": incident, "comments": comments, "lastUpdateDateTime": call.now}
    call.put("alert", changed)


def new_incident(call: Call, key: str, found: list[Doc]) -> Doc:
    """An incident that begins with these alerts."""
    first = found[0]
    return {
        "id": key,
        "displayName": first["title"],
        "description": None,
        "summary": None,
        "status": "active",
        "severity": first["severity"],
        "classification": None,
        "determination": None,
        "assignedTo": None,
        "createdDateTime": call.now,
        "lastUpdateDateTime": call.now,
        "lastModifiedBy": None,
        "priorityScore": None,
        "redirectIncidentId": None,
        "resolvingComment": None,
        "customTags": [],
        "systemTags": [],
        "comments": [],
        "tenantId": call.tenant.id,
        "incidentWebUrl": f"https://security.microsoft.com/incident2/{key}/overview?tid={call.tenant.id}",
    }


ROUTES = {
    "GET /security/alerts_v2": _list,
    "GET /security/alerts_v2/{}": _get,
    "PATCH /security/alerts_v2/{}": _update,
    "POST /security/alerts_v2/{}/comments": _comment,
    "POST /security/alerts_v2/moveAlerts": _move,
}
