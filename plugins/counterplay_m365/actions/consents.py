"""Which delegated consents the arguments `user_id` and `app_id` mean, and whose they are."""

from __future__ import annotations

from counterplay import Context, JsonObject
from counterplay_m365.applications import Applications


def meant(context: Context, arguments: JsonObject) -> list[JsonObject]:
    """The consents of a user, to an app, or both; those to an app with the ones for everybody."""
    applications = Applications(context)
    user_id, app_id = arguments.get("user_id"), arguments.get("app_id")
    if not app_id:
        return applications.grants_of_user(str(user_id))
    found = applications.grants_of_app(applications.principal(app_id)["id"])
    if not user_id:
        return found
    person = applications.object_id(user_id)
    return [one for one in found if one.get("principalId") in (None, person)]


def owner(context: Context, arguments: JsonObject) -> JsonObject:
    """Who guards and people know it by: the user where one is named, else the app."""
    applications = Applications(context)
    if arguments.get("user_id"):
        user = applications.user(arguments["user_id"], ("id", "userPrincipalName"))
        return {name: user.get(name) for name in ("id", "userPrincipalName")}
    app = applications.principal(arguments["app_id"])
    return {name: app.get(name) for name in ("id", "appId", "displayName")}
