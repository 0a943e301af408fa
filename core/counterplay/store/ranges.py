"""Sets of positions in a unit, written as `0-56,58-99`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Positions:
    """An immutable set of non-negative numbers that is short on disk when they are dense."""

    __slots__ = ("_set",)

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._set = frozenset(numbers)

    @classmethod
    def parse(cls, text: str) -> Positions:
        """The reverse of `str()`."""
        numbers: list[int] = []
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
        return cls(numbers)

    @classmethod
    def union(cls, several: Iterable[Positions]) -> Positions:
        return cls(number for one in several for number in one)

    def __str__(self) -> str:
        parts: list[str] = []
        ordered = sorted(self._set)
        start = 0
        for index, number in enumerate(ordered):
            last = index + 1 == len(ordered) or ordered[index + 1] != number + 1
            if last:
                first = ordered[start]
                parts.append(str(first) if first == number else f"{first}-{number}")
                start = index + 1
        return ",".join(parts)

    def __contains__(self, number: int) -> bool:
        return number in self._set

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._set))

    def __len__(self) -> int:
        return len(self._set)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Positions) and self._set == other._set

    def __hash__(self) -> int:
        return hash(self._set)
