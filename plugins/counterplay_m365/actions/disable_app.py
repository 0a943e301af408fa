"""The action `m365.disable_app`: keep an enterprise app out of the tenant."""

from __future__ import annotations

from counterplay_m365.actions.app_switch import SetApp


class DisableApp(SetApp):
    """Disable an enterprise app, so that neither it nor its users get tokens for it.

    Tokens that were issued live on for an hour or so. Microsoft's own apps are refused. Disabling what is
    disabled changes nothing. Taken back by `m365.enable_app`.

    Needs:
        Graph application permission `Application.ReadWrite.All`.
    Result:
        `{"app_id": str, "service_principal_id": str, "name": str, "account_enabled": false}`
    Source:
        https://learn.microsoft.com/graph/api/serviceprincipal-update
    """

    name = "disable_app"
    enabled = False
    opposite = "m365.enable_app"
