"""What confirming and dismissing risk share."""

from __future__ import annotations

from typing import ClassVar, Literal

from counterplay import JsonObject, StepContext
from counterplay_m365.actions.setting import Setting
from counterplay_m365.risk import Risk


class RiskVerdict(Setting):
    """Brings `riskState` of a user to `state` by telling Identity Protection `verdict`.

    What is so already is not told again: that would be one more detection in the user's history.
    """

    only_differing = True
    verdict: ClassVar[Literal["confirmCompromised", "dismiss"]]
    state: ClassVar[str]
    _identity: str | None = None

    def wanted(self) -> JsonObject:
        return {"riskState": self.state}

    def read(self, context: StepContext) -> JsonObject:
        risk = Risk(context)
        if self._identity is None:
            self._identity = risk.object_id(self.arguments["user_id"])
        return risk.of_user(self._identity)

    def write(self, context: StepContext, values: JsonObject) -> None:
        risk = Risk(context)
        risk.tell(self.verdict, self._identity or risk.object_id(self.arguments["user_id"]))

    def done(self, before: JsonObject) -> JsonObject:
        return {"user_id": self.arguments["user_id"], "risk_state": self.state}
