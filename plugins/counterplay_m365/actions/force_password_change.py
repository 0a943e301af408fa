"""The action `m365.force_password_change`: make a stolen password worthless."""

from __future__ import annotations

import string

from counterplay import Action, BlockedError, JsonObject, RejectedError, StepContext
from counterplay.modules import Settle
from counterplay_m365 import privileged, times
from counterplay_m365.accounts import PASSWORD
from counterplay_m365.graph import Graph

_CHANGED = "lastPasswordChangeDateTime"
_STATE = ("id", "userPrincipalName", _CHANGED, "onPremisesSyncEnabled")
_ENOUGH = frozenset({PASSWORD, "User.ReadWrite.All", "Directory.ReadWrite.All"})
_LETTERS = string.ascii_letters + string.digits
_SIGNS = "!#%+-=?@_"


class ForcePasswordChange(Action):
    """Give an account a password that nobody knows, and ask for a new one at the next sign-in.

    The random password is shown and kept nowhere: the user comes back by self-service reset or by the
    service desk. With `new_password: keep` the old one works once more, for whoever knows it. A repeat
    sets another random password. Graph refuses it unless the app's own service principal holds an Entra
    role: User Administrator, for administrators Privileged Authentication Administrator. It cannot be
    taken back.

    Needs:
        Graph application permissions `User-PasswordProfile.ReadWrite.All` and `User.Read.All`, and an
        Entra role on the app.
    Result:
        `{"user_id": str, "password_changed": bool, "at_next_sign_in": true, "note": str | null}`
    Source:
        https://learn.microsoft.com/graph/api/user-update
    """

    name = "force_password_change"
    connection = "m365.tenant"
    effect = True
    settle: Settle = "repeat"
    _before: JsonObject | None = None

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        member = "forceChangePasswordNextSignIn" + ("WithMfa" if self.arguments.get("with_mfa") else "")
        profile: JsonObject = {member: True}
        if self._random:
            profile["password"] = _password()
        try:
            Graph(context).set_user(user_id, {"passwordProfile": profile}, needs=PASSWORD)
        except RejectedError as error:
            raise privileged.mastered_elsewhere(context, user_id, error) from error
        except BlockedError as error:
            raise privileged.explained(context, f"m365.{self.name}", user_id, error, _ENOUGH) from error
        return self._done(self._before or {})

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        user = Graph(context).user(self.arguments["user_id"], _STATE)
        self._before = {name: user.get(name) for name in _STATE}
        return self._before

    def caution(self, before: JsonObject) -> str | None:
        lost = "nobody will know the new password: the user needs self-service reset or the service desk"
        found = [privileged.synced(before), lost if self._random else None]
        return "; ".join(filter(None, found)) or None

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        return self._changed(context, before) if self._random else None

    @property
    def _random(self) -> bool:
        return self.arguments.get("new_password") != "keep"

    def _changed(self, context: StepContext, before: JsonObject) -> bool:
        user = Graph(context).user(self.arguments["user_id"], (_CHANGED,))
        now, then = times.parse(user.get(_CHANGED)), times.parse(before.get(_CHANGED))
        return now is not None and (then is None or now > then)

    def _done(self, before: JsonObject) -> JsonObject:
        return {
            "user_id": self.arguments["user_id"],
            "password_changed": self._random,
            "at_next_sign_in": True,
            "note": privileged.synced(before),
        }


def _password() -> str:
    """Long, and of all the kinds of signs that rules ask for."""
    import secrets  # brings the machinery of keys along

    signs = [secrets.choice(kind) for kind in (string.ascii_uppercase, string.digits, _SIGNS) for _ in "ab"]
    signs += [secrets.choice(_LETTERS) for _ in range(26)]
    secrets.SystemRandom().shuffle(signs)
    return "".join(signs)
