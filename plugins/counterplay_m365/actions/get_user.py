"""The action `m365.get_user`: who is this account?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.graph import Graph

PROPERTIES = (
    "id",
    "userPrincipalName",
    "displayName",
    "mail",
    "accountEnabled",
    "userType",
    "onPremisesSyncEnabled",
    "proxyAddresses",
    "department",
    "jobTitle",
    "createdDateTime",
    "lastPasswordChangeDateTime",
    "signInSessionsValidFromDateTime",
)


class GetUser(Action):
    """Read a user's account: names, addresses, and whether it may sign in.

    Needs:
        Graph application permission `User.Read.All`.
    Result:
        The properties `id`, `userPrincipalName`, `displayName`, `mail`, `accountEnabled`, `userType`
        (`Member`, `Guest`), `onPremisesSyncEnabled`, `proxyAddresses`, `department`, `jobTitle`,
        `createdDateTime`, `lastPasswordChangeDateTime`, `signInSessionsValidFromDateTime`, as Graph
        spells them; null where the account has no value.
    Source:
        https://learn.microsoft.com/graph/api/user-get
    """

    name = "get_user"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user = Graph(context).user(self.arguments["user_id"], PROPERTIES)
        return {name: user.get(name) for name in PROPERTIES}
