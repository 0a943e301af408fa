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
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import sqlalchemy as sa

from counterplay.store.tables import acknowledgement, key_hour, unit, unit_keys

UNTIMED = -1
"""The hour of events without a time."""
_MEMORY = 24_000_000
_SMALLEST = 1024
_SLOT = 12  # bytes
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
    """

    duplicates: Mapping[int, int]
    altered: tuple[int, ...] = ()


class KeyStore:
    """Remembers event ids. `memory`: bytes for the hours that are kept at hand."""

    def __init__(self, memory: int = _MEMORY) -> None:
        self._memory = memory
        self._hours: OrderedDict[tuple[int, int], _Hour] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes that are used in memory."""
        return sum(hour.size for hour in self._hours.values())

    def forget(self) -> None:
        """A transaction was rolled back: what is in memory may not be on disk."""
        self._hours.clear()

    def claim(self, connection: sa.Connection, feed_id: int, batch: Sequence[UnitKeys]) -> list[Owned]:
        """Own those ids that no other unit owns, unit by unit in order."""
        claim = _Claim(self, connection, feed_id)
        found = [claim.unit(one) for one in batch]
        claim.write()
        self._shrink()
        return found

    def purge(self, connection: sa.Connection, feed_id: int, before: str) -> int:
        """Forget the ids of units that became available before that time; returns how many units."""
        old = sa.select(unit.c.id).where(
            unit.c.feed_id == feed_id, sa.func.coalesce(unit.c.created, unit.c.listed) < before
        )
        connection.execute(sa.delete(key_hour).where(key_hour.c.unit_id.in_(old)))
        gone = connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(old))).rowcount
        if gone:
            self.forget()
        return int(gone)

    def hour(self, connection: sa.Connection, feed_id: int, number: int) -> _Hour:
        """The table of an hour, from memory or from disk."""
        found = self._hours.get((feed_id, number))
        if found is None:
            found = self._hours[feed_id, number] = _Hour()
            rows = connection.execute(
                sa.select(key_hour.c.unit_id, key_hour.c.first, key_hour.c["count"], unit_keys.c["keys"])
                .join(unit_keys, unit_keys.c.unit_id == key_hour.c.unit_id)
                .where(key_hour.c.feed_id == feed_id, key_hour.c.hour == number)
                .order_by(key_hour.c.unit_id)
            )
            for owner, first, count, keys in rows:
                found.claim(_prints(keys[16 * first : 16 * (first + count)]), owner)
        else:
            self._hours.move_to_end((feed_id, number))
        return found

    def _shrink(self) -> None:
        size = self.size
        while size > self._memory and len(self._hours) > 1:
            size -= self._hours.popitem(last=False)[1].size


class _Claim:
    """One transaction's claims."""

    def __init__(self, store: KeyStore, connection: sa.Connection, feed_id: int) -> None:
        self._store = store
        self._connection = connection
        self._feed_id = feed_id
        self._blobs: dict[int, tuple[bytes, bytes]] = {}  # what owners hold: keys and checks
        self._aside: dict[int, bool] = {}
        self._new: dict[int, tuple[bytes, bytes]] = {}
        self._index: list[dict[str, int]] = []

    def unit(self, one: UnitKeys) -> Owned:
        if not one.keys:
            return Owned({})
        if one.again:
            self._blob(one.unit_id)
        packed = digests(one.keys)
        prints = _prints(packed)
        by_hour: dict[int, list[int]] = {}
        for place, number in enumerate(one.hours):
            by_hour.setdefault(number, []).append(place)
        duplicates: dict[int, int] = {}
        altered: list[int] = []
        kept: list[int] = []
        spans: list[tuple[int, int, int]] = []
        for number, places in sorted(by_hour.items()):
            table = self._store.hour(self._connection, self._feed_id, number)
            hits = table.claim([prints[place] for place in places], one.unit_id)
            own = self._others(one, packed, number, places, hits, duplicates, altered)
            if own:
                spans.append((number, len(kept), len(own)))
                kept += own
        self._keep(one, packed, kept, spans)
        return Owned(duplicates, tuple(altered))

    def _others(
        self,
        one: UnitKeys,
        packed: bytes,
        number: int,
        places: list[int],
        hits: list[tuple[int, int]],
        duplicates: dict[int, int],
        altered: list[int],
    ) -> list[int]:
        """Sort out the ids that were known: places of those that this unit owns from now on."""
        if not hits:
            return places
        own = set(places)
        seen: dict[bytes, int] = {}
        hit_places = {places[index] for index, _ in hits}
        if any(owner == one.unit_id for _, owner in hits):
            seen = {_key(packed, place): place for place in places if place not in hit_places}
        for index, owner in hits:
            place = places[index]
            key = _key(packed, place)
            if owner == one.unit_id:
                if key in seen:
                    duplicates[one.positions[place]] = owner
                    own.discard(place)
                    if one.checks[place] != one.checks[seen[key]]:
                        altered.append(one.positions[place])
                    continue
                seen[key] = place
            at = self._where(owner, key)
            if at is None:  # another id with the same fingerprint: one in 10^19, and no duplicate
                continue
            if owner == one.unit_id:  # it was claimed when the unit was fetched before
                own.discard(place)
            elif self._is_aside(owner):
                self._store.hour(self._connection, self._feed_id, number).give(_prints(key)[0], one.unit_id)
            else:
                duplicates[one.positions[place]] = owner
                own.discard(place)
                checks = self._blob(owner)[1]
                if struct.unpack_from("<I", checks, 4 * at)[0] != one.checks[place]:
                    altered.append(one.positions[place])
        return [place for place in places if place in own]

    def _where(self, owner: int, key: bytes) -> int | None:
        keys = self._blob(owner)[0]
        at = keys.find(key)
        while at >= 0 and at % 16:
            at = keys.find(key, at + 1)
        return None if at < 0 else at // 16

    def _blob(self, owner: int) -> tuple[bytes, bytes]:
        if owner in self._new:
            return self._new[owner]
        if owner not in self._blobs:
            row = self._connection.execute(
                sa.select(unit_keys.c["keys"], unit_keys.c.checks).where(unit_keys.c.unit_id == owner)
            ).first()
            self._blobs[owner] = (row[0], row[1]) if row is not None else (b"", b"")
        return self._blobs[owner]

    def _is_aside(self, owner: int) -> bool:
        if owner not in self._aside:
            self._aside[owner] = owner in set_aside(self._connection, [owner])
        return self._aside[owner]

    def _keep(
        self, one: UnitKeys, packed: bytes, places: list[int], spans: list[tuple[int, int, int]]
    ) -> None:
        if not places:
            return
        in_order = places == list(range(len(one.keys)))
        keys = packed if in_order else b"".join(_key(packed, place) for place in places)
        checks = struct.pack(f"<{len(places)}I", *(one.checks[place] for place in places))
        before = self._blob(one.unit_id) if one.unit_id in self._blobs else (b"", b"")
        start = len(before[0]) // 16
        self._new[one.unit_id] = (before[0] + keys, before[1] + checks)
        self._index += [
            {
                "feed_id": self._feed_id,
                "hour": number,
                "unit_id": one.unit_id,
                "first": start + first,
                "count": count,
            }
            for number, first, count in spans
        ]

    def write(self) -> None:
        known = [owner for owner in self._new if self._blobs.get(owner, (b"", b""))[0]]
        if known:
            self._connection.execute(sa.delete(unit_keys).where(unit_keys.c.unit_id.in_(known)))
        if self._new:
            self._connection.execute(
                unit_keys.insert(),
                [
                    {"unit_id": owner, "keys": keys, "checks": checks}
                    for owner, (keys, checks) in self._new.items()
                ],
            )
            self._connection.execute(key_hour.insert(), self._index)


class _Hour:
    """Fingerprints of the ids of one hour and the units that own them: open addressing in flat arrays."""

    __slots__ = ("_count", "_mask", "_owners", "_prints")

    def __init__(self) -> None:
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
