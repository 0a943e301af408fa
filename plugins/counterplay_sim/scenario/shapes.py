"""Objects as Graph shows them, for what an attack leaves behind outside the audit log.

A member whose name begins with `@sim.` is the simulator's own: `@sim.user` of an authentication method and
`@sim.owner` of a device is the user it belongs to.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.scenario.cast import Person, guid
from counterplay_sim.scenario.noise import Scene

Doc = dict[str, Any]

OFFICE = ("4765445b-32c6-49b0-83e6-1d93765276ca", "OfficeHome")
EXCHANGE_ONLINE = ("00000002-0000-0ff1-ce00-000000000000", "Office 365 Exchange Online")
GRAPH_APP = "00000003-0000-0000-c000-000000000000"
HOME = {"city": "Seattle", "state": "Washington", "countryOrRegion": "US"}
AWAY = {"city": "Amsterdam", "state": "Noord-Holland", "countryOrRegion": "NL"}
_REASONS = {
    0: "Other.",
    50126: "Error validating credentials due to invalid username or password.",
    50053: "The account is locked, you've tried to sign in too many times with an incorrect user ID or"
    " password.",
    500121: "Authentication failed during strong authentication request.",
}


def place(where: Doc) -> Doc:
    """A location of a sign-in or a risk detection."""
    return {**where, "geoCoordinates": {"altitude": None, "latitude": 47.6, "longitude": -122.3}}


def sign_in(
    scene: Scene,
    person: Person,
    at: datetime,
    *,
    error: int = 0,
    address: str | None = None,
    agent: str | None = None,
    where: Doc = HOME,
    risk: str = "none",
    detail: str | None = None,
) -> Doc:
    """An interactive sign-in of `auditLogs/signIns`."""
    return {
        "id": guid(scene.chance),
        "createdDateTime": stamp(at),
        "userDisplayName": person.name,
        "userPrincipalName": person.upn.lower(),
        "userId": person.id,
        "appId": OFFICE[0],
        "appDisplayName": OFFICE[1],
        "ipAddress": address or person.address,
        "clientAppUsed": "Browser",
        "userAgent": agent or person.agent,
        "correlationId": guid(scene.chance),
        "conditionalAccessStatus": "notApplied",
        "isInteractive": True,
        "riskDetail": "none",
        "riskLevelAggregated": risk,
        "riskLevelDuringSignIn": risk,
        "riskState": "none" if risk == "none" else "atRisk",
        "riskEventTypes": [],
        "riskEventTypes_v2": [],
        "resourceDisplayName": EXCHANGE_ONLINE[1],
        "resourceId": EXCHANGE_ONLINE[0],
        "resourceTenantId": scene.tenant,
        "homeTenantId": scene.tenant,
        "servicePrincipalId": "",
        "servicePrincipalName": None,
        "status": {
            "errorCode": error,
            "failureReason": _REASONS.get(error, "Other."),
            "additionalDetails": detail,
        },
        "deviceDetail": {
            "deviceId": "",
            "displayName": "",
            "operatingSystem": "Windows10",
            "browser": "Edge 126.0.0",
            "isCompliant": False,
            "isManaged": False,
            "trustType": "",
        },
        "location": place(where),
        "appliedConditionalAccessPolicies": [],
    }


def risk_detection(
    scene: Scene, person: Person, at: datetime, kind: str, *, level: str, address: str, request: str = ""
) -> Doc:
    """A detection of Identity Protection; `request` is the sign-in that it is about."""
    return {
        "id": f"{scene.chance.getrandbits(256):064x}",
        "requestId": request or guid(scene.chance),
        "correlationId": guid(scene.chance),
        "riskEventType": kind,
        "riskState": "atRisk",
        "riskLevel": level,
        "riskDetail": "none",
        "source": "IdentityProtection",
        "detectionTimingType": "offline",
        "activity": "signin",
        "tokenIssuerType": "AzureAD",
        "ipAddress": address,
        "activityDateTime": stamp(at),
        "detectedDateTime": stamp(at + timedelta(minutes=9)),
        "lastUpdatedDateTime": stamp(at + timedelta(minutes=9, seconds=40)),
        "userId": person.id,
        "userDisplayName": person.name,
        "userPrincipalName": person.upn,
        "additionalInfo": json.dumps([{"Key": "alertUrl", "Value": None}]),
        "location": place(AWAY),
    }


def risky_user(person: Person, at: datetime, level: str) -> Doc:
    """The user's line in `riskyUsers`; its id is the user's own."""
    return {
        "id": person.id,
        "isDeleted": False,
        "isProcessing": False,
        "riskLevel": level,
        "riskState": "atRisk",
        "riskDetail": "none",
        "riskLastUpdatedDateTime": stamp(at),
        "userDisplayName": person.name,
        "userPrincipalName": person.upn,
    }


def directory_audit(
    scene: Scene,
    person: Person,
    at: datetime,
    activity: str,
    *,
    category: str = "UserManagement",
    service: str = "Core Directory",
    address: str = "",
    target: Doc | None = None,
    changed: list[Doc] | None = None,
) -> Doc:
    """An entry of `auditLogs/directoryAudits` that a person caused, on itself unless a target is given."""
    about = target or {"id": person.id, "type": "User", "displayName": None, "userPrincipalName": person.upn}
    return {
        "id": f"Directory_{guid(scene.chance)}_{scene.chance.getrandbits(40)}",
        "category": category,
        "correlationId": guid(scene.chance),
        "result": "success",
        "resultReason": "",
        "activityDisplayName": activity,
        "activityDateTime": stamp(at),
        "loggedByService": service,
        "operationType": activity.partition(" ")[0],
        "initiatedBy": {
            "app": None,
            "user": {
                "id": person.id,
                "displayName": None,
                "userPrincipalName": person.upn,
                "ipAddress": address or person.address,
            },
        },
        "targetResources": [{"groupType": None, "modifiedProperties": changed or [], **about}],
        "additionalDetails": [{"key": "User-Agent", "value": person.agent}],
    }


def incident(scene: Scene, alert: Doc, name: str, at: datetime) -> Doc:
    """The incident of an alert; the alert's `incidentId` names it."""
    number = alert["incidentId"]
    web = f"https://security.microsoft.com/incident2/{number}/overview?tid={scene.tenant}"
    alert["incidentWebUrl"] = web
    return {
        "id": number,
        "tenantId": scene.tenant,
        "status": "active",
        "incidentWebUrl": web,
        "redirectIncidentId": None,
        "displayName": name,
        "createdDateTime": stamp(at, 7),
        "lastUpdateDateTime": stamp(at + timedelta(seconds=55), 7),
        "assignedTo": None,
        "classification": "unknown",
        "determination": "unknown",
        "severity": alert["severity"],
        "customTags": [],
        "systemTags": [],
        "description": None,
        "lastModifiedBy": None,
        "resolvingComment": None,
        "summary": None,
        "priorityScore": None,
        "comments": [],
    }


def service_principal(scene: Scene, app_id: str, name: str, publisher: str, at: datetime) -> Doc:
    """A foreign application that somebody let into the tenant."""
    return {
        "id": guid(scene.chance),
        "deletedDateTime": None,
        "accountEnabled": True,
        "appId": app_id,
        "appDisplayName": name,
        "displayName": name,
        "appDescription": None,
        "description": None,
        "appOwnerOrganizationId": guid(scene.chance),
        "appRoleAssignmentRequired": False,
        "appRoles": [],
        "oauth2PermissionScopes": [],
        "addIns": [],
        "alternativeNames": [],
        "homepage": f"https://{publisher}",
        "replyUrls": [f"https://{publisher}/callback"],
        "keyCredentials": [],
        "passwordCredentials": [],
        "servicePrincipalNames": [app_id],
        "servicePrincipalType": "Application",
        "signInAudience": "AzureADMultipleOrgs",
        "tags": ["WindowsAzureActiveDirectoryIntegratedApp"],
        "notificationEmailAddresses": [],
        "disabledByMicrosoftStatus": None,
        "preferredSingleSignOnMode": None,
        "loginUrl": None,
        "logoutUrl": None,
        "notes": None,
        "resourceSpecificApplicationPermissions": [],
        "@sim.created": stamp(at),
    }


def grant_id(client: str, resource: str, user: str | None) -> str:
    """The id of a delegated permission, which is made of those of its parts: given again it is the same."""
    parts = b"".join(uuid.UUID(one).bytes_le for one in (client, resource, *([user] if user else [])))
    return base64.urlsafe_b64encode(parts).decode().rstrip("=")


def principal_of(tenant: str, client: str) -> str:
    """The object id of an application's service principal."""
    return str(uuid.uuid5(uuid.UUID(tenant), client))


def grant(tenant: str, client: str, person: Person | None, scope: str) -> Doc:
    """A delegated permission on Microsoft Graph that one user gave an application, or somebody for all."""
    resource, user = principal_of(tenant, GRAPH_APP), person.id if person else None
    return {
        "id": grant_id(client, resource, user),
        "clientId": client,
        "consentType": "Principal" if person else "AllPrincipals",
        "principalId": user,
        "resourceId": resource,
        "scope": scope,
    }


def app_role(scene: Scene, app: Doc, name: str, at: datetime) -> Doc:
    """An application permission on Microsoft Graph that an application holds."""
    from counterplay_sim.graph.contract import contract

    return {
        "id": base64.urlsafe_b64encode(scene.chance.randbytes(32)).decode().rstrip("="),
        "deletedDateTime": None,
        "appRoleId": contract("v1.0").app_roles[name],
        "createdDateTime": stamp(at),
        "principalDisplayName": app["displayName"],
        "principalId": app["id"],
        "principalType": "ServicePrincipal",
        "resourceDisplayName": "Microsoft Graph",
        "resourceId": principal_of(scene.tenant, GRAPH_APP),
    }


def authenticator(scene: Scene, person: Person, at: datetime, name: str) -> Doc:
    """An authenticator app on a phone, registered as a way to sign in."""
    return {
        "@odata.type": "#microsoft.graph.microsoftAuthenticatorAuthenticationMethod",
        "id": guid(scene.chance),
        "displayName": name,
        "deviceTag": "SoftwareTokenActivated",
        "phoneAppVersion": "6.2406.4052",
        "createdDateTime": stamp(at),
        "@sim.user": person.id,
    }


def device(scene: Scene, person: Person, at: datetime, name: str, system: str) -> Doc:
    """A device that was registered in the directory."""
    number = guid(scene.chance)
    return {
        "id": guid(scene.chance),
        "deletedDateTime": None,
        "accountEnabled": True,
        "approximateLastSignInDateTime": stamp(at),
        "complianceExpirationDateTime": None,
        "deviceCategory": None,
        "deviceId": number,
        "deviceMetadata": None,
        "deviceOwnership": None,
        "deviceVersion": 2,
        "displayName": name,
        "enrollmentProfileName": None,
        "enrollmentType": None,
        "isCompliant": None,
        "isManaged": None,
        "isRooted": None,
        "managementType": None,
        "manufacturer": None,
        "mdmAppId": None,
        "model": None,
        "onPremisesLastSyncDateTime": None,
        "onPremisesSyncEnabled": None,
        "operatingSystem": system,
        "operatingSystemVersion": "10.0.19045.4412",
        "physicalIds": [],
        "profileType": "RegisteredDevice",
        "registrationDateTime": stamp(at),
        "systemLabels": [],
        "trustType": "Workplace",
        "alternativeSecurityIds": [],
        "@sim.owner": person.id,
    }


def machine(scene: Scene, person: Person, at: datetime, device: Doc, domain: str) -> Doc:
    """The machine of Defender for Endpoint that a device of the directory is."""
    return {
        "id": f"{scene.chance.getrandbits(160):040x}",
        "computerDnsName": f"{device['displayName'].lower()}.{domain}",
        "aadDeviceId": device["deviceId"],
        "osPlatform": "Windows11",
        "version": "23H2",
        "healthStatus": "Active",
        "onboardingStatus": "Onboarded",
        "riskScore": "High",
        "lastIpAddress": person.address,
        "firstSeen": stamp(at - timedelta(days=200)),
        "lastSeen": stamp(at),
        "@sim.offline": False,
        "@sim.isolated": False,
        "@sim.owner": person.id,
    }
