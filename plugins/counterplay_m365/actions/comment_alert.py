"""The action `m365.comment_alert`: write something at an alert."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import CommentCase
from counterplay_m365.cases import ALERT


class CommentAlert(CommentCase):
    """Add a comment to an alert.

    Comments cannot be changed or taken back. A repeat adds another one; after a lost answer the comments
    are read, so that none comes twice.

    Needs:
        Graph application permission `SecurityAlert.ReadWrite.All`.
    Result:
        `{"alert_id": str, "commented": true}`
    Source:
        https://learn.microsoft.com/graph/api/security-alert-post-comments
    """

    name = "comment_alert"
    key = "alert_id"
    kind_of_case = ALERT
