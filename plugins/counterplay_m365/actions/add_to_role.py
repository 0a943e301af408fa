"""The action `m365.add_to_role`: give an account a directory role back."""

from __future__ import annotations

from typing import Any

from counterplay import Inverse, JsonObject, StepContext
from counterplay_m365.actions.removal import Restoring
from counterplay_m365.roles import Roles, scope_of


class AddToRole(Restoring):
    """Give a user a directory role, after `m365.remove_from_role`.

    A role that is there already is not given twice. Taken back by `m365.remove_from_role` in the scopes
    in which it was given; in others it stays.

    Needs:
        Graph application permissions `RoleManagement.ReadWrite.Directory` and `User.Read.All`. The first
        lets an app make itself an administrator: grant it only where this action is wanted.
    Result:
        `{"user_id": str, "restored": [{"id", "role", "scope"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/rbacapplication-post-roleassignments
    """

    name = "add_to_role"
    member = "scopes"

    def wanted(self, context: StepContext) -> list[JsonObject]:
        roles = Roles(context)
        user = roles.object_id(self.arguments["user_id"])
        role = roles.definition(self.arguments["role"])["id"]
        scopes = self.arguments.get("scopes") or ["/"]
        return [
            {"principalId": user, "roleDefinitionId": role, "directoryScopeId": scope} for scope in scopes
        ]

    def present(self, context: StepContext) -> list[JsonObject]:
        roles = Roles(context)
        return roles.assignments([roles.object_id(self.arguments["user_id"])])

    def content(self, one: JsonObject) -> Any:
        return one["principalId"], one["roleDefinitionId"], scope_of(one)

    def create(self, context: StepContext, one: JsonObject) -> JsonObject:
        return Roles(context).assign(one["principalId"], one["roleDefinitionId"], one["directoryScopeId"])

    def shown(self, one: JsonObject) -> JsonObject:
        return {
            "id": one.get("id"),
            "role": self.arguments["role"],
            "scope": scope_of(one),
        }

    def owner(self, context: StepContext) -> JsonObject:
        user = Roles(context).user(self.arguments["user_id"], ("id", "userPrincipalName"))
        return {name: user.get(name) for name in ("id", "userPrincipalName")}

    def about(self) -> JsonObject:
        return {"user_id": self.arguments["user_id"]}

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        scopes = [one["scope"] for one in result["restored"]]
        if not scopes:
            return None
        given = {"user_id": self.arguments["user_id"], "role": self.arguments["role"], "scopes": scopes}
        return Inverse("m365.remove_from_role", given)
