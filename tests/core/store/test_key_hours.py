"""The table of an hour's ids, held against a plain dictionary, in memory and by way of its pages."""

import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sized

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.store.key_hours import ENTRY, PAGE_BITS, Hour, digests, pages_of, prints_of, tag

COUNT = 12_000  # splits the buckets four times


def spread(number: int) -> int:
    return random.Random(number).getrandbits(64)


def alike_at_first(number: int) -> int:
    return (0xABC << 52) + number + 1


def alike_at_last(number: int) -> int:
    return (number + 1) << 45 | 5


@pytest.mark.parametrize("made", [spread, alike_at_first, alike_at_last])
def test_an_hour_remembers_what_it_was_told(made: Callable[[int], int]) -> None:
    """However the fingerprints lie, each is known once with its last owner, and memory follows the count."""
    hour, model = Hour(), dict[bytes, int]()
    known = [made(number).to_bytes(8, "little") for number in range(COUNT)]
    for start in range(0, COUNT, 100):
        batch = [*known[start : start + 100], *known[start // 2 : start // 2 + 3]]
        hits = hour.claim(batch, by(start, batch))
        assert hits == [
            (index, model[one]) for index, one in enumerate(batch) if model.setdefault(one, start) != start
        ] + ([(100 + place, 0) for place in range(3)] if start == 0 else [])
    for one in known[::1000]:
        hour.give(one, 7)
        model[one] = 7
    parts = dict(hour.pages())
    entries = [part[at : at + ENTRY] for part in parts.values() for at in range(0, len(part), ENTRY)]
    assert {one[:8]: int.from_bytes(one[8:], "little") for one in entries} == model
    assert hour.count == len(entries) == len(model)
    assert COUNT * ENTRY < hour.size < COUNT * ENTRY * 1.7


def by(owner: int, ids: Sized) -> list[bytes]:
    """The tags of ids that all belong to one unit."""
    return [tag(owner)] * len(ids)


def prints(numbers: Iterable[int]) -> tuple[bytes, ...]:
    """Fingerprints of GUIDs that differ in their last bits only."""
    return prints_of(digests([str(uuid.UUID(int=number)) for number in numbers]))


def through_pages(hour: Hour, long: int) -> Hour:
    """The hour as it comes back from its pages."""
    found = Hour(long)
    for page, entries in hour.pages():
        places = range(0, len(entries), ENTRY)
        assert set(pages_of([entries[at : at + 8] for at in places])) == {page}
        found.put_back(entries)
    return found


@given(
    claims=st.lists(
        st.tuples(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 2**32 - 1)), max_size=20
    ),
    long=st.sampled_from([1, 3, 100]),
    sealed=st.sets(st.integers(0, 19)),
    given=st.integers(1, 2**32 - 1),
)
def test_an_hour_knows_what_a_dictionary_knows(
    claims: list[tuple[list[int], int]], long: int, sealed: set[int], given: int
) -> None:
    """However often its buckets split, and whenever it went to pages and came back."""
    hour = Hour(long)
    owners: dict[int, int] = {}
    for turn, (numbers, owner) in enumerate(claims):
        expected = []
        for index, number in enumerate(numbers):
            if number in owners:
                expected.append((index, owners[number]))
            owners.setdefault(number, owner)
        assert hour.claim(prints(numbers), by(owner, numbers)) == expected
        assert hour.count == len(owners)
        if numbers:
            hour.give(prints(numbers[-1:])[0], given)
            owners[numbers[-1]] = given
        if turn in sealed:
            hour = through_pages(hour, long)
            assert hour.count == len(owners)


def test_an_hour_of_many_ids_comes_back_from_its_pages() -> None:
    """Of more buckets than there are pages, too."""
    hour = Hour(long=1)
    everything = prints(range(6000))
    assert hour.claim(everything, by(7, everything)) == []
    assert through_pages(hour, 1).claim(everything, by(8, everything)) == [
        (index, 7) for index in range(6000)
    ]


def test_an_entry_is_not_found_across_two_others() -> None:
    """What looks like a fingerprint where one entry ends and the next begins is none."""
    hour = Hour()
    first, second, third = b"\x01" * 8, b"\x02" * 8, b"\x03" * 4 + b"\x02" * 4
    assert hour.claim((first,), (b"\x03" * 4,)) == []
    assert hour.claim((second,), (tag(5),)) == []
    assert hour.claim((third,), (tag(6),)) == []
    assert hour.claim((third, second, first), by(9, range(3))) == [(0, 6), (1, 5), (2, 0x03030303)]


def test_ids_that_are_nearly_alike_go_to_different_pages() -> None:
    """Else one page would hold all ids of a source that counts them."""
    for step in (1, 2**32, 2**64, 2**96):
        counts = Counter(pages_of(prints(number * step for number in range(1 << PAGE_BITS))))
        assert max(counts.values()) <= 8
