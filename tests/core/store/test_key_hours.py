"""The tables of an hour against a plain dictionary, for fingerprints that are spread and that are not."""

import random
from array import array
from collections.abc import Callable

import pytest

from counterplay.store.key_hours import PAGE_BITS, Hour

COUNT = 30_000  # splits a table three times


def spread(number: int) -> int:
    return random.Random(number).getrandbits(64) or 1


def alike_at_first(number: int) -> int:
    return (0xABC << 52) + number + 1


def alike_at_last(number: int) -> int:
    return (number + 1) << 45 | 5


@pytest.mark.parametrize("made", [spread, alike_at_first, alike_at_last])
def test_an_hour_remembers_what_it_was_told(made: Callable[[int], int]) -> None:
    """However the fingerprints lie, each is known once with its last owner, and memory follows the count."""
    hour, model = Hour(), dict[int, int]()
    prints = [made(number) for number in range(COUNT)]
    for start in range(0, COUNT, 100):
        batch = [*prints[start : start + 100], *prints[start // 2 : start // 2 + 3]]
        hits = hour.claim(batch, start)
        assert hits == [
            (index, model[one]) for index, one in enumerate(batch) if model.setdefault(one, start) != start
        ] + ([(100 + place, 0) for place in range(3)] if start == 0 else [])
    for one in prints[::1000]:
        hour.give(one, 7)
        model[one] = 7
    parts = [list(part) for part in hour.entries()]
    assert dict(entry for part in parts for entry in part) == model
    assert hour.count == sum(map(len, parts)) == len(model)
    pages = [{one >> (64 - PAGE_BITS) for one, _ in part} for part in parts]
    assert sum(map(len, pages)) == len(set().union(*pages))  # no page lies in two parts
    slot = array("Q").itemsize + array("I").itemsize
    assert hour.size % slot == 0
    assert COUNT * slot < hour.size < COUNT * slot * (3.5 if made is spread else 8)
