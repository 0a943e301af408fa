"""The ledger as people ask for it: the account by hour, gaps, units by name, what is to be tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.errors import ConfigError
from counterplay.store.database import Database
from counterplay.store.feed_labels import feed_label
from counterplay.store.tables import acknowledgement, dead_letter, delivery, feed, gap, subscription, unit

_ASIDE = ("quarantined", "lost")


@dataclass(frozen=True, slots=True)
class Account:
    """One hour of a feed for one playbook, by the time at which the source made units available.

    `units` = `acknowledged` + `waiting` + `quarantined` + `lost` + `before` + `ended`: `before` are units
    that are older than the subscription, `ended` those that still waited when it was ended; what was
    listed after that is not in its account. What the source never listed is in no account.
    """

    feed: str
    playbook: str
    hour: str
    units: int
    acknowledged: int
    waiting: int
    quarantined: int
    lost: int
    before: int
    ended: int
    events: int
    bytes: int
    delivered: int
    duplicates: int
    filtered: int
    condition_errors: int
    dropped: int
    dead: int
    runs: int
    suppressed: int
    known: int

    @property
    def balanced(self) -> bool:
        """Every unit that the source listed is accounted for."""
        aside = self.quarantined + self.lost + self.before + self.ended
        return self.units == self.acknowledged + self.waiting + aside


@dataclass(frozen=True, slots=True)
class Gap:
    """What can never, or not yet, be accounted for: a range of time, or one unit.

    A unit has no `end`: it became available at `start`, and the source says that it gives it until `expires`.
    A range is one playbook's, a unit is missing for all of its feed.
    """

    feed: str
    playbook: str
    start: str
    end: str
    unit: str
    status: str
    cause: str
    at: str
    expires: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that could not be read or delivered, without its bytes."""

    id: int
    unit: str
    playbook: str
    sink: str
    position: int | None
    reason: str
    size: int
    at: str


class Ledger:
    """Reads the ledger of a store, also beside a working process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def feeds(self, named: str | None = None) -> dict[int, str]:
        """Feeds by what people call them; `named` is a part of that name, in letters of any case."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(feed).order_by(feed.c.id)).all()
        labels = {row.id: feed_label(row) for row in rows}
        return {key: text for key, text in labels.items() if named is None or named.lower() in text.lower()}

    def account(self, feeds: dict[int, str]) -> list[Account]:
        """The account of these feeds, by feed, playbook and hour."""
        hour = sa.func.substr(sa.func.coalesce(unit.c.created, unit.c.listed), 1, 13)
        acknowledged = acknowledgement.c.unit_id.is_not(None)
        open_ = unit.c.status.not_in(_ASIDE)
        ended = subscription.c.ended.is_not(None)
        before = sa.and_(unit.c.created.is_not(None), unit.c.created < subscription.c.since)

        def count(*conditions: Any) -> Any:
            return sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0))

        def total(column: Any) -> Any:
            return sa.func.coalesce(sa.func.sum(column), 0)

        query = (
            sa.select(
                unit.c.feed_id,
                subscription.c.playbook,
                hour.label("hour"),
                sa.func.count().label("units"),
                count(acknowledged).label("acknowledged"),
                count(~acknowledged, open_, ~before, ~ended).label("waiting"),
                count(~acknowledged, unit.c.status == "quarantined").label("quarantined"),
                count(~acknowledged, unit.c.status == "lost").label("lost"),
                count(~acknowledged, open_, before).label("before"),
                count(~acknowledged, open_, ~before, ended).label("ended"),
                total(unit.c.events).label("events"),
                total(unit.c.size).label("bytes"),
                total(acknowledgement.c.delivered).label("delivered"),
                total(acknowledgement.c.duplicates).label("duplicates"),
                total(acknowledgement.c.filtered).label("filtered"),
                total(acknowledgement.c.condition_errors).label("condition_errors"),
                total(acknowledgement.c.dropped).label("dropped"),
                total(acknowledgement.c.dead).label("dead"),
                total(acknowledgement.c.runs).label("runs"),
                total(acknowledgement.c.suppressed).label("suppressed"),
                total(acknowledgement.c.known).label("known"),
            )
            .join(subscription, subscription.c.feed_id == unit.c.feed_id)
            .outerjoin(
                acknowledgement,
                sa.and_(
                    acknowledgement.c.unit_id == unit.c.id,
                    acknowledgement.c.playbook == subscription.c.playbook,
                ),
            )
            .where(
                unit.c.feed_id.in_(feeds), sa.or_(~ended, acknowledged, unit.c.listed <= subscription.c.ended)
            )
            .group_by(unit.c.feed_id, subscription.c.playbook, sa.text("hour"))
            .order_by(unit.c.feed_id, subscription.c.playbook, sa.text("hour"))
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Account(feeds[row.feed_id], row.playbook, f"{row.hour}:00Z", *(int(value) for value in row[3:]))
            for row in rows
        ]

    def gaps(self, feeds: dict[int, str]) -> list[Gap]:
        """Recorded ranges first, then units that are quarantined, lost, or could be read in part only."""
        with self.database.read() as connection:
            ranges = connection.execute(
                sa.select(gap).where(gap.c.feed_id.in_(feeds)).order_by(gap.c.start)
            ).all()
            units = connection.execute(
                sa.select(unit)
                .where(unit.c.feed_id.in_(feeds), sa.or_(unit.c.status.in_(_ASIDE), unit.c.broken > 0))
                .order_by(unit.c.created, unit.c.id)
            ).all()
        found = [
            Gap(feeds[row.feed_id], row.playbook, row.start, row.end, "", "gap", row.cause, row.at)
            for row in ranges
        ]
        return found + [
            Gap(
                feeds[row.feed_id],
                "",
                row.created or "",
                "",
                row.unit_key,
                row.status if row.status in _ASIDE else "partial",
                (row.reason or "") if row.status in _ASIDE else f"{row.broken} elements could not be read",
                row.fetched or row.listed,
                row.expires or "",
            )
            for row in units
        ]

    def retry(self, feeds: dict[int, str], units: tuple[str, ...]) -> int:
        """Try units again that were set aside; without names, all of them. Returns how many.

        ConfigError: one that is named was not set aside. Then none is tried again.
        """
        chosen = sa.and_(unit.c.feed_id.in_(feeds), unit.c.status.in_(_ASIDE))
        if units:
            chosen = sa.and_(chosen, unit.c.unit_key.in_(units))
        with self.database.write() as connection:
            found = set(connection.execute(sa.select(unit.c.unit_key).where(chosen)).scalars())
            strange = [one for one in dict.fromkeys(units) if one not in found]
            if strange:
                raise ConfigError(
                    f"no unit {strange[0]!r} is quarantined or lost here, so none is tried again",
                    hint="`playbook ledger gaps` shows which are; one that is `partial` was delivered "
                    "without what could not be read",
                )
            done = connection.execute(
                sa.update(unit)
                .where(chosen)
                .values(status="listed", attempts=0, reason=None, retry_at=to_text(now()))
            )
        return int(done.rowcount)

    def export(self, feeds: dict[int, str]) -> Iterator[dict[str, Any]]:
        """Every unit with what became of it: acknowledgements and receipts by playbook and sink."""
        last = 0
        while True:
            with self.database.read() as connection:
                units = connection.execute(
                    sa.select(unit)
                    .where(unit.c.feed_id.in_(feeds), unit.c.id > last)
                    .order_by(unit.c.id)
                    .limit(200)
                ).all()
                ids = [row.id for row in units]
                acknowledged = connection.execute(
                    sa.select(acknowledgement).where(acknowledgement.c.unit_id.in_(ids))
                ).all()
                delivered = connection.execute(
                    sa.select(delivery).where(delivery.c.unit_id.in_(ids)).order_by(delivery.c.id)
                ).all()
            if not units:
                return
            last = ids[-1]
            for row in units:
                yield {
                    "feed": feeds[row.feed_id],
                    "unit": row.unit_key,
                    "status": row.status,
                    "reason": row.reason,
                    "created": row.created,
                    "listed": row.listed,
                    "fetched": row.fetched,
                    "bytes": row.size,
                    "sha256": row.digest,
                    "events": row.events,
                    "broken": row.broken,
                    "acknowledged": [
                        _without(one, "unit_id") for one in acknowledged if one.unit_id == row.id
                    ],
                    "delivered": [
                        {**_without(one, "unit_id", "id"), "receipts": json.loads(one.receipts)}
                        for one in delivered
                        if one.unit_id == row.id
                    ],
                }

    def letters(self, playbook: str | None = None, limit: int = 100) -> list[Letter]:
        """Dead letters, newest first."""
        query = (
            sa.select(dead_letter, unit.c.unit_key, sa.func.length(dead_letter.c.body).label("size"))
            .outerjoin(unit, unit.c.id == dead_letter.c.unit_id)
            .order_by(dead_letter.c.id.desc())
            .limit(limit)
        )
        if playbook is not None:
            query = query.where(dead_letter.c.playbook == playbook)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Letter(
                row.id,
                row.unit_key or row.run_id or "",
                row.playbook or "",
                row.sink or "",
                row.position,
                row.reason,
                int(row.size),
                row.at,
            )
            for row in rows
        ]

    def letter(self, number: int) -> bytes | None:
        """The bytes of a dead letter."""
        with self.database.read() as connection:
            found: bytes | None = connection.execute(
                sa.select(dead_letter.c.body).where(dead_letter.c.id == number)
            ).scalar()
        return found


def _without(row: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in names}
