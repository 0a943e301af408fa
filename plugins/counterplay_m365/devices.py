"""The part of Graph about devices of the directory."""

from __future__ import annotations

from counterplay import GoneError, JsonObject
from counterplay_m365.graph import Graph, literal, segment, user_path

_READ = "Device.Read.All"
_WRITE = "Device.ReadWrite.All"
_SHOWN = (
    "id",
    "deviceId",
    "displayName",
    "accountEnabled",
    "operatingSystem",
    "operatingSystemVersion",
    "isCompliant",
    "isManaged",
    "trustType",
    "approximateLastSignInDateTime",
)


class Devices(Graph):
    """Devices of the tenant of a context, by device id as alerts carry it, or by object id."""

    def device(self, device_id: str) -> JsonObject:
        """One device. GoneError: there is none."""
        what = f"the device {device_id!r}"
        query = {"$select": ",".join(_SHOWN)}
        by_device_id = {"$filter": f"deviceId eq {literal(device_id)}", **query}
        found = self.every("/devices", what, by_device_id, needs=_READ)
        found = found or self.every(
            "/devices", what, {"$filter": f"id eq {literal(device_id)}", **query}, needs=_READ
        )
        if not found:
            raise GoneError(f"{what} does not exist in the directory")
        return {name: found[0].get(name) for name in _SHOWN}

    def set_device(self, identity: str, values: JsonObject) -> None:
        """Change properties of a device, by its object id."""
        path = f"/devices/{segment(identity)}"
        self.write("PATCH", path, f"the device {identity!r}", values, needs=_WRITE)

    def of_user(self, user_id: str) -> list[JsonObject]:
        """The devices that a user registered. GoneError: there is no such user."""
        path, what = f"{user_path(user_id)}/registeredDevices", f"the devices of {user_id!r}"
        return self.every(path, what, needs="User.Read.All")
