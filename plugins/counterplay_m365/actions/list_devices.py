"""The action `m365.list_devices`: with what does this user work?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.devices import Devices


class ListDevices(Action):
    """List the devices that a user registered in the directory.

    `device_id` is what `m365.disable_device` and `m365.isolate_machine` take, and what alerts carry.

    Needs:
        Graph application permission `User.Read.All`, and `Device.Read.All` for the properties.
    Result:
        `{"user_id": str, "devices": [{"id", "device_id", "name", "enabled", "system", "version",
        "compliant", "managed", "trust", "registered", "last_sign_in"}]}`
    Source:
        https://learn.microsoft.com/graph/api/user-list-registereddevices
    """

    name = "list_devices"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        found = Devices(context).of_user(user_id)
        return {"user_id": user_id, "devices": [_shown(one) for one in found]}


def _shown(one: JsonObject) -> JsonObject:
    return {
        "id": one["id"],
        "device_id": one.get("deviceId"),
        "name": one.get("displayName"),
        "enabled": one.get("accountEnabled"),
        "system": one.get("operatingSystem"),
        "version": one.get("operatingSystemVersion"),
        "compliant": one.get("isCompliant"),
        "managed": one.get("isManaged"),
        "trust": one.get("trustType"),
        "registered": one.get("registrationDateTime"),
        "last_sign_in": one.get("approximateLastSignInDateTime"),
    }
