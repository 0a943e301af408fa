"""Which unit owns an event: the ids of a unit as one blob, found by the hour in which they happened.

A table of random ids would cost more than everything else that is done with an event. So the ids of a
unit lie together (16 bytes and a checksum of the body each), an index says which units hold ids of an
hour, and the hours that are being collected are kept in memory as a hash table of 12 to 36 bytes an id.
An event is looked up in the hour of its own time, which is the same wherever it is repeated.

Memory follows the database, so one worker at a time may use it on a feed, inside write transactions.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import sqlalchemy as sa

from counterplay.store.key_pages import Pages, seal, sealed, unseal
from counterplay.store.tables import acknowledgement, key_hour, key_page, unit, unit_keys

UNTIMED = -1
"""The hour of events without a time."""
_MEMORY = 24_000_000
_SMALLEST = 1024
_SLOT = 12  # bytes
_WORTH_PAGES = 4096  # an hour with fewer ids is read back from its units
_COOLING = 0.95  # of what is known of an hour's use, at each claim
_WORTH_A_TABLE = 100  # so many ids of an hour in one claim bring it back into memory
_SET_ASIDE = ("quarantined", "lost")


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


class KeyStore:
    """Remembers event ids. `memory`: bytes for the hours that are kept at hand."""

    def __init__(self, memory: int = _MEMORY, worth_pages: int = _WORTH_PAGES) -> None:
        self._memory = memory
        self._worth_pages = worth_pages
        self._sealed: dict[int, set[int]] = {}
        self._hours: dict[tuple[int, int], _Hour] = {}
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
        claim = _Claim(self, connection, feed_id)
        claim.plan(batch)
        entered = [claim.enter(one) for one in batch if one.keys or one.again]
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
        left = sa.select(key_hour.c.hour).where(key_hour.c.feed_id == feed_id)
        connection.execute(
            sa.delete(key_page).where(key_page.c.feed_id == feed_id, key_page.c.hour.not_in(left))
        )
        gone = connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(old))).rowcount
        if gone:
            self.forget()
        return int(gone)

    def hour(self, connection: sa.Connection, feed_id: int, number: int, wanted: int) -> _Hour | Pages:
        """The ids of an hour: in memory, or on pages when only a few of it are `wanted`."""
        found = self._hours.get((feed_id, number))
        if found is not None:
            found.heat += wanted
            return found
        if number in self._sealed_hours(connection, feed_id) and wanted < _WORTH_A_TABLE:
            return Pages(connection, feed_id, number)
        found = self._hours[feed_id, number] = _Hour()
        found.heat = float(wanted)
        if number in self._sealed_hours(connection, feed_id):
            self._sealed[feed_id].discard(number)
            for prints, owners in unseal(connection, feed_id, number):
                for one, owner in zip(prints, owners, strict=True):
                    found.claim((one,), owner)
        elif number in self._on_disk(connection, feed_id):
            rows = connection.execute(
                sa.select(key_hour.c.unit_id, key_hour.c.first, key_hour.c["count"], unit_keys.c["keys"])
                .join(unit_keys, unit_keys.c.unit_id == key_hour.c.unit_id)
                .where(key_hour.c.feed_id == feed_id, key_hour.c.hour == number)
                .order_by(key_hour.c.unit_id)
            )
            for owner, first, count, keys in rows:
                found.claim(_prints(keys[16 * first : 16 * (first + count)]), owner)
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
                seal(connection, feed_id, number, hour.entries())
                self._sealed_hours(connection, feed_id).add(number)


@dataclass(slots=True)
class _Entered:
    """A unit whose ids were entered into the tables; `hits` by hour: (place, owner) of known ids."""

    keys: UnitKeys
    packed: bytes
    places: dict[int, list[int]]
    hits: dict[int, list[tuple[int, int]]]


class _Claim:
    """One transaction's claims."""

    def __init__(self, store: KeyStore, connection: sa.Connection, feed_id: int) -> None:
        self._store = store
        self._connection = connection
        self._feed_id = feed_id
        self._blobs: dict[int, tuple[bytes, bytes]] = {}  # what owners hold: keys and checks
        self._before: dict[int, tuple[bytes, bytes]] = {}  # what units of this claim held before it
        self._aside: set[int] = set()
        self._new: dict[int, tuple[bytes, bytes]] = {}
        self._index: list[dict[str, int]] = []
        self._hours: dict[int, _Hour | Pages] = {}
        self._wanted: Counter[int] = Counter()

    def plan(self, batch: Sequence[UnitKeys]) -> None:
        """Count the ids of each hour, which says where they are looked for."""
        for one in batch:
            self._wanted.update(one.hours)

    def _hour(self, number: int) -> _Hour | Pages:
        found = self._hours.get(number)
        if found is None:
            found = self._hours[number] = self._store.hour(
                self._connection, self._feed_id, number, self._wanted[number]
            )
        return found

    def enter(self, one: UnitKeys) -> _Entered:
        """Enter the ids that are new into the tables of their hours."""
        packed = digests(one.keys)
        prints = _prints(packed)
        by_hour: dict[int, list[int]] = {}
        for place, number in enumerate(one.hours):
            by_hour.setdefault(number, []).append(place)
        hits: dict[int, list[tuple[int, int]]] = {}
        for number, places in by_hour.items():
            table = self._hour(number)
            found = table.claim([prints[place] for place in places], one.unit_id)
            if found:
                hits[number] = [(places[index], owner) for index, owner in found]
        self._blobs[one.unit_id] = packed, struct.pack(f"<{len(one.checks)}I", *one.checks)
        return _Entered(one, packed, by_hour, hits)

    def look_up(self, entered: Sequence[_Entered]) -> None:
        """Read at once what is on disk about the owners of known ids, and about units that came again."""
        mine = set(self._blobs)
        owners = {
            owner for one in entered for hits in one.hits.values() for _, owner in hits if owner not in mine
        }
        again = {one.keys.unit_id for one in entered if one.keys.again}
        wanted = [*owners, *again]
        for start in range(0, len(wanted), 500):
            rows = self._connection.execute(
                sa.select(unit_keys.c.unit_id, unit_keys.c["keys"], unit_keys.c.checks).where(
                    unit_keys.c.unit_id.in_(wanted[start : start + 500])
                )
            )
            for owner, keys, checks in rows:
                (self._before if owner in again else self._blobs)[owner] = (keys, checks)
        self._aside = set_aside(self._connection, owners)

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
        seen = {_key(one.packed, place): place for place in own}
        for place, owner in hits.items():
            key = _key(one.packed, place)
            if owner == unit_id:
                if key in seen:  # a second time in this unit
                    duplicates[positions[place]] = owner
                    if checks[place] != checks[seen[key]]:
                        altered.append(positions[place])
                    continue
                seen[key] = place
                own.append(place)  # claimed just now, or when the unit was fetched before
                continue
            keys, sums = self._blobs.get(owner, (b"", b""))
            at = _where(keys, key)
            if at is None or owner in self._aside:
                # It vanished from that unit, or the unit was set aside. (Or it is another id with the
                # same fingerprint, which one in 10^19 is: then the other one may come twice.)
                self._hour(number).give(_prints(key)[0], unit_id)
                self._taken_over(key, seen, place, own, duplicates, positions, unit_id)
            else:
                duplicates[positions[place]] = owner
                if struct.unpack_from("<I", sums, 4 * at)[0] != checks[place]:
                    altered.append(positions[place])
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
            keys = b"".join(_key(one.packed, place) for place in places)
            checks = struct.pack(f"<{len(places)}I", *(one.keys.checks[place] for place in places))
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
        for hour in self._hours.values():
            if isinstance(hour, Pages):
                hour.write()
        known = [owner for owner in self._new if owner in self._before]
        if known:
            self._connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(known)))
            self._connection.execute(sa.delete(key_hour).where(key_hour.c.unit_id.in_(known)))
        if self._new:
            self._connection.execute(
                unit_keys.insert(),
                [
                    {"unit_id": owner, "keys": keys, "checks": checks}
                    for owner, (keys, checks) in self._new.items()
                ],
            )
            if self._index:
                self._connection.execute(key_hour.insert(), self._index)
            self._store.wrote(self._feed_id, {row["hour"] for row in self._index})


class _Hour:
    """Fingerprints of the ids of one hour and the units that own them: open addressing in flat arrays."""

    __slots__ = ("_count", "_mask", "_owners", "_prints", "heat")

    def __init__(self) -> None:
        self.heat = 0.0
        self._count = 0
        self._mask = _SMALLEST - 1
        self._prints = array("Q", bytes(8 * _SMALLEST))
        self._owners = array("I", bytes(4 * _SMALLEST))

    @property
    def size(self) -> int:
        return (self._mask + 1) * _SLOT

    def claim(self, prints: Sequence[int], owner: int) -> list[tuple[int, int]]:
        """Enter those that are not there; (index, owner) of those that are."""
        if (self._count + len(prints)) * 3 > (self._mask + 1) * 2:
            self._grow(self._count + len(prints))
        slots, owners, mask, added = self._prints, self._owners, self._mask, 0
        hits: list[tuple[int, int]] = []
        for index, one in enumerate(prints):
            at = one & mask
            while held := slots[at]:
                if held == one:
                    hits.append((index, owners[at]))
                    break
                at = (at + 1) & mask
            else:
                slots[at] = one
                owners[at] = owner
                added += 1
        self._count += added
        return hits

    @property
    def count(self) -> int:
        return self._count

    def entries(self) -> Iterator[tuple[int, int]]:
        """All fingerprints with their owners."""
        return ((one, owner) for one, owner in zip(self._prints, self._owners, strict=True) if one)

    def give(self, one: int, owner: int) -> None:
        """Another unit owns it from now on."""
        at = one & self._mask
        while self._prints[at] != one:
            at = (at + 1) & self._mask
        self._owners[at] = owner

    def _grow(self, wanted: int) -> None:
        size = self._mask + 1
        while wanted * 3 > size * 2:
            size *= 2
        prints, owners, mask = array("Q", bytes(8 * size)), array("I", bytes(4 * size)), size - 1
        for one, owner in zip(self._prints, self._owners, strict=True):
            if one:
                at = one & mask
                while prints[at]:
                    at = (at + 1) & mask
                prints[at] = one
                owners[at] = owner
        self._prints, self._owners, self._mask = prints, owners, mask


def digests(keys: Sequence[str]) -> bytes:
    """16 bytes for each id: a GUID's own, else a hash."""
    joined = "".join(keys).replace("-", "")
    if len(joined) == 32 * len(keys) and joined.isascii() and all(len(key) == 36 for key in keys):
        try:
            return bytes.fromhex(joined)
        except ValueError:
            pass
    return b"".join(_digest(key) for key in keys)


def _digest(key: str) -> bytes:
    if len(key) == 36 and key.count("-") == 4 and key.isascii():
        try:
            found = bytes.fromhex(key.replace("-", ""))
        except ValueError:
            found = b""
        if len(found) == 16:
            return found
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _where(keys: bytes, key: bytes) -> int | None:
    """The place of an id in a unit's blob."""
    at = keys.find(key)
    while at >= 0 and at % 16:
        at = keys.find(key, at + 1)
    return None if at < 0 else at // 16


def _key(packed: bytes, place: int) -> bytes:
    return packed[16 * place : 16 * place + 16]


def _prints(packed: bytes) -> list[int]:
    """A 64-bit fingerprint of each id, never 0."""
    halves = struct.unpack(f"<{len(packed) // 8}Q", packed)
    return [(a ^ b) or 1 for a, b in zip(halves[::2], halves[1::2], strict=True)]


def set_aside(connection: sa.Connection, owners: Collection[int]) -> set[int]:
    """Those of the units that were quarantined or lost before any playbook had them: they own nothing."""
    if not owners:
        return set()
    rows = connection.execute(
        sa.select(unit.c.id)
        .outerjoin(acknowledgement, acknowledgement.c.unit_id == unit.c.id)
        .where(
            unit.c.id.in_(list(owners)),
            unit.c.status.in_(_SET_ASIDE),
            acknowledgement.c.unit_id.is_(None),
        )
    )
    return set(rows.scalars())
