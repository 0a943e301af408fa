"""The action `m365.comment_incident`: write something at an incident."""

from __future__ import annotations

from counterplay_m365.actions.case_actions import CommentCase
from counterplay_m365.cases import INCIDENT


class CommentIncident(CommentCase):
    """Add a comment to an incident.

    Comments cannot be changed or taken back. A repeat adds another one; after a lost answer the comments
    are read, so that none comes twice.

    Needs:
        Graph application permission `SecurityIncident.ReadWrite.All`.
    Result:
        `{"incident_id": str, "commented": true}`
    Source:
        https://learn.microsoft.com/graph/api/security-incident-post-comments
    """

    name = "comment_incident"
    key = "incident_id"
    kind_of_case = INCIDENT
