"""The trigger `m365.sign_ins`: the sign-in log of Entra ID, through Graph."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from counterplay_m365.following import GraphTrigger
from counterplay_m365.keeping import ENTRA_LOGS
from counterplay_m365.licences import ENTRA_P1

INTERACTIVE = "interactiveUser"


class SignIns(GraphTrigger):
    """Collect sign-ins: of people, of the clients that act for them, of services.

    Graph v1.0 shows interactive sign-ins of people only; each other kind is a feed of its own, read from
    Graph's beta. A stolen token that is used again shows as `nonInteractiveUser`.

    Needs:
        Graph application permission `AuditLog.Read.All`, and Entra ID P1.
    Cursor:
        As in `counterplay_m365.sweeps`, by `createdDateTime`.
    Delivery:
        At least once; the host drops repeats by `id`.
    Limits:
        5 requests in 10 seconds for an app and tenant. A sign-in appears after 5 to 30 minutes, now and
        then after hours: half an hour is asked for again each time, six hours each hour. What appears
        later than that is not seen. Kept for 30 days: what nobody asked for in time becomes a gap.
    Source:
        https://learn.microsoft.com/graph/api/signin-list
    """

    name = "sign_ins"
    path = "/auditLogs/signIns"
    what = "sign-ins"
    moment = "createdDateTime"
    permission = "AuditLog.Read.All"
    licence = ENTRA_P1
    page_size = 1000
    kept = ENTRA_LOGS
    overlap = timedelta(minutes=30)
    revisit = timedelta(hours=6)

    def __init__(self, arguments: Any) -> None:
        super().__init__(arguments)
        self._kinds: list[str] = self.arguments.get("kinds") or [INTERACTIVE]
        self.version = "v1.0" if self._kinds == [INTERACTIVE] else "beta"

    def conditions(self) -> list[str]:
        if self._kinds == [INTERACTIVE]:
            return []
        either = " or ".join(f"t eq '{kind}'" for kind in self._kinds)
        return [f"signInEventTypes/any(t: {either})"]
