"""The action `m365.restore_consents`: give an app back what people consented to."""

from __future__ import annotations

from typing import Any

from counterplay import JsonObject, StepContext
from counterplay_m365.actions.removal import Restoring
from counterplay_m365.applications import Applications, scopes

_SET = ("clientId", "consentType", "principalId", "resourceId", "scope")


class RestoreConsents(Restoring):
    """Create delegated consents (OAuth), as an earlier state showed them.

    A consent that is there already is not created twice; all are to one app. Taken back by
    `m365.remove_consents`.

    Needs:
        Graph application permissions `DelegatedPermissionGrant.ReadWrite.All` and `Application.Read.All`.
    Result:
        `{"restored": [{"id", "service_principal_id", "scopes"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/oauth2permissiongrant-post
    """

    name = "restore_consents"
    member = "consents"
    opposite = "m365.remove_consents"

    def present(self, context: StepContext) -> list[JsonObject]:
        applications = Applications(context)
        apps = sorted({one["clientId"] for one in self.arguments["consents"]})
        return [grant for app in apps for grant in applications.grants_of_app(app)]

    def content(self, one: JsonObject) -> Any:
        return [one.get(name) for name in _SET[:-1]], sorted(scopes(one))

    def create(self, context: StepContext, one: JsonObject) -> JsonObject:
        values = {name: one[name] for name in _SET if one.get(name) is not None}
        return Applications(context).create_grant(values)

    def shown(self, one: JsonObject) -> JsonObject:
        return {"id": one.get("id"), "service_principal_id": one.get("clientId"), "scopes": scopes(one)}

    def owner(self, context: StepContext) -> JsonObject:
        app = Applications(context).principal(self.arguments["consents"][0]["clientId"])
        return {name: app.get(name) for name in ("id", "appId", "displayName")}

    def target(self) -> str | None:
        return str(self.arguments["consents"][0]["clientId"])

    def taken_back(self, ids: list[str]) -> JsonObject:
        wide = any(one.get("consentType") == "AllPrincipals" for one in self.arguments["consents"])
        return {"app_id": self.target(), "consent_ids": ids, "include_tenant_wide": wide}
