"""Guards: the last Global Administrator is never kept out, and a plan says what Graph will refuse."""

from __future__ import annotations

from counterplay import EffectIntent, EffectVerdict, JsonObject, StepContext, WorkError
from counterplay_m365.privileged import SENSITIVE, lacking
from counterplay_m365.roles import READ, Roles
from counterplay_m365.tenant import GRAPH, Tenant

GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
"""The template of the role, the same in every tenant."""
#: Actions after which an account cannot sign in any more, or administers nothing.
LOCKS_OUT = frozenset({"m365.block_sign_in", "m365.force_password_change", "m365.remove_from_role"})


def verdict(intent: EffectIntent, context: StepContext) -> EffectVerdict | None:
    """Refuse when nobody would be left who can administer the tenant; in a plan also what Graph refuses.

    Roles are read where the app may read them. An app that may not, and that holds no role of its own,
    cannot block an administrator either: Graph refuses it. Where it holds one, list the
    administrators under `guardrails.protected_users`. A member that is a group counts as nobody.
    """
    connection = context.connection
    if not isinstance(connection, Tenant):
        return None
    return _last_administrator(intent, context, connection) or _refused_by_graph(intent, context)


def _last_administrator(
    intent: EffectIntent, context: StepContext, connection: Tenant
) -> EffectVerdict | None:
    if intent.uses not in LOCKS_OUT:
        return None
    granted = connection.granted(GRAPH)
    if granted is None or not READ & set(granted):
        return None
    if intent.uses == "m365.remove_from_role" and not _loses_it(intent):
        return None
    enabled = [one for one in Roles(context).role_members(GLOBAL_ADMINISTRATOR) if _can_sign_in(one)]
    if any(_is_target(one, intent) for one in enabled) and len(enabled) == 1:
        return EffectVerdict(
            True, f"{intent.subject} is the last Global Administrator of the tenant who can sign in"
        )
    return None


def _refused_by_graph(intent: EffectIntent, context: StepContext) -> EffectVerdict | None:
    """Only for a plan: in a run Graph's own refusal is explained, and costs no reads before each effect."""
    if not intent.planned or intent.uses not in SENSITIVE or not intent.target:
        return None
    try:
        lack = lacking(context, intent.uses, str(intent.before.get("id") or intent.target))
    except WorkError:
        return None  # it is not known whether it would be refused
    return EffectVerdict(True, f"Graph will answer 403: {lack.why}") if lack else None


def _loses_it(intent: EffectIntent) -> bool:
    return any(
        one.get("roleDefinitionId") == GLOBAL_ADMINISTRATOR for one in intent.before.get("objects", ())
    )


def _can_sign_in(member: JsonObject) -> bool:
    return member.get("accountEnabled") is True


def _is_target(member: JsonObject, intent: EffectIntent) -> bool:
    return member.get("id") == intent.before.get("id")
