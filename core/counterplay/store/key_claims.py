"""One transaction's claims on events: which are known, which are new, and who owns them from now on."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import sqlalchemy as sa

from counterplay.store.key_hours import Hour, digests, key_at, place_of, prints_of, tag
from counterplay.store.key_pages import Pages
from counterplay.store.key_pages import write as write_pages
from counterplay.store.statements import execute_many
from counterplay.store.tables import acknowledgement, key_hour, unit, unit_keys

UNTIMED = -1
"""The hour of events without a time."""
_SET_ASIDE = ("quarantined", "lost")

# Built once: building a statement costs more than running it.
_ASIDE = (
    sa.select(unit.c.id)
    .outerjoin(acknowledgement, acknowledgement.c.unit_id == unit.c.id)
    .where(
        unit.c.id.in_(sa.bindparam("owners", expanding=True)),
        unit.c.status.in_(_SET_ASIDE),
        acknowledgement.c.unit_id.is_(None),
    )
)
_HELD = (
    sa.select(
        unit_keys.c.unit_id,
        unit_keys.c["keys"],
        unit_keys.c.checks,
        sa.and_(
            unit.c.status.in_(_SET_ASIDE),
            ~sa.exists().where(acknowledgement.c.unit_id == unit.c.id),
        ).label("aside"),
    )
    .join(unit, unit.c.id == unit_keys.c.unit_id)
    .where(unit_keys.c.unit_id.in_(sa.bindparam("owners", expanding=True)))
)
_INSERT_KEYS, _INSERT_HOURS = unit_keys.insert(), key_hour.insert()


@dataclass(frozen=True, slots=True)
class UnitKeys:
    """The ids of one unit's events in order, each with its position, hour and the body's checksum.

    `again`: the unit may own ids from an earlier fetch.
    """

    unit_id: int
    keys: Sequence[str]
    positions: Sequence[int]
    hours: Sequence[int]
    checks: Sequence[int]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Owned:
    """What a claim found. `duplicates`: position → owning unit, which may be the unit itself when it
    holds an event twice. `altered`: positions of duplicates whose body is not the one that is known.
    `vanished`: the unit owned ids that it no longer holds; they are free, so whoever took them for
    duplicates of it has to look again.
    """

    duplicates: Mapping[int, int]
    altered: tuple[int, ...] = ()
    vanished: bool = False


class Hours(Protocol):
    """Where a claim finds the ids of an hour, and notes that there are some now."""

    def hour(self, connection: sa.Connection, feed_id: int, number: int, wanted: int) -> Hour | Pages: ...

    def wrote(self, feed_id: int, hours: Collection[int]) -> None: ...


@dataclass(slots=True)
class _Entered:
    """A unit whose ids were entered into the tables; `hits` by hour: (place, owner) of known ids."""

    keys: UnitKeys
    packed: bytes
    prints: Sequence[bytes]
    places: dict[int, list[int]]
    hits: dict[int, list[tuple[int, int]]]


class Claim:
    """One transaction's claims."""

    def __init__(self, store: Hours, connection: sa.Connection, feed_id: int) -> None:
        self._store = store
        self._connection = connection
        self._feed_id = feed_id
        self._blobs: dict[int, tuple[bytes, bytes]] = {}  # what owners hold: keys and checks
        self._before: dict[int, tuple[bytes, bytes]] = {}  # what units of this claim held before it
        self._new: dict[int, tuple[bytes, bytes]] = {}
        self._index: list[dict[str, int]] = []
        self._hours: dict[int, Hour | Pages] = {}

    def _hour(self, number: int, wanted: int = 0) -> Hour | Pages:
        found = self._hours.get(number)
        if found is None:
            found = self._hours[number] = self._store.hour(self._connection, self._feed_id, number, wanted)
        return found

    def enter(self, batch: Sequence[UnitKeys]) -> list[_Entered]:
        """Enter the ids that are new into the tables of their hours, unit by unit in order."""
        entered: list[_Entered] = []
        hours: dict[int, list[tuple[_Entered, list[int]]]] = {}  # the places of ids of each hour, by unit
        for one in batch:
            packed = digests(one.keys)
            by_hour: dict[int, list[int]] = {number: [] for number in set(one.hours)}
            if len(by_hour) == 1:
                by_hour[one.hours[0]] = list(range(len(one.keys)))
            else:
                for place, number in enumerate(one.hours):
                    by_hour[number].append(place)
            entered.append(_Entered(one, packed, prints_of(packed), by_hour, {}))
            for number, places in by_hour.items():
                hours.setdefault(number, []).append((entered[-1], places))
            self._blobs[one.unit_id] = packed, struct.pack(f"<{len(one.checks)}I", *one.checks)
        for number, parts in hours.items():
            self._enter(number, parts)
        return entered

    def _enter(self, number: int, parts: Sequence[tuple[_Entered, list[int]]]) -> None:
        """The ids of one hour, of all units at once."""
        prints: list[bytes] = []
        tags: list[bytes] = []
        for one, places in parts:
            known = one.prints
            prints += known if len(places) == len(known) else [known[place] for place in places]
            tags += [tag(one.keys.unit_id)] * len(places)
        found = self._hour(number, len(prints)).claim(prints, tags)
        if not found:
            return
        starts = list(accumulate((len(places) for _, places in parts), initial=0))
        for index, owner in found:
            part = bisect_right(starts, index) - 1
            one, places = parts[part]
            one.hits.setdefault(number, []).append((places[index - starts[part]], owner))

    def look_up(self, entered: Sequence[_Entered]) -> None:
        """Read at once what is on disk about the owners of known ids, and about units that came again."""
        mine = set(self._blobs)
        owners = {
            owner for one in entered for hits in one.hits.values() for _, owner in hits if owner not in mine
        }
        again = {one.keys.unit_id for one in entered if one.keys.again}
        wanted = [*owners, *again]
        for start in range(0, len(wanted), 500):
            rows = self._connection.execute(_HELD, {"owners": wanted[start : start + 500]})
            for owner, keys, checks, aside in rows:
                if owner in again:
                    self._before[owner] = (keys, checks)
                elif not aside:  # what was set aside before anybody had it owns nothing
                    self._blobs[owner] = (keys, checks)

    def decide(self, one: _Entered) -> Owned:
        """Which known ids are duplicates, and which ids this unit owns from now on."""
        duplicates: dict[int, int] = {}
        altered: list[int] = []
        kept: list[int] = []
        spans: list[tuple[int, int, int]] = []
        for number, places in sorted(one.places.items()):
            own = places
            if number in one.hits:
                own = self._others(one, number, duplicates, altered)
            if own:
                spans.append((number, len(kept), len(own)))
                kept += own
        return Owned(duplicates, tuple(altered), self._keep(one, kept, spans))

    def _others(
        self, one: _Entered, number: int, duplicates: dict[int, int], altered: list[int]
    ) -> list[int]:
        """Sort out the known ids of an hour: places of those that this unit owns from now on."""
        unit_id, positions, checks = one.keys.unit_id, one.keys.positions, one.keys.checks
        hits = dict(one.hits[number])
        own = [place for place in one.places[number] if place not in hits]
        seen: dict[bytes, int] | None = None  # of those; only needed where one of them comes twice
        for place, owner in hits.items():
            key = key_at(one.packed, place)
            if owner != unit_id:
                keys, sums = self._blobs.get(owner, (b"", b""))
                at = place_of(keys, key)
                if at is not None:
                    duplicates[positions[place]] = owner
                    if struct.unpack_from("<I", sums, 4 * at)[0] != checks[place]:
                        altered.append(positions[place])
                    continue
            if seen is None:
                seen = {key_at(one.packed, mine): mine for mine in own}
            if owner == unit_id:
                if key in seen:  # a second time in this unit
                    duplicates[positions[place]] = owner
                    if checks[place] != checks[seen[key]]:
                        altered.append(positions[place])
                    continue
                seen[key] = place
                own.append(place)  # claimed just now, or when the unit was fetched before
                continue
            # It vanished from that unit, or the unit was set aside. (Or it is another id with the
            # same fingerprint, which one in 10^19 is: then the other one may come twice.)
            self._hour(number).give(prints_of(key)[0], unit_id)
            self._taken_over(key, seen, place, own, duplicates, positions, unit_id)
        return sorted(own)

    @staticmethod
    def _taken_over(
        key: bytes,
        seen: dict[bytes, int],
        place: int,
        own: list[int],
        duplicates: dict[int, int],
        positions: Sequence[int],
        unit_id: int,
    ) -> None:
        """The id is this unit's now; its second time here is a duplicate."""
        if key in seen:
            duplicates[positions[place]] = unit_id
        else:
            seen[key] = place
            own.append(place)

    def _keep(self, one: _Entered, places: list[int], spans: list[tuple[int, int, int]]) -> bool:
        """Note what the unit owns now; says whether ids that it owned before are gone from it."""
        unit_id = one.keys.unit_id
        keys, checks = self._blobs[unit_id]
        if places != list(range(len(one.keys.keys))):
            each = struct.unpack("16s" * len(one.keys.keys), one.packed)
            keys = b"".join([each[place] for place in places])
            checks = struct.pack(f"<{len(places)}I", *[one.keys.checks[place] for place in places])
        before = self._before.get(unit_id, (b"", b""))[0]
        if places or before:
            self._new[unit_id] = (keys, checks)
        self._index += [
            {
                "feed_id": self._feed_id,
                "hour": number,
                "unit_id": unit_id,
                "first": first,
                "count": count,
            }
            for number, first, count in spans
        ]
        kept = {keys[at : at + 16] for at in range(0, len(keys), 16)} if before else set()
        return any(before[at : at + 16] not in kept for at in range(0, len(before), 16))

    def write(self) -> None:
        """Put what the units own now on disk."""
        cold = [hour for hour in self._hours.values() if isinstance(hour, Pages)]
        write_pages(self._connection, [row for pages in cold for row in pages.changed()])
        known = [owner for owner in self._new if owner in self._before]
        if known:
            self._connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(known)))
            self._connection.execute(sa.delete(key_hour).where(key_hour.c.unit_id.in_(known)))
        if self._new:
            execute_many(
                self._connection,
                _INSERT_KEYS,
                [
                    {"unit_id": owner, "keys": keys, "checks": checks}
                    for owner, (keys, checks) in self._new.items()
                ],
            )
            if self._index:
                execute_many(self._connection, _INSERT_HOURS, self._index)
            self._store.wrote(self._feed_id, {row["hour"] for row in self._index})


def set_aside(connection: sa.Connection, owners: Collection[int]) -> set[int]:
    """Those of the units that were quarantined or lost before any playbook had them: they own nothing."""
    if not owners:
        return set()
    return set(connection.execute(_ASIDE, {"owners": list(owners)}).scalars())
