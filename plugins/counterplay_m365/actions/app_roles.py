"""Which app role assignments the arguments `user_id` and `app_id` mean."""

from __future__ import annotations

from counterplay import Context, JsonObject
from counterplay_m365.applications import Applications


def meant(context: Context, arguments: JsonObject) -> list[JsonObject]:
    """The apps that a user is assigned to, or the application permissions that an app holds."""
    applications = Applications(context)
    if arguments.get("user_id"):
        found = applications.roles_of_user(arguments["user_id"])
        person = applications.object_id(arguments["user_id"])
        return [one for one in found if one.get("principalId") == person]  # not those through groups
    return applications.roles_of_app(applications.principal(arguments["app_id"])["id"])


def role_of(assignment: JsonObject, apps: dict[str, JsonObject]) -> str | None:
    """The name of the role (`Mail.Read`); None for the default access of an app without roles."""
    resource = apps.get(assignment["resourceId"]) or {}
    for role in resource.get("appRoles") or ():
        if role.get("id") == assignment.get("appRoleId"):
            return str(role.get("value") or role.get("displayName"))
    return None
