"""The action `m365.revoke_sessions`: end what is signed in."""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay.modules import Settle
from counterplay_m365 import times
from counterplay_m365.graph import Graph

_SINCE = "signInSessionsValidFromDateTime"


class RevokeSessions(Action):
    """Invalidate a user's refresh tokens, so every client has to sign in again.

    Takes effect within minutes, and access tokens already issued stay valid until they expire:
    follow it with `m365.block_sign_in` when the account must stop now. Guests keep their
    sessions, which belong to their home tenant. It cannot be taken back; the user signs in again.

    Needs:
        Graph application permissions `User.RevokeSessions.All` and `User.Read.All`.
    Result:
        `{"user_id": str, "revoked": bool}`; `revoked` is false when Graph took the request and
        did not confirm it.
    Source:
        https://learn.microsoft.com/graph/api/user-revokesigninsessions
    """

    name = "revoke_sessions"
    connection = "m365.tenant"
    effect = True
    settle: Settle = "repeat"

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        return {"user_id": user_id, "revoked": Graph(context).revoke_sessions(user_id)}

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        user = Graph(context).user(self.arguments["user_id"], ("id", "userPrincipalName", _SINCE))
        return {name: user.get(name) for name in ("id", "userPrincipalName", _SINCE)}

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        """Sessions are valid from a later time on than before; None while Graph shows no time."""
        user = Graph(context).user(self.arguments["user_id"], (_SINCE,))
        now, then = times.parse(user.get(_SINCE)), times.parse(before.get(_SINCE))
        if now is None:
            return None
        return then is None or now > then
