"""The action `m365.remove_consents`: take an app's permission to act in somebody's name."""

from __future__ import annotations

from counterplay import Inverse, JsonObject, StepContext
from counterplay_m365.actions import consents
from counterplay_m365.actions.removal import ReversibleRemoval
from counterplay_m365.applications import Applications, scopes


class RemoveConsents(ReversibleRemoval):
    """Remove delegated consents (OAuth) of a user, to an app, or those that are named.

    A consent for everybody stays unless `include_tenant_wide` is set: removing it concerns each user of the
    app. Access tokens that were issued live on for an hour or so; a user may consent again. Removing what
    is gone changes nothing. Taken back by `m365.restore_consents`.

    Needs:
        Graph application permissions `DelegatedPermissionGrant.ReadWrite.All`, `Application.Read.All` with
        `app_id`, `User.Read.All` with `user_id`.
    Result:
        `{"user_id", "app_id", "removed": [{"id", "service_principal_id", "scopes"}], "skipped": [{"id",
        "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/oauth2permissiongrant-delete
    """

    name = "remove_consents"
    named = "consent_ids"

    def present(self, context: StepContext) -> list[JsonObject]:
        return consents.meant(context, self.arguments)

    def kept(self, one: JsonObject) -> str | None:
        if one.get("consentType") != "AllPrincipals" or self.arguments.get("include_tenant_wide"):
            return None
        return "it is a consent for everybody: set `include_tenant_wide` to remove it"

    def caution(self, before: JsonObject) -> str | None:
        wide = [one for one in before["objects"] if one.get("consentType") == "AllPrincipals"]
        if not wide or not self.arguments.get("include_tenant_wide"):
            return None
        return "a consent for everybody is removed: the app stops for each of its users"

    def delete(self, context: StepContext, one: JsonObject) -> None:
        Applications(context).delete_grant(one["id"])

    def shown(self, one: JsonObject) -> JsonObject:
        return {"id": one["id"], "service_principal_id": one["clientId"], "scopes": scopes(one)}

    def owner(self, context: StepContext) -> JsonObject:
        return consents.owner(context, self.arguments)

    def way_back(self, before: JsonObject, objects: list[JsonObject]) -> Inverse:
        return Inverse("m365.restore_consents", {"consents": objects})
