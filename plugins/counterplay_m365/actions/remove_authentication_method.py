"""The action `m365.remove_authentication_method`: take a way to sign in from an account."""

from __future__ import annotations

from collections.abc import Sequence

from counterplay import BlockedError, JsonObject, RejectedError, StepContext
from counterplay_m365 import privileged
from counterplay_m365.accounts import DELETE, KINDS, Accounts, kind_of
from counterplay_m365.actions.removal import Removal


class RemoveAuthenticationMethod(Removal):
    """Remove one authentication method of a user, such as an app that an attacker registered.

    The user's default method goes last, and a mobile number after the alternate one; a password cannot be
    removed. Removing what is gone changes nothing. It cannot be taken back: the user registers it anew.
    Sessions that were opened with it go on: follow it with `m365.revoke_sessions`.

    Needs:
        Graph application permissions `UserAuthenticationMethod.Read.All` and
        `UserAuthenticationMethod.ReadWrite.All`, or the narrower one of the method's kind.
    Result:
        `{"user_id": str, "removed": [{"id", "kind", "name"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/resources/authenticationmethods-overview
    """

    name = "remove_authentication_method"

    def present(self, context: StepContext) -> list[JsonObject]:
        return Accounts(context).methods(self.arguments["user_id"])

    def ids(self) -> Sequence[str]:
        return (self.arguments["method_id"],)

    def kept(self, one: JsonObject) -> str | None:
        return None if kind_of(one) in KINDS else f"Graph cannot remove a method of the kind {kind_of(one)}"

    def delete(self, context: StepContext, one: JsonObject) -> None:
        user_id = self.arguments["user_id"]
        try:
            Accounts(context).delete_method(user_id, one)
        except BlockedError as error:
            raise privileged.explained(context, f"m365.{self.name}", user_id, error, DELETE) from error
        except RejectedError as error:
            error.hint = error.hint or "a default method goes last: remove the user's other methods first"
            raise

    def shown(self, one: JsonObject) -> JsonObject:
        return {"id": one["id"], "kind": kind_of(one), "name": one.get("displayName")}

    def owner(self, context: StepContext) -> JsonObject:
        user = Accounts(context).user(self.arguments["user_id"], ("id", "userPrincipalName"))
        return {name: user.get(name) for name in ("id", "userPrincipalName")}
