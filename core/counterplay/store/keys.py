"""Which unit owns an event: the ids of a unit as one blob, found by the hour in which they happened.

A table of random ids would cost more than everything else that is done with an event. So the ids of a
unit lie together (16 bytes and a checksum of the body each), an index says which units hold ids of an
hour, and of the hours that are being collected a fingerprint of each id is kept in memory, in 13 to 20 bytes.
An event is looked up in the hour of its own time, which is the same wherever it is repeated.

Memory follows the database, so one worker at a time may use it on a feed, inside write transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from counterplay.store.key_claims import Claim, Owned, UnitKeys
from counterplay.store.key_hours import Hour, prints_of, tag
from counterplay.store.key_pages import Pages, seal, sealed, unseal
from counterplay.store.tables import key_hour, key_page, unit, unit_keys

_MEMORY = 18_000_000  # two hours of 100 million events a week, which are asked for all the time
_WORTH_PAGES = 4096  # an hour with fewer ids is read back from its units
_COOLING = 0.95  # of what is known of an hour's use, at each claim
_WORTH_A_TABLE = 100  # so many ids of an hour in one claim bring it back into memory


class KeyStore:
    """Remembers event ids. `memory`: bytes for the hours that are kept at hand."""

    def __init__(self, memory: int = _MEMORY, worth_pages: int = _WORTH_PAGES) -> None:
        self._memory = memory
        self._worth_pages = worth_pages
        self._sealed: dict[int, set[int]] = {}
        self._hours: dict[tuple[int, int], Hour] = {}
        self._known: dict[int, set[int]] = {}

    @property
    def size(self) -> int:
        """Bytes that are used in memory."""
        return sum(hour.size for hour in self._hours.values())

    def forget(self) -> None:
        """A transaction was rolled back: what is in memory may not be on disk."""
        self._hours.clear()
        self._known.clear()
        self._sealed.clear()

    def claim(self, connection: sa.Connection, feed_id: int, batch: Sequence[UnitKeys]) -> list[Owned]:
        """Own those ids that no other unit owns, unit by unit in order."""
        claim = Claim(self, connection, feed_id)
        entered = claim.enter([one for one in batch if one.keys or one.again])
        claim.look_up(entered)
        found = {one.keys.unit_id: claim.decide(one) for one in entered}
        claim.write()
        self._shrink(connection)
        return [found.get(one.unit_id, Owned({})) for one in batch]

    def purge(self, connection: sa.Connection, feed_id: int, before: str) -> int:
        """Forget the ids of units that became available before that time; returns how many units."""
        old = sa.select(unit.c.id).where(
            unit.c.feed_id == feed_id, sa.func.coalesce(unit.c.created, unit.c.listed) < before
        )
        connection.execute(sa.delete(key_hour).where(key_hour.c.unit_id.in_(old)))
        _drop_empty_pages(connection, feed_id)
        gone = connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(old))).rowcount
        if gone:
            self.forget()
        return int(gone)

    def hour(self, connection: sa.Connection, feed_id: int, number: int, wanted: int) -> Hour | Pages:
        """The ids of an hour: in memory, or on pages when only a few of it are `wanted`."""
        found = self._hours.get((feed_id, number))
        if found is not None:
            found.heat += wanted
            return found
        if number in self._sealed_hours(connection, feed_id) and wanted < _WORTH_A_TABLE:
            return Pages(connection, feed_id, number)
        found = self._hours[feed_id, number] = Hour()
        found.heat = float(wanted)
        if number in self._sealed_hours(connection, feed_id):
            self._sealed[feed_id].discard(number)
            for entries in unseal(connection, feed_id, number):
                found.put_back(entries)
        elif number in self._on_disk(connection, feed_id):
            rows = connection.execute(
                sa.select(key_hour.c.unit_id, key_hour.c.first, key_hour.c["count"], unit_keys.c["keys"])
                .join(unit_keys, unit_keys.c.unit_id == key_hour.c.unit_id)
                .where(key_hour.c.feed_id == feed_id, key_hour.c.hour == number)
                .order_by(key_hour.c.unit_id)
            )
            for owner, first, count, keys in rows:
                found.claim(prints_of(keys[16 * first : 16 * (first + count)]), [tag(owner)] * count)
        return found

    def _sealed_hours(self, connection: sa.Connection, feed_id: int) -> set[int]:
        known = self._sealed.get(feed_id)
        if known is None:
            known = self._sealed[feed_id] = sealed(connection, feed_id)
        return known

    def _on_disk(self, connection: sa.Connection, feed_id: int) -> set[int]:
        """The hours that there are ids of, so that a new one costs no question."""
        known = self._known.get(feed_id)
        if known is None:
            rows = connection.execute(
                sa.select(key_hour.c.hour).where(key_hour.c.feed_id == feed_id).distinct()
            )
            known = self._known[feed_id] = set(rows.scalars())
        return known

    def wrote(self, feed_id: int, hours: Iterable[int]) -> None:
        """There are ids of these hours now."""
        known = self._known.get(feed_id)
        if known is not None:  # else nobody asked the disk yet: these alone would hide the others
            known.update(hours)

    def _shrink(self, connection: sa.Connection) -> None:
        """Let go of the hours that were not asked for lately; large ones leave their pages."""
        size = self.size
        for hour in self._hours.values():
            hour.heat *= _COOLING
        while size > self._memory and len(self._hours) > 1:
            # the least asked for by its size: an hour that has just begun is small
            coldest = min(self._hours, key=lambda key: self._hours[key].heat / self._hours[key].size)
            feed_id, number = coldest
            hour = self._hours.pop(coldest)
            size -= hour.size
            if hour.count >= self._worth_pages:
                seal(connection, feed_id, number, hour.pages())
                self._sealed_hours(connection, feed_id).add(number)


def forget_units(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Forget the ids of units that are to be deleted; most feeds have purged them long before.

    Memory need not follow: an owner that holds no ids on disk owns nothing.
    """
    feeds = connection.execute(
        sa.select(key_hour.c.feed_id).where(key_hour.c.unit_id.in_(ids)).distinct()
    ).scalars()
    touched = list(feeds)
    connection.execute(sa.delete(key_hour).where(key_hour.c.unit_id.in_(ids)))
    for feed_id in touched:
        _drop_empty_pages(connection, feed_id)
    connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(ids)))


def _drop_empty_pages(connection: sa.Connection, feed_id: int) -> None:
    left = sa.select(key_hour.c.hour).where(key_hour.c.feed_id == feed_id)
    connection.execute(sa.delete(key_page).where(key_page.c.feed_id == feed_id, key_page.c.hour.not_in(left)))
