"""Accounts that an app may not change as it likes: administrators, and those that Active Directory owns."""

from __future__ import annotations

from counterplay import (
    BlockedError,
    Context,
    JsonObject,
    PermanentError,
    RejectedError,
    WorkError,
)
from counterplay_m365.graph import Graph
from counterplay_m365.roles import READ, Roles
from counterplay_m365.tenant import GRAPH, tenant

#: Roles of which the app's own service principal needs one to change any administrator's account.
STRONG_ENOUGH = {
    "7be44c8a-adaf-4e2a-84d6-ab2649e08a13": "Privileged Authentication Administrator",
    "62e90394-69f5-4237-9190-012177145e10": "Global Administrator",
}
#: Actions that Graph refuses for an administrator, whatever the app's permissions.
SENSITIVE = frozenset(
    {
        "m365.allow_sign_in",
        "m365.block_sign_in",
        "m365.force_password_change",
        "m365.remove_authentication_method",
    }
)
_SYNCED = (
    "the account is synced from Active Directory, which owns it and may undo this at its next "
    "synchronisation: change it there too"
)


def synced(before: JsonObject) -> str | None:
    """What to say about an account that Active Directory owns."""
    return _SYNCED if before.get("onPremisesSyncEnabled") is True else None


def mastered_elsewhere(context: Context, user_id: str, error: RejectedError) -> PermanentError:
    """An account that is synced from Active Directory may refuse a change with 400."""
    user = Graph(context).user(user_id, ("id", "onPremisesSyncEnabled"))
    if user.get("onPremisesSyncEnabled") is not True:
        return error
    return PermanentError(
        f"{user_id!r} is synced from Active Directory, which owns this setting: {error.message}",
        hint="change the account there, and let it synchronise",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
    )


def explained(
    context: Context, user_id: str, error: BlockedError, enough: frozenset[str]
) -> PermanentError | BlockedError:
    """Graph answers the same 403 to an app without permission and for a target with an admin role.

    `enough` are the permissions of which any one is enough for ordinary accounts.
    """
    granted = tenant(context).granted(GRAPH) if error.status == 403 else None
    if granted is None or not enough & set(granted):
        return error
    try:
        why = lacking(context, user_id) or "it holds an administrator role that the app cannot see"
    except WorkError:
        why = "it holds an administrator role"
    return PermanentError(
        f"the app may change accounts, but not {user_id!r}: {why}: {error.message}",
        hint="change it by hand, or give the app's service principal the role Privileged "
        "Authentication Administrator",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
    )


def lacking(context: Context, user_id: str) -> str | None:
    """Which role the app would need to change this account; None when none protects it, or it has one.

    Reads the account's roles, those through groups too, and those of the app. An app that may not read
    role assignments sees the tenant-wide roles of the account, and not its own.
    """
    roles = Roles(context)
    members = roles.memberships(user_id)
    groups = [one for one in members if _kind(one) == "group"]
    held = {str(one.get("displayName")) for one in members if _kind(one) == "directoryRole"}
    protected = [str(one.get("displayName")) for one in groups if one.get("isAssignableToRole") is True]
    own: set[str] | None = None
    if READ & set(tenant(context).granted(GRAPH) or ()):
        holders = [roles.object_id(user_id), *(one["id"] for one in groups)]
        held |= {_name(one) for one in roles.assignments(holders)}
        own = _own_roles(context, roles)
    if not held and not protected:
        return None
    if own is not None and own & set(STRONG_ENOUGH):
        return None
    what = f"it holds {', '.join(sorted(held))}" if held else f"it is in the group {protected[0]}"
    needed = " or ".join(STRONG_ENOUGH.values())
    if own is None:
        return f"{what}, and the app may only change it when its service principal holds {needed}"
    return f"{what}, and the app's service principal lacks the role {needed}"


def _own_roles(context: Context, roles: Roles) -> set[str] | None:
    from counterplay_m365.entra import principal  # MSAL costs more than naming all modules

    own = principal(tenant(context).token(GRAPH))
    return {str(one["roleDefinitionId"]) for one in roles.assignments([own])} if own else None


def _kind(one: JsonObject) -> str:
    return str(one.get("@odata.type") or "").rpartition(".")[2]


def _name(assignment: JsonObject) -> str:
    role = assignment.get("roleDefinition")
    name = role.get("displayName") if isinstance(role, dict) else None
    return str(name or assignment.get("roleDefinitionId"))
