"""The action `m365.get_incident`: what is known of an incident by now?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.cases import INCIDENT, Cases


class GetIncident(Action):
    """Read an incident as it is now, with its comments.

    Needs:
        Graph application permission `SecurityIncident.Read.All`.
    Result:
        `{"incident_id": str, "incident": {...}}`, the incident as Graph spells it.
    Source:
        https://learn.microsoft.com/graph/api/security-incident-get
    """

    name = "get_incident"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        identity = self.arguments["incident_id"]
        found = Cases(context).case(INCIDENT, identity)
        shown = {name: value for name, value in found.items() if not name.startswith("@odata.")}
        return {"incident_id": identity, "incident": shown}
