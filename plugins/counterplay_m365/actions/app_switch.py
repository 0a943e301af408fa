"""What disabling and enabling an enterprise app share."""

from __future__ import annotations

from typing import ClassVar

from counterplay import JsonObject, PermanentError, StepContext
from counterplay_m365.actions.setting import Switch
from counterplay_m365.applications import MICROSOFT, Applications


class SetApp(Switch):
    """Sets `accountEnabled` of a service principal: whether tokens are given to the app, and for it."""

    key: ClassVar[str] = "app_id"

    def read(self, context: StepContext) -> JsonObject:
        return Applications(context).principal(self.arguments["app_id"])

    def write(self, context: StepContext, values: JsonObject) -> None:
        before = self._before or self.read(context)
        owner = str(before.get("appOwnerOrganizationId") or "").lower()
        if owner == MICROSOFT and not self.enabled:
            raise PermanentError(
                f"{before['displayName']!r} is Microsoft's own app: parts of Microsoft 365 stop without it",
                hint="take the consents and roles of what abuses it away instead",
            )
        Applications(context).set_principal(before["id"], values)

    def done(self, before: JsonObject) -> JsonObject:
        return {
            "app_id": self.arguments["app_id"],
            "service_principal_id": before.get("id"),
            "name": before.get("displayName"),
            "account_enabled": self.enabled,
        }
