"""The action `m365.update_alert`: say how far an alert is."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import ALERT


class UpdateAlert(UpdateCase):
    """Set status, assignee, classification and determination of an alert.

    Only what is given is set, and only what differs is sent: an update is an event for whoever follows
    the updates of alerts. Taken back by `m365.update_alert`.

    Needs:
        Graph application permission `SecurityAlert.ReadWrite.All`.
    Result:
        `{"alert_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-alert-update
    """

    name = "update_alert"
    key = "alert_id"
    kind_of_case = ALERT
    opposite = "m365.update_alert"
