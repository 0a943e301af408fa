"""What is missing, in the order in which it became known: one row for each new gap or unit."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.events import JsonObject
from counterplay.store.database import Database, storable
from counterplay.store.feed_labels import feed_label
from counterplay.store.tables import feed, loss

_SETTLED = timedelta(seconds=10)
"""On PostgreSQL a row with a lower number may be committed after one with a higher: so long is waited."""


def note_loss(
    connection: sa.Connection,
    kind: str,
    feed_id: int,
    cause: str,
    *,
    playbook: str = "",
    unit: str = "",
    start: str | None = None,
    end: str | None = None,
) -> None:
    """Note it in the caller's transaction. `kind`: gap, quarantined, lost."""
    connection.execute(
        loss.insert().values(
            kind=kind,
            feed_id=feed_id,
            playbook=playbook,
            unit=unit,
            start=start,
            end=end,
            cause=storable(cause),
            at=to_text(now()),
        )
    )


class Losses:
    """Reads what was noted. It is a page of the ledger that triggers may see."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, number: int, since: datetime, limit: int) -> list[tuple[int, JsonObject]]:
        """What was noted after that number and not before `since`, oldest first, as (number, event)."""
        query = (
            sa.select(loss, feed.c.trigger, feed.c.connection, feed.c.key, feed.c.generation, feed.c.tenant)
            .join(feed, feed.c.id == loss.c.feed_id)
            .where(loss.c.id > number, loss.c.at >= to_text(since))
            .order_by(loss.c.id)
            .limit(limit)
        )
        if not self._database.sqlite:
            query = query.where(loss.c.at <= to_text(now() - _SETTLED))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            (
                row.id,
                {
                    "id": f"loss-{row.id}",
                    "kind": row.kind,
                    "feed": feed_label(row),
                    "tenant": row.tenant,
                    "playbook": row.playbook,
                    "unit": row.unit,
                    "from": row.start,
                    "to": row.end,
                    "cause": row.cause,
                    "at": row.at,
                },
            )
            for row in rows
        ]
