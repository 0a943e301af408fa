"""The action `m365.get_sign_ins`: from where did this account sign in?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365 import times
from counterplay_m365.graph import Graph, literal
from counterplay_m365.licences import ENTRA_P1

_SHOWN = (
    "id",
    "createdDateTime",
    "ipAddress",
    "location",
    "appDisplayName",
    "appId",
    "clientAppUsed",
    "deviceDetail",
    "status",
    "conditionalAccessStatus",
    "riskState",
    "riskLevelDuringSignIn",
    "correlationId",
)


class GetSignIns(Action):
    """Read the interactive sign-ins of a user, the newest first.

    The log lags by minutes, sometimes by hours, and shows interactive sign-ins only: a stolen token that is
    used is not among them (`m365.sign_ins` with `nonInteractiveUser` follows those).

    Needs:
        Graph application permissions `AuditLog.Read.All` and `User.Read.All`; Entra ID P1.
    Result:
        `{"user_id": str, "sign_ins": [...], "complete": bool}`, each as Graph spells it; `complete` is
        false when there are more than `limit`.
    Source:
        https://learn.microsoft.com/graph/api/signin-list
    """

    name = "get_sign_ins"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user_id, limit = self.arguments["user_id"], int(self.arguments["limit"])
        graph = Graph(context)
        identity = graph.object_id(user_id)
        since = times.floor(context.now() - times.span(str(self.arguments["look_back"])))
        query = {
            "$filter": f"userId eq {literal(identity)} and createdDateTime ge {times.stamp(since)}Z",
            "$orderby": "createdDateTime desc",
            "$top": str(min(limit, 1000)),
        }
        found, complete = graph.first(
            "/auditLogs/signIns",
            f"the sign-ins of {user_id!r}",
            query,
            limit,
            needs="AuditLog.Read.All",
            licence=ENTRA_P1,
        )
        shown = [{name: one.get(name) for name in _SHOWN} for one in found]
        return {"user_id": user_id, "sign_ins": shown, "complete": complete}
