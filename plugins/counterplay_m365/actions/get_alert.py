"""The action `m365.get_alert`: what is known of an alert by now?"""

from __future__ import annotations

from counterplay_m365.actions.case_actions import GetCase
from counterplay_m365.cases import ALERT


class GetAlert(GetCase):
    """Read an alert as it is now, with its comments and evidence.

    Needs:
        Graph application permission `SecurityAlert.Read.All`.
    Result:
        `{"alert_id": str, "alert": {...}}`, the alert as Graph spells it.
    Source:
        https://learn.microsoft.com/graph/api/security-alert-get
    """

    name = "get_alert"
    key = "alert_id"
    kind_of_case = ALERT
