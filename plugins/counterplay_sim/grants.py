"""What an administrator consented to for the tenant's own application: shown, replaced, kept."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from counterplay_sim.clock import stamp
from counterplay_sim.graph.contract import contract
from counterplay_sim.scenario.directory import ACTIVITY, ACTIVITY_ROLES, DEFENDER, DEFENDER_ROLES, GRAPH
from counterplay_sim.tenant import Tenant

Grants = Mapping[str, Sequence[str]]

EVERYTHING = "all"
_RESOURCES = {"graph": GRAPH, "activity": ACTIVITY, "defender": DEFENDER}


def known() -> dict[str, dict[str, str]]:
    """The ids of all permissions that can be granted, by service and name."""
    graph = {**contract("beta").app_roles, **contract("v1.0").app_roles}
    return {"graph": graph, "activity": dict(ACTIVITY_ROLES), "defender": dict(DEFENDER_ROLES)}


def parse_grants(text: str) -> Grants:
    """Of `all`, or `graph:User.Read.All,activity:ActivityFeed.Read`. ValueError: there is no such thing."""
    if text == EVERYTHING:
        return {service: sorted(names) for service, names in known().items()}
    found: dict[str, list[str]] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        service, colon, name = part.partition(":")
        if not colon:
            raise ValueError(f"a grant is SERVICE:PERMISSION, such as graph:User.Read.All, not {part!r}")
        found.setdefault(service, []).append(name)
    if not found:
        raise ValueError(f"grants are {EVERYTHING!r} or a list such as graph:User.Read.All")
    return checked(found)


def checked(grants: Any) -> Grants:
    """The same, each permission once. ValueError: no service or permission has that name."""
    if not isinstance(grants, Mapping):
        raise ValueError('grants are an object such as {"graph": ["User.Read.All"]}')
    names = known()
    for service, wanted in grants.items():
        if service not in names:
            raise ValueError(f"there is no service {service!r}; there are {', '.join(names)}")
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise ValueError(f"the grants of {service} are a list of permissions")
        unknown = [one for one in wanted if one not in names[service]]
        if unknown:
            raise ValueError(f"{service} has no application permission {unknown[0]!r} that is simulated")
    return {service: list(dict.fromkeys(wanted)) for service, wanted in grants.items()}


def grant(tenant: Tenant, grants: Grants) -> None:
    """Let the application have these permissions of the services named, and no others of those.

    The app role assignments that Graph lists say the same; tokens carry it from the next one on.
    """
    wanted = checked(grants)
    with tenant.transaction():
        principals = tenant.objects["servicePrincipal"]
        own = next(iter(principals.where("appId", tenant.client_id)), None)
        if own is not None:
            for service, names in wanted.items():
                resource = next(iter(principals.where("appId", _RESOURCES[service])), None)
                if resource is not None:
                    _assign(tenant, own, resource, names)
            principals.put(own["id"], {**own, "@sim.initial": {**own.get("@sim.initial", {}), **wanted}})
        tenant.set_grants({**tenant.grants, **{service: list(names) for service, names in wanted.items()}})


def _assign(tenant: Tenant, own: dict[str, Any], resource: dict[str, Any], names: Sequence[str]) -> None:
    assignments = tenant.objects["appRoleAssignment"]
    ids = {str(role["value"]): str(role["id"]) for role in resource["appRoles"]}
    roles = [ids[name] for name in names if name in ids]
    held = set()
    for one in assignments.where("principalId", own["id"]):
        if one["resourceId"] == resource["id"]:
            if one["appRoleId"] in roles:
                held.add(one["appRoleId"])
            else:
                assignments.remove(one["id"])
    for role in roles:
        if role not in held:
            key = base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.UUID(own["id"]).bytes)
            made = {
                "id": key.decode().rstrip("="),
                "deletedDateTime": None,
                "appRoleId": role,
                "createdDateTime": stamp(tenant.clock.now(), 7),
                "principalDisplayName": own["displayName"],
                "principalId": own["id"],
                "principalType": "ServicePrincipal",
                "resourceDisplayName": resource["displayName"],
                "resourceId": resource["id"],
            }
            assignments.put(made["id"], made)
