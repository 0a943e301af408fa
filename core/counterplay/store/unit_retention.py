"""What old units leave: after their time what was delivered goes, with its receipts; what is missing stays.

A unit goes when it was read as a whole, every subscriber acknowledged it long ago, and its source cannot list
it again: what is listed and not known would be collected a second time. So a source that never says until
when it gives something keeps its units. Quarantined and lost units, those with broken elements or dead
letters, those that nobody had when their subscription was ended, gaps and losses are evidence, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.store.database import Database
from counterplay.store.keys import forget_units
from counterplay.store.retention import shrink
from counterplay.store.tables import acknowledgement, dead_letter, delivery, spool, subscription, unit

BATCH = 500
"""Units that go in one transaction: small enough that nobody waits for it."""
CLOCKS = timedelta(days=1)
"""How far the source's idea of what has expired may be behind ours."""


def count_old_units(database: Database, before: datetime) -> int:
    """How many units `delete_old_units` would delete."""
    with database.read() as connection:
        return sum(len(ids) for ids in _batches(connection, before))


def delete_old_units(database: Database, before: datetime) -> int:
    """Delete the units that were done with before a time, with their receipts. Returns how many."""
    total = 0
    with database.read() as connection:
        batches = list(_batches(connection, before))
    for ids in batches:
        with database.write() as connection:
            forget_units(connection, ids)
            for table in (spool, delivery, acknowledgement):
                connection.execute(sa.delete(table).where(table.c.unit_id.in_(ids)))
            connection.execute(sa.delete(unit).where(unit.c.id.in_(ids)))
        total += len(ids)
    if total:
        shrink(database)
    return total


def _batches(connection: sa.Connection, before: datetime) -> Iterator[Sequence[int]]:
    limit, expired = to_text(before), to_text(now() - CLOCKS)
    done = sa.select(acknowledgement.c.unit_id).where(
        acknowledgement.c.unit_id == unit.c.id, acknowledgement.c.playbook == subscription.c.playbook
    )
    owed = sa.select(subscription.c.playbook).where(
        subscription.c.feed_id == unit.c.feed_id,
        subscription.c.ended.is_(None),
        sa.or_(unit.c.created.is_(None), unit.c.created >= subscription.c.since),
        ~done.where(acknowledgement.c.at < limit).correlate(unit, subscription).exists(),
    )
    newer = unit.alias()
    old = (
        sa.select(unit.c.id)
        .where(
            unit.c.status == "fetched",
            unit.c.broken == 0,
            unit.c.listed < limit,
            unit.c.fetched < limit,
            # a page has no window, and is never listed; what a source lists, it may list until it expires
            sa.or_(unit.c.window.is_(None), unit.c.expires < expired),
            sa.select(acknowledgement.c.unit_id).where(acknowledgement.c.unit_id == unit.c.id).exists(),
            ~owed.correlate(unit).exists(),
            ~sa.select(dead_letter.c.id).where(dead_letter.c.unit_id == unit.c.id).exists(),
            # the last one of a feed may be polled again, where nothing new came
            sa.select(newer.c.id).where(newer.c.feed_id == unit.c.feed_id, newer.c.id > unit.c.id).exists(),
        )
        .order_by(unit.c.id)
        .limit(BATCH)
    )
    last = 0
    while True:
        ids = connection.execute(old.where(unit.c.id > last)).scalars().all()
        if not ids:
            return
        last = ids[-1]
        yield ids
