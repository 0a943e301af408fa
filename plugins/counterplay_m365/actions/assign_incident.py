"""The action `m365.assign_incident`: say who works on an incident."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import INCIDENT


class AssignIncident(UpdateCase):
    """Assign an incident to somebody, or with null to nobody.

    Assigning it to whom it is assigned sends nothing. Taken back by `m365.update_incident`.

    Needs:
        Graph application permission `SecurityIncident.ReadWrite.All`.
    Result:
        `{"incident_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-incident-update
    """

    name = "assign_incident"
    key = "incident_id"
    kind_of_case = INCIDENT
    opposite = "m365.update_incident"
