"""Who must not be touched: the accounts that are listed, and the application itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from counterplay import EffectIntent, StepContext

#: Where a captured state names the object that is changed.
_NAMES = ("id", "userPrincipalName", "mail", "appId")


def protected(intent: EffectIntent, context: StepContext, listed: Sequence[str]) -> str | None:
    """Why this target must not be changed, or None. The case of letters does not count."""
    names = {name.casefold() for name in _names(intent)}
    for one in listed:
        if one.strip().casefold() in names:
            return f"{one} is a protected account (`guardrails.protected_users`)"
    own = {name.casefold() for name in (context.connection.own_names() if context.connection else ())}
    if own & names:
        return f"{intent.target} is the application that the connection {intent.connection} works as"
    return None


def _names(intent: EffectIntent) -> Iterable[str]:
    """Everything that the target is known by: as the step names it, and as the service does."""
    found = [intent.target, intent.subject, *(intent.before.get(key) for key in _NAMES)]
    return (name.strip() for name in found if isinstance(name, str))
