"""The action `m365.get_alert`: what is known of an alert by now?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.cases import ALERT, Cases


class GetAlert(Action):
    """Read an alert as it is now, with its comments and evidence.

    Needs:
        Graph application permission `SecurityAlert.Read.All`.
    Result:
        `{"alert_id": str, "alert": {...}}`, the alert as Graph spells it.
    Source:
        https://learn.microsoft.com/graph/api/security-alert-get
    """

    name = "get_alert"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        identity = self.arguments["alert_id"]
        found = Cases(context).case(ALERT, identity)
        shown = {name: value for name, value in found.items() if not name.startswith("@odata.")}
        return {"alert_id": identity, "alert": shown}
