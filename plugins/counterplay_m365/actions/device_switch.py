"""What disabling and enabling a device share."""

from __future__ import annotations

from typing import ClassVar

from counterplay import JsonObject, StepContext
from counterplay_m365.actions.setting import Switch
from counterplay_m365.devices import Devices


class SetDevice(Switch):
    """Sets `accountEnabled` of a device: whether it may sign in to Entra ID."""

    key: ClassVar[str] = "device_id"

    def read(self, context: StepContext) -> JsonObject:
        return Devices(context).device(self.arguments["device_id"])

    def write(self, context: StepContext, values: JsonObject) -> None:
        before = self._before or self.read(context)
        Devices(context).set_device(before["id"], values)

    def done(self, before: JsonObject) -> JsonObject:
        return {
            "device_id": self.arguments["device_id"],
            "name": before.get("displayName"),
            "account_enabled": self.enabled,
        }
