"""Incidents: reading with their alerts, triage, comments, and merges that leave a redirected husk."""

from __future__ import annotations

from typing import Any

from counterplay_sim.graph import audit
from counterplay_sim.graph.alerts import (
    ALERT,
    REASON,
    add_comments,
    listing,
    move_alert,
    new_comment,
    newest_first,
    refuse_unwritable,
)
from counterplay_sim.graph.call import ALL_OPTIONS, Call, Listing
from counterplay_sim.graph.errors import bad_request, no_resource
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

INCIDENT = "microsoft.graph.security.incident"
MOST = 50
WRITABLE = frozenset(
    [
        "status",
        "assignedTo",
        "classification",
        "determination",
        "customTags",
        "resolvingComment",
        "displayName",
        "description",
        "summary",
        "severity",
    ]
)


def alerts_of(call: Call, incident: Doc) -> list[Doc]:
    """The alerts that belong to an incident, as they are shown."""
    return [call.show(one, ALERT) for one in newest_first(call.where("alert", "incidentId", incident["id"]))]


_LINKS = {"alerts": alerts_of}


def _list(call: Call) -> Answer:
    options = ALL_OPTIONS if call.rules.incident_orderby else ALL_OPTIONS - {"$orderby"}
    incidents = Listing(
        INCIDENT,
        orders=frozenset({"createdDateTime", "lastUpdateDateTime"}),
        page=MOST,
        most=MOST,
        over="The limit of '{most}' for Top query has been exceeded. The value from the incoming request is"
        " '{top}'.",
        options=options,
        links=_LINKS,
    )
    return call.collection("security/incidents", newest_first(list(call.every("incident"))), incidents)


def find_incident(call: Call, key: str) -> Doc:
    """GraphError 404: there is none of that id."""
    found = call.find("incident", key)
    if found is None:
        raise no_resource(f"the incident '{key}'")
    return found


def _get(call: Call, key: str) -> Answer:
    incident = find_incident(call, key)
    return call.entity("security/incidents", incident, INCIDENT, links=_LINKS)


def _alerts(call: Call, key: str) -> Answer:
    found = newest_first(call.where("alert", "incidentId", find_incident(call, key)["id"]))
    page = listing(call, call.tenant.strictness.alerts_page)
    return call.collection(f"security/incidents('{key}')/alerts", found, page)


def _update(call: Call, key: str) -> Answer:
    values = call.body(INCIDENT)
    incident = find_incident(call, key)
    refuse_unwritable(values, WRITABLE)
    if values.get("status") in ("redirected", "awaitingAction"):
        raise bad_request(f"The status '{values['status']}' cannot be set.")
    if incident["status"] == "redirected":
        raise bad_request(f"The incident '{key}' was redirected to '{incident['redirectIncidentId']}'.")
    before = {name: incident.get(name) for name in values}
    by = new_comment(call, "")["createdByDisplayName"]
    changed = {**incident, **values, "lastUpdateDateTime": call.now, "lastModifiedBy": by}
    with call.tenant.transaction():
        call.put("incident", changed)
        audit.journal(call, "update_incident", user="", target=key, before=before, after=values)
    return call.entity("security/incidents", changed, INCIDENT)


def _comment(call: Call, key: str) -> Answer:
    return add_comments(call, "incident", find_incident(call, key))


def _merge(call: Call) -> Answer:
    """Everything goes into the oldest incident; the others stay as husks that name it."""
    values = call.arguments(incidentIds=list, incidentComment=str, mergeReasons=str)
    wanted = values["incidentIds"] or []
    if len(set(map(str, wanted))) < 2:
        raise bad_request("The parameter 'incidentIds' must hold at least two incidents.")
    if values["mergeReasons"]:
        call.contract.check_flags(values["mergeReasons"], REASON)
    found = [find_incident(call, str(key)) for key in dict.fromkeys(wanted)]
    if any(one["status"] == "redirected" for one in found):
        raise bad_request("An incident that was redirected cannot be merged.")
    survivor, *rest = sorted(found, key=lambda one: (str(one["createdDateTime"]), one["id"]))
    with call.tenant.transaction():
        merge(call, survivor, rest, values["incidentComment"])
        before = {one["id"]: one["status"] for one in rest}
        audit.journal(
            call,
            "merge_incidents",
            user="",
            target=survivor["id"],
            before=before,
            after={"incidentIds": wanted},
        )
    return call.json({"targetIncidentId": survivor["id"]})


def merge(call: Call, survivor: Doc, rest: list[Doc], comment: str | None) -> None:
    """Move the alerts of `rest` to `survivor` and redirect what is left."""
    comments = survivor.get("comments") or []
    if comment:
        comments = [*comments, new_comment(call, comment)]
    call.put("incident", {**survivor, "comments": comments, "lastUpdateDateTime": call.now})
    for husk in rest:
        for alert in call.where("alert", "incidentId", husk["id"]):
            move_alert(call, alert, survivor["id"], None)
        call.put(
            "incident",
            {
                **husk,
                "status": "redirected",
                "redirectIncidentId": survivor["id"],
                "lastUpdateDateTime": call.now,
            },
        )


ROUTES = {
    "GET /security/incidents": _list,
    "GET /security/incidents/{}": _get,
    "PATCH /security/incidents/{}": _update,
    "GET /security/incidents/{}/alerts": _alerts,
    "POST /security/incidents/{}/comments": _comment,
    "POST /security/incidents/mergeIncidents": _merge,
}
