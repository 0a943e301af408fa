"""The action `m365.assign_alert`: say who works on an alert."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import ALERT


class AssignAlert(UpdateCase):
    """Assign an alert to somebody, or with null to nobody.

    Assigning it to whom it is assigned sends nothing. Taken back by `m365.update_alert`.

    Needs:
        Graph application permission `SecurityAlert.ReadWrite.All`.
    Result:
        `{"alert_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-alert-update
    """

    name = "assign_alert"
    key = "alert_id"
    kind_of_case = ALERT
    opposite = "m365.update_alert"
