"""The ids of one hour in memory: fingerprints and owners in flat arrays, 12 to 36 bytes an id."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

_SMALLEST = 1024
_SLOT = 12  # bytes


class Hour:
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
    return [(a ^ b) or 1 for a, b in zip(halves[::2], halves[1::2], strict=True)]
