"""Users: reading, blocking, passwords, sessions, memberships, licences and devices."""

from __future__ import annotations

import re
import uuid
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.graph import audit
from counterplay_sim.graph.audit import Target
from counterplay_sim.graph.call import Call, Listing
from counterplay_sim.graph.errors import (
    bad_request,
    denied,
    invalid_property,
    invalid_value,
    no_object,
    not_premium,
    synced,
)
from counterplay_sim.http_server import Answer

Doc = dict[str, Any]

TYPE = "microsoft.graph.user"
DEFAULTS = (
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
)
_FILTERS = frozenset(
    [
        "id",
        "accountEnabled",
        "assignedPlans/*",
        "city",
        "companyName",
        "country",
        "createdDateTime",
        "department",
        "displayName",
        "employeeId",
        "givenName",
        "jobTitle",
        "mail",
        "mailNickname",
        "onPremisesImmutableId",
        "onPremisesSecurityIdentifier",
        "onPremisesSyncEnabled",
        "otherMails",
        "proxyAddresses",
        "securityIdentifier",
        "surname",
        "usageLocation",
        "userPrincipalName",
        "userType",
        "signInActivity/*",
    ]
)
USERS = Listing(
    TYPE,
    defaults=DEFAULTS,
    filters=_FILTERS,
    orders=frozenset({"displayName", "userPrincipalName", "createdDateTime"}),
    directory=True,
)
_PRINCIPAL_NAME = re.compile(r"[A-Za-z0-9'._!#^~+$-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_WITH_ACTIVITY = 500  # the largest page with `signInActivity`

READ_WRITE = ("User.ReadWrite.All", "Directory.ReadWrite.All")
#: Changing these of an administrator takes a role of the application's own, whatever its permissions.
SENSITIVE = frozenset(
    [
        "accountEnabled",
        "passwordProfile",
        "userPrincipalName",
        "businessPhones",
        "mobilePhone",
        "otherMails",
        "onPremisesImmutableId",
    ]
)
_READ_ONLY = frozenset(
    [
        "id",
        "createdDateTime",
        "deletedDateTime",
        "signInSessionsValidFromDateTime",
        "lastPasswordChangeDateTime",
        "assignedPlans",
        "provisionedPlans",
        "proxyAddresses",
        "securityIdentifier",
        "onPremisesSyncEnabled",
        "onPremisesSecurityIdentifier",
        "assignedLicenses",
        "licenseAssignmentStates",
        "signInActivity",
        "onPremisesLastSyncDateTime",
    ]
)
PRIVILEGED_AUTHENTICATION_ADMINISTRATOR = "7be44c8a-adaf-4e2a-84d6-ab2649e08a13"
GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
USER_ADMINISTRATOR = "fe930be7-5e62-47db-91af-98c3a49a38b1"
STRONGEST = {GLOBAL_ADMINISTRATOR, PRIVILEGED_AUTHENTICATION_ADMINISTRATOR}


def find_user(call: Call, name: str) -> Doc:
    """The user of that object id or user principal name. GraphError 404: there is none."""
    found = call.find("user", name.lower())
    if found is None and "@" in name:
        known = call.tenant.user(name)
        found = call.find("user", known["id"]) if known else None
    if found is None:
        raise no_object(name)
    return found


def target(user: Doc, *changes: tuple[str, Any, Any]) -> Target:
    """A user as the audit log names it."""
    return Target(user["id"], "User", user["displayName"], user["userPrincipalName"], changes)


def groups_of(call: Call, principal: str) -> list[Doc]:
    """The groups that a user or a service principal is in, directly or through others."""
    found: dict[str, Doc] = {}
    waiting = [principal]
    while waiting:
        member = waiting.pop()
        for group in call.every("group"):
            if member in group.get("@sim.members", ()) and group["id"] not in found:
                found[group["id"]] = group
                waiting.append(group["id"])
    return list(found.values())


def roles_of(call: Call, principal: str) -> set[str]:
    """The role definitions assigned to a principal, directly or through role-assignable groups."""
    holders = [principal, *(g["id"] for g in groups_of(call, principal) if g.get("isAssignableToRole"))]
    return {
        assignment["roleDefinitionId"]
        for holder in holders
        for assignment in call.where("roleAssignment", "principalId", holder)
    }


def role_holders(call: Call) -> set[str]:
    """Everybody who holds a role, directly or as a member of a group that does."""
    found: set[str] = set()
    waiting = [one["principalId"] for one in call.every("roleAssignment")]
    while waiting:
        holder = waiting.pop()
        if holder not in found:
            found.add(holder)
            group = call.find("group", holder)
            waiting += group.get("@sim.members", ()) if group else ()
    return found


def refuse_protected(call: Call, user: Doc) -> None:
    """An administrator can be changed only by an application that holds a strong enough role itself."""
    held = roles_of(call, user["id"])
    in_role_group = any(group.get("isAssignableToRole") for group in groups_of(call, user["id"]))
    if (held or in_role_group) and not roles_of(call, call.principal) & STRONGEST:
        raise denied()


def _list(call: Call) -> Answer:
    listing = USERS
    if "signInActivity" in call.query.get("$select", "") + call.query.get("$filter", ""):
        _need_activity(call)
        listing = Listing(TYPE, DEFAULTS, _FILTERS, USERS.orders, most=_WITH_ACTIVITY, directory=True)
    if "$search" in call.query:
        raise bad_request(
            "Request with $search query parameter is not simulated.", "Request_UnsupportedQuery"
        )
    eventual = call.request.headers.get("consistencylevel", "").lower() == "eventual"
    if call.query.get("$count", "").lower() == "true" and not eventual:
        call.query.pop("$count")  # without the header the real service gives no count
    return call.collection("users", call.tenant.users, listing)


def _need_activity(call: Call) -> None:
    if not call.may("AuditLog.Read.All"):
        raise denied()
    if not call.licence.premium:
        raise not_premium()


def _count(call: Call) -> Answer:
    if call.request.headers.get("consistencylevel", "").lower() != "eventual":
        raise bad_request("$count is not currently supported.", "Request_BadRequest")
    return call.count(call.tenant.users, USERS)


def _get(call: Call, name: str) -> Answer:
    if "signInActivity" in call.query.get("$select", ""):
        _need_activity(call)
    return call.user_entity(find_user(call, name), USERS)


def _update(call: Call, name: str) -> Answer:
    values = call.body(TYPE)
    user = find_user(call, name)
    for key in values:
        if key in _READ_ONLY:
            raise invalid_property(key)
    _authorize_update(call, values)
    if SENSITIVE & set(values):
        refuse_protected(call, user)
    if user.get("onPremisesSyncEnabled") and call.rules.synced_users == "refuse":
        raise synced()
    _refuse_impossible(call, user, values)
    profile = values.pop("passwordProfile", None)
    with call.tenant.transaction():
        if profile is not None:
            _set_password(call, user, profile)
            user = find_user(call, name)
        if values:
            _set_values(call, user, values)
    return Answer(204)


def _refuse_impossible(call: Call, user: Doc, values: Doc) -> None:
    """What the contract's types let pass, and the directory does not. GraphError 400."""
    for name in ("accountEnabled", "displayName", "mailNickname", "userPrincipalName"):
        if name in values and values[name] in (None, ""):
            raise invalid_value(name, "User")
    wanted = values.get("userPrincipalName")
    if wanted is None:
        return
    if not _PRINCIPAL_NAME.fullmatch(wanted):
        raise invalid_value("userPrincipalName", "User")
    if any(one["id"] != user["id"] for one in call.tenant.users.where("userPrincipalName", wanted)):
        raise bad_request(
            "Another object with the same value for property userPrincipalName already exists.",
            "Request_BadRequest",
        )


def _authorize_update(call: Call, values: Doc) -> None:
    """Some permissions are good for one property only, and a password takes a role beside it."""
    allowed = call.may(*READ_WRITE)
    narrow = {
        "accountEnabled": "User.EnableDisableAccount.All+User.Read.All",
        "passwordProfile": "User-PasswordProfile.ReadWrite.All",
        "mobilePhone": "User-Phone.ReadWrite.All",
        "businessPhones": "User-Phone.ReadWrite.All",
        "otherMails": "User-Mail.ReadWrite.All",
        "identities": "User.ManageIdentities.All",
    }
    if not allowed and not all(name in narrow and call.may(narrow[name]) for name in values):
        raise denied()
    if "passwordProfile" in values and not (
        call.may(narrow["passwordProfile"], "Directory.ReadWrite.All", "User.ReadWrite.All")
        and roles_of(call, call.principal) & {*STRONGEST, USER_ADMINISTRATOR}
    ):
        raise denied()


def _set_password(call: Call, user: Doc, profile: Doc) -> None:
    password = profile.get("password")
    if password is not None and (len(password) < 8 or password.lower() == password or password.isalnum()):
        raise bad_request(
            "The specified password does not comply with password complexity requirements. Please provide a"
            " different password.",
            "Request_BadRequest",
        )
    now = stamp(call.clock.now())
    changed = {**user, "@sim.passwordProfile": {**profile, "password": None}}
    if password is not None:
        changed |= {"lastPasswordChangeDateTime": now, "signInSessionsValidFromDateTime": now}
        call.tenant.sessions.put(user["id"], [])
    call.put("user", changed)
    told = {name: value for name, value in profile.items() if name != "password"}
    audit.journal(
        call, "set_password", user=user["id"], target=user["id"], before={}, after={"passwordProfile": told}
    )
    audit.directory(call, "Reset user password", "UserManagement", target(user))


def _set_values(call: Call, user: Doc, values: Doc) -> None:
    before = {name: user.get(name) for name in values}
    call.put("user", {**user, **values})
    audit.journal(call, "update_user", user=user["id"], target=user["id"], before=before, after=values)
    changes = tuple((name[0].upper() + name[1:], before[name], value) for name, value in values.items())
    included = ("Included Updated Properties", None, ", ".join(name for name, _, _ in changes))
    audit.directory(call, "Update user", "UserManagement", target(user, *changes, included))
    if "accountEnabled" in values and before["accountEnabled"] != values["accountEnabled"]:
        activity = "Enable account" if values["accountEnabled"] else "Disable account"
        audit.directory(call, activity, "UserManagement", target(user, *changes))


def _revoke(call: Call, name: str) -> Answer:
    """Refresh tokens and cookies issued up to now die; a session that began later lives on."""
    user = find_user(call, name)
    tenant, now = call.tenant, stamp(call.clock.now())
    sessions = tenant.sessions.get(user["id"], [])
    before = {
        "sessions": len(sessions),
        "signInSessionsValidFromDateTime": user.get("signInSessionsValidFromDateTime"),
    }
    with tenant.transaction():
        live = [session for session in sessions if session["issued"] > now]
        tenant.sessions.put(user["id"], live)
        call.put("user", {**user, "signInSessionsValidFromDateTime": now})
        after = {"sessions": len(live), "signInSessionsValidFromDateTime": now}
        audit.journal(call, "revoke_sessions", user=user["id"], target=user["id"], before=before, after=after)
        change = ("StsRefreshTokensValidFrom", before["signInSessionsValidFromDateTime"], now)
        audit.directory(
            call, "Update StsRefreshTokenValidFrom Timestamp", "UserManagement", target(user, change)
        )
    return call.json(
        {"@odata.context": f"https://graph.microsoft.com/{call.version}/$metadata#Edm.Boolean", "value": True}
    )


_OBJECTS = Listing("microsoft.graph.directoryObject", filters=frozenset({"id"}), directory=True)
_ROLES = Listing(
    "microsoft.graph.directoryRole",
    filters=frozenset({"id", "displayName", "roleTemplateId"}),
    directory=True,
)
_GROUP_READERS = ("Group.Read.All", "GroupMember.Read.All", "Directory.Read.All", "Directory.ReadWrite.All")


def _group(call: Call, group: Doc) -> Doc:
    """A group as a member list shows it: its properties are null without the right to read groups."""
    if call.may(*_GROUP_READERS):
        return {"@odata.type": "#microsoft.graph.group", **group}
    kinds = call.contract.properties("microsoft.graph.group")
    hidden: Doc = {name: [] if kinds.get(name, "").endswith("[]") else None for name in group if name != "id"}
    return {"@odata.type": "#microsoft.graph.group", "id": group["id"], **hidden}


def activated_roles(call: Call, principal: str) -> list[Doc]:
    """The tenant-wide roles that a principal holds directly, in their activated form."""
    made = []
    for assignment in call.where("roleAssignment", "principalId", principal):
        definition = call.find("roleDefinition", assignment["roleDefinitionId"])
        if definition and definition.get("isBuiltIn") and assignment.get("directoryScopeId") == "/":
            made.append(directory_role(call, definition))
    return made


def directory_role(call: Call, definition: Doc) -> Doc:
    """A role definition as `/directoryRoles` shows it, under an id of its own."""
    return {
        "@odata.type": "#microsoft.graph.directoryRole",
        "id": directory_role_id(call, definition["id"]),
        "deletedDateTime": None,
        "description": definition.get("description"),
        "displayName": definition["displayName"],
        "roleTemplateId": definition["templateId"],
    }


def directory_role_id(call: Call, definition: str) -> str:
    """The id of an activated role, which differs from tenant to tenant."""
    return str(uuid.uuid5(uuid.UUID(call.tenant.id), definition))


def _member_of(call: Call, name: str) -> Answer:
    user = find_user(call, name)
    groups = [one for one in call.every("group") if user["id"] in one.get("@sim.members", ())]
    found = [*(_group(call, one) for one in groups), *activated_roles(call, user["id"])]
    return call.collection("directoryObjects", found, _OBJECTS)


def _transitive_member_of(call: Call, name: str) -> Answer:
    user = find_user(call, name)
    groups = [_group(call, one) for one in groups_of(call, user["id"])]
    return call.collection("directoryObjects", [*groups, *activated_roles(call, user["id"])], _OBJECTS)


def _roles(call: Call, name: str) -> Answer:
    return call.collection("directoryRoles", activated_roles(call, find_user(call, name)["id"]), _ROLES)


_LICENCES = Listing("microsoft.graph.licenseDetails", options=frozenset({"$select"}))


def _licences(call: Call, name: str) -> Answer:
    """Every user has every SKU of the tenant."""
    user = find_user(call, name)
    details = [
        {
            "id": f"{user['id'][:8]}{sku['skuId']}",
            "skuId": sku["skuId"],
            "skuPartNumber": sku["skuPartNumber"],
            "servicePlans": sku["servicePlans"],
        }
        for sku in call.every("subscribedSku")
    ]
    return call.collection(f"users('{user['id']}')/licenseDetails", details, _LICENCES)


def _devices(call: Call, name: str) -> Answer:
    user = find_user(call, name)
    found = [
        {"@odata.type": "#microsoft.graph.device", **device}
        for device in call.where("device", "@sim.owner", user["id"])
    ]
    return call.collection("directoryObjects", found, _OBJECTS)


ROUTES = {
    "GET /users": _list,
    "GET /users/$count": _count,
    "GET /users/{}": _get,
    "PATCH /users/{}": _update,
    "POST /users/{}/revokeSignInSessions": _revoke,
    "GET /users/{}/memberOf": _member_of,
    "GET /users/{}/transitiveMemberOf": _transitive_member_of,
    "GET /users/{}/transitiveMemberOf/graph.directoryRole": _roles,
    "GET /users/{}/licenseDetails": _licences,
    "GET /users/{}/registeredDevices": _devices,
}
