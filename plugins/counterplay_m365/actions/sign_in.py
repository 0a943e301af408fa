"""What blocking and allowing sign-in share: one property of an account, and why it may refuse."""

from __future__ import annotations

from typing import ClassVar

from counterplay import (
    Action,
    BlockedError,
    Inverse,
    JsonObject,
    PermanentError,
    RejectedError,
    StepContext,
)
from counterplay.modules import Settle
from counterplay_m365.graph import Graph
from counterplay_m365.tenant import GRAPH, tenant

_STATE = ("id", "userPrincipalName", "accountEnabled", "onPremisesSyncEnabled")
_ENOUGH = frozenset({"User.EnableDisableAccount.All", "User.ReadWrite.All", "Directory.ReadWrite.All"})


class SetSignIn(Action):
    """Sets `accountEnabled` of a user to `enabled`; `opposite` is the module that takes it back."""

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    enabled: ClassVar[bool]
    opposite: ClassVar[str]

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        try:
            Graph(context).set_sign_in(user_id, self.enabled)
        except RejectedError as error:
            raise self._mastered_elsewhere(context, error) from error
        except BlockedError as error:
            raise self._privileged(context, error) from error
        return self._done()

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        user = self._read(context)
        return {name: user.get(name) for name in _STATE}

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        return self._done() if self._read(context).get("accountEnabled") is self.enabled else None

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        return self._read(context).get("accountEnabled") is self.enabled

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        if before.get("accountEnabled") is not (not self.enabled):
            return None  # it was like this before, so there is nothing to take back
        return Inverse(self.opposite, {"user_id": before["id"]})

    def _done(self) -> JsonObject:
        return {"user_id": self.arguments["user_id"], "account_enabled": self.enabled}

    def _read(self, context: StepContext) -> JsonObject:
        return Graph(context).user(self.arguments["user_id"], _STATE)

    def _mastered_elsewhere(self, context: StepContext, error: RejectedError) -> PermanentError:
        """An account that is synced from Active Directory may refuse the change with 400."""
        if self._read(context).get("onPremisesSyncEnabled") is not True:
            return error
        return PermanentError(
            f"{self.arguments['user_id']!r} is synced from Active Directory, which owns this setting: "
            f"{error.message}",
            hint="change the account there, and let it synchronise",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )

    def _privileged(self, context: StepContext, error: BlockedError) -> PermanentError | BlockedError:
        """Graph answers the same 403 to an app without permission and for a target with an admin role."""
        granted = tenant(context).granted(GRAPH) if error.status == 403 else None
        if granted is None or not _ENOUGH & set(granted):
            return error
        return PermanentError(
            f"the app may change accounts, but not {self.arguments['user_id']!r}, which holds an "
            f"administrator role: {error.message}",
            hint="change it by hand, or give the app's service principal the role Privileged "
            "Authentication Administrator",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
