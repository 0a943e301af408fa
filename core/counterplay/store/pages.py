"""Pages that cannot be fetched again: kept with the cursor, until every subscriber has them."""

from __future__ import annotations

import json

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.errors import StateError
from counterplay.events import JsonObject
from counterplay.store.database import Database
from counterplay.store.statements import new_id
from counterplay.store.tables import feed, spool, unit


class Pages:
    """Cursors, and the pages that came with them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cursor(self, feed_id: int) -> JsonObject | None:
        """Where the next poll goes on; None before the first. StateError: it is damaged."""
        with self.database.read() as connection:
            saved = connection.execute(sa.select(feed.c.cursor).where(feed.c.id == feed_id)).scalar()
        if saved is None:
            return None
        try:
            value = json.loads(saved)
            if not isinstance(value, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise StateError(
                f"feed {feed_id}: not a cursor: {saved[:40]!r}",
                hint="restore the store from a backup; beginning anew would lose the place",
            ) from error
        return value

    def half_read(self, feed_id: int) -> bool:
        """Was the source left between two pages? Also True where a cursor is older than this note of it."""
        with self.database.read() as connection:
            row = connection.execute(
                sa.select(feed.c.half_read, feed.c.cursor).where(feed.c.id == feed_id)
            ).one()
        return bool(row.half_read) if row.half_read is not None else row.cursor is not None

    def store_page(
        self,
        feed_id: int,
        epoch: int,
        cursor: JsonObject | None,
        unit_key: str,
        body: bytes | None,
        *,
        more: bool = False,
    ) -> int | None:
        """Keep a page that cannot be fetched again, and move the cursor, as one. `more`: it is not the last.

        Returns the new unit, or None for a page that is empty or already known. StateError: another
        worker has taken over.
        """
        with self.database.write() as connection:
            if cursor is not None:
                moved = connection.execute(
                    sa.update(feed)
                    .where(feed.c.id == feed_id, feed.c.epoch == epoch)
                    .values(cursor=json.dumps(cursor), half_read=more)
                )
                if moved.rowcount != 1:
                    raise StateError(f"feed {feed_id} was taken over by another worker")
            known = sa.select(unit.c.id).where(unit.c.feed_id == feed_id, unit.c.unit_key == unit_key)
            if body is None or connection.execute(known).first() is not None:
                return None
            moment = to_text(now())
            made = connection.execute(
                unit.insert().values(
                    feed_id=feed_id,
                    unit_key=unit_key,
                    locator="{}",
                    created=moment,
                    status="listed",
                    listed=moment,
                    size=len(body),
                )
            )
            unit_id = new_id(made)
            connection.execute(spool.insert().values(unit_id=unit_id, body=body))
            return unit_id

    def spooled(self, unit_id: int) -> bytes | None:
        """The bytes of a page; None when it is not spooled."""
        with self.database.read() as connection:
            found: bytes | None = connection.execute(
                sa.select(spool.c.body).where(spool.c.unit_id == unit_id)
            ).scalar()
        return found
