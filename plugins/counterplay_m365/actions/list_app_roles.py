"""The action `m365.list_app_roles`: what may an app do by itself, and which apps may a user use?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.actions import app_roles
from counterplay_m365.applications import Applications, name_of


class ListAppRoles(Action):
    """List the application permissions that an app holds, or the apps that a user is assigned to.

    Needs:
        Graph application permissions `Application.Read.All`, and `Directory.Read.All` with `user_id`.
    Result:
        `{"assignments": [{"id", "app_role_id", "role", "principal_id", "principal_name",
        "principal_type", "resource_id", "resource_name"}]}`; `role` is null for plain access to an app.
    Source:
        https://learn.microsoft.com/graph/api/serviceprincipal-list-approleassignments
    """

    name = "list_app_roles"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        found = app_roles.meant(context, self.arguments)
        apps = Applications(context).named(one["resourceId"] for one in found)
        return {
            "assignments": [
                {
                    "id": one["id"],
                    "app_role_id": one.get("appRoleId"),
                    "role": app_roles.role_of(one, apps),
                    "principal_id": one.get("principalId"),
                    "principal_name": one.get("principalDisplayName"),
                    "principal_type": one.get("principalType"),
                    "resource_id": one["resourceId"],
                    "resource_name": one.get("resourceDisplayName") or name_of(apps.get(one["resourceId"])),
                }
                for one in found
            ]
        }
