"""The action `m365.dismiss_risk`: say that an account is in good hands."""

from __future__ import annotations

from counterplay import Inverse, JsonObject, PermanentError
from counterplay_m365.actions.risk_verdict import RiskVerdict


class DismissRisk(RiskVerdict):
    """Tell Identity Protection that an account is not at risk, whatever was detected.

    Dismissing what is dismissed changes nothing. Taken back by `m365.confirm_compromised` where that had
    been confirmed before; other risk comes back by itself, with a new detection.

    Needs:
        Graph application permissions `IdentityRiskyUser.ReadWrite.All` and `User.Read.All`; Entra ID P2.
    Result:
        `{"user_id": str, "risk_state": "dismissed"}`
    Source:
        https://learn.microsoft.com/graph/api/riskyuser-dismiss
    """

    name = "dismiss_risk"
    verdict = "dismiss"
    state = "dismissed"
    opposite = "m365.confirm_compromised"

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        """Only what a person had confirmed can be said again. PermanentError: it was risk of another kind."""
        state = before.get("riskState")
        if state == "atRisk":
            raise PermanentError("risk that was detected comes back with a new detection only")
        return super().inverse(before, result) if state == "confirmedCompromised" else None
