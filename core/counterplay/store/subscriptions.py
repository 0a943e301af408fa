"""Who subscribes to which feed, how far each subscriber is, and what can never be had."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.errors import StateError
from counterplay.store.database import Database, storable
from counterplay.store.feed_records import FeedKey, NewGap, Subscription
from counterplay.store.losses import note_loss
from counterplay.store.statements import new_id
from counterplay.store.tables import feed, gap, spool, subscription, unit, worker
from counterplay.store.waiting import OPEN, waiting_for


class Subscriptions:
    """Feeds, their subscribers, and gaps."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def subscribe(self, key: FeedKey, playbook: str, since: datetime, *, shared: bool = True) -> Subscription:
        """Find or make the playbook's subscription; `since` counts only for a new one.

        One that was ended begins anew, and what it missed in between is a gap.

        `shared=False` is for pages that cannot be read again: a subscriber that comes after the first
        poll gets a feed of its own (the next generation), so that it has its whole look-back.
        """
        with self.database.write() as connection:
            known = connection.execute(
                sa.select(subscription, feed.c.generation)
                .join(feed)
                .where(*_same_feed(key), subscription.c.playbook == playbook)
                .order_by(feed.c.generation.desc())
            ).first()
            if known is not None and known.ended is None:
                return _subscription(known)
            feed_id = self._feed_for_new_subscriber(connection, key, shared)
            places = dict.fromkeys(("since", "mark", "listed", "seen"), to_text(since))
            if known is not None:
                missed = from_text(known.mark if known.feed_id == feed_id else known.ended)
                _note_gap(connection, feed_id, playbook, missed, since, "its subscription had been ended")
            if known is not None and known.feed_id == feed_id:
                connection.execute(
                    sa.update(subscription)
                    .where(subscription.c.feed_id == feed_id, subscription.c.playbook == playbook)
                    .values(**places, ended=None)
                )
            else:
                connection.execute(
                    subscription.insert().values(
                        feed_id=feed_id, playbook=playbook, created=to_text(now()), **places
                    )
                )
            return Subscription(feed_id, playbook, since, since, since, since, new=True)

    def end(self, connection: sa.Connection, playbook: str, feeds: Collection[int]) -> list[int]:
        """The playbook subscribes to these feeds no more: nothing waits for it, and pages that only it
        waited for are deleted. Returns the feeds in which it did.
        """
        own = sa.and_(
            subscription.c.playbook == playbook,
            subscription.c.feed_id.in_(feeds),
            subscription.c.ended.is_(None),
        )
        found = list(connection.execute(sa.select(subscription.c.feed_id).where(own)).scalars())
        connection.execute(sa.update(subscription).where(own).values(ended=to_text(now())))
        for feed_id in found:
            still = sa.select(waiting_for(feed_id, None).c.unit_id)
            done = sa.select(unit.c.id).where(
                unit.c.feed_id == feed_id, unit.c.status.in_(OPEN), unit.c.id.not_in(still)
            )
            connection.execute(sa.delete(spool).where(spool.c.unit_id.in_(done)))
        return found

    def has_subscription(self, key: FeedKey, playbook: str) -> bool:
        """Did the playbook ever subscribe to this feed?"""
        with self.database.read() as connection:
            found = connection.execute(
                sa.select(subscription.c.feed_id)
                .join(feed)
                .where(*_same_feed(key), subscription.c.playbook == playbook)
            ).first()
        return found is not None

    def _feed_for_new_subscriber(self, connection: sa.Connection, key: FeedKey, shared: bool) -> int:
        last = connection.execute(
            sa.select(feed.c.id, feed.c.generation, feed.c.cursor)
            .where(*_same_feed(key))
            .order_by(feed.c.generation.desc())
        ).first()
        if last is not None and (shared or last.cursor is None):
            return int(last.id)
        generation = 1 if last is None else last.generation + 1
        made = connection.execute(
            feed.insert().values(**asdict(key), generation=generation, epoch=0, created=to_text(now()))
        )
        return new_id(made)

    def sweep_due(self, feed_id: int, place: int, moment: datetime, every: timedelta) -> bool:
        """Is it time for the sweep of that number? A new feed has just listed everything."""
        with self.database.read() as connection:
            row = connection.execute(
                sa.select(feed.c.swept, feed.c.created).where(feed.c.id == feed_id)
            ).one()
        last = _swept(row.swept, feed_id).get(str(place), row.created)
        return moment - from_text(last) >= every

    def swept(self, feed_id: int, place: int, moment: datetime) -> None:
        """The sweep of that number was made."""
        with self.database.write() as connection:
            known = connection.execute(sa.select(feed.c.swept).where(feed.c.id == feed_id)).scalar()
            text = json.dumps({**_swept(known, feed_id), str(place): to_text(moment)})
            connection.execute(sa.update(feed).where(feed.c.id == feed_id).values(swept=text))

    def take_over(self, feed_id: int, identity: str | None = None) -> int | None:
        """Become the one who works on this feed; the epoch fences off whoever did before.

        `identity` is that of a worker among several. None: another one that lives holds the feed.
        """
        free: sa.ColumnElement[bool] = sa.true()
        if identity is not None:
            living = sa.select(worker.c.id)
            free = sa.or_(feed.c.worker.is_(None), feed.c.worker == identity, feed.c.worker.not_in(living))
        with self.database.write() as connection:
            moved = connection.execute(
                sa.update(feed)
                .where(feed.c.id == feed_id, free)
                .values(epoch=feed.c.epoch + 1, worker=identity)
            )
            if moved.rowcount != 1:
                return None
            return int(connection.execute(sa.select(feed.c.epoch).where(feed.c.id == feed_id)).scalar_one())

    def hold(self, connection: sa.Connection, feed_id: int, epoch: int) -> None:
        """See that the feed is still this worker's, and that it stays so until the transaction ends.

        StateError: another one has taken over. A SQLite file has one worker.
        """
        if self.database.sqlite:
            return
        held = sa.select(feed.c.epoch).where(feed.c.id == feed_id).with_for_update(read=True)
        if connection.execute(held).scalar() != epoch:
            raise StateError(f"feed {feed_id} was taken over by another worker")

    def advance(self, feed_id: int, playbook: str, mark: datetime, listed: datetime, seen: datetime) -> None:
        """Move a subscription's place. Nothing of it ever goes back."""
        places = {"mark": mark, "listed": listed, "seen": seen}
        with self.database.write() as connection:
            for name, place in places.items():
                column, text = subscription.c[name], to_text(place)
                connection.execute(
                    sa.update(subscription)
                    .where(
                        subscription.c.feed_id == feed_id,
                        subscription.c.playbook == playbook,
                        sa.or_(column.is_(None), column < text),
                    )
                    .values({name: text})
                )

    def record_gap(self, feed_id: int, playbook: str, start: datetime, end: datetime, cause: str) -> NewGap:
        """Record a time range that can never be accounted for, as far as no gap covers it already.

        One that goes on where another of the same cause ends makes that one longer.
        """
        with self.database.write() as connection:
            return _note_gap(connection, feed_id, playbook, start, end, cause)


def _note_gap(
    connection: sa.Connection, feed_id: int, playbook: str, start: datetime, end: datetime, cause: str
) -> NewGap:
    new, seconds = 0, 0.0
    rows = connection.execute(
        sa.select(gap.c.id, gap.c.start, gap.c.end, gap.c.cause).where(
            gap.c.feed_id == feed_id, gap.c.playbook == playbook
        )
    ).all()
    known = [(from_text(row.start), from_text(row.end)) for row in rows]
    for first, last in _uncovered(start, end, known):
        seconds += (last - first).total_seconds()
        span = {"start": to_text(first), "end": to_text(last)}
        before = next((row.id for row in rows if _goes_on(row, first, cause)), None)
        if before is not None:
            connection.execute(sa.update(gap).where(gap.c.id == before).values(end=span["end"]))
            continue
        new += 1
        about = {"feed_id": feed_id, "playbook": playbook, "cause": storable(cause), "at": to_text(now())}
        connection.execute(gap.insert().values(**about, **span))
        note_loss(connection, "gap", feed_id, cause, playbook=playbook, **span)
    return NewGap(new, round(seconds))


def _subscription(row: Any) -> Subscription:
    """A store that was written before `listed` was kept knows only the mark. StateError: it is damaged."""
    try:
        since, mark = from_text(row.since), from_text(row.mark)
        listed = from_text(row.listed) if row.listed else mark
        seen = from_text(row.seen) if row.seen else listed
    except (ValueError, TypeError) as error:
        raise StateError(
            f"the place of {row.playbook} in feed {row.feed_id} is damaged: {error}",
            hint="restore the store from a backup; beginning anew would lose the place",
        ) from error
    return Subscription(row.feed_id, row.playbook, since, mark, listed, seen, new=False)


def _swept(text: str | None, feed_id: int) -> dict[str, str]:
    """When each sweep was made last. StateError: nobody can tell any more."""
    try:
        found = json.loads(text or "{}")
        for moment in found.values():
            from_text(moment)
    except (ValueError, TypeError, AttributeError) as error:
        raise StateError(
            f"the times at which feed {feed_id} was swept are damaged: {error}",
            hint="restore the store from a backup",
        ) from error
    return dict(found)


def _goes_on(row: Any, first: datetime, cause: str) -> bool:
    return from_text(row.end) == first and row.cause == storable(cause)


def _uncovered(
    start: datetime, end: datetime, known: Iterable[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime]]:
    """The parts of [start, end) that none of the known ranges covers."""
    for first, last in sorted(known):
        if start >= end:
            return
        if last <= start:
            continue
        if first >= end:
            break
        if first > start:
            yield start, first
        start = last
    if start < end:
        yield start, end


def _same_feed(key: FeedKey) -> list[sa.ColumnElement[bool]]:
    return [
        feed.c.trigger == key.trigger,
        feed.c.connection == key.connection,
        feed.c.tenant == key.tenant,
        feed.c.key == key.key,
    ]
