"""The national clouds: where each keeps its sign-in, its Graph and its audit feed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cloud:
    """Base addresses of one cloud. They are also the names of the resources that a token is made for."""

    authority: str
    graph: str
    activity: str
    defender: str
    """Defender for Endpoint; empty where the cloud has none for apps."""


# https://learn.microsoft.com/graph/deployments and the Management Activity API reference; the audit
# feed of 21Vianet is not in Microsoft's list, and taken from tools that work there.
CLOUDS = {
    "global": Cloud(
        "https://login.microsoftonline.com",
        "https://graph.microsoft.com",
        "https://manage.office.com",
        "https://api.securitycenter.microsoft.com",
    ),
    "gcc": Cloud(
        "https://login.microsoftonline.com",
        "https://graph.microsoft.com",
        "https://manage-gcc.office.com",
        "https://api-gcc.securitycenter.microsoft.us",
    ),
    "gcc_high": Cloud(
        "https://login.microsoftonline.us",
        "https://graph.microsoft.us",
        "https://manage.office365.us",
        "https://api-gov.securitycenter.microsoft.us",
    ),
    "dod": Cloud(
        "https://login.microsoftonline.us",
        "https://dod-graph.microsoft.us",
        "https://manage.protection.apps.mil",
        "https://api-gov.securitycenter.microsoft.us",
    ),
    "china": Cloud(
        "https://login.partner.microsoftonline.cn",
        "https://microsoftgraph.chinacloudapi.cn",
        "https://manage.office365.cn",
        "",
    ),
}
