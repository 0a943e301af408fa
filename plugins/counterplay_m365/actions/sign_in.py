"""What blocking and allowing sign-in share: one property of an account, and why it may refuse."""

from __future__ import annotations

from counterplay import BlockedError, JsonObject, RejectedError, StepContext
from counterplay_m365 import privileged
from counterplay_m365.actions.setting import Switch
from counterplay_m365.graph import Graph

_STATE = ("id", "userPrincipalName", "accountEnabled", "onPremisesSyncEnabled")
_NEEDS = "User.EnableDisableAccount.All"
_ENOUGH = frozenset({_NEEDS, "User.ReadWrite.All", "Directory.ReadWrite.All"})


class SetSignIn(Switch):
    """Sets `accountEnabled` of a user; administrators and synced accounts may refuse it."""

    def read(self, context: StepContext) -> JsonObject:
        user = Graph(context).user(self.arguments["user_id"], _STATE)
        return {name: user.get(name) for name in _STATE}

    def write(self, context: StepContext, values: JsonObject) -> None:
        user_id = self.arguments["user_id"]
        try:
            Graph(context).set_user(user_id, values, needs=_NEEDS)
        except RejectedError as error:
            raise privileged.mastered_elsewhere(context, user_id, error) from error
        except BlockedError as error:
            raise privileged.explained(context, f"m365.{self.name}", user_id, error, _ENOUGH) from error

    def caution(self, before: JsonObject) -> str | None:
        return privileged.synced(before)

    def done(self, before: JsonObject) -> JsonObject:
        return {
            "user_id": self.arguments["user_id"],
            "account_enabled": self.enabled,
            "note": privileged.synced(before),
        }
