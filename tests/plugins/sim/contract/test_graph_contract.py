"""Every operation of Microsoft's contract, asked on the wire and held to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from counterplay_sim.graph import derive
from counterplay_sim.graph.extra import EXTRA
from counterplay_sim.graph.service import routes

_FOLDER = Path(__file__).resolve().parents[3] / "contracts"

#: Operations that the simulator answers with an error, whatever is sent, and why.
REFUSED = {
    "POST /users/{user-id}/authentication/methods/{authenticationMethod-id}/resetPassword": (
        403,
        "delegated only: no application permission is good for it",
    ),
    "POST /subscriptions": (501, "change notifications are not simulated"),
    "GET /subscriptions/{subscription-id}": (404, "there are no subscriptions"),
    "PATCH /subscriptions/{subscription-id}": (404, "there are no subscriptions"),
    "DELETE /subscriptions/{subscription-id}": (404, "there are no subscriptions"),
    "POST /subscriptions/{subscription-id}/reauthorize": (404, "there are no subscriptions"),
    "GET /security/alerts/{alert-id}": (404, "the legacy API has no alerts any more"),
    "PATCH /security/alerts/{alert-id}": (404, "the legacy API has no alerts any more"),
}
#: Where an answer is known to differ from the contract: (operation, place) to the reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}

_BODIES: dict[str, Any] = {
    "PATCH /security/alerts_v2/{alert-id}": {"status": "inProgress", "assignedTo": "soc@contoso.example"},
    "POST /security/alerts_v2/{alert-id}/comments": {
        "@odata.type": "microsoft.graph.security.alertComment",
        "comment": "seen",
    },
    "POST /security/alerts_v2/moveAlerts": {
        "alertIds": ["{alert}"],
        "newCorrelationReasons": "sameActor, sameCampaign",
    },
    "PATCH /security/incidents/{incident-id}": {"status": "inProgress", "customTags": ["a"]},
    "POST /security/incidents/{incident-id}/comments": {"comment": "seen"},
    "POST /security/incidents/mergeIncidents": {"incidentIds": ["{incident}", "{other incident}"]},
    "POST /security/runHuntingQuery": {"Query": "AlertInfo | where Severity == 'High' | take 5"},
    "POST /security/identities/identityAccounts/{identityAccounts-id}/invokeAction": {
        "accountId": "{user}",
        "action": "revokeAllSessions",
        "identityProvider": "entraID",
    },
    "POST /security/auditLog/queries": {
        "displayName": "x",
        "filterStartDateTime": "2026-03-01T00:00:00Z",
        "filterEndDateTime": "2026-03-02T10:00:00Z",
        "recordTypeFilters": ["exchangeAdmin"],
    },
    "PATCH /users/{user-id}": {"accountEnabled": False},
    "PATCH /devices/{device-id}": {"accountEnabled": False},
    "POST /users/{user-id}/authentication/methods/{authenticationMethod-id}/resetPassword": {
        "newPassword": "x"
    },
    "POST /users/{user-id}/mailFolders/{mailFolder-id}/messageRules": {
        "displayName": "r",
        "sequence": 2,
        "actions": {"delete": True, "forwardTo": [{"emailAddress": {"name": "x", "address": "x@y.example"}}]},
    },
    "PATCH /users/{user-id}/mailFolders/{mailFolder-id}/messageRules/{messageRule-id}": {"isEnabled": False},
    "PATCH /users/{user-id}/mailboxSettings": {"timeZone": "W. Europe Standard Time"},
    "POST /oauth2PermissionGrants": {
        "clientId": "{principal}",
        "consentType": "Principal",
        "principalId": "{user}",
        "resourceId": "{graph}",
        "scope": "Mail.Read",
    },
    "POST /servicePrincipals": {"appId": "{bare app}"},
    "PATCH /servicePrincipals/{servicePrincipal-id}": {"accountEnabled": False},
    "POST /servicePrincipals/{servicePrincipal-id}/appRoleAssignments": "{assignment}",
    "POST /servicePrincipals/{servicePrincipal-id}/appRoleAssignedTo": "{assignment}",
    "POST /applications": {"displayName": "new"},
    "PATCH /applications/{application-id}": {"tags": ["x"]},
    "POST /applications/{application-id}/addPassword": {"passwordCredential": {"displayName": "k"}},
    "POST /applications/{application-id}/removePassword": {"keyId": "{password}"},
    "POST /applications/{application-id}/federatedIdentityCredentials": {
        "name": "k",
        "issuer": "https://issuer.example",
        "subject": "s",
        "audiences": ["api://AzureADTokenExchange"],
    },
    "POST /identityProtection/riskyUsers/confirmCompromised": {"userIds": ["{user}"]},
    "POST /identityProtection/riskyUsers/confirmSafe": {"userIds": ["{user}"]},
    "POST /identityProtection/riskyUsers/dismiss": {"userIds": ["{user}"]},
    "POST /subscriptions": {
        "changeType": "updated",
        "notificationUrl": "https://x.example",
        "resource": "/users",
        "expirationDateTime": "2026-03-03T00:00:00Z",
    },
    "PATCH /subscriptions/{subscription-id}": {"expirationDateTime": "2026-03-03T00:00:00Z"},
    "PATCH /security/alerts/{alert-id}": {},
    "POST /$batch": {"requests": [{"id": "1", "method": "GET", "url": "/organization"}]},
}
_METHODS = {
    "phone": {"phoneNumber": "+1 5550100", "phoneType": "office", "smsSignInState": "notSupported"},
    "email": {"emailAddress": "a@b.example"},
    "fido2": {"displayName": "key", "passkeyType": "deviceBound"},
    "microsoftAuthenticator": {"displayName": "phone", "deviceTag": "SoftwareTokenActivated"},
    "softwareOath": {"secretKey": None},
    "temporaryAccessPass": {"lifetimeInMinutes": 60, "isUsable": True, "isUsableOnce": True},
    "windowsHelloForBusiness": {"displayName": "laptop", "keyStrength": "normal"},
    "platformCredential": {"displayName": "mac", "keyStrength": "normal", "platform": "macOS"},
    "externalAuthentication": {"displayName": "other", "configurationId": "c"},
}
_TYPES = {"externalAuthentication": "external"}


class World:
    """Objects for the placeholders of paths and bodies, a fresh tenant's."""

    def __init__(self, simulator: Any) -> None:
        tenant = self.tenant = simulator.tenant
        objects = tenant.objects
        self.user = next(key for key, rules in tenant.rules.items() if rules)
        self.rule = next(rule for rule in tenant.rules[self.user] if not rule["isReadOnly"])["id"]
        incidents = list(objects["incident"])
        apps = [one for one in objects["servicePrincipal"].values() if one["appRoles"] == []]
        graph = next(
            one for one in objects["servicePrincipal"].values() if one["displayName"] == "Microsoft Graph"
        )
        application = next(iter(objects["application"].values()))
        self._add_password(application)
        bare = {**application, "id": "a" * 8, "appId": "12345678-1234-4234-8234-123456789012"}
        objects["application"].put(bare["id"], bare)
        self._add_logs()
        self._add_relations(graph, application)
        query = self._add_query()
        self.names = {
            "alert": next(iter(tenant.alerts)),
            "incident": incidents[0],
            "other incident": incidents[1],
            "user": self.user,
            "principal": apps[0]["id"],
            "graph": graph["id"],
            "bare app": bare["appId"],
            "password": "11111111-1111-4111-8111-111111111111",
        }
        self.new_assignment = {
            "principalId": apps[-1]["id"],
            "resourceId": graph["id"],
        }
        self.roles = [role["id"] for role in graph["appRoles"]]
        self.segments = {
            "alert-id": self.names["alert"],
            "incident-id": incidents[0],
            "identityAccounts-id": self.user,
            "auditLogQuery-id": query,
            "user-id": self.user,
            "mailFolder-id": "inbox",
            "messageRule-id": self.rule,
            "device-id": next(iter(objects["device"])),
            "directoryRole-id": "roleTemplateId=62e90394-69f5-4237-9190-012177145e10",
            "oAuth2PermissionGrant-id": next(iter(objects["oauth2PermissionGrant"])),
            "servicePrincipal-id": apps[0]["id"],
            "application-id": application["id"],
            "riskDetection-id": next(iter(objects["riskDetection"])),
            "riskyUser-id": next(iter(objects["riskyUser"])),
            "signIn-id": next(iter(objects["signIn"])),
            "directoryAudit-id": next(iter(objects["directoryAudit"])),
            "subscription-id": "none",
            "authenticationMethod-id": "28c10230-6103-485e-b985-444c60001490",
        }

    def path(self, template: str) -> str:
        if template.endswith("directoryRole"):
            administrator = list(self.tenant.users)[1]
            return template.replace("{user-id}", administrator)
        if template.startswith("/servicePrincipals/") and "appRoleAssignedTo" in template:
            template = template.replace("{servicePrincipal-id}", self.names["graph"])
        last = template.split("/")[1 if template.startswith("/users") else -2]
        template = template.replace("{appRoleAssignment-id}", f"of {last}".replace(" ", "%20"))
        for part in [one.partition("}")[0] for one in template.split("{")[1:]]:
            value = self.segments.get(part)
            if value is None:
                value = self._method(part)
            if value.startswith("roleTemplateId="):
                template = template.replace(f"/{{{part}}}", f"(roleTemplateId='{value.partition('=')[2]}')")
            template = template.replace(f"{{{part}}}", value)
        return template

    def body(self, operation: str) -> Any:
        body = _BODIES.get(operation)
        if body == "{assignment}":
            number = 0 if operation.endswith("appRoleAssignments") else 1
            return {**self.new_assignment, "appRoleId": self.roles[number]}
        text = json.dumps(body)
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return json.loads(text)

    def _method(self, part: str) -> str:
        """An authentication method of the kind that the placeholder names, added to the user."""
        kind = part.removesuffix("AuthenticationMethod-id")
        kind = "externalAuthentication" if kind == "external" else kind
        key = f"of-{kind}"
        document = {
            "@odata.type": f"#microsoft.graph.{_TYPES.get(kind, kind)}AuthenticationMethod",
            "id": key,
            "createdDateTime": "2026-01-01T00:00:00Z",
            **_METHODS[kind],
            "@sim.user": self.user,
        }
        self.tenant.objects["authenticationMethod"].put(key, document)
        return key

    def _add_relations(self, graph: dict[str, Any], application: dict[str, Any]) -> None:
        """What lists of the user and of the applications show."""
        objects = self.tenant.objects
        for kind in _METHODS:
            self._method(f"{kind}AuthenticationMethod-id")
        grant = {"id": "g", "clientId": graph["id"], "consentType": "Principal", "scope": "User.Read"}
        objects["oauth2PermissionGrant"].put(
            "g", {**grant, "principalId": self.user, "resourceId": graph["id"]}
        )
        for key in ("of users", "of appRoleAssignments", "of appRoleAssignedTo"):
            objects["appRoleAssignment"].put(
                key,
                {
                    "id": key,
                    "appRoleId": graph["appRoles"][2]["id"],
                    "principalId": self.user,
                    "resourceId": graph["id"],
                },
            )
        federated = {
            "id": "f",
            "name": "f",
            "issuer": "https://i.example",
            "subject": "s",
            "audiences": ["a"],
        }
        found = objects["application"][application["id"]]
        objects["application"].put(application["id"], {**found, "@sim.federated": [federated]})

    def _add_password(self, application: dict[str, Any]) -> None:
        key = {"keyId": "11111111-1111-4111-8111-111111111111", "displayName": "k", "secretText": None}
        self.tenant.objects["application"].put(
            application["id"],
            {**application, "passwordCredentials": [*application["passwordCredentials"], key]},
        )

    def _add_logs(self) -> None:
        objects, user = self.tenant.objects, self.tenant.users[self.user]
        who = {"userDisplayName": user["displayName"], "userPrincipalName": user["userPrincipalName"]}
        at = "2026-03-02T09:00:00Z"
        risk = {"riskLevel": "high", "riskState": "atRisk", "riskDetail": "none"}
        objects["signIn"].put("s", {"id": "s", "createdDateTime": at, "userId": self.user, **who})
        objects["riskDetection"].put(
            "r",
            {
                "id": "r",
                "detectedDateTime": at,
                "userId": self.user,
                "riskEventType": "unlikelyTravel",
                **risk,
                **who,
            },
        )
        objects["riskyUser"].put(self.user, {"id": self.user, "riskLastUpdatedDateTime": at, **risk, **who})
        objects["directoryAudit"].put(
            "d",
            {
                "id": "d",
                "activityDateTime": at,
                "activityDisplayName": "Update user",
                "category": "UserManagement",
            },
        )
        history = {
            "id": "h",
            "userId": self.user,
            "riskLastUpdatedDateTime": at,
            "initiatedBy": None,
            **risk,
            **who,
        }
        objects["riskyUserHistory"].put("h", history)

    def _add_query(self) -> str:
        query = {
            "id": "q",
            "displayName": None,
            "filterStartDateTime": "2026-03-01T00:00:00Z",
            "filterEndDateTime": "2026-03-02T10:00:00Z",
            "@sim.ready": 1_772_440_000_000_000_000,
        }
        self.tenant.objects["auditLogQuery"].put("q", query)
        return "q"


def test_every_operation_of_the_contract_is_answered_as_it_says(everything: Any, contracts: Any) -> None:
    """Documented status, valid body, no member that the contract does not have: 119 operations in all."""
    simulator, client = everything
    world = World(simulator)
    wrong: list[str] = []
    asked = 0
    for version, contract in contracts.items():
        last = [one for one in contract.operations() if one[0] == "DELETE"]
        for method, path in [*(one for one in contract.operations() if one[0] != "DELETE"), *last]:
            asked += 1
            operation = f"{method} {path}"
            wrong += _ask(client, world, contract, version, method, path, REFUSED.get(operation))

    assert asked == 119
    assert not wrong, "\n".join(wrong)


def _ask(
    client: Any, world: World, contract: Any, version: str, method: str, path: str, refused: Any
) -> list[str]:
    operation = f"{method} {path}"
    url = f"{client.tenant['graph_url']}/{version}{world.path(path)}"
    headers, query = {}, {}
    if path.endswith("transitiveRoleAssignments"):
        headers, query = {"ConsistencyLevel": "eventual"}, {"$count": "true"}
    if path.endswith("/roleAssignments"):
        holder = next(iter(world.tenant.objects["roleAssignment"].values()))["principalId"]
        query = {"$filter": f"principalId eq '{holder}'"}
    answer = client.graph(method, url, world.body(operation), headers=headers, **query)
    wanted = refused[0] if refused else None
    if wanted is not None and answer.status_code != wanted:
        return [f"{version} {operation}: {answer.status_code} instead of {wanted}"]
    if wanted is None and answer.status_code >= 300:
        return [f"{version} {operation}: {answer.status_code} {answer.text[:300]}"]
    try:
        schema = contract.answer_schema(method, path, answer.status_code)
    except KeyError:
        return [f"{version} {operation}: {answer.status_code} is not documented"]
    if schema is None:
        return [f"{version} {operation}: a body, {answer.text[:80]}"] if answer.content else []
    found = contract.problems(schema, answer.json())
    empty = "value" in schema.get("properties", {}) and answer.json().get("value") == []
    if empty and path not in ("/security/alerts", "/subscriptions"):
        found.append("an empty list proves nothing")
    return [
        f"{version} {operation}: {one}"
        for one in found
        if (operation, one.partition(":")[0]) not in EXCEPTIONS
    ]


def test_the_simulator_knows_every_operation_of_the_contract(contracts: Any) -> None:
    """And none beside it but those that are listed with their permissions."""
    known = {
        f"{method} {derive_path(path)}" for one in contracts.values() for method, path in one.operations()
    }

    assert known - set(routes()) == {"POST /$batch"}
    assert set(routes()) - known == set(EXTRA)


def derive_path(path: str) -> str:
    """`/users/{user-id}` as the simulator writes it."""
    parts = path.split("/")
    return "/".join("{}" if part.startswith("{") else part for part in parts)


def test_the_shipped_table_is_what_the_contract_says() -> None:
    """`contract.json` is derived, never edited."""
    files = [str(_FOLDER / f"graph-{version}.openapi.json") for version in ("v1.0", "beta")]
    shipped = Path(derive.__file__).with_name("contract.json").read_text("utf-8")

    assert derive.main(files) == shipped


@pytest.mark.parametrize("version", ["v1.0", "beta"])
def test_without_permissions_nothing_is_answered(everything: Any, contracts: Any, version: str) -> None:
    """Each operation that lists permissions refuses an application that has none of them."""
    simulator, client = everything
    world = World(simulator)
    simulator.tenant.grants["graph"] = ["Calendars.Read"]
    answered = []
    for method, path in contracts[version].operations():
        listed = contracts[version].document["paths"][path][method.lower()].get("x-application-permissions")
        if listed is None:
            continue
        url = f"{client.tenant['graph_url']}/{version}{world.path(path)}"
        answer = client.graph(method, url, world.body(f"{method} {path}"))
        if answer.status_code != 403 or answer.json()["error"]["code"] not in (
            "Authorization_RequestDenied",
            "ErrorAccessDenied",
        ):
            answered.append(f"{method} {path}: {answer.status_code}")

    assert answered == []
