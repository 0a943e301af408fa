"""The action `m365.remove_app_roles`: take permissions from an app, or an app from a user."""

from __future__ import annotations

from counterplay import Inverse, JsonObject, StepContext
from counterplay_m365.actions import app_roles, consents
from counterplay_m365.actions.removal import ReversibleRemoval
from counterplay_m365.applications import Applications


class RemoveAppRoles(ReversibleRemoval):
    """Remove the application permissions of an app, or the apps that a user is assigned to.

    Without `assignment_ids` all of them. Tokens that were issued carry them for an hour or so. Removing
    what is gone changes nothing. Taken back by `m365.restore_app_roles`, under new ids.

    Needs:
        Graph application permissions `AppRoleAssignment.ReadWrite.All`, `Application.Read.All` with
        `app_id`, `User.Read.All` with `user_id`.
    Result:
        `{"user_id", "app_id", "removed": [{"id", "app_role_id", "resource_name"}], "skipped": [{"id",
        "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/serviceprincipal-delete-approleassignments
    """

    name = "remove_app_roles"
    named = "assignment_ids"

    def present(self, context: StepContext) -> list[JsonObject]:
        return app_roles.meant(context, self.arguments)

    def delete(self, context: StepContext, one: JsonObject) -> None:
        Applications(context).unassign_role(one)

    def shown(self, one: JsonObject) -> JsonObject:
        return {
            "id": one["id"],
            "app_role_id": one.get("appRoleId"),
            "resource_name": one.get("resourceDisplayName"),
        }

    def owner(self, context: StepContext) -> JsonObject:
        return consents.owner(context, self.arguments)

    def way_back(self, before: JsonObject, objects: list[JsonObject]) -> Inverse:
        return Inverse("m365.restore_app_roles", {"assignments": objects})
