"""The directory beside users and applications: roles, groups, devices, domains, licences."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from counterplay_sim.graph import audit
from counterplay_sim.graph.audit import Target
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import bad_request, denied, invalid_property, no_object
from counterplay_sim.graph.users import STRONGEST, directory_role, directory_role_id, roles_of
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

ASSIGNMENT = "microsoft.graph.unifiedRoleAssignment"
DEFINITION = "microsoft.graph.unifiedRoleDefinition"


def principal(call: Call, key: str) -> Doc | None:
    """The user, group or service principal of that id, as a directory object."""
    for kind in ("user", "servicePrincipal", "group"):
        found = call.find(kind, key)
        if found is not None:
            return {"@odata.type": f"#microsoft.graph.{kind}", **call.show(found, f"microsoft.graph.{kind}")}
    return None


def _definition_of(call: Call, assignment: Doc) -> Any:
    found = call.find("roleDefinition", assignment["roleDefinitionId"])
    return call.show(found, DEFINITION) if found else None


def _principal_of(call: Call, assignment: Doc) -> Any:
    return principal(call, assignment["principalId"])


_LINKS = {"roleDefinition": _definition_of, "principal": _principal_of}
_ASSIGNMENTS = Listing(ASSIGNMENT, directory=True, links=_LINKS)
_DEFINITIONS = Listing(
    DEFINITION,
    filters=frozenset({"id", "displayName", "isBuiltIn", "templateId", "isPrivileged"}),
    directory=True,
)


def _assignments(call: Call) -> Answer:
    text = call.query.get("$filter", "")
    if not text:
        raise bad_request(
            "At least one filter must be provided on principalId, roleDefinitionId, directoryScopeId or"
            " appScopeId.",
        )
    return call.collection(
        "roleManagement/directory/roleAssignments", call.tenant.objects["roleAssignment"], _ASSIGNMENTS
    )


def _assignment(call: Call, key: str) -> Answer:
    found = call.find("roleAssignment", key)
    if found is None:
        raise no_object(key)
    return call.entity("roleManagement/directory/roleAssignments", found, ASSIGNMENT)


def _assign(call: Call) -> Answer:
    values = call.body(ASSIGNMENT)
    definition = call.find("roleDefinition", str(values.get("roleDefinitionId")))
    holder = principal(call, str(values.get("principalId")))
    if definition is None or holder is None:
        raise bad_request(
            "The request is missing a valid principalId or roleDefinitionId.", "Request_BadRequest"
        )
    held = call.where("roleAssignment", "principalId", holder["id"])
    scope = values.get("directoryScopeId") or "/"
    if any((one["roleDefinitionId"], one["directoryScopeId"]) == (definition["id"], scope) for one in held):
        raise bad_request(
            "A conflicting object with one or more of the specified property values is present in the"
            " directory.",
            "Request_BadRequest",
        )
    made = {
        "id": base64.urlsafe_b64encode(hashlib.sha256(call.request_id.encode()).digest()).decode()[:34]
        + "-1",
        "principalId": holder["id"],
        "roleDefinitionId": definition["id"],
        "directoryScopeId": scope,
        "appScopeId": None,
        "principalOrganizationId": call.tenant.id,
        "condition": None,
    }
    with call.tenant.transaction():
        call.put("roleAssignment", made)
        _told(call, "assign_role", "Add member to role", made, definition, after=True)
    return call.entity("roleManagement/directory/roleAssignments", made, ASSIGNMENT, status=201)


def _unassign(call: Call, key: str) -> Answer:
    found = call.find("roleAssignment", key)
    if found is None:
        raise no_object(key)
    definition = call.find("roleDefinition", found["roleDefinitionId"]) or {"id": "", "displayName": ""}
    if definition["id"] in STRONGEST and not roles_of(call, call.principal) & STRONGEST:
        raise denied()
    with call.tenant.transaction():
        call.remove("roleAssignment", key)
        _told(call, "unassign_role", "Remove member from role", found, definition, after=False)
    return Answer(204)


def _told(call: Call, action: str, activity: str, assignment: Doc, role: Doc, *, after: bool) -> None:
    holder = principal(call, assignment["principalId"]) or {"displayName": None}
    user = assignment["principalId"] if assignment["principalId"] in call.tenant.users else ""
    states: tuple[Doc, Doc] = ({}, assignment) if after else (assignment, {})
    audit.journal(call, action, user=user, target=assignment["id"], before=states[0], after=states[1])
    change = (
        "Role.DisplayName",
        None if after else role["displayName"],
        role["displayName"] if after else None,
    )
    about = Target(
        assignment["principalId"],
        "User" if user else "ServicePrincipal",
        holder.get("displayName"),
        holder.get("userPrincipalName"),
        (change,),
    )
    audit.directory(call, activity, "RoleManagement", about, operation="Assign" if after else "Unassign")


def _definitions(call: Call) -> Answer:
    found = [_versioned(call, one) for one in call.every("roleDefinition")]
    return call.collection("roleManagement/directory/roleDefinitions", found, _DEFINITIONS)


def _definition(call: Call, key: str) -> Answer:
    found = call.find("roleDefinition", key)
    if found is None:
        raise no_object(key)
    return call.entity("roleManagement/directory/roleDefinitions", _versioned(call, found), DEFINITION)


def _versioned(call: Call, definition: Doc) -> Doc:
    """Only beta tells which roles are privileged."""
    if call.version == "beta":
        return definition
    return {name: value for name, value in definition.items() if name != "isPrivileged"}


def _transitive(call: Call) -> Answer:
    """Beta: what a principal holds directly and through groups, in one call."""
    if call.request.headers.get("consistencylevel", "").lower() != "eventual" or "$count" not in call.query:
        raise bad_request("Unsupported Query.", "Request_UnsupportedQuery")
    made = [
        {**_beta(assignment), "principalId": member}
        for assignment in call.every("roleAssignment")
        for member in _members(call, assignment["principalId"])
    ]
    return call.collection("roleManagement/directory/transitiveRoleAssignments", made, _ASSIGNMENTS)


def _beta(assignment: Doc) -> Doc:
    return {name: value for name, value in assignment.items() if name != "principalOrganizationId"}


def _members(call: Call, holder: str) -> list[str]:
    group = call.find("group", holder)
    return [holder, *(group.get("@sim.members", ()) if group else ())]


_ELIGIBLE = Listing("microsoft.graph.unifiedRoleEligibilityScheduleInstance", directory=True)


def _eligible(call: Call) -> Answer:
    if not call.licence.governance:
        raise bad_request(
            "The tenant needs to have Microsoft Entra ID P2 or Microsoft Entra ID Governance license.",
            "AadPremiumLicenseRequired",
        )
    return call.collection(
        "roleManagement/directory/roleEligibilityScheduleInstances",
        list(call.every("roleEligibility")),
        _ELIGIBLE,
    )


_ROLES = Listing(
    "microsoft.graph.directoryRole",
    filters=frozenset({"id", "displayName", "roleTemplateId"}),
    options=frozenset({"$filter", "$select", "$expand", "$count"}),
    directory=True,
)
_OBJECTS = Listing("microsoft.graph.directoryObject", filters=frozenset({"id"}), directory=True)


def _activated(call: Call) -> list[Doc]:
    """Roles that somebody holds: only those were ever activated here."""
    held = {one["roleDefinitionId"] for one in call.every("roleAssignment")}
    return [directory_role(call, one) for one in call.every("roleDefinition") if one["id"] in held]


def _roles(call: Call) -> Answer:
    return call.collection("directoryRoles", _activated(call), _ROLES)


def _role_named(call: Call, key: str) -> Doc:
    name, _, value = key.partition("=")
    for role in _activated(call):
        if key == role["id"] or (name == "roleTemplateId" and value == role["roleTemplateId"]):
            return role
    raise no_object(key)


def _role(call: Call, key: str) -> Answer:
    return call.entity("directoryRoles", _role_named(call, key), "microsoft.graph.directoryRole")


def _role_members(call: Call, key: str) -> Answer:
    role = _role_named(call, key)
    found = [
        member
        for assignment in call.every("roleAssignment")
        if directory_role_id(call, assignment["roleDefinitionId"]) == role["id"]
        and (member := principal(call, assignment["principalId"])) is not None
    ]
    return call.collection("directoryObjects", found, _OBJECTS)


_GROUPS = Listing(
    "microsoft.graph.group",
    filters=frozenset(
        [
            "id",
            "displayName",
            "mail",
            "mailNickname",
            "isAssignableToRole",
            "securityEnabled",
            "mailEnabled",
            "groupTypes",
        ]
    ),
    orders=frozenset({"displayName"}),
    directory=True,
)


def _groups(call: Call) -> Answer:
    return call.collection("groups", call.tenant.objects["group"], _GROUPS)


def _group(call: Call, key: str) -> Answer:
    found = call.find("group", key)
    if found is None:
        raise no_object(key)
    return call.entity("groups", found, _GROUPS.type)


_DEVICES = Listing(
    "microsoft.graph.device",
    filters=frozenset(
        [
            "id",
            "accountEnabled",
            "deviceId",
            "displayName",
            "isCompliant",
            "isManaged",
            "operatingSystem",
            "operatingSystemVersion",
            "trustType",
            "approximateLastSignInDateTime",
        ]
    ),
    orders=frozenset({"displayName"}),
    directory=True,
)
_DEVICE_WRITABLE = (
    "accountEnabled",
    "operatingSystem",
    "operatingSystemVersion",
    "displayName",
    "isCompliant",
    "isManaged",
)


def _devices(call: Call) -> Answer:
    return call.collection("devices", call.tenant.objects["device"], _DEVICES)


def _device_named(call: Call, key: str) -> Doc:
    name, _, value = key.partition("=")
    found = call.find("device", key)
    if found is None and name == "deviceId":
        found = next(iter(call.where("device", "deviceId", value)), None)
    if found is None:
        raise no_object(key)
    return found


def _device(call: Call, key: str) -> Answer:
    return call.entity("devices", _device_named(call, key), _DEVICES.type)


def _update_device(call: Call, key: str) -> Answer:
    values = call.body(_DEVICES.type)
    device = _device_named(call, key)
    for name in values:
        if name not in _DEVICE_WRITABLE:
            raise invalid_property(name)
    before = {name: device.get(name) for name in values}
    with call.tenant.transaction():
        call.put("device", {**device, **values})
        owner = str(device.get("@sim.owner") or "")
        audit.journal(call, "update_device", user=owner, target=device["id"], before=before, after=values)
        changes = tuple((name[0].upper() + name[1:], before[name], value) for name, value in values.items())
        about = Target(device["id"], "Device", device["displayName"], None, changes)
        audit.directory(call, "Update device", "Device", about)
    return Answer(204)


_ORGANIZATION = Listing("microsoft.graph.organization", options=frozenset({"$select", "$expand"}))
_SKUS = Listing("microsoft.graph.subscribedSku", page=10_000, options=frozenset({"$select"}))
_DOMAINS = Listing("microsoft.graph.domain", page=10_000, options=frozenset({"$select", "$filter", "$top"}))


def _organizations(call: Call) -> Answer:
    return call.collection("organization", [call.tenant.organization], _ORGANIZATION)


def _organization(call: Call, key: str) -> Answer:
    if key != call.tenant.id:
        raise no_object(key)
    return call.entity("organization", call.tenant.organization, _ORGANIZATION.type)


def _skus(call: Call) -> Answer:
    return call.collection("subscribedSkus", list(call.every("subscribedSku")), _SKUS)


def _domains(call: Call) -> Answer:
    return call.collection("domains", list(call.every("domain")), _DOMAINS)


def _domain(call: Call, key: str) -> Answer:
    found = call.find("domain", key.lower())
    if found is None:
        raise no_object(key)
    return call.entity("domains", found, _DOMAINS.type)


_MANAGEMENT = "/roleManagement/directory"
ROUTES = {
    f"GET {_MANAGEMENT}/roleAssignments": _assignments,
    f"GET {_MANAGEMENT}/roleAssignments/{{}}": _assignment,
    f"POST {_MANAGEMENT}/roleAssignments": _assign,
    f"DELETE {_MANAGEMENT}/roleAssignments/{{}}": _unassign,
    f"GET {_MANAGEMENT}/roleDefinitions": _definitions,
    f"GET {_MANAGEMENT}/roleDefinitions/{{}}": _definition,
    f"GET {_MANAGEMENT}/transitiveRoleAssignments": _transitive,
    f"GET {_MANAGEMENT}/roleEligibilityScheduleInstances": _eligible,
    "GET /directoryRoles": _roles,
    "GET /directoryRoles/{}": _role,
    "GET /directoryRoles/{}/members": _role_members,
    "GET /groups": _groups,
    "GET /groups/{}": _group,
    "GET /devices": _devices,
    "GET /devices/{}": _device,
    "PATCH /devices/{}": _update_device,
    "GET /organization": _organizations,
    "GET /organization/{}": _organization,
    "GET /subscribedSkus": _skus,
    "GET /domains": _domains,
    "GET /domains/{}": _domain,
}
