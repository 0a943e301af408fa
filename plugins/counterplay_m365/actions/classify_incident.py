"""The action `m365.classify_incident`: say what an incident turned out to be."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import INCIDENT


class ClassifyIncident(UpdateCase):
    """Classify an incident: what it turned out to be, and why; with `status` it can be resolved.

    Classifying it as it is sends nothing. Taken back by `m365.update_incident`.

    Needs:
        Graph application permission `SecurityIncident.ReadWrite.All`.
    Result:
        `{"incident_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-incident-update
    """

    name = "classify_incident"
    key = "incident_id"
    kind_of_case = INCIDENT
    opposite = "m365.update_incident"
