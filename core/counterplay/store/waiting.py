"""The question behind every account: which units does which playbook still wait for?"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from counterplay.clock import to_text
from counterplay.store.tables import acknowledgement, subscription, unit

OPEN = ("listed", "fetched")
"""The states of units that are neither quarantined nor lost."""


def waiting_for(
    feed_id: int | sa.BindParameter[int],
    playbooks: Collection[str] | sa.BindParameter[str] | None,
    floor: datetime | None = None,
    among: Collection[int] | sa.BindParameter[int] | None = None,
) -> sa.Subquery:
    """(unit, playbook) pairs of a feed that are not accounted for; None: of every subscriber.

    With `floor`, of the windows before it only units with a `retry_at`. With `among`, only of those units.
    """
    query = (
        sa.select(unit.c.id.label("unit_id"), subscription.c.playbook)
        .join(subscription, subscription.c.feed_id == unit.c.feed_id)
        .outerjoin(
            acknowledgement,
            sa.and_(
                acknowledgement.c.unit_id == unit.c.id,
                acknowledgement.c.playbook == subscription.c.playbook,
            ),
        )
        .where(
            unit.c.feed_id == feed_id,
            unit.c.status.in_(OPEN),
            acknowledgement.c.unit_id.is_(None),
            subscription.c.ended.is_(None),
            sa.or_(unit.c.created.is_(None), unit.c.created >= subscription.c.since),
        )
    )
    if floor is not None:
        query = query.where(
            sa.or_(unit.c.window >= to_text(floor), unit.c.window.is_(None), unit.c.retry_at > "")
        )
    if among is not None:
        query = query.where(unit.c.id.in_(among))
    if playbooks is not None:
        names = playbooks if isinstance(playbooks, sa.BindParameter) else list(playbooks)
        query = query.where(subscription.c.playbook.in_(names))
    return query.subquery()
