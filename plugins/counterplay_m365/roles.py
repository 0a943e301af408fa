"""The part of Graph about directory roles: who holds which, directly and through groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterplay import JsonObject, PermanentError
from counterplay_m365.graph import Graph, literal, segment, user_path

READ = frozenset(
    {
        "RoleManagement.Read.Directory",
        "RoleManagement.ReadWrite.Directory",
        "Directory.Read.All",
        "Directory.ReadWrite.All",
    }
)
"""Application permissions of which any is enough to read who holds a role."""
_READ = "RoleManagement.Read.Directory"
_WRITE = "RoleManagement.ReadWrite.Directory"
_AT_ONCE = 15  # ids in one filter
_ASSIGNMENTS = "/roleManagement/directory/roleAssignments"


def scope_of(assignment: JsonObject) -> str:
    """Where a role assignment holds: "/" is the whole tenant."""
    return str(assignment.get("directoryScopeId") or "/")


class Roles(Graph):
    """Directory roles of the tenant of a context."""

    def memberships(self, user_id: str) -> list[JsonObject]:
        """The groups and tenant-wide activated roles of a user, also through other groups.

        Names of groups are null for an app that may not read groups.
        """
        path = f"{user_path(user_id)}/transitiveMemberOf"
        return self.every(path, f"the memberships of {user_id!r}", needs="User.Read.All")

    def assignments(self, principals: Sequence[str]) -> list[JsonObject]:
        """The active role assignments of these principals, each with its `roleDefinition`."""
        found: list[JsonObject] = []
        for start in range(0, len(principals), _AT_ONCE):
            some = principals[start : start + _AT_ONCE]
            test = f"in ({', '.join(map(literal, some))})" if len(some) > 1 else f"eq {literal(some[0])}"
            query = {"$filter": f"principalId {test}", "$expand": "roleDefinition"}
            found += self.every(_ASSIGNMENTS, "role assignments", query, needs=_READ)
        return found

    def definition(self, role: str) -> JsonObject:
        """A role by its name, its id or its template's. PermanentError: there is no such role."""
        query = {"$select": "id,displayName,templateId,isBuiltIn"}
        known = self.every("/roleManagement/directory/roleDefinitions", "roles", query, needs=_READ)
        wanted = role.strip().casefold()
        for one in known:
            names: list[Any] = [one.get("displayName"), one["id"], one.get("templateId")]
            if wanted in (str(name).casefold() for name in names if name):
                return one
        raise PermanentError(
            f"there is no role {role!r} in the tenant",
            hint="write its name as Entra ID shows it, e.g. Global Administrator",
        )

    def assign(self, principal: str, definition: str, scope: str) -> JsonObject:
        """Give a role; the assignment."""
        values = {"principalId": principal, "roleDefinitionId": definition, "directoryScopeId": scope}
        return self.write("POST", _ASSIGNMENTS, f"the roles of {principal!r}", values, needs=_WRITE)

    def unassign(self, assignment: str) -> None:
        """Take a role away. GoneError: there is no such assignment."""
        path = f"{_ASSIGNMENTS}/{segment(assignment)}"
        self.write("DELETE", path, f"the role assignment {assignment!r}", needs=_WRITE)
