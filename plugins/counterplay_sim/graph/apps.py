"""Applications, service principals, and what was granted to them."""

from __future__ import annotations

import base64
import secrets
import uuid
from datetime import timedelta
from typing import Any

from cryptography import x509

from counterplay_sim.clock import stamp
from counterplay_sim.graph import audit
from counterplay_sim.graph.audit import Target
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.directory import principal
from counterplay_sim.graph.errors import bad_request, denied, invalid_property, invalid_value, no_object
from counterplay_sim.graph.users import find_user
from counterplay_sim.http_server import Answer
from counterplay_sim.scenario.shapes import grant_id

Doc = dict[str, Any]

APPLICATION = "microsoft.graph.application"
PRINCIPAL = "microsoft.graph.servicePrincipal"
GRANT = "microsoft.graph.oAuth2PermissionGrant"
ASSIGNMENT = "microsoft.graph.appRoleAssignment"
MOST_SCOPE = 3850
_NO_ROLE = str(uuid.UUID(int=0))

_APPLICATIONS = Listing(
    APPLICATION,
    filters=frozenset(
        ["id", "appId", "displayName", "identifierUris", "createdDateTime", "signInAudience", "uniqueName"]
    ),
    orders=frozenset({"displayName"}),
    directory=True,
)
_PRINCIPALS = Listing(
    PRINCIPAL,
    filters=frozenset(
        [
            "id",
            "appId",
            "displayName",
            "accountEnabled",
            "appOwnerOrganizationId",
            "servicePrincipalNames",
            "servicePrincipalType",
            "tags",
        ]
    ),
    orders=frozenset({"displayName"}),
    directory=True,
)
_GRANTS = Listing(
    GRANT,
    filters=frozenset(["id", "clientId", "consentType", "principalId", "resourceId", "scope"]),
    directory=True,
)
_ASSIGNMENTS = Listing(
    ASSIGNMENT,
    filters=frozenset(["id", "appRoleId", "principalId", "resourceId", "resourceDisplayName"]),
    directory=True,
)


def _named(call: Call, kind: str, key: str) -> Doc:
    """By object id, or by `appId=...`."""
    name, _, value = key.partition("=")
    found = call.find(kind, key.lower())
    if found is None and name == "appId":
        found = next(iter(call.where(kind, "appId", value)), None)
    if found is None:
        raise no_object(value if name == "appId" else key)
    return found


def _need_owned(call: Call, document: Doc, *broad: str) -> None:
    """`Application.ReadWrite.OwnedBy` is good for what the caller created."""
    if not call.may(*broad) and document.get("createdByAppId") != call.app:
        raise denied()


_BROAD = ("Application.ReadWrite.All", "Directory.ReadWrite.All")


# Applications


def _applications(call: Call) -> Answer:
    return call.collection("applications", call.tenant.objects["application"], _APPLICATIONS)


def _application(call: Call, key: str) -> Answer:
    return call.entity("applications", _named(call, "application", key), APPLICATION)


def _create_application(call: Call) -> Answer:
    values = call.body(APPLICATION)
    if not values.get("displayName"):
        raise bad_request("Property displayName is required.", "Request_BadRequest")
    _refuse_read_only(values)
    _refuse_unusable(values)
    made = {
        "id": call.new_id(),
        "appId": call.new_id(),
        "createdDateTime": stamp(call.clock.now()),
        "createdByAppId": call.app,
        "deletedDateTime": None,
        "description": None,
        "identifierUris": [],
        "keyCredentials": [],
        "passwordCredentials": [],
        "publisherDomain": call.tenant.domain,
        "requiredResourceAccess": [],
        "signInAudience": "AzureADMyOrg",
        "tags": [],
        "appRoles": [],
        "addIns": [],
        **values,
    }
    with call.tenant.transaction():
        call.put("application", made)
        _told(call, "create_application", "Add application", "Application", made, {}, made)
    return call.entity("applications", made, APPLICATION, status=201)


def _refuse_read_only(values: Doc) -> None:
    for name in (
        "id",
        "appId",
        "createdDateTime",
        "createdByAppId",
        "publisherDomain",
        "passwordCredentials",
    ):
        if name in values:
            raise invalid_property(name)


def _refuse_unusable(values: Doc) -> None:
    """What the contract's types let pass, and a token could never be made with. GraphError 400."""
    if "displayName" in values and not values["displayName"]:
        raise invalid_value("displayName", "Application")
    for key in values.get("keyCredentials") or ():
        if key.get("key") is not None and not _is_key(key):
            raise bad_request("Key value is invalid certificate", "KeyCredentialsInvalidKey")
    for wanted in values.get("requiredResourceAccess") or ():
        listed = wanted.get("resourceAccess")
        if not wanted.get("resourceAppId") or listed is None:
            raise invalid_value("requiredResourceAccess", "Application")
        if not all(one.get("id") and one.get("type") in ("Role", "Scope") for one in listed):
            raise invalid_value("resourceAccess", "RequiredResourceAccess")
    for role in values.get("appRoles") or ():
        if not role.get("id") or not role.get("displayName"):
            raise invalid_value("appRoles", "Application")


def _is_key(credential: Doc) -> bool:
    """Whether the key is base64, and that of a certificate where it says so."""
    try:
        raw = base64.b64decode(credential["key"], validate=True)
        if credential.get("type") == "AsymmetricX509Cert":
            x509.load_der_x509_certificate(raw)
    except ValueError:
        return False
    return bool(raw)


def _update_application(call: Call, key: str) -> Answer:
    values = call.body(APPLICATION)
    found = _named(call, "application", key)
    _need_owned(call, found, "Application.ReadWrite.All")
    _refuse_read_only(values)
    _refuse_unusable(values)
    before = {name: found.get(name) for name in values}
    with call.tenant.transaction():
        call.put("application", {**found, **values})
        activity = "Update application"
        if "keyCredentials" in values:
            activity = "Update application – Certificates and secrets management "
        _told(call, "update_application", activity, "Application", found, before, values)
    return Answer(204)


def _add_password(call: Call, key: str) -> Answer:
    values = call.arguments(passwordCredential=dict)
    wanted = values["passwordCredential"] or {}
    call.contract.check(wanted, "microsoft.graph.passwordCredential")
    found = _named(call, "application", key)
    _need_owned(call, found, *_BROAD)
    now = call.clock.now()
    secret = secrets.token_urlsafe(30)
    made = {
        "customKeyIdentifier": None,
        "displayName": wanted.get("displayName"),
        "endDateTime": wanted.get("endDateTime") or stamp(now + timedelta(days=730)),
        "hint": secret[:3],
        "keyId": call.new_id(),
        "secretText": None,
        "startDateTime": wanted.get("startDateTime") or stamp(now),
    }
    held = found.get("@sim.secrets", {}) | {made["keyId"]: secret}
    with call.tenant.transaction():
        passwords = [*found["passwordCredentials"], made]
        call.put("application", {**found, "passwordCredentials": passwords, "@sim.secrets": held})
        activity = "Update application – Certificates and secrets management "
        _told(call, "add_password", activity, "Application", found, {}, made)
    return call.json(
        {
            "@odata.context": f"https://graph.microsoft.com/{call.version}/$metadata#microsoft.graph.passwordCredential",
            **made,
            "secretText": secret,
        }
    )


def _remove_password(call: Call, key: str) -> Answer:
    wanted = call.arguments(keyId=str)["keyId"]
    found = _named(call, "application", key)
    _need_owned(call, found, *_BROAD)
    kept = [one for one in found["passwordCredentials"] if one["keyId"] != wanted]
    if len(kept) == len(found["passwordCredentials"]):
        raise bad_request("No password credential found with keyId.", "Request_BadRequest")
    held = {name: value for name, value in found.get("@sim.secrets", {}).items() if name != wanted}
    with call.tenant.transaction():
        call.put("application", {**found, "passwordCredentials": kept, "@sim.secrets": held})
        activity = "Update application – Certificates and secrets management "
        _told(call, "remove_password", activity, "Application", found, {"keyId": wanted}, {})
    return Answer(204)


_FEDERATED = "microsoft.graph.federatedIdentityCredential"


def _federated(call: Call, key: str) -> Answer:
    found = _named(call, "application", key)
    context = f"applications('{found['id']}')/federatedIdentityCredentials"
    return call.collection(context, found.get("@sim.federated", []), Listing(_FEDERATED))


def _add_federated(call: Call, key: str) -> Answer:
    values = call.body(_FEDERATED)
    found = _named(call, "application", key)
    _need_owned(call, found, "Application.ReadWrite.All")
    for name in ("name", "issuer", "subject", "audiences"):
        if not values.get(name):
            raise bad_request(f"Property {name} is required.", "Request_BadRequest")
    held = found.get("@sim.federated", [])
    if any((one["issuer"], one["subject"]) == (values["issuer"], values["subject"]) for one in held):
        raise bad_request(
            "FederatedIdentityCredential with the same issuer and subject already exists on the application.",
            "Request_MultipleObjectsWithSameKeyValue",
        )
    made = {"description": None, **values, "id": call.new_id()}
    with call.tenant.transaction():
        call.put("application", {**found, "@sim.federated": [*held, made]})
        activity = "Update application – Certificates and secrets management "
        _told(call, "add_federated_credential", activity, "Application", found, {}, made)
    context = f"applications('{found['id']}')/federatedIdentityCredentials"
    return call.entity(context, made, _FEDERATED, status=201)


# Service principals


def _principals(call: Call) -> Answer:
    return call.collection("servicePrincipals", call.tenant.objects["servicePrincipal"], _PRINCIPALS)


def _principal(call: Call, key: str) -> Answer:
    return call.entity("servicePrincipals", _named(call, "servicePrincipal", key), PRINCIPAL)


def _create_principal(call: Call) -> Answer:
    values = call.body(PRINCIPAL)
    app = str(values.get("appId") or "")
    known = next(iter(call.where("application", "appId", app)), None)
    if known is None:
        raise bad_request(
            f"The appId '{app}' of the service principal does not reference a valid application object.",
            "Request_BadRequest",
        )
    _need_owned(call, known, *_BROAD)
    if call.where("servicePrincipal", "appId", app):
        raise bad_request(
            "The service principal cannot be created, updated, or restored because the service principal"
            f" name {app} is already in use.",
            "Request_MultipleObjectsWithSameKeyValue",
        )
    if "id" in values:
        raise invalid_property("id")
    _refuse_unusable(values)
    made = service_principal(call.new_id(), app, known["displayName"], call.tenant.id)
    made |= {"createdByAppId": call.app, **values}
    with call.tenant.transaction():
        call.put("servicePrincipal", made)
        _told(call, "create_service_principal", "Add service principal", "ServicePrincipal", made, {}, made)
    return call.entity("servicePrincipals", made, PRINCIPAL, status=201)


def service_principal(key: str, app: str, name: str, owner: str) -> Doc:
    """A service principal with the members that all have."""
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
        "tags": ["WindowsAzureActiveDirectoryIntegratedApp"],
    }


def _update_principal(call: Call, key: str) -> Answer:
    values = call.body(PRINCIPAL)
    found = _named(call, "servicePrincipal", key)
    _need_owned(call, found, *_BROAD)
    for name in ("id", "appId", "appOwnerOrganizationId", "servicePrincipalType", "appDisplayName"):
        if name in values:
            raise invalid_property(name)
    _refuse_unusable(values)
    before = {name: found.get(name) for name in values}
    with call.tenant.transaction():
        call.put("servicePrincipal", {**found, **values})
        _told(
            call,
            "update_service_principal",
            "Update service principal",
            "ServicePrincipal",
            found,
            before,
            values,
        )
    return Answer(204)


def _delete_principal(call: Call, key: str) -> Answer:
    found = _named(call, "servicePrincipal", key)
    _need_owned(call, found, *_BROAD)
    with call.tenant.transaction():
        for kind, name in (("oauth2PermissionGrant", "clientId"), ("appRoleAssignment", "principalId")):
            for one in call.tenant.objects[kind].where(name, found["id"]):
                call.remove(kind, one["id"])
        call.remove("servicePrincipal", found["id"])
        _told(
            call, "delete_service_principal", "Remove service principal", "ServicePrincipal", found, found, {}
        )
    return Answer(204)


# Delegated permissions


def _grants(call: Call) -> Answer:
    return call.collection("oauth2PermissionGrants", call.tenant.objects["oauth2PermissionGrant"], _GRANTS)


def _grants_of_user(call: Call, name: str) -> Answer:
    found = call.where("oauth2PermissionGrant", "principalId", find_user(call, name)["id"])
    return call.collection("oauth2PermissionGrants", found, _GRANTS)


def _grants_of_principal(call: Call, key: str) -> Answer:
    found = call.where("oauth2PermissionGrant", "clientId", _named(call, "servicePrincipal", key)["id"])
    return call.collection("oauth2PermissionGrants", found, _GRANTS)


def _grant_named(call: Call, key: str) -> Doc:
    found = call.find("oauth2PermissionGrant", key)
    if found is None:
        raise no_object(key)
    return found


def _grant(call: Call, key: str) -> Answer:
    return call.entity("oauth2PermissionGrants", _grant_named(call, key), GRANT)


def _create_grant(call: Call) -> Answer:
    values = call.body(GRANT)
    kind = values.get("consentType")
    if kind not in ("AllPrincipals", "Principal") or (kind == "Principal") is not bool(
        values.get("principalId")
    ):
        raise bad_request("Property consentType or principalId has an invalid value.", "Request_BadRequest")
    client = call.find("servicePrincipal", str(values.get("clientId")))
    resource = call.find("servicePrincipal", str(values.get("resourceId")))
    if client is None or resource is None:
        raise no_object(str(values.get("clientId") if client is None else values.get("resourceId")))
    if len(values.get("scope") or "") > MOST_SCOPE:
        raise bad_request("The value of property scope exceeds the maximum length.", "Request_BadRequest")
    held = call.where("oauth2PermissionGrant", "clientId", client["id"])
    wanted = (resource["id"], values.get("principalId"))
    if any((one["resourceId"], one["principalId"]) == wanted for one in held):
        raise bad_request("Permission entry already exists.", "Request_BadRequest")
    made = {"principalId": None, "scope": "", **values, "id": grant_id(client["id"], *wanted)}
    with call.tenant.transaction():
        call.put("oauth2PermissionGrant", made)
        _told_grant(call, "add_grant", "Add delegated permission grant", made, {}, made)
    return call.entity("oauth2PermissionGrants", made, GRANT, status=201)


def _delete_grant(call: Call, key: str) -> Answer:
    found = _grant_named(call, key)
    with call.tenant.transaction():
        call.remove("oauth2PermissionGrant", key)
        _told_grant(call, "remove_grant", "Remove delegated permission grant", found, found, {})
    return Answer(204)


def _told_grant(call: Call, action: str, activity: str, grant: Doc, before: Doc, after: Doc) -> None:
    audit.journal(
        call, action, user=grant["principalId"] or "", target=grant["id"], before=before, after=after
    )
    resource = call.find("servicePrincipal", grant["resourceId"]) or {"displayName": None}
    changes = (
        ("DelegatedPermissionGrant.Scope", before.get("scope"), after.get("scope")),
        ("DelegatedPermissionGrant.ConsentType", before.get("consentType"), after.get("consentType")),
        ("ServicePrincipal.ObjectID", None, grant["clientId"]),
    )
    about = Target(grant["resourceId"], "ServicePrincipal", resource["displayName"], None, changes)
    audit.directory(
        call, activity, "ApplicationManagement", about, operation="Assign" if after else "Unassign"
    )


# App roles


def _assignments(name: str) -> Any:
    """Assignments held by a principal (`principalId`) or given on it (`resourceId`)."""

    def answer(call: Call, key: str) -> Answer:
        found = _named(call, "servicePrincipal", key)
        return call.collection(
            "appRoleAssignments", call.where("appRoleAssignment", name, found["id"]), _ASSIGNMENTS
        )

    return answer


def _assignments_of_user(call: Call, name: str) -> Answer:
    found = call.where("appRoleAssignment", "principalId", find_user(call, name)["id"])
    return call.collection("appRoleAssignments", found, _ASSIGNMENTS)


def _assign(call: Call, key: str) -> Answer:
    """Give an application a permission; it is in tokens from the next one on."""
    if not call.may("AppRoleAssignment.ReadWrite.All"):
        raise denied()
    _named(call, "servicePrincipal", key)
    values = call.body(ASSIGNMENT)
    resource = call.find("servicePrincipal", str(values.get("resourceId")))
    holder = principal(call, str(values.get("principalId")))
    role = str(values.get("appRoleId"))
    known = {one["id"] for one in resource["appRoles"]} | {_NO_ROLE} if resource else set()
    if resource is None or holder is None or role not in known:
        raise bad_request("Permission being assigned was not found on application", "Request_BadRequest")
    held = call.where("appRoleAssignment", "principalId", holder["id"])
    if any((one["resourceId"], one["appRoleId"]) == (resource["id"], role) for one in held):
        raise bad_request("Permission being assigned already exists on the object", "Request_BadRequest")
    made = {
        "id": base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.UUID(holder["id"]).bytes)
        .decode()
        .rstrip("="),
        "deletedDateTime": None,
        "appRoleId": role,
        "createdDateTime": call.now,
        "principalDisplayName": holder.get("displayName"),
        "principalId": holder["id"],
        "principalType": holder["@odata.type"]
        .rpartition(".")[2]
        .replace("servicePrincipal", "ServicePrincipal"),
        "resourceDisplayName": resource["displayName"],
        "resourceId": resource["id"],
    }
    with call.tenant.transaction():
        call.put("appRoleAssignment", made)
        _told_assignment(call, "add_app_role", made, after=True)
    return call.entity("appRoleAssignments", made, ASSIGNMENT, status=201)


def _unassign(call: Call, key: str, assignment: str) -> Answer:
    if not call.may("AppRoleAssignment.ReadWrite.All"):
        raise denied()
    found = call.find("appRoleAssignment", assignment)
    if found is None:
        raise no_object(assignment)
    with call.tenant.transaction():
        call.remove("appRoleAssignment", assignment)
        _told_assignment(call, "remove_app_role", found, after=False)
    return Answer(204)


def _told_assignment(call: Call, action: str, assignment: Doc, *, after: bool) -> None:
    of_user = assignment["principalId"] in call.tenant.users
    states: tuple[Doc, Doc] = ({}, assignment) if after else (assignment, {})
    user = assignment["principalId"] if of_user else ""
    audit.journal(call, action, user=user, target=assignment["id"], before=states[0], after=states[1])
    activity = {
        (True, True): "Add app role assignment grant to user",
        (True, False): "Remove app role assignment from user",
        (False, True): "Add app role assignment to service principal",
        (False, False): "Remove app role assignment from service principal",
    }[(of_user, after)]
    change = (
        "AppRole.Id",
        None if after else assignment["appRoleId"],
        assignment["appRoleId"] if after else None,
    )
    about = Target(
        assignment["resourceId"], "ServicePrincipal", assignment.get("resourceDisplayName"), None, (change,)
    )
    audit.directory(
        call,
        activity,
        "UserManagement" if of_user else "ApplicationManagement",
        about,
        operation="Assign" if after else "Unassign",
    )


def _told(call: Call, action: str, activity: str, kind: str, document: Doc, before: Doc, after: Doc) -> None:
    audit.journal(call, action, user="", target=document["id"], before=before, after=after)
    changes = tuple(
        (name[0].upper() + name[1:], before.get(name), after.get(name)) for name in {**before, **after}
    )
    about = Target(document["id"], kind, document["displayName"], None, changes[:8])
    operation = (
        "Add" if activity.startswith("Add") else "Delete" if activity.startswith("Remove") else "Update"
    )
    audit.directory(call, activity, "ApplicationManagement", about, operation=operation)


_SP = "/servicePrincipals/{}"
_APP = "/applications/{}"
ROUTES = {
    "GET /applications": _applications,
    "POST /applications": _create_application,
    f"GET {_APP}": _application,
    f"PATCH {_APP}": _update_application,
    f"POST {_APP}/addPassword": _add_password,
    f"POST {_APP}/removePassword": _remove_password,
    f"GET {_APP}/federatedIdentityCredentials": _federated,
    f"POST {_APP}/federatedIdentityCredentials": _add_federated,
    "GET /servicePrincipals": _principals,
    "POST /servicePrincipals": _create_principal,
    f"GET {_SP}": _principal,
    f"PATCH {_SP}": _update_principal,
    f"DELETE {_SP}": _delete_principal,
    f"GET {_SP}/oauth2PermissionGrants": _grants_of_principal,
    f"GET {_SP}/appRoleAssignments": _assignments("principalId"),
    f"POST {_SP}/appRoleAssignments": _assign,
    f"DELETE {_SP}/appRoleAssignments/{{}}": _unassign,
    f"GET {_SP}/appRoleAssignedTo": _assignments("resourceId"),
    f"POST {_SP}/appRoleAssignedTo": _assign,
    f"DELETE {_SP}/appRoleAssignedTo/{{}}": _unassign,
    "GET /oauth2PermissionGrants": _grants,
    "POST /oauth2PermissionGrants": _create_grant,
    "GET /oauth2PermissionGrants/{}": _grant,
    "DELETE /oauth2PermissionGrants/{}": _delete_grant,
    "GET /users/{}/oauth2PermissionGrants": _grants_of_user,
    "GET /users/{}/appRoleAssignments": _assignments_of_user,
    "DELETE /users/{}/appRoleAssignments/{}": _unassign,
}
