"""The action `m365.enable_device`: let a device in again."""

from __future__ import annotations

from counterplay_m365.actions.device_switch import SetDevice


class EnableDevice(SetDevice):
    """Enable a device in the directory, after `m365.disable_device`.

    Enabling what is enabled changes nothing. Taken back by `m365.disable_device`.

    Needs:
        Graph application permission `Device.ReadWrite.All`.
    Result:
        `{"device_id": str, "name": str, "account_enabled": true}`
    Source:
        https://learn.microsoft.com/graph/api/device-update
    """

    name = "enable_device"
    enabled = True
    opposite = "m365.disable_device"
