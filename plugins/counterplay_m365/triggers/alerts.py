"""The trigger `m365.alerts`: the alerts of Microsoft Defender XDR, through Graph."""

from __future__ import annotations

from counterplay_m365.following import GraphTrigger
from counterplay_m365.licences import DEFENDER


class Alerts(GraphTrigger):
    """Collect new and changed alerts of Microsoft Defender, Entra ID Protection and the rest.

    Each update of an alert is an event; the first one of an alert starts a run.

    Needs:
        Graph application permission `SecurityAlert.Read.All`, and a Defender product or Identity
        Protection that raises alerts.
    Cursor:
        As in `counterplay_m365.sweeps`, by `lastUpdateDateTime`.
    Delivery:
        At least once; the host drops repeats by `id` and `lastUpdateDateTime`.
    Limits:
        150 requests a minute for an app and tenant. Not in China. What one update of an alert
        overwrites before it is asked for is not seen: only the alert's state at each poll is.
        Low-signal events such as the creation of an inbox rule are in the audit log only.
    Source:
        https://learn.microsoft.com/graph/api/security-list-alerts_v2
    """

    name = "alerts"
    path = "/security/alerts_v2"
    what = "alerts"
    moment = "lastUpdateDateTime"
    created = "createdDateTime"
    moves = True
    permission = "SecurityAlert.Read.All"
    licence = DEFENDER
    page_size = 100
    filters = (("severity", "severity"), ("status", "status"), ("service_source", "serviceSource"))
