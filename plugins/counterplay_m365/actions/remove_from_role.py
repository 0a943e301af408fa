"""The action `m365.remove_from_role`: take a directory role from an account."""

from __future__ import annotations

from counterplay import Inverse, JsonObject, StepContext
from counterplay_m365.actions.removal import ReversibleRemoval
from counterplay_m365.roles import Roles, scope_of


class RemoveFromRole(ReversibleRemoval):
    """Remove a user from a directory role, in every scope in which the role was given or in some.

    A role that is held through a group is reported, not removed: take the account out of the group. The
    last Global Administrator keeps the role. Removing what is gone changes nothing. Taken back by
    `m365.add_to_role`.

    Needs:
        Graph application permissions `RoleManagement.ReadWrite.Directory` and `User.Read.All`. The first
        lets an app make itself an administrator: grant it only where this action is wanted.
    Result:
        `{"user_id": str, "removed": [{"id", "role", "scope"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/unifiedroleassignment-delete
    """

    name = "remove_from_role"

    def present(self, context: StepContext) -> list[JsonObject]:
        roles = Roles(context)
        user = roles.object_id(self.arguments["user_id"])
        wanted = roles.definition(self.arguments["role"])["id"]
        groups = [
            one["id"]
            for one in roles.memberships(user)
            if str(one.get("@odata.type")).endswith(".group") and one.get("isAssignableToRole") is not False
        ]
        found = roles.assignments([user, *groups])
        return [{**one, "user": user} for one in found if one.get("roleDefinitionId") == wanted]

    def chosen(self, context: StepContext) -> list[JsonObject]:
        scopes = self.arguments.get("scopes")
        found = self.present(context)
        return [one for one in found if scope_of(one) in scopes] if scopes else found

    def kept(self, one: JsonObject) -> str | None:
        if one["principalId"] == one["user"]:
            return None
        return f"it is held through the group {one['principalId']}: take the account out of the group"

    def delete(self, context: StepContext, one: JsonObject) -> None:
        Roles(context).unassign(one["id"])

    def shown(self, one: JsonObject) -> JsonObject:
        role = one.get("roleDefinition") or {}
        return {
            "id": one["id"],
            "role": role.get("displayName") or self.arguments["role"],
            "scope": scope_of(one),
        }

    def owner(self, context: StepContext) -> JsonObject:
        user = Roles(context).user(self.arguments["user_id"], ("id", "userPrincipalName"))
        return {name: user.get(name) for name in ("id", "userPrincipalName")}

    def way_back(self, before: JsonObject, objects: list[JsonObject]) -> Inverse:
        scopes = [scope_of(one) for one in objects]
        given = {"user_id": before["id"], "role": objects[0]["roleDefinitionId"], "scopes": scopes}
        return Inverse("m365.add_to_role", given)
