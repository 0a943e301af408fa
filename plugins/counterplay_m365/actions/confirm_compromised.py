"""The action `m365.confirm_compromised`: say that an account is in wrong hands."""

from __future__ import annotations

from counterplay_m365.actions.risk_verdict import RiskVerdict


class ConfirmCompromised(RiskVerdict):
    """Tell Identity Protection that an account is compromised: its risk becomes high.

    Risk alone keeps nobody out: a Conditional Access policy has to turn it into a block. Confirming what is
    confirmed changes nothing. Taken back by `m365.dismiss_risk`, after which the risk is dismissed rather
    than what it was.

    Needs:
        Graph application permissions `IdentityRiskyUser.ReadWrite.All` and `User.Read.All`; Entra ID P2.
    Result:
        `{"user_id": str, "risk_state": "confirmedCompromised"}`
    Source:
        https://learn.microsoft.com/graph/api/riskyuser-confirmcompromised
    """

    name = "confirm_compromised"
    verdict = "confirmCompromised"
    state = "confirmedCompromised"
    opposite = "m365.dismiss_risk"
