"""The ids of one hour in memory: fingerprints and owners in flat arrays, 12 to 36 bytes an id.

An hour is a list of small tables, by the first bits of the fingerprint. One table that doubles would need
its old and new self side by side, 25 MB for a busy hour, and leave holes in the heap that nothing else
fits into. A small one that is full splits into two of its own size, and what an hour leaves behind fits
the next.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from operator import xor

_SMALLEST, _LARGEST = 1024, 8192  # slots of a table
_SLOT = 12  # bytes
_BITS = 64
PAGE_BITS = 12
"""The first bits of a fingerprint are the page that it has on disk; no page lies in two tables."""


class _Table:
    """Fingerprints that begin with the same `depth` bits, and their owners: open addressing.

    The search begins at the remainder by `mask`, in which all bits count: ids may end alike, too.
    `room`: how many more it takes before it has to be replaced.
    """

    __slots__ = ("depth", "mask", "owners", "prints", "room")

    def __init__(self, size: int, depth: int) -> None:
        self.depth = depth
        self.mask = size - 1
        self.prints = array("Q", (0,)) * size
        self.owners = array("I", (0,)) * size
        self.room = size * 2 // 3

    def entries(self) -> Iterator[tuple[int, int]]:
        return ((one, owner) for one, owner in zip(self.prints, self.owners, strict=True) if one)

    def fill(self, entries: Iterable[tuple[int, int]]) -> None:
        """Enter those of another table. A third of the slots is free when `room` is used up."""
        prints, owners, mask, room = self.prints, self.owners, self.mask, self.room
        for one, owner in entries:
            at = one % mask
            while prints[at]:
                at = (at + 1) & mask
            prints[at] = one
            owners[at] = owner
            room -= 1
        self.room = room

    def give(self, one: int, owner: int) -> None:
        at = one % self.mask
        while self.prints[at] != one:
            at = (at + 1) & self.mask
        self.owners[at] = owner

    def replaced(self) -> list[_Table]:
        """The same entries with more room: in one table, or in two of one bit more."""
        size = self.mask + 1
        # fingerprints that begin alike would split without end
        if size < _LARGEST or self.depth == PAGE_BITS:
            made = [_Table(2 * size, self.depth)] * 2
        else:
            made = [_Table(size, self.depth + 1), _Table(size, self.depth + 1)]
        bit = 1 << (_BITS - 1 - self.depth)
        entries = [entry for entry in zip(self.prints, self.owners, strict=True) if entry[0]]
        if made[0] is made[1]:
            made[0].fill(entries)
        else:
            made[0].fill([entry for entry in entries if not entry[0] & bit])
            made[1].fill([entry for entry in entries if entry[0] & bit])
        return made


class Hour:
    """Fingerprints of the ids of one hour and the units that own them."""

    __slots__ = ("_count", "_shift", "_tables", "heat", "size")

    def __init__(self) -> None:
        self.heat = 0.0
        self.size = _SMALLEST * _SLOT  # bytes
        self._count = 0
        self._shift = _BITS
        self._tables = [_Table(_SMALLEST, 0)]  # by the first bits; one may stand in several places

    def claim(self, prints: Sequence[int], owner: int) -> list[tuple[int, int]]:
        """Enter those that are not there; (index, owner) of those that are."""
        tables, shift, added = self._tables, self._shift, 0
        hits: list[tuple[int, int]] = []
        for index, one in enumerate(prints):
            table = tables[one >> shift]
            slots, mask = table.prints, table.mask
            at = one % mask
            while held := slots[at]:
                if held == one:
                    hits.append((index, table.owners[at]))
                    break
                at = (at + 1) & mask
            else:
                slots[at] = one
                table.owners[at] = owner
                added += 1
                table.room -= 1
                if table.room <= 0:
                    self._make_room(one)
                    tables, shift = self._tables, self._shift
        self._count += added
        return hits

    @property
    def count(self) -> int:
        return self._count

    def entries(self) -> Iterator[Iterator[tuple[int, int]]]:
        """All fingerprints with their owners, those of a page together in one of several parts."""
        return (table.entries() for table in dict.fromkeys(self._tables))

    def give(self, one: int, owner: int) -> None:
        """Another unit owns it from now on."""
        self._tables[one >> self._shift].give(one, owner)

    def _make_room(self, one: int) -> None:
        """Replace the table that this fingerprint belongs to."""
        full = self._tables[one >> self._shift]
        left, right = full.replaced()
        if left is not right and full.depth == _BITS - self._shift:
            self._tables = [table for table in self._tables for _ in range(2)]
            self._shift -= 1
        places = 1 << (_BITS - self._shift - full.depth)
        first = (one >> self._shift) // places * places
        half = places // 2
        self._tables[first : first + places] = [left] * (places - half) + [right] * half
        self.size += (full.mask + 1) * _SLOT  # either way it takes twice the slots


def digests(keys: Sequence[str]) -> bytes:
    """16 bytes for each id: a GUID's own, else a hash."""
    joined = "".join(keys).replace("-", "")
    if len(joined) == 32 * len(keys) and joined.isascii() and set(map(len, keys)) <= {36}:
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


def place_of(keys: bytes, key: bytes) -> int | None:
    """The place of an id in a unit's blob."""
    at = keys.find(key)
    while at >= 0 and at % 16:
        at = keys.find(key, at + 1)
    return None if at < 0 else at // 16


def key_at(packed: bytes, place: int) -> bytes:
    return packed[16 * place : 16 * place + 16]


def prints_of(packed: bytes) -> list[int]:
    """A 64-bit fingerprint of each id, never 0."""
    halves = struct.unpack(f"<{len(packed) // 8}Q", packed)
    prints = list(map(xor, halves[::2], halves[1::2]))
    return prints if all(prints) else [one or 1 for one in prints]
