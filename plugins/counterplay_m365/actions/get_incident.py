"""The action `m365.get_incident`: what is known of an incident by now?"""

from __future__ import annotations

from counterplay_m365.actions.case_actions import GetCase
from counterplay_m365.cases import INCIDENT


class GetIncident(GetCase):
    """Read an incident as it is now, with its comments.

    Needs:
        Graph application permission `SecurityIncident.Read.All`.
    Result:
        `{"incident_id": str, "incident": {...}}`, the incident as Graph spells it.
    Source:
        https://learn.microsoft.com/graph/api/security-incident-get
    """

    name = "get_incident"
    key = "incident_id"
    kind_of_case = INCIDENT
