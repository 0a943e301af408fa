"""What stands in a tenant's directory before anything happens: roles, groups, apps, devices, licences.

It draws on randomness of its own, so that adding to it leaves the tenant's events as they are.
"""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.licences import skus
from counterplay_sim.scenario.cast import Person
from counterplay_sim.scenario.shapes import grant_id, principal_of

Doc = dict[str, Any]
Object = tuple[str, str, Any]  # kind, id, document

GRAPH = "00000003-0000-0000-c000-000000000000"
ACTIVITY = "c5393580-f805-4401-95e8-94b7a6ef2fc2"
DEFENDER = "fc780465-2017-40d4-a0c5-307022471b92"
MICROSOFT = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"

GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
ROLES = {
    GLOBAL_ADMINISTRATOR: "Global Administrator",
    "7be44c8a-adaf-4e2a-84d6-ab2649e08a13": "Privileged Authentication Administrator",
    "e8611ab8-c189-46e8-94e1-60213ab1f814": "Privileged Role Administrator",
    "fe930be7-5e62-47db-91af-98c3a49a38b1": "User Administrator",
    "c4e39bd9-1100-46d3-8c65-fb160da0071f": "Authentication Administrator",
    "729827e3-9c14-49f7-bb1b-9608f156bbb8": "Helpdesk Administrator",
    "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3": "Application Administrator",
    "158c047a-c907-4556-b7ef-446551a6b5f7": "Cloud Application Administrator",
    "b1be1c3e-b65d-4f19-8427-f6fa0d97feb9": "Conditional Access Administrator",
    "194ae4cb-b126-40b2-bd5b-6091b380977d": "Security Administrator",
    "5f2222b1-57c3-48ba-8ad5-d4759f1fde6f": "Security Operator",
    "5d6b6bb7-de71-4623-b4af-96380a352509": "Security Reader",
    "29232cdf-9323-42fd-ade2-1d097af3e4de": "Exchange Administrator",
}
_UNPRIVILEGED = frozenset({"5f2222b1-57c3-48ba-8ad5-d4759f1fde6f", "29232cdf-9323-42fd-ade2-1d097af3e4de"})
ACTIVITY_ROLES = {
    "ActivityFeed.Read": "594c1fb6-4f81-4475-ae41-0c394909246c",
    "ActivityFeed.ReadDlp": "4807a72c-ad38-4250-94c9-4eabfe26cd55",
}
DEFENDER_ROLES = {
    "Machine.Isolate": "7e4e1300-e1b9-4102-88ae-f0cc6f2c8a3e",
    "Machine.Read.All": "ea8291d3-4b9a-44b5-bc3a-6cea3026dc79",
}
_APPS = ("Contoso Expenses", "Survey Builder", "Whiteboard Sync", "Travel Planner")
#: Who is special, by place among the people; the attacks of scenarios fall on the first ones.
ADMINISTRATORS = (1, 12)
IN_ROLE_GROUP = 15
SYNCED = (6, 18)


def by_kind(objects: Iterable[Object]) -> dict[str, list[tuple[str, Any]]]:
    """As the store takes them: ids and documents, kind by kind."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for kind, key, document in objects:
        found.setdefault(kind, []).append((key, document))
    return found


def mark_synced(people: Sequence[Person]) -> None:
    """Mark whom Active Directory is the master of, before the users are written."""
    for number in SYNCED:
        if number < len(people):
            people[number].doc |= {
                "onPremisesSyncEnabled": True,
                "onPremisesSecurityIdentifier": f"S-1-5-21-1004336348-1177238915-682003330-{1100 + number}",
            }


def directory(
    *,
    tenant: str,
    client: str,
    domain: str,
    people: Sequence[Person],
    created: datetime,
    licence: str,
    grants: Mapping[str, Sequence[str]],
    alerts: Iterable[Doc] = (),
    present: Mapping[str, Iterable[str]] | None = None,
) -> Iterator[Object]:
    """The static objects. `grants`: the permissions of `client`; `present`: ids that a scenario wrote."""
    from counterplay_sim.graph.contract import contract

    roles = {"graph": contract("v1.0").app_roles, "activity": ACTIVITY_ROLES, "defender": DEFENDER_ROLES}
    chance = random.Random(f"directory/{tenant}")
    made = _Directory(chance, tenant, client, people, created)
    yield from (("subscribedSku", one["id"], one) for one in skus(licence, tenant, len(people)))
    yield from _domains(domain)
    yield from made.roles()
    yield from made.groups()
    yield from made.apps(grants, roles)
    yield from made.methods()
    yield from made.devices()
    yield from made.machines(domain)
    yield from _incidents(alerts, set((present or {}).get("incident", ())), tenant)


class _Directory:
    def __init__(
        self, chance: random.Random, tenant: str, client: str, people: Sequence[Person], created: datetime
    ) -> None:
        self._chance = chance
        self._tenant = tenant
        self._client = client
        self._people = people
        self._created = created
        self._owned: list[tuple[Person, Doc]] = []

    def _guid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _person(self, number: int) -> str:
        return self._people[number % len(self._people)].id

    def roles(self) -> Iterator[Object]:
        for key, name in ROLES.items():
            yield (
                "roleDefinition",
                key,
                {
                    "id": key,
                    "description": f"Built-in role: {name}.",
                    "displayName": name,
                    "isBuiltIn": True,
                    "isEnabled": True,
                    "isPrivileged": key not in _UNPRIVILEGED,
                    "resourceScopes": ["/"],
                    "rolePermissions": [],
                    "templateId": key,
                    "version": "1",
                },
            )
        holders = [(self._person(one), GLOBAL_ADMINISTRATOR) for one in ADMINISTRATORS]
        holders.append((self._person(9), "5d6b6bb7-de71-4623-b4af-96380a352509"))
        self._role_group = self._guid()
        holders.append((self._role_group, "194ae4cb-b126-40b2-bd5b-6091b380977d"))
        for holder, role in dict.fromkeys(holders):
            yield self._assignment(holder, role)
        key = base64.urlsafe_b64encode(self._chance.randbytes(24)).decode()
        yield (
            "roleEligibility",
            key,
            {
                "id": key,
                "principalId": self._person(20),
                "roleDefinitionId": "fe930be7-5e62-47db-91af-98c3a49a38b1",
                "directoryScopeId": "/",
                "appScopeId": None,
                "startDateTime": stamp(self._created - timedelta(days=40)),
                "endDateTime": None,
                "memberType": "Direct",
                "roleEligibilityScheduleId": self._guid(),
            },
        )

    def _assignment(self, holder: str, role: str) -> Object:
        key = base64.urlsafe_b64encode(self._chance.randbytes(24)).decode() + "-1"
        document = {
            "id": key,
            "principalId": holder,
            "roleDefinitionId": role,
            "directoryScopeId": "/",
            "appScopeId": None,
            "principalOrganizationId": self._tenant,
            "condition": None,
        }
        return "roleAssignment", key, document

    def groups(self) -> Iterator[Object]:
        by_department: dict[str, list[str]] = {}
        for person in self._people:
            by_department.setdefault(str(person.doc.get("department")), []).append(person.id)
        for name, members in sorted(by_department.items()):
            yield self._group(self._guid(), name, members)
        yield self._group(
            self._role_group, "Tier 0 operators", [self._person(IN_ROLE_GROUP)], assignable=True
        )

    def _group(self, key: str, name: str, members: list[str], *, assignable: bool = False) -> Object:
        document = {
            "id": key,
            "deletedDateTime": None,
            "createdDateTime": stamp(self._created - timedelta(days=900)),
            "description": f"Everybody of {name}",
            "displayName": name,
            "groupTypes": [],
            "isAssignableToRole": assignable,
            "mail": None,
            "mailEnabled": False,
            "mailNickname": name.replace(" ", "").lower(),
            "membershipRule": None,
            "onPremisesSyncEnabled": None,
            "securityEnabled": True,
            "securityIdentifier": f"S-1-12-1-{self._chance.getrandbits(32)}-{self._chance.getrandbits(32)}",
            "visibility": "Private" if assignable else None,
            "@sim.members": members,
        }
        return "group", key, document

    def apps(
        self, grants: Mapping[str, Sequence[str]], roles: Mapping[str, Mapping[str, str]]
    ) -> Iterator[Object]:
        owners = {"graph": GRAPH, "activity": ACTIVITY, "defender": DEFENDER}
        names = {
            "graph": "Microsoft Graph",
            "activity": "Office 365 Management APIs",
            "defender": "WindowsDefenderATP",
        }
        resources = {}
        for kind, app in owners.items():
            sp = self._principal(principal_of(self._tenant, app), app, names[kind], MICROSOFT)
            sp["appRoles"] = [_app_role(name, key) for name, key in roles[kind].items()]
            sp["oauth2PermissionScopes"] = _SCOPES if kind == "graph" else []
            resources[kind] = sp
            yield "servicePrincipal", sp["id"], sp
        own = self._principal(
            principal_of(self._tenant, self._client), self._client, "counterplay", self._tenant
        )
        own["@sim.initial"] = {kind: list(names_of) for kind, names_of in grants.items()}
        yield "servicePrincipal", own["id"], own
        yield self._application(self._client, "counterplay")
        for kind, names_of in grants.items():
            for name in names_of:
                if name in roles.get(kind, {}):
                    yield self._app_role_assignment(own, resources[kind], roles[kind][name])
        for number, name in enumerate(_APPS):
            app = self._guid()
            sp = self._principal(self._guid(), app, name, self._tenant)
            yield "servicePrincipal", sp["id"], sp
            yield self._application(app, name)
            yield self._grant(sp["id"], resources["graph"]["id"], None, "openid profile User.Read")
            yield self._grant(
                sp["id"], resources["graph"]["id"], self._person(number * 3 + 2), "Mail.Read offline_access"
            )

    def _principal(self, key: str, app: str, name: str, owner: str) -> Doc:
        return {
            "id": key,
            "accountEnabled": True,
            "addIns": [],
            "alternativeNames": [],
            "appDisplayName": name,
            "appId": app,
            "appOwnerOrganizationId": owner,
            "appRoleAssignmentRequired": False,
            "appRoles": [],
            "deletedDateTime": None,
            "displayName": name,
            "homepage": None,
            "keyCredentials": [],
            "notificationEmailAddresses": [],
            "oauth2PermissionScopes": [],
            "passwordCredentials": [],
            "replyUrls": [],
            "resourceSpecificApplicationPermissions": [],
            "servicePrincipalNames": [app],
            "servicePrincipalType": "Application",
            "signInAudience": "AzureADMyOrg",
            "tags": [],
        }

    def _application(self, app: str, name: str) -> Object:
        key = self._guid()
        document: Doc = {
            "id": key,
            "appId": app,
            "createdDateTime": stamp(self._created - timedelta(days=300)),
            "createdByAppId": None,
            "deletedDateTime": None,
            "description": None,
            "displayName": name,
            "addIns": [],
            "appRoles": [],
            "identifierUris": [],
            "keyCredentials": [],
            "passwordCredentials": [],
            "publisherDomain": None,
            "requiredResourceAccess": [],
            "signInAudience": "AzureADMyOrg",
            "tags": [],
        }
        return "application", key, document

    def _app_role_assignment(self, holder: Doc, resource: Doc, role: str) -> Object:
        key = base64.urlsafe_b64encode(self._chance.randbytes(32)).decode().rstrip("=")
        document = {
            "id": key,
            "deletedDateTime": None,
            "appRoleId": role,
            "createdDateTime": stamp(self._created - timedelta(days=30)),
            "principalDisplayName": holder["displayName"],
            "principalId": holder["id"],
            "principalType": "ServicePrincipal",
            "resourceDisplayName": resource["displayName"],
            "resourceId": resource["id"],
        }
        return "appRoleAssignment", key, document

    def _grant(self, client: str, resource: str, user: str | None, scope: str) -> Object:
        key = grant_id(client, resource, user)
        document = {
            "id": key,
            "clientId": client,
            "consentType": "Principal" if user else "AllPrincipals",
            "principalId": user,
            "resourceId": resource,
            "scope": scope,
        }
        return "oauth2PermissionGrant", key, document

    def methods(self) -> Iterator[Object]:
        """Second factors by user; the password is not kept here."""
        for number, person in enumerate(self._people):
            held: list[Doc] = []
            if number % 10 != 9:
                held.append(
                    {
                        "@odata.type": "#microsoft.graph.microsoftAuthenticatorAuthenticationMethod",
                        "id": self._guid(),
                        "displayName": "iPhone" if number % 2 else "Pixel 8",
                        "deviceTag": "SoftwareTokenActivated",
                        "phoneAppVersion": "6.8.11",
                        "createdDateTime": stamp(self._created - timedelta(days=200 + number % 90)),
                        "@sim.default": True,
                    }
                )
            if number % 3 == 0:
                held.append(
                    {
                        "@odata.type": "#microsoft.graph.phoneAuthenticationMethod",
                        "id": "3179e48a-750b-4051-897c-87b9720928f7",
                        "phoneNumber": f"+1 4255550{number % 1000:03d}",
                        "phoneType": "mobile",
                        "smsSignInState": "notAllowedByPolicy",
                        "createdDateTime": None,
                    }
                )
            if number % 7 == 4:
                held.append(
                    {
                        "@odata.type": "#microsoft.graph.fido2AuthenticationMethod",
                        "id": base64.urlsafe_b64encode(self._chance.randbytes(16)).decode(),
                        "displayName": "Security key",
                        "createdDateTime": stamp(self._created - timedelta(days=120)),
                        "aaGuid": "ee882879-721c-4913-9775-3dfcce97072a",
                        "model": "YubiKey 5 Series",
                        "attestationCertificates": [],
                        "attestationLevel": "attested",
                        "passkeyType": "deviceBound",
                    }
                )
            for method in held:
                key = method["id"] if len(method["id"]) != 36 or "phone" not in method["@odata.type"] else ""
                key = key or f"{person.id}/{method['id']}"  # a phone's id is the same for everybody
                yield "authenticationMethod", key, {**method, "@sim.user": person.id, "@sim.key": key}

    def devices(self) -> Iterator[Object]:
        for number, person in enumerate(self._people):
            if number % 5 == 4:
                continue
            key = self._guid()
            device = self._device(key, number, person)
            self._owned.append((person, device))
            yield "device", key, device

    def _device(self, key: str, number: int, person: Person) -> Doc:
        return {
            "id": key,
            "accountEnabled": True,
            "alternativeSecurityIds": [],
            "approximateLastSignInDateTime": stamp(self._created - timedelta(hours=number % 70)),
            "deletedDateTime": None,
            "deviceId": self._guid(),
            "deviceOwnership": "Company",
            "deviceVersion": 2,
            "displayName": f"CONTOSO-{number:05d}",
            "isCompliant": True,
            "isManaged": True,
            "manufacturer": "Dell Inc.",
            "model": "Latitude 7440",
            "operatingSystem": "Windows",
            "operatingSystemVersion": "10.0.22631.4602",
            "physicalIds": [],
            "profileType": "RegisteredDevice",
            "registrationDateTime": stamp(self._created - timedelta(days=300)),
            "systemLabels": [],
            "trustType": "AzureAd",
            "@sim.owner": person.id,
        }

    def machines(self, domain: str) -> Iterator[Object]:
        """Defender's machines: those of the first hundred people with a device; one in ten is offline."""
        for number, (person, device) in enumerate(self._owned[:100]):
            key = f"{self._chance.getrandbits(160):040x}"
            yield (
                "machine",
                key,
                {
                    "id": key,
                    "computerDnsName": f"{device['displayName'].lower()}.{domain}",
                    "aadDeviceId": device["deviceId"],
                    "osPlatform": "Windows11",
                    "version": "23H2",
                    "healthStatus": "Inactive" if number % 10 == 9 else "Active",
                    "onboardingStatus": "Onboarded",
                    "riskScore": "Low",
                    "lastIpAddress": person.address,
                    "firstSeen": stamp(self._created - timedelta(days=300)),
                    "lastSeen": stamp(self._created - timedelta(hours=1)),
                    "@sim.offline": number % 10 == 9,
                    "@sim.owner": person.id,
                },
            )


_SCOPES = [
    {
        "id": str(uuid.uuid5(uuid.UUID(GRAPH), name)),
        "value": name,
        "type": "User",
        "isEnabled": True,
        "adminConsentDisplayName": name,
        "adminConsentDescription": name,
        "userConsentDisplayName": name,
        "userConsentDescription": name,
        "origin": None,
    }
    for name in (
        "User.Read",
        "Mail.Read",
        "Mail.ReadWrite",
        "Mail.Send",
        "Files.ReadWrite.All",
        "offline_access",
    )
]


def _app_role(name: str, key: str) -> Doc:
    return {
        "id": key,
        "allowedMemberTypes": ["Application"],
        "description": name,
        "displayName": name,
        "isEnabled": True,
        "origin": "Application",
        "value": name,
    }


def _domains(domain: str) -> Iterator[Object]:
    for name, default in ((domain, True), ("contoso-sim.onmicrosoft.com", False)):
        yield (
            "domain",
            name,
            {
                "id": name,
                "authenticationType": "Managed",
                "availabilityStatus": None,
                "isAdminManaged": True,
                "isDefault": default,
                "isInitial": not default,
                "isRoot": True,
                "isVerified": True,
                "manufacturer": None,
                "model": None,
                "passwordNotificationWindowInDays": 14,
                "passwordValidityPeriodInDays": 2147483647,
                "state": None,
                "supportedServices": ["Email", "OfficeCommunicationsOnline"] if default else ["Email"],
            },
        )


def _incidents(alerts: Iterable[Doc], present: set[str], tenant: str) -> Iterator[Object]:
    """One for each incident that an alert names and nobody wrote."""
    by_incident: dict[str, list[Doc]] = {}
    for alert in alerts:
        by_incident.setdefault(str(alert["incidentId"]), []).append(alert)
    levels = ("unknown", "informational", "low", "medium", "high")
    for key, found in sorted(by_incident.items()):
        if key in present:
            continue
        worst = max((str(one["severity"]) for one in found), key=levels.index)
        resolved = all(one["status"] == "resolved" for one in found)
        yield (
            "incident",
            key,
            {
                "id": key,
                "tenantId": tenant,
                "displayName": found[0]["title"],
                "description": None,
                "summary": None,
                "status": "resolved" if resolved else "active",
                "severity": worst,
                "classification": found[0]["classification"] if resolved else None,
                "determination": found[0]["determination"] if resolved else None,
                "assignedTo": None,
                "createdDateTime": min(str(one["createdDateTime"]) for one in found),
                "lastUpdateDateTime": max(str(one["lastUpdateDateTime"]) for one in found),
                "lastModifiedBy": "Microsoft 365 Defender-AlertCorrelation",
                "priorityScore": 20 * levels.index(worst),
                "redirectIncidentId": None,
                "resolvingComment": None,
                "customTags": [],
                "systemTags": [],
                "comments": [],
                "incidentWebUrl": f"https://security.microsoft.com/incident2/{key}/overview?tid={tenant}",
            },
        )
