"""Accounts that an app may not change as it likes: administrators, and those that Active Directory owns."""

from __future__ import annotations

from dataclasses import dataclass

from counterplay import (
    BlockedError,
    Context,
    JsonObject,
    PermanentError,
    RejectedError,
    WorkError,
)
from counterplay_m365.graph import Graph
from counterplay_m365.own_roles import ROLES
from counterplay_m365.roles import READ, Roles
from counterplay_m365.tenant import GRAPH, tenant

_STRONG = "Privileged Authentication Administrator"
#: Roles of which the app's own service principal needs one to change any administrator's account.
STRONG_ENOUGH = {ROLES[name]: name for name in (_STRONG, "Global Administrator")}
#: Actions that Graph refuses for an administrator, whatever the app's permissions.
SENSITIVE = frozenset(
    {
        "m365.allow_sign_in",
        "m365.block_sign_in",
        "m365.force_password_change",
        "m365.remove_authentication_method",
    }
)
#: Actions for which the app needs a role whatever the account: the least one for ordinary accounts.
FOR_ANYBODY = {"m365.force_password_change": "User Administrator"}
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


@dataclass(frozen=True, slots=True)
class Lack:
    """Why Graph refuses to change an account: `why` in words, and the role that the app would need."""

    why: str
    role: str


def explained(
    context: Context, uses: str, user_id: str, error: BlockedError, enough: frozenset[str]
) -> PermanentError | BlockedError:
    """Graph answers the same 403 to an app without permission, or without a role that the account takes.

    `enough` are the permissions of which any one is enough for ordinary accounts. What is returned says
    which role of Entra ID the app's service principal lacks, as far as the app may read that.
    """
    granted = tenant(context).granted(GRAPH) if error.status == 403 else None
    if granted is None or not enough & set(granted):
        return error
    try:
        lack = lacking(context, uses, user_id)
    except WorkError:
        lack = Lack("it holds an administrator role", _STRONG)
    if lack is None and READ & set(granted):
        return error  # neither of the two needs a role that is not there
    lack = lack or Lack(_unseen(uses), FOR_ANYBODY.get(uses, _STRONG))
    return PermanentError(
        f"the app may change accounts, but not {user_id!r}: {lack.why}: {error.message}",
        hint=f"change it by hand, or give the app's service principal the role {lack.role}",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
    )


def lacking(context: Context, uses: str, user_id: str) -> Lack | None:
    """Which role the app would need for that action on this account; None when none, or it has one.

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
    if own is not None and own & set(STRONG_ENOUGH):
        return None
    if not held and not protected:
        return _lacking_for_anybody(uses, own)
    what = f"it holds {', '.join(sorted(held))}" if held else f"it is in the group {protected[0]}"
    needed = " or ".join(STRONG_ENOUGH.values())
    if own is None:
        why = f"{what}, and the app may only change it when its service principal holds {needed}"
    else:
        why = f"{what}, and the app's service principal lacks the role {needed}"
    return Lack(why, _STRONG)


def _lacking_for_anybody(uses: str, own: set[str] | None) -> Lack | None:
    role = FOR_ANYBODY.get(uses)
    if role is None or own is None or ROLES[role] in own:
        return None
    return Lack(f"whatever the account, the app's service principal lacks the role {role} for it", role)


def _unseen(uses: str) -> str:
    """What a refusal may come from when the app may not read role assignments."""
    unseen = "it holds an administrator role that the app cannot see"
    role = FOR_ANYBODY.get(uses)
    return f"{unseen}, or the app's service principal lacks the role {role}" if role else unseen


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
