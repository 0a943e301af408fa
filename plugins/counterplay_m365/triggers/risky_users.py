"""The trigger `m365.risky_users`: whose risk changed, by Entra ID Protection, through Graph."""

from __future__ import annotations

from datetime import timedelta

from counterplay import Event
from counterplay_m365.following import GraphTrigger
from counterplay_m365.licences import ENTRA_P1


class RiskyUsers(GraphTrigger):
    """Collect users whose risk changed: at risk, remediated, dismissed, confirmed compromised.

    Each change of a user's risk is an event and starts a run of its own: the same account can be at
    risk again next month. `once_per` bounds it.

    Needs:
        Graph application permission `IdentityRiskyUser.Read.All`, and Entra ID P2 (P1 shows less).
    Cursor:
        As in `counterplay_m365.sweeps`, by `riskLastUpdatedDateTime`.
    Delivery:
        At least once; the host drops repeats by `id` and `riskLastUpdatedDateTime`.
    Limits:
        One request a second for the whole tenant, all apps together. 15 minutes on average and up to
        2 hours pass until a user appears. Of two changes between two polls only the later one is seen.
    Source:
        https://learn.microsoft.com/graph/api/riskyuser-list
    """

    name = "risky_users"
    path = "/identityProtection/riskyUsers"
    what = "risky users"
    moment = "riskLastUpdatedDateTime"
    moves = True
    permission = "IdentityRiskyUser.Read.All"
    licence = ENTRA_P1
    page_size = 500  # more is refused with 400
    overlap = timedelta(minutes=15)
    revisit = timedelta(hours=4)
    filters = (("risk_level", "riskLevel"), ("risk_state", "riskState"))

    def run_key(self, event: Event) -> str | None:
        return self.delivery_key(event)
