"""How far the sources of a session are right now, for people who watch it work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from counterplay.budgets import Budgets

if TYPE_CHECKING:
    from counterplay.runtime.feeds import Feed


@dataclass(frozen=True, slots=True)
class Standing:
    """`backlog`: units that are queued or on their way. `lag`: seconds from listing to acknowledgement, of
    the feed that is slowest. `used` of `limit`: requests within the last minute to the service whose quota
    is nearest to its end; a limit of None is unknown. `throttles`: how often a service refused one.
    `waits_for`: sources that do not answer, or refuse, as a whole.
    """

    backlog: int
    lag: float
    used: int
    limit: float | None
    throttles: int
    waits_for: tuple[str, ...] = ()


def standing(feeds: Sequence[Feed], budgets: Budgets) -> Standing:
    """As of this moment."""
    held = [feed.pipeline for feed in feeds if feed.held]
    services = list(budgets.all().values())
    quotas = [(one.used, limit) for one in services if (limit := one.limit)]
    used, limit = max(quotas, key=lambda one: one[0] / one[1], default=(0, None))
    return Standing(
        backlog=sum(one.load for one in held),
        lag=max((one.lag for one in held), default=0.0),
        used=used,
        limit=limit,
        throttles=sum(one.refusals for one in services),
        waits_for=tuple(one.label for one in feeds if one.in_trouble),
    )
