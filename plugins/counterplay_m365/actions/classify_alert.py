"""The action `m365.classify_alert`: say what an alert turned out to be."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import UpdateCase
from counterplay_m365.cases import ALERT


class ClassifyAlert(UpdateCase):
    """Classify an alert: what it turned out to be, and why; with `status` it can be resolved.

    Classifying it as it is sends nothing. Taken back by `m365.update_alert`.

    Needs:
        Graph application permission `SecurityAlert.ReadWrite.All`.
    Result:
        `{"alert_id": str, "status", "assigned_to", "classification", "determination"}`, as they are now.
    Source:
        https://learn.microsoft.com/graph/api/security-alert-update
    """

    name = "classify_alert"
    key = "alert_id"
    kind_of_case = ALERT
    opposite = "m365.update_alert"
