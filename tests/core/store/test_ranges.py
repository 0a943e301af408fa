"""Sets of positions, as they stand on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.store.ranges import Positions

NUMBERS = st.sets(st.integers(0, 400))


@given(NUMBERS)
def test_what_is_written_reads_back(numbers: set[int]) -> None:
    """`parse` is the reverse of `str`, for any set."""
    assert Positions.parse(str(Positions(numbers))) == Positions(numbers)
    assert list(Positions.parse(str(Positions(numbers)))) == sorted(numbers)


@given(st.lists(NUMBERS, max_size=4))
def test_a_union_holds_each_number_once(several: list[set[int]]) -> None:
    """However the batches of a unit overlap, the union is the set of all."""
    union = Positions.union(Positions(one) for one in several)
    assert set(union) == set().union(*several)
    assert len(union) == len(set().union(*several))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((0,), "0"), ((3, 1, 2), "1-3"), ((0, 1, 5, 7, 8, 9), "0-1,5,7-9")],
)
def test_neighbours_become_a_range(numbers: tuple[int, ...], text: str) -> None:
    """Dense sets are short."""
    assert str(Positions(numbers)) == text
