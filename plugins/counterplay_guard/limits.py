"""How much may happen within an hour, counted from the journal of effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from counterplay import EffectIntent, EffectJournal

HOUR = timedelta(hours=1)
ALL = "*"


def reached(
    intent: EffectIntent, guardrails: Mapping[str, Any], journal: EffectJournal, now: datetime
) -> str | None:
    """The first limit that this effect would exceed, in words, or None."""
    since = now - HOUR
    for key, limit, what, count in _limits(intent, guardrails, journal, since):
        if count >= limit:
            return f"{what} {count} within the last hour, and `guardrails.{key}` allows {limit}"
    return None


def _limits(
    intent: EffectIntent, guardrails: Mapping[str, Any], journal: EffectJournal, since: datetime
) -> Iterator[tuple[str, int, str, int]]:
    """(key, limit, what was counted, how many) for each limit that is set."""
    besides = (intent.run_id, intent.step_id)  # a resumed step is not a second effect
    actions: Mapping[str, int] = guardrails.get("effects_per_hour") or {}
    if intent.uses in actions:
        count = journal.effects(since, uses=intent.uses, besides=besides)
        yield f"effects_per_hour.{intent.uses}", actions[intent.uses], f"effects of {intent.uses}:", count
    if ALL in actions:
        yield f"effects_per_hour.{ALL}", actions[ALL], "effects:", journal.effects(since, besides=besides)
    key, limit = _named(guardrails, "effects_per_hour_by_playbook", intent.playbook)
    if limit is not None:
        count = journal.effects(since, playbook=intent.playbook, besides=besides)
        yield key, limit, f"effects of the playbook {intent.playbook}:", count
    key, limit = _named(guardrails, "effects_per_hour_by_tenant", intent.tenant)
    if limit is not None:
        count = journal.effects(since, tenant=intent.tenant, besides=besides)
        yield key, limit, f"effects in the tenant {intent.tenant}:", count
    key, limit = _named(guardrails, "runs_per_hour", intent.playbook)
    if limit is not None:
        count = journal.runs_with_effects(since, intent.playbook, besides=intent.run_id)
        yield key, limit, f"runs of the playbook {intent.playbook} that changed something:", count


def _named(guardrails: Mapping[str, Any], key: str, name: str) -> tuple[str, int | None]:
    limits: Mapping[str, int] = guardrails.get(key) or {}
    found = name if name in limits else ALL
    return f"{key}.{found}", limits.get(found)
