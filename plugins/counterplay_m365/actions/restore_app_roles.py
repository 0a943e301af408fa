"""The action `m365.restore_app_roles`: give an app or a user back the app roles that were removed."""

from __future__ import annotations

from typing import Any

from counterplay import JsonObject, StepContext
from counterplay_m365.actions.removal import Restoring
from counterplay_m365.applications import Applications

_SET = ("principalId", "resourceId", "appRoleId")


class RestoreAppRoles(Restoring):
    """Create app role assignments, as an earlier state showed them; all are of one app or user.

    An assignment that is there already is not created twice. Taken back by `m365.remove_app_roles`.

    Needs:
        Graph application permissions `AppRoleAssignment.ReadWrite.All` and `Application.Read.All`, and
        `Directory.Read.All` for those of users.
    Result:
        `{"restored": [{"id", "app_role_id", "resource_name"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/serviceprincipal-post-approleassignedto
    """

    name = "restore_app_roles"
    member = "assignments"
    opposite = "m365.remove_app_roles"

    def present(self, context: StepContext) -> list[JsonObject]:
        holder = str(self.target())
        applications = Applications(context)
        return applications.roles_of_user(holder) if self._of_user else applications.roles_of_app(holder)

    def content(self, one: JsonObject) -> Any:
        return [one.get(name) for name in _SET]

    def create(self, context: StepContext, one: JsonObject) -> JsonObject:
        return Applications(context).assign_role({name: one.get(name) for name in _SET})

    def shown(self, one: JsonObject) -> JsonObject:
        return {
            "id": one.get("id"),
            "app_role_id": one.get("appRoleId"),
            "resource_name": one.get("resourceDisplayName"),
        }

    def owner(self, context: StepContext) -> JsonObject:
        return {
            "id": self.target(),
            "displayName": self.arguments["assignments"][0].get("principalDisplayName"),
        }

    def target(self) -> str | None:
        return str(self.arguments["assignments"][0]["principalId"])

    def taken_back(self, ids: list[str]) -> JsonObject:
        return {"user_id" if self._of_user else "app_id": self.target(), "assignment_ids": ids}

    @property
    def _of_user(self) -> bool:
        return bool(self.arguments["assignments"][0].get("principalType") == "User")
