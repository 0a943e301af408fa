"""Alerts of the legacy Graph collection (`/security/alerts`), which Microsoft removed: what replaces them.

https://learn.microsoft.com/graph/api/resources/security-alert-legacy-migration
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: The legacy property and what it has become.
FIELDS: Mapping[str, str] = {
    "azureTenantId": "tenantId",
    "closedDateTime": "resolvedDateTime",
    "cloudAppStates": "evidence (cloudApplicationEvidence)",
    "comments": "comments (objects)",
    "confidence": "nothing",
    "eventDateTime": "firstActivityDateTime and lastActivityDateTime",
    "feedback": "classification and determination",
    "fileStates": "evidence (fileEvidence)",
    "hostStates": "evidence (deviceEvidence)",
    "incidentIds": "incidentId",
    "lastModifiedDateTime": "lastUpdateDateTime",
    "networkConnections": "evidence (ipEvidence)",
    "recommendedActions": "recommendedActions (one text)",
    "status newAlert": "status new",
    "userStates": "evidence (userEvidence)",
    "vendorInformation.provider": "serviceSource and productName",
}
MIGRATION = (
    "Microsoft removed /security/alerts: use m365.alerts, whose fields are those of alerts_v2 ("
    + ", ".join(f"{old} is now {new}" for old, new in FIELDS.items())
    + "); the filter m365_from_legacy_alert converts alerts that you have stored"
)
_STATUS = {"newAlert": "new", "inProgress": "inProgress", "resolved": "resolved", "unknown": "unknown"}
_FEEDBACK = {
    "truePositive": ("truePositive", None),
    "falsePositive": ("falsePositive", None),
    "benignPositive": ("informationalExpectedActivity", "confirmedActivity"),
}
_SOURCES = {
    "MCAS": "microsoftDefenderForCloudApps",
    "Microsoft Cloud App Security": "microsoftDefenderForCloudApps",
    "Microsoft Defender ATP": "microsoftDefenderForEndpoint",
    "WDATP": "microsoftDefenderForEndpoint",
    "Azure Advanced Threat Protection": "microsoftDefenderForIdentity",
    "IPC": "azureAdIdentityProtection",
    "Office 365 Security and Compliance": "microsoftDefenderForOffice365",
    "ASC": "microsoftDefenderForCloud",
    "Azure Sentinel": "microsoftSentinel",
}
_SAME = ("id", "title", "description", "severity", "category", "assignedTo", "createdDateTime")


def m365_from_legacy_alert(alert: object) -> dict[str, Any]:
    """`{{ item | m365_from_legacy_alert }}`: a stored legacy alert in the shape of alerts_v2.

    As far as the two agree: what alerts_v2 has no place for (`confidence`, `sourceMaterials`, …) stays
    under `additionalData`. A value that is missing is null.
    """
    if not isinstance(alert, Mapping):
        return {}
    vendor = _mapping(alert.get("vendorInformation"))
    classification, determination = _FEEDBACK.get(str(alert.get("feedback")), (None, None))
    provider = vendor.get("provider")
    incidents = [one for one in _list(alert.get("incidentIds")) if one]
    return {
        **{name: alert.get(name) for name in _SAME},
        "tenantId": alert.get("azureTenantId"),
        "status": _STATUS.get(str(alert.get("status")), "unknown"),
        "classification": classification,
        "determination": determination,
        "serviceSource": _SOURCES.get(str(provider), "unknown"),
        "productName": provider,
        "incidentId": incidents[0] if incidents else None,
        "firstActivityDateTime": alert.get("eventDateTime"),
        "lastActivityDateTime": alert.get("eventDateTime"),
        "lastUpdateDateTime": alert.get("lastModifiedDateTime"),
        "resolvedDateTime": alert.get("closedDateTime"),
        "recommendedActions": "\n".join(str(one) for one in _list(alert.get("recommendedActions"))) or None,
        "comments": [{"comment": one} for one in _list(alert.get("comments")) if isinstance(one, str)],
        "systemTags": list(_list(alert.get("tags"))),
        "evidence": [*_users(alert), *_devices(alert), *_files(alert), *_networks(alert), *_apps(alert)],
        "additionalData": {name: value for name, value in alert.items() if name in _UNPLACED and value},
    }


_UNPLACED = (
    "activityGroupName",
    "azureSubscriptionId",
    "confidence",
    "detectionIds",
    "malwareStates",
    "messageSecurityStates",
    "processes",
    "registryKeyStates",
    "sourceMaterials",
    "triggers",
    "vulnerabilityStates",
)


def _users(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _evidence(
            "user",
            userAccount={
                "accountName": one.get("accountName"),
                "domainName": one.get("domainName"),
                "userPrincipalName": one.get("userPrincipalName"),
                "azureAdUserId": one.get("aadUserId"),
                "userSid": one.get("onPremisesSecurityIdentifier"),
            },
        )
        for one in _objects(alert.get("userStates"))
    ] + [
        _evidence("ip", ipAddress=one["logonIp"])
        for one in _objects(alert.get("userStates"))
        if one.get("logonIp")
    ]


def _devices(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _evidence(
            "device",
            deviceDnsName=one.get("fqdn"),
            hostName=one.get("netBiosName"),
            osPlatform=one.get("os"),
            lastIpAddress=one.get("privateIpAddress"),
            lastExternalIpAddress=one.get("publicIpAddress"),
            riskScore=None,
        )
        for one in _objects(alert.get("hostStates"))
    ]


def _files(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for one in _objects(alert.get("fileStates")):
        known = _mapping(one.get("fileHash"))
        digest = {str(known.get("hashType")): known.get("hashValue")} if known else {}
        details = {"fileName": one.get("name"), "filePath": one.get("path")}
        details |= {name: digest.get(name) for name in ("sha1", "sha256", "md5")}
        found.append(_evidence("file", fileDetails=details))
    return found


def _networks(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _evidence("ip", ipAddress=one[name])
        for one in _objects(alert.get("networkConnections"))
        for name in ("sourceAddress", "destinationAddress")
        if one.get(name)
    ]


def _apps(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _evidence("cloudApplication", displayName=one.get("destinationServiceName"))
        for one in _objects(alert.get("cloudAppStates"))
    ]


def _evidence(kind: str, **members: Any) -> dict[str, Any]:
    """A piece of evidence. The legacy alert did not say which role it played, so none is given."""
    return {
        "@odata.type": f"#microsoft.graph.security.{kind}Evidence",
        "verdict": "unknown",
        "remediationStatus": "none",
        "roles": [],
        "tags": [],
        **members,
    }


def _objects(value: object) -> Iterable[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, Mapping)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()
