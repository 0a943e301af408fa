"""The part of Graph about enterprise apps: service principals, delegated consents, app roles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from counterplay import GoneError, JsonObject
from counterplay_m365.graph import Graph, literal, segment, user_path

MICROSOFT = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"
"""The tenant that owns Microsoft's own apps."""
READ_APPS = "Application.Read.All"
WRITE_APPS = "Application.ReadWrite.All"
READ_GRANTS = "Directory.Read.All"
WRITE_GRANTS = "DelegatedPermissionGrant.ReadWrite.All"
WRITE_ROLES = "AppRoleAssignment.ReadWrite.All"
#: Delegated permissions with which an app reads or sends mail, takes files, or stays when the user left.
TELLING_SCOPES = re.compile(
    r"^(Mail\.|MailboxSettings\.|EWS\.|IMAP\.|POP\.|SMTP\.|full_access|Files\.|Sites\.|Notes\.|Chat|Contacts\."
    r"|Directory\.|User\.ReadWrite|Application\.|RoleManagement\.|offline_access$)",
    re.IGNORECASE,
)
_SHOWN = (
    "id",
    "appId",
    "displayName",
    "accountEnabled",
    "appOwnerOrganizationId",
    "servicePrincipalType",
    "verifiedPublisher",
)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_AT_ONCE = 15  # ids in one filter


class Applications(Graph):
    """Enterprise apps of the tenant of a context, by application (client) id or by object id."""

    def principal(self, app_id: str) -> JsonObject:
        """The service principal of an app. GoneError: the tenant has none."""
        if not _GUID.fullmatch(app_id):
            raise GoneError(f"no app {app_id!r} in the tenant: its id would be a GUID")
        select = ",".join(_SHOWN)
        query = {"$filter": f"appId eq {literal(app_id)}", "$select": select}
        found = self.every("/servicePrincipals", f"the app {app_id!r}", query, needs=READ_APPS)
        if not found:
            what = f"the app {app_id!r}"
            found = [self.one(_principal(app_id), what, {"$select": select}, needs=READ_APPS)]
        return {name: found[0].get(name) for name in _SHOWN}

    def set_principal(self, identity: str, values: JsonObject) -> None:
        """Change properties of a service principal, by its object id."""
        self.write("PATCH", _principal(identity), f"the app {identity!r}", values, needs=WRITE_APPS)

    def named(self, ids: Iterable[str]) -> dict[str, JsonObject]:
        """Service principals by object id, those that exist, with their app roles."""
        wanted = sorted(set(ids))
        found: dict[str, JsonObject] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = ", ".join(map(literal, wanted[start : start + _AT_ONCE]))
            query = {"$filter": f"id in ({some})", "$select": ",".join((*_SHOWN, "appRoles"))}
            for one in self.every("/servicePrincipals", "apps", query, needs=READ_APPS):
                found[one["id"]] = one
        return found

    def grants_of_user(self, user_id: str) -> list[JsonObject]:
        """What a user consented to. GoneError: there is no such user."""
        path, what = f"{user_path(user_id)}/oauth2PermissionGrants", f"the consents of {user_id!r}"
        return self.every(path, what, needs=READ_GRANTS)

    def grants_of_app(self, identity: str) -> list[JsonObject]:
        """What anybody consented to for an app, by its object id."""
        path, what = f"{_principal(identity)}/oauth2PermissionGrants", f"the consents to {identity!r}"
        return self.every(path, what, needs=READ_GRANTS)

    def create_grant(self, grant: JsonObject) -> JsonObject:
        """Consent for somebody; the grant."""
        return self.write("POST", "/oauth2PermissionGrants", "consents", grant, needs=WRITE_GRANTS)

    def delete_grant(self, identity: str) -> None:
        """Take a consent back. GoneError: it does not exist."""
        path = f"/oauth2PermissionGrants/{segment(identity)}"
        self.write("DELETE", path, f"the consent {identity!r}", needs=WRITE_GRANTS)

    def roles_of_user(self, user_id: str) -> list[JsonObject]:
        """The apps that a user is assigned to. GoneError: there is no such user."""
        path, what = f"{user_path(user_id)}/appRoleAssignments", f"the app roles of {user_id!r}"
        return self.every(path, what, needs=READ_GRANTS)

    def roles_of_app(self, identity: str) -> list[JsonObject]:
        """The application permissions that an app holds, by its object id."""
        path, what = f"{_principal(identity)}/appRoleAssignments", f"the app roles of {identity!r}"
        return self.every(path, what, needs=READ_APPS)

    def assign_role(self, assignment: JsonObject) -> JsonObject:
        """Give a user or an app a role of a resource; the assignment."""
        path = f"{_principal(assignment['resourceId'])}/appRoleAssignedTo"
        return self.write("POST", path, "app roles", assignment, needs=WRITE_ROLES)

    def unassign_role(self, assignment: JsonObject) -> None:
        """Take an app role away. GoneError: it does not exist."""
        of_user = assignment.get("principalType") == "User"
        holder = f"/{'users' if of_user else 'servicePrincipals'}/{segment(assignment['principalId'])}"
        path = f"{holder}/appRoleAssignments/{segment(assignment['id'])}"
        self.write("DELETE", path, f"the app role {assignment['id']!r}", needs=WRITE_ROLES)


def name_of(app: JsonObject | None) -> str | None:
    """What people call an app; None when it does not exist."""
    return str(app["displayName"]) if app and app.get("displayName") else None


def risks(grant: JsonObject, app: JsonObject | None, tenant_id: str) -> list[str]:
    """What makes a consent worth a look, in words; empty for Microsoft's own apps."""
    owner = str((app or {}).get("appOwnerOrganizationId") or "").lower()
    if owner == MICROSOFT:
        return []
    telling = [one for one in scopes(grant) if TELLING_SCOPES.search(one)]
    found = [f"may {', '.join(telling)}"] if telling else []
    publisher: Any = (app or {}).get("verifiedPublisher") or {}
    if owner and owner != tenant_id and not publisher.get("verifiedPublisherId"):
        found.append("is another organisation's app without a verified publisher")
    return found


def scopes(grant: JsonObject) -> list[str]:
    """The delegated permissions of a consent."""
    return str(grant.get("scope") or "").split()


def _principal(identity: str) -> str:
    return f"/servicePrincipals/{segment(identity)}"
