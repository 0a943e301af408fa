"""The ledger of feeds: subscriptions, units, who owns an event, what was delivered and acknowledged.

Functions that take a connection belong into a transaction of their caller; the others make their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from counterplay.clock import from_text, now, to_text
from counterplay.errors import StateError
from counterplay.events import JsonObject, Unit
from counterplay.store.database import Database, storable
from counterplay.store.keys import KeyStore, Owned, UnitKeys, set_aside
from counterplay.store.ranges import Positions
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import (
    acknowledgement,
    dead_letter,
    delivery,
    feed,
    gap,
    spool,
    subscription,
    unit,
    worker,
)

_OPEN = ("listed", "fetched")
_LOOK_AGAIN = "?"  # as duplicates: an owner does not hold them any more


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What makes two subscriptions the same feed. `key` is canonical JSON of the feed-key arguments."""

    trigger: str
    connection: str
    tenant: str
    key: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """A playbook's place in a feed. Everything before `mark` is accounted for."""

    feed_id: int
    playbook: str
    since: datetime
    mark: datetime
    new: bool


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """A unit as the ledger knows it; `waiting` are the playbooks that have not acknowledged it."""

    id: int
    unit: Unit
    status: str
    attempts: int
    digest: str | None
    waiting: frozenset[str]
    duplicates: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a unit's events for one playbook."""

    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    condition_errors: int = 0
    dropped: int = 0
    dead: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be read or delivered."""

    reason: str
    body: bytes
    position: int | None = None
    playbook: str | None = None
    sink: str | None = None
    unit_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch found in a unit."""

    unit: StoredUnit
    size: int
    digest: str
    events: int
    keys: UnitKeys
    broken: Sequence[DeadLetter] = ()


@dataclass(frozen=True, slots=True)
class Delivered:
    """Records of a unit that a sink took in one batch: first and last position, the receiver's ids."""

    unit_id: int
    playbook: str
    sink: str
    digest: str
    positions: str
    receipts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A unit that a playbook is done with."""

    unit_id: int
    playbook: str
    counts: Counts


class FeedStore:
    """The tables of feeds. One instance for a process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.keys = KeyStore()

    def subscribe(self, key: FeedKey, playbook: str, since: datetime, *, shared: bool = True) -> Subscription:
        """Find or make the playbook's subscription; `since` counts only for a new one.

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
            if known is not None:
                return Subscription(
                    known.feed_id, playbook, from_text(known.since), from_text(known.mark), new=False
                )
            feed_id = self._feed_for_new_subscriber(connection, key, shared)
            text = to_text(since)
            connection.execute(
                subscription.insert().values(
                    feed_id=feed_id, playbook=playbook, since=text, mark=text, created=to_text(now())
                )
            )
            return Subscription(feed_id, playbook, since, since, new=True)

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
        return _new_id(made)

    def sweep_due(self, feed_id: int, place: int, moment: datetime, every: timedelta) -> bool:
        """Is it time for the sweep of that number? A new feed has just listed everything."""
        with self.database.read() as connection:
            row = connection.execute(
                sa.select(feed.c.swept, feed.c.created).where(feed.c.id == feed_id)
            ).one()
        last = json.loads(row.swept or "{}").get(str(place), row.created)
        return moment - from_text(last) >= every

    def swept(self, feed_id: int, place: int, moment: datetime) -> None:
        """The sweep of that number was made."""
        with self.database.write() as connection:
            known = connection.execute(sa.select(feed.c.swept).where(feed.c.id == feed_id)).scalar()
            text = json.dumps({**json.loads(known or "{}"), str(place): to_text(moment)})
            connection.execute(sa.update(feed).where(feed.c.id == feed_id).values(swept=text))

    def purge_keys(self, feed_id: int, before: datetime) -> int:
        """Forget the ids of units that became available before that time."""
        with self.database.write() as connection:
            return self.keys.purge(connection, feed_id, to_text(before))

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

    def store_page(
        self, feed_id: int, epoch: int, cursor: JsonObject | None, unit_key: str, body: bytes | None
    ) -> int | None:
        """Keep a page that cannot be fetched again, and move the cursor, as one.

        Returns the new unit, or None for a page that is empty or already known. StateError: another
        worker has taken over.
        """
        with self.database.write() as connection:
            if cursor is not None:
                moved = connection.execute(
                    sa.update(feed)
                    .where(feed.c.id == feed_id, feed.c.epoch == epoch)
                    .values(cursor=json.dumps(cursor))
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
            unit_id = _new_id(made)
            connection.execute(spool.insert().values(unit_id=unit_id, body=body))
            return unit_id

    def spooled(self, unit_id: int) -> bytes | None:
        """The bytes of a page; None when it is not spooled."""
        with self.database.read() as connection:
            found: bytes | None = connection.execute(
                sa.select(spool.c.body).where(spool.c.unit_id == unit_id)
            ).scalar()
        return found

    def record_listing(
        self, feed_id: int, window: datetime, units: Sequence[Unit], *, late: bool = False
    ) -> int:
        """Enter what the source listed into the ledger; returns how many were not known before.

        `late`: the window was accounted for already, so its units have to be looked for.
        """
        fresh = self._unknown(feed_id, units)
        if not fresh:
            return 0
        listed = to_text(now())
        rows = [
            {
                "feed_id": feed_id,
                "unit_key": one.id,
                "window": to_text(window),
                "locator": json.dumps(dict(one.locator)),
                "created": to_text(one.created) if one.created else None,
                "expires": to_text(one.expires) if one.expires else None,
                "status": "listed",
                "listed": listed,
                "retry_at": listed if late else None,
            }
            for one in fresh
        ]
        with self.database.write() as connection:
            connection.execute(insert_or_ignore(connection, unit), rows)
        return len(rows)

    def _unknown(self, feed_id: int, units: Sequence[Unit]) -> list[Unit]:
        by_key = {one.id: one for one in units}
        names = list(by_key)
        with self.database.read() as connection:
            for start in range(0, len(names), 500):
                known = connection.execute(
                    sa.select(unit.c.unit_key).where(
                        unit.c.feed_id == feed_id, unit.c.unit_key.in_(names[start : start + 500])
                    )
                ).scalars()
                for name in known:
                    del by_key[name]
        return list(by_key.values())

    def pending(
        self,
        feed_id: int,
        playbooks: Collection[str],
        limit: int,
        *,
        floor: datetime | None = None,
        without: Collection[int] = (),
    ) -> list[StoredUnit]:
        """Units that one of the playbooks has not acknowledged and that are due, earliest expiry first.

        `floor`: windows that begin before it are accounted for, so only what was postponed or came
        late is looked for there. `without`: ids to leave out.
        """
        waiting = _waiting(feed_id, playbooks, floor)
        moment = to_text(now())
        with self.database.read() as connection:
            ids = connection.execute(
                sa.select(unit.c.id)
                .join(waiting, waiting.c.unit_id == unit.c.id)
                .where(sa.or_(unit.c.retry_at.is_(None), unit.c.retry_at <= moment))
                .group_by(unit.c.id)
                .order_by(unit.c.expires.is_(None), unit.c.expires, unit.c.id)
                .limit(limit + len(without))
            ).scalars()
            wanted = [one for one in ids if one not in without][:limit]
            rows: list[Any] = []
            for start in range(0, len(wanted), 500):
                rows += connection.execute(
                    sa.select(unit, waiting.c.playbook)
                    .join(waiting, waiting.c.unit_id == unit.c.id)
                    .where(unit.c.id.in_(wanted[start : start + 500]))
                ).all()
        found: dict[int, tuple[Any, set[str]]] = {}
        for row in rows:
            found.setdefault(row.id, (row, set()))[1].add(row.playbook)
        ordered = sorted(found.values(), key=lambda pair: (pair[0].expires or "~", pair[0].id))
        return [_stored(row, names) for row, names in ordered]

    def waiting_windows(self, feed_id: int, playbook: str, floor: datetime | None = None) -> dict[str, int]:
        """Windows with units that the playbook has not acknowledged, and how many."""
        waiting = _waiting(feed_id, [playbook], floor)
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(unit.c.window, sa.func.count())
                .join(waiting, waiting.c.unit_id == unit.c.id)
                .group_by(unit.c.window)
            ).all()
        return {window or "": count for window, count in rows}

    def advance(self, feed_id: int, playbook: str, mark: datetime) -> None:
        """Move a low-water mark. It never goes back."""
        text = to_text(mark)
        with self.database.write() as connection:
            connection.execute(
                sa.update(subscription)
                .where(
                    subscription.c.feed_id == feed_id,
                    subscription.c.playbook == playbook,
                    subscription.c.mark < text,
                )
                .values(mark=text)
            )

    def claim(self, connection: sa.Connection, feed_id: int, fetched: Sequence[Fetched]) -> list[Owned]:
        """Record that units were fetched, and own those of their events that nobody owns.

        A unit whose bytes are those of its last fetch finds the same duplicates again, except where
        their owner was set aside since.
        """
        known = self._known(connection, fetched)
        claimed = self._claimed(connection, feed_id, [one for one in fetched if one.unit.id not in known])
        gone = {number for number, found in claimed.items() if found.vanished}
        stale = [
            one
            for one in fetched
            if one.unit.id in known and gone.intersection(known[one.unit.id].duplicates.values())
        ]
        claimed.update(self._claimed(connection, feed_id, stale))
        owned = [claimed.get(one.unit.id) or known[one.unit.id] for one in fetched]
        moment = to_text(now())
        connection.execute(
            sa.update(unit)
            .where(unit.c.id == sa.bindparam("of"))
            .values(
                status="fetched",
                size=sa.bindparam("size_"),
                digest=sa.bindparam("digest_"),
                events=sa.bindparam("events_"),
                broken=sa.bindparam("broken_"),
                duplicates=sa.bindparam("duplicates_"),
                fetched=moment,
                retry_at=None,
            ),
            [
                {
                    "of": one.unit.id,
                    "size_": one.size,
                    "digest_": one.digest,
                    "events_": one.events,
                    "broken_": len(one.broken),
                    "duplicates_": ",".join(f"{at}:{owner}" for at, owner in found.duplicates.items())
                    or None,
                }
                for one, found in zip(fetched, owned, strict=True)
            ],
        )
        for one, found in zip(fetched, owned, strict=True):
            if found.vanished:
                self._look_again(connection, feed_id, one.unit.id)
        again = [one.unit.id for one in fetched if one.unit.digest is not None or one.unit.attempts]
        if again:
            connection.execute(
                sa.delete(dead_letter).where(
                    dead_letter.c.unit_id.in_(again), dead_letter.c.playbook.is_(None)
                )
            )
        self.bury(connection, [letter for one in fetched for letter in one.broken])
        return owned

    def _look_again(self, connection: sa.Connection, feed_id: int, owner: int) -> None:
        """Units with duplicates of this one, which it does not hold any more, forget what they knew."""
        rows = connection.execute(
            sa.select(unit.c.id, unit.c.duplicates).where(
                unit.c.feed_id == feed_id, unit.c.duplicates.contains(f":{owner}")
            )
        ).all()
        stale = [row.id for row in rows if f":{owner}," in f"{row.duplicates},"]
        if stale:
            connection.execute(
                sa.update(unit).where(unit.c.id.in_(stale), unit.c.id != owner).values(duplicates=_LOOK_AGAIN)
            )

    def _claimed(
        self, connection: sa.Connection, feed_id: int, fetched: Sequence[Fetched]
    ) -> dict[int, Owned]:
        found = self.keys.claim(connection, feed_id, [one.keys for one in fetched])
        return {one.unit.id: owned for one, owned in zip(fetched, found, strict=True)}

    def _known(self, connection: sa.Connection, fetched: Sequence[Fetched]) -> dict[int, Owned]:
        """The duplicates of the last fetch, of units whose bytes are still the same."""
        same = [one.unit.id for one in fetched if one.unit.digest == one.digest]
        if not same:
            return {}
        rows = (
            connection.execute(  # not as it was when the unit was taken up: an owner may have changed since
                sa.select(unit.c.id, unit.c.duplicates).where(unit.c.id.in_(same))
            )
        )
        found: dict[int, Owned] = {}
        for number, text in rows:
            if text == _LOOK_AGAIN:
                continue
            pairs = (pair.split(":") for pair in (text or "").split(",") if pair)
            found[number] = Owned({int(at): int(owner) for at, owner in pairs})
        owners = {owner for one in found.values() for owner in one.duplicates.values()}
        aside = set_aside(connection, owners - set(found))
        return {
            number: one for number, one in found.items() if not aside.intersection(one.duplicates.values())
        }

    def acknowledged_by(self, units: Iterable[int], playbook: str) -> set[int]:
        """Those of the units that the playbook has acknowledged."""
        wanted = list(set(units))
        found: set[int] = set()
        with self.database.read() as connection:
            for start in range(0, len(wanted), 500):
                found.update(
                    connection.execute(
                        sa.select(acknowledgement.c.unit_id).where(
                            acknowledgement.c.playbook == playbook,
                            acknowledgement.c.unit_id.in_(wanted[start : start + 500]),
                        )
                    ).scalars()
                )
        return found

    def undelivered_owners(self, owners: Iterable[int], playbook: str) -> set[int]:
        """Those of the units that the playbook still has to acknowledge: their events may yet be lost."""
        wanted = list(set(owners))
        if not wanted:
            return set()
        with self.database.read() as connection:
            found: set[int] = set()
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                feeds = connection.execute(
                    sa.select(unit.c.feed_id).where(unit.c.id.in_(part)).distinct()
                ).scalars()
                for feed_id in feeds.all():
                    waiting = _waiting(feed_id, [playbook])
                    found.update(
                        connection.execute(
                            sa.select(waiting.c.unit_id).where(waiting.c.unit_id.in_(part))
                        ).scalars()
                    )
        return found

    def record(
        self,
        connection: sa.Connection,
        feed_id: int,
        deliveries: Sequence[Delivered],
        acknowledged: Sequence[Acknowledged],
        *,
        spooled: bool = False,
    ) -> None:
        """Keep receipts, and what playbooks are done with; a spooled page goes with the last of them."""
        moment = to_text(now())
        if deliveries:
            connection.execute(
                delivery.insert(),
                [
                    {
                        "unit_id": one.unit_id,
                        "playbook": one.playbook,
                        "sink": one.sink,
                        "digest": one.digest,
                        "positions": one.positions,
                        "records": len(one.receipts),
                        "receipts": json.dumps(one.receipts),
                        "at": moment,
                    }
                    for one in deliveries
                ],
            )
        if not acknowledged:
            return
        connection.execute(
            insert_or_ignore(connection, acknowledgement),
            [
                {"unit_id": one.unit_id, "playbook": one.playbook, **_counted(one.counts), "at": moment}
                for one in acknowledged
            ],
        )
        if spooled:
            ids = {one.unit_id for one in acknowledged}
            waiting = _waiting(feed_id, None)
            still = sa.select(waiting.c.unit_id).where(waiting.c.unit_id.in_(ids))
            connection.execute(
                sa.delete(spool).where(spool.c.unit_id.in_(ids), spool.c.unit_id.not_in(still))
            )

    def acknowledge(
        self, connection: sa.Connection, feed_id: int, unit_id: int, playbook: str, counts: Counts
    ) -> None:
        """The playbook is done with the unit; a spooled page goes when all its subscribers are."""
        one = Acknowledged(unit_id, playbook, counts)
        self.record(connection, feed_id, [], [one], spooled=True)

    def delivered(self, unit_id: int, playbook: str, sink: str, digest: str) -> Positions:
        """Positions of the unit that the sink has taken, as far as the unit's bytes are still the same."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(delivery.c.positions).where(
                    delivery.c.unit_id == unit_id,
                    delivery.c.playbook == playbook,
                    delivery.c.sink == sink,
                    delivery.c.digest == digest,
                )
            ).scalars()
            return Positions.union(Positions.parse(text) for text in rows)

    def bury(self, connection: sa.Connection, letters: Sequence[DeadLetter]) -> None:
        """Keep records that could not be read or delivered."""
        if letters:
            moment = to_text(now())
            rows = [{**asdict(one), "reason": storable(one.reason), "at": moment} for one in letters]
            connection.execute(dead_letter.insert(), rows)

    def set_aside(self, unit_id: int, status: str, reason: str, sample: bytes = b"") -> None:
        """Quarantine a unit or record it as lost.

        The events that it owned are free for other units, unless a playbook has them already: whoever
        asks for an owner looks at its status.
        """
        reason = storable(reason)
        with self.database.write() as connection:
            connection.execute(
                sa.update(unit)
                .where(unit.c.id == unit_id)
                .values(status=status, reason=reason, attempts=unit.c.attempts + 1)
            )
            if sample:
                self.bury(connection, [DeadLetter(reason, sample, unit_id=unit_id)])

    def postpone(self, unit_id: int, reason: str, until: datetime, *, failed: bool = True) -> None:
        """Try the unit again, not before `until`. `failed`: it counts as one of its failed attempts."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(unit)
                .where(unit.c.id == unit_id)
                .values(
                    attempts=unit.c.attempts + int(failed),
                    reason=storable(reason),
                    retry_at=to_text(until),
                )
            )

    def record_gap(self, feed_id: int, playbook: str, start: datetime, end: datetime, cause: str) -> None:
        """A time range that can never be accounted for."""
        with self.database.write() as connection:
            connection.execute(
                insert_or_ignore(connection, gap),
                {
                    "feed_id": feed_id,
                    "playbook": playbook,
                    "start": to_text(start),
                    "end": to_text(end),
                    "cause": cause,
                    "at": to_text(now()),
                },
            )

    def buried(self, unit_id: int, playbook: str, sink: str) -> Positions:
        """Positions of the unit that the sink refused for good."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(dead_letter.c.position).where(
                    dead_letter.c.unit_id == unit_id,
                    dead_letter.c.playbook == playbook,
                    dead_letter.c.sink == sink,
                )
            ).scalars()
            return Positions(position for position in rows if position is not None)

    def has_pending(self, feed_id: int, playbooks: Collection[str], floor: datetime | None = None) -> bool:
        """Is there a unit that one of the playbooks has not acknowledged, due or not?"""
        waiting = _waiting(feed_id, playbooks, floor)
        with self.database.read() as connection:
            return connection.execute(sa.select(waiting.c.unit_id).limit(1)).first() is not None

    def next_due(
        self, feed_id: int, playbooks: Collection[str], floor: datetime | None = None
    ) -> datetime | None:
        """When the earliest postponed unit is due; None when none is postponed."""
        waiting = _waiting(feed_id, playbooks, floor)
        with self.database.read() as connection:
            text = connection.execute(
                sa.select(sa.func.min(unit.c.retry_at)).join(waiting, waiting.c.unit_id == unit.c.id)
            ).scalar()
        return from_text(text) if text else None

    def set_aside_of(self, feed_ids: Collection[int]) -> list[tuple[str, str, str]]:
        """(unit, status, reason) of what these feeds quarantined or lost."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(unit.c.unit_key, unit.c.status, unit.c.reason).where(
                    unit.c.feed_id.in_(feed_ids), unit.c.status.not_in(_OPEN)
                )
            )
            return [(key, status, reason or "") for key, status, reason in rows]


def _same_feed(key: FeedKey) -> list[sa.ColumnElement[bool]]:
    return [
        feed.c.trigger == key.trigger,
        feed.c.connection == key.connection,
        feed.c.tenant == key.tenant,
        feed.c.key == key.key,
    ]


def _waiting(feed_id: int, playbooks: Collection[str] | None, floor: datetime | None = None) -> sa.Subquery:
    """(unit, playbook) pairs of a feed that are not accounted for; None: of every subscriber.

    With `floor`, of the windows before it only units with a `retry_at`.
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
            unit.c.status.in_(_OPEN),
            acknowledgement.c.unit_id.is_(None),
            sa.or_(unit.c.created.is_(None), unit.c.created >= subscription.c.since),
        )
    )
    if floor is not None:
        query = query.where(
            sa.or_(unit.c.window >= to_text(floor), unit.c.window.is_(None), unit.c.retry_at > "")
        )
    if playbooks is not None:
        query = query.where(subscription.c.playbook.in_(list(playbooks)))
    return query.subquery()


def _counted(counts: Counts) -> dict[str, int]:
    return {
        "delivered": counts.delivered,
        "duplicates": counts.duplicates,
        "filtered": counts.filtered,
        "condition_errors": counts.condition_errors,
        "dropped": counts.dropped,
        "dead": counts.dead,
        "runs": counts.runs,
    }


def _stored(row: Any, names: set[str]) -> StoredUnit:
    return StoredUnit(
        id=row.id,
        unit=Unit(
            id=row.unit_key,
            locator=json.loads(row.locator),
            created=from_text(row.created) if row.created else None,
            expires=from_text(row.expires) if row.expires else None,
        ),
        status=row.status,
        attempts=row.attempts,
        digest=row.digest,
        waiting=frozenset(names),
        duplicates=row.duplicates,
    )


def _new_id(made: sa.CursorResult[Any]) -> int:
    """The primary key that a single-row insert was given."""
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])
