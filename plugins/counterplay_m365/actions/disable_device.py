"""The action `m365.disable_device`: keep a device out of the tenant."""

from __future__ import annotations

from counterplay_m365.actions.device_switch import SetDevice


class DisableDevice(SetDevice):
    """Disable a device in the directory, so that it cannot sign in or pass for a known one.

    The device itself goes on working, on the network too: `m365.isolate_machine` stops that. Disabling what
    is disabled changes nothing. Taken back by `m365.enable_device`.

    Needs:
        Graph application permission `Device.ReadWrite.All`.
    Result:
        `{"device_id": str, "name": str, "account_enabled": false}`
    Source:
        https://learn.microsoft.com/graph/api/device-update
    """

    name = "disable_device"
    enabled = False
    opposite = "m365.enable_device"
