"""A guard: the last Global Administrator who can sign in is never kept out."""

from __future__ import annotations

from counterplay import EffectIntent, EffectVerdict, JsonObject, StepContext
from counterplay_m365.graph import Graph
from counterplay_m365.tenant import GRAPH, Tenant

GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
"""The template of the role, the same in every tenant."""
#: Actions after which an account cannot sign in any more.
LOCKS_OUT = frozenset({"m365.block_sign_in"})
_READ_ROLES = frozenset(
    {
        "RoleManagement.Read.Directory",
        "RoleManagement.ReadWrite.Directory",
        "Directory.Read.All",
        "Directory.ReadWrite.All",
    }
)


def verdict(intent: EffectIntent, context: StepContext) -> EffectVerdict | None:
    """Refuse when nobody would be left who can administer the tenant.

    Roles are read where the app may read them. An app that may not, and that holds no role of its own,
    cannot block an administrator either: Graph refuses it. Where it holds one, list the
    administrators under `guardrails.protected_users`. A member that is a group counts as nobody.
    """
    connection = context.connection
    if intent.uses not in LOCKS_OUT or not isinstance(connection, Tenant):
        return None
    granted = connection.granted(GRAPH)
    if granted is None or not _READ_ROLES & set(granted):
        return None
    enabled = [one for one in Graph(context).role_members(GLOBAL_ADMINISTRATOR) if _can_sign_in(one)]
    if any(_is_target(one, intent) for one in enabled) and len(enabled) == 1:
        return EffectVerdict(
            True, f"{intent.subject} is the last Global Administrator of the tenant who can sign in"
        )
    return None


def _can_sign_in(member: JsonObject) -> bool:
    return member.get("accountEnabled") is True


def _is_target(member: JsonObject, intent: EffectIntent) -> bool:
    return member.get("id") == intent.before.get("id")
