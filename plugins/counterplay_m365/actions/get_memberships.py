"""The action `m365.get_memberships`: what may this account do?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.roles import READ, Roles
from counterplay_m365.tenant import GRAPH, tenant


class GetMemberships(Action):
    """Read the groups and the directory roles of a user, also those through other groups.

    An app that may not read role assignments sees the tenant-wide roles that are activated, and not those
    of administrative units; one that may not read groups sees no names of groups.

    Needs:
        Graph application permission `User.Read.All`; `RoleManagement.Read.Directory` for all roles, and
        `GroupMember.Read.All` for the names of groups.
    Result:
        `{"user_id": str, "groups": [{"id", "name", "role_assignable"}], "roles": [{"name", "definition_id",
        "scope", "via"}], "is_admin": bool}`; `via` is the group through which a role is held.
    Source:
        https://learn.microsoft.com/graph/api/user-list-transitivememberof
    """

    name = "get_memberships"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        roles = Roles(context)
        members = roles.memberships(user_id)
        groups = [one for one in members if str(one.get("@odata.type")).endswith(".group")]
        found = [
            {
                "name": one.get("displayName"),
                "definition_id": one.get("roleTemplateId"),
                "scope": "/",
                "via": None,
            }
            for one in members
            if str(one.get("@odata.type")).endswith(".directoryRole")
        ]
        if READ & set(tenant(context).granted(GRAPH) or ()):
            user = roles.object_id(user_id)
            assigned = roles.assignments([user, *(one["id"] for one in groups)])
            found = [_shown(one, user) for one in assigned]
        return {
            "user_id": user_id,
            "groups": [
                {
                    "id": one["id"],
                    "name": one.get("displayName"),
                    "role_assignable": one.get("isAssignableToRole"),
                }
                for one in groups
            ],
            "roles": found,
            "is_admin": bool(found),
        }


def _shown(assignment: JsonObject, user: str) -> JsonObject:
    role = assignment.get("roleDefinition") or {}
    holder = assignment["principalId"]
    return {
        "name": role.get("displayName"),
        "definition_id": assignment.get("roleDefinitionId"),
        "scope": assignment.get("directoryScopeId") or "/",
        "via": None if holder == user else holder,
    }
