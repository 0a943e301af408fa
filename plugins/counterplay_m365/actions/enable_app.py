"""The action `m365.enable_app`: let an enterprise app work again."""

from __future__ import annotations

from counterplay_m365.actions.app_switch import SetApp


class EnableApp(SetApp):
    """Enable an enterprise app, after `m365.disable_app`.

    Enabling what is enabled changes nothing. Taken back by `m365.disable_app`.

    Needs:
        Graph application permission `Application.ReadWrite.All`.
    Result:
        `{"app_id": str, "service_principal_id": str, "name": str, "account_enabled": true}`
    Source:
        https://learn.microsoft.com/graph/api/serviceprincipal-update
    """

    name = "enable_app"
    enabled = True
    opposite = "m365.disable_app"
