"""guard: the guardrails of `counterplay.yaml`, on the hook that every plugin has.

Protected accounts and the application's own identity are refused; a limit that is reached pauses the
run until a person agrees. What only a product can know (who is its last administrator), its own plugin
guards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay import EffectIntent, EffectJournal, EffectVerdict, Module, StepContext, hookimpl

COUNTERPLAY_API = "1.0"


@hookimpl
def counterplay_modules() -> tuple[type[Module], ...]:
    """This plugin has no modules."""
    return ()


@hookimpl
def counterplay_before_effect(
    intent: EffectIntent, context: StepContext, guardrails: Mapping[str, Any], journal: EffectJournal
) -> EffectVerdict | None:
    """Refuse what must never be changed; ask a person where a limit is reached."""
    from counterplay_guard.limits import reached
    from counterplay_guard.protected import protected

    if guardrails.get("read_only"):
        return EffectVerdict(True, "`guardrails.read_only` is set in counterplay.yaml")
    reason = protected(intent, context, guardrails.get("protected_users") or ())
    if reason is not None:
        return EffectVerdict(True, reason)
    reason = reached(intent, guardrails, journal, context.now())
    return EffectVerdict(False, reason, ask=True) if reason is not None else None
