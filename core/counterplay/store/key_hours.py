"""The ids of one hour in memory: fingerprints and their owners in 13 to 20 bytes an id.

An hour is a list of buckets, by the first bits of the fingerprint. A bucket is a byte string of entries, and
`find` looks through it faster than code in Python would look into a hash table. An hour whose buckets have
become long gets four in place of each, one after the other, so that it is never in memory twice.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

ENTRY = 12
"""Bytes: a fingerprint of 8, whose first bits are in its last byte, and the unit that owns the id."""
PAGE_BITS = 12
"""The first bits of a fingerprint are the page that it has on disk."""
_PRINT = 8
_FIRST_BITS = 16  # so many say which bucket
_LONG = 64  # entries of a bucket on the average; each is half a nanosecond a byte to look through
_SPLIT = 2  # bits
_STEP = 512  # ids that are entered before the buckets are looked at
_BUCKET = 80  # bytes of an empty one
_GROWS = 17 / 16  # what a byte string that grows has allocated, on the average
_OWNER = struct.Struct("<I")
_SPREAD = 0x9E3779B97F4A7C15  # odd, so that no two fingerprints become one

Bucket = bytearray


def find(bucket: Bucket, one: bytes) -> int:
    """Where the entry of a fingerprint begins; -1: there is none."""
    at = bucket.find(one)
    while at > 0 and at % ENTRY:  # what was found begins in the middle of an entry
        at = bucket.find(one, at + 1)
    return at


def owner_at(bucket: Bucket, at: int) -> int:
    """The unit that owns the id of the entry."""
    found: int = _OWNER.unpack_from(bucket, at + _PRINT)[0]
    return found


def give(bucket: Bucket, one: bytes, owner: int) -> None:
    """Another unit owns it from now on."""
    _OWNER.pack_into(bucket, find(bucket, one) + _PRINT, owner)


def tag(owner: int) -> bytes:
    """A unit as entries name it."""
    return _OWNER.pack(owner)


def claim(
    buckets: Sequence[Bucket] | Mapping[int, Bucket],
    places: Sequence[int],
    prints: Sequence[bytes],
    tags: Sequence[bytes],
) -> list[tuple[int, int]]:
    """Enter those that are not there into the buckets at their places, each with the tag of its unit;
    (index, owner) of those that are.
    """
    hits: list[tuple[int, int]] = []
    for index, (one, place, mine) in enumerate(zip(prints, places, tags, strict=True)):
        bucket = buckets[place]
        at = bucket.find(one)
        if at > 0 and at % ENTRY:
            at = find(bucket, one)
        if at < 0:
            bucket += one + mine
        else:
            hits.append((index, owner_at(bucket, at)))
    return hits


def pages_of(prints: Sequence[bytes]) -> list[int]:
    """The page of each fingerprint."""
    return [first >> (_FIRST_BITS - PAGE_BITS) for first in _firsts(b"".join(prints), _PRINT)]


class Hour:
    """Fingerprints of the ids of one hour and the units that own them."""

    __slots__ = ("_bits", "_buckets", "_long", "count", "heat")

    def __init__(self, long: int = _LONG) -> None:
        """`long`: entries of a bucket, on the average, from which on it is split."""
        self._long = long
        self.heat = 0.0
        self.count = 0  # ids
        self._bits = 0
        self._buckets = [Bucket()]

    @property
    def size(self) -> int:
        """Bytes in memory, to a few per cent."""
        return len(self._buckets) * _BUCKET + int(self.count * ENTRY * _GROWS)

    def claim(self, prints: Sequence[bytes], tags: Sequence[bytes]) -> list[tuple[int, int]]:
        """Enter those that are not there, each with the tag of its unit; (index, owner) of those that are."""
        hits: list[tuple[int, int]] = []
        for start in range(0, len(prints), _STEP):  # a bucket that is split in time is never long
            some = prints[start : start + _STEP]
            shift = _FIRST_BITS - self._bits
            places = [first >> shift for first in _firsts(b"".join(some), _PRINT)]
            known = claim(self._buckets, places, some, tags[start : start + _STEP])
            hits += [(start + index, owner) for index, owner in known]
            self.count += len(some) - len(known)
            self._spread()
        return hits

    def give(self, one: bytes, owner: int) -> None:
        """Another unit owns it from now on."""
        (first,) = _firsts(one, _PRINT)
        give(self._buckets[first >> (_FIRST_BITS - self._bits)], one, owner)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """All entries page by page, those that have any."""
        finer = PAGE_BITS - self._bits
        if finer > 0:
            for number, bucket in enumerate(self._buckets):
                for place, part in enumerate(_parted(bucket, self._bits, finer)):
                    if part:
                        yield (number << finer) + place, bytes(part)
            return
        several = 1 << -finer
        for page in range(1 << PAGE_BITS):
            entries = b"".join(self._buckets[page * several : (page + 1) * several])
            if entries:
                yield page, entries

    def put_back(self, entries: bytes) -> None:
        """Take entries that `pages` gave."""
        shift = _FIRST_BITS - self._bits
        for one, first in zip(_entries(entries), _firsts(entries, ENTRY), strict=True):
            self._buckets[first >> shift] += one
        self.count += len(entries) // ENTRY
        self._spread()

    def _spread(self) -> None:
        """Make four buckets of each, as often as they are too long."""
        while self.count > self._long << self._bits and self._bits < _FIRST_BITS:
            made: list[Bucket] = []
            for number, bucket in enumerate(self._buckets):
                made += _parted(bucket, self._bits, _SPLIT)
                self._buckets[number] = made[-1]  # the old one is not needed any more
            self._buckets = made
            self._bits += _SPLIT


def _parted(bucket: Bucket, bits: int, more: int) -> list[Bucket]:
    """The entries of a bucket that `bits` chose, by the next bits."""
    parts = [Bucket() for _ in range(1 << more)]
    shift, mask = _FIRST_BITS - bits - more, (1 << more) - 1
    for one, first in zip(_entries(bucket), _firsts(bucket, ENTRY), strict=True):
        parts[first >> shift & mask] += one
    return parts


def _entries(entries: bytes | Bucket) -> tuple[bytes, ...]:
    return struct.unpack(f"{ENTRY}s" * (len(entries) // ENTRY), entries)


def _firsts(data: bytes | Bucket, width: int) -> Sequence[int]:
    """The first bits of fingerprints that come every `width` bytes."""
    words = array("H", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words[_PRINT // 2 - 1 :: width // 2]


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


def prints_of(packed: bytes) -> tuple[bytes, ...]:
    """A fingerprint of each id, 64 bits long; ids that are alike in parts have different first bits."""
    count = len(packed) // 16
    halves = array("Q", packed)
    # All at once, each in a lane of its own that is wide enough for the product.
    lanes = array("Q", bytes(16 * count))
    lanes[::2] = array("Q", _xor(halves[::2].tobytes(), halves[1::2].tobytes()))
    spread = int.from_bytes(lanes.tobytes(), "little") * _SPREAD
    low = array("Q", spread.to_bytes(16 * count, "little"))[::2]
    return struct.unpack(f"{_PRINT}s" * count, low.tobytes())


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return mixed.to_bytes(len(one), "little")
