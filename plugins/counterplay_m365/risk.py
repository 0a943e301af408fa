"""The part of Graph about Identity Protection: what it thinks of accounts, and what people tell it."""

from __future__ import annotations

from typing import Literal

from counterplay import GoneError, JsonObject
from counterplay_m365.graph import Graph, segment
from counterplay_m365.licences import ENTRA_P2

_READ = "IdentityRiskyUser.Read.All"
_WRITE = "IdentityRiskyUser.ReadWrite.All"
SHOWN = ("id", "userPrincipalName", "riskState", "riskLevel", "riskDetail")


class Risk(Graph):
    """Risky users of the tenant of a context. It takes one request a second, of all apps together."""

    def of_user(self, identity: str) -> JsonObject:
        """What is known of a user, by object id; `none` for one who was never at risk."""
        path = f"/identityProtection/riskyUsers/{segment(identity)}"
        try:
            found = self.one(path, f"the risk of {identity!r}", needs=_READ, licence=ENTRA_P2)
        except GoneError:
            return {"id": identity, "riskState": "none", "riskLevel": "none", "riskDetail": "none"}
        return {name: found.get(name) for name in SHOWN}

    def tell(self, verdict: Literal["confirmCompromised", "dismiss"], identity: str) -> None:
        """Say that an account is compromised, or that it is not at risk. Repeating it is harmless."""
        path = f"/identityProtection/riskyUsers/{verdict}"
        self.write(
            "POST",
            path,
            f"the risk of {identity!r}",
            {"userIds": [identity]},
            needs=_WRITE,
            licence=ENTRA_P2,
            repeatable=True,
        )
