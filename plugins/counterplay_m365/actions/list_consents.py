"""The action `m365.list_consents`: which apps may act in whose name?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.actions import consents
from counterplay_m365.applications import Applications, name_of, risks, scopes
from counterplay_m365.tenant import tenant


class ListConsents(Action):
    """List delegated consents (OAuth) of a user or to an app, each with what makes it worth a look.

    With `app_id` the consents of an administrator for everybody are there too: `principal_id` is null.
    `risky` names permissions for mail, files and staying, and apps of other organisations without a
    verified publisher.

    Needs:
        Graph application permissions `Directory.Read.All` (or `DelegatedPermissionGrant.ReadWrite.All`)
        and `Application.Read.All`.
    Result:
        `{"consents": [{"id", "app_id", "app_name", "service_principal_id", "consent_type",
        "principal_id", "resource_id", "resource_name", "scopes", "risky"}]}`
    Source:
        https://learn.microsoft.com/graph/api/oauth2permissiongrant-list
    """

    name = "list_consents"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        found = consents.meant(context, self.arguments)
        ids = [one[name] for one in found for name in ("clientId", "resourceId")]
        apps = Applications(context).named(ids)
        own = tenant(context).tenant
        return {
            "consents": [
                {
                    "id": one["id"],
                    "app_id": (apps.get(one["clientId"]) or {}).get("appId"),
                    "app_name": name_of(apps.get(one["clientId"])),
                    "service_principal_id": one["clientId"],
                    "consent_type": one.get("consentType"),
                    "principal_id": one.get("principalId"),
                    "resource_id": one["resourceId"],
                    "resource_name": name_of(apps.get(one["resourceId"])),
                    "scopes": scopes(one),
                    "risky": risks(one, apps.get(one["clientId"]), own),
                }
                for one in found
            ]
        }
