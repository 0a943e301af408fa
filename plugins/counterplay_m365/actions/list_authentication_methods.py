"""The action `m365.list_authentication_methods`: how can this account be signed in to?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365 import times
from counterplay_m365.accounts import KINDS, Accounts, kind_of


class ListAuthenticationMethods(Action):
    """List the ways in which a user can sign in, and which of them are new.

    Graph knows when an authenticator app or a passkey was registered, and not so for most other kinds:
    then `recent` is null, and `m365.directory_audits` ("User registered security info") tells.

    Needs:
        Graph application permission `UserAuthenticationMethod.Read.All`.
    Result:
        `{"user_id": str, "methods": [{"id", "kind", "name", "created", "removable", "recent"}]}`
    Source:
        https://learn.microsoft.com/graph/api/authentication-list-methods
    """

    name = "list_authentication_methods"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        found = Accounts(context).methods(user_id)
        return {"user_id": user_id, "methods": [self._shown(one) for one in found]}

    def _shown(self, one: JsonObject) -> JsonObject:
        since, created = times.parse(self.arguments.get("registered_since")), one.get("createdDateTime")
        at = times.parse(created)
        name = one.get("displayName") or one.get("phoneNumber") or one.get("emailAddress")
        return {
            "id": one["id"],
            "kind": kind_of(one),
            "name": name,
            "created": created,
            "removable": kind_of(one) in KINDS,
            "recent": None if since is None or at is None else at >= since,
        }
