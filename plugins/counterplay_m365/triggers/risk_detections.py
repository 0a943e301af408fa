"""The trigger `m365.risk_detections`: what Entra ID Protection finds risky, through Graph."""

from __future__ import annotations

from datetime import timedelta

from counterplay_m365.following import GraphTrigger
from counterplay_m365.licences import ENTRA_P1


class RiskDetections(GraphTrigger):
    """Collect the risk detections of Entra ID Protection: leaked credentials, odd sign-ins, mail rules.

    Each update of a detection is an event; the first one starts a run.

    Needs:
        Graph application permission `IdentityRiskEvent.Read.All`, and Entra ID P2. With P1 the premium
        detections are called `generic`, and their level is `hidden`.
    Cursor:
        As in `counterplay_m365.sweeps`, by `lastUpdatedDateTime`.
    Delivery:
        At least once; the host drops repeats by `id` and `lastUpdatedDateTime`.
    Limits:
        One request a second for the whole tenant, all apps together. Detections that are made offline
        appear up to 48 hours after the activity, with the time at which they were made.
    Source:
        https://learn.microsoft.com/graph/api/riskdetection-list
    """

    name = "risk_detections"
    path = "/identityProtection/riskDetections"
    what = "risk detections"
    moment = "lastUpdatedDateTime"
    created = "detectedDateTime"
    moves = True
    permission = "IdentityRiskEvent.Read.All"
    licence = ENTRA_P1
    page_size = 500  # more is refused with 400
    overlap = timedelta(minutes=15)
    revisit = timedelta(hours=4)
    filters = (("risk_level", "riskLevel"), ("risk_state", "riskState"))
