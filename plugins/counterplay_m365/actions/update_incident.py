"""The action `m365.update_incident`: say how far an incident is."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import INCIDENT


class UpdateIncident(UpdateCase):
    """Set status, assignee, classification and determination of an incident.

    Only what is given is set, and only what differs is sent: an update is an event for whoever follows
    the updates of incidents. Taken back by `m365.update_incident`.

    Needs:
        Graph application permission `SecurityIncident.ReadWrite.All`.
    Result:
        `{"incident_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-incident-update
    """

    name = "update_incident"
    key = "incident_id"
    kind_of_case = INCIDENT
    opposite = "m365.update_incident"
