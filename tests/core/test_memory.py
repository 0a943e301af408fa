"""What is said to the C library and to the garbage collector, and when."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from counterplay import _memory


class Library:
    """Notes what it is asked, as the C library's functions are."""

    def __init__(self) -> None:
        self.trims: list[int] = []
        self.options: dict[int, int] = {}

    def malloc_trim(self, pad: int) -> int:
        self.trims.append(pad)
        return 1

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(_memory, "_glibc", lambda: made)
    return made


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_memory_is_given_back_each_time_so_many_bytes_have_passed(library: Library) -> None:
    """What passes adds up over units, and begins anew after it was given back."""
    sieve = _memory.Sieve(every=100)

    given_back = []
    for size in (60, 39, 1, 99, 0, 250, 99):
        sieve.passed(size)
        given_back.append(len(library.trims))

    assert given_back == [0, 0, 1, 1, 1, 2, 2]


def test_a_system_without_such_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other systems nor other C libraries have them, and nothing depends on it."""
    monkeypatch.setattr(_memory, "_glibc", lambda: None)

    _memory.settle_allocator()
    _memory.Sieve(every=1).passed(5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux is asked")
def test_the_functions_are_found_where_they_are() -> None:
    """The real library takes the calls as they are made."""
    found = _memory._glibc()
    if found is None:
        pytest.skip("another C library")

    assert found.malloc_trim(0) in (0, 1)


def test_large_buffers_are_reused_from_few_arenas(library: Library) -> None:
    """The options by their numbers in glibc's malloc.h: arenas, what is mapped alone, what is kept free."""
    _memory.settle_allocator()

    assert library.options == {-8: 2, -3: 4 * 1024 * 1024, -1: 16 * 1024 * 1024}


def test_garbage_is_looked_for_less_often(thresholds: tuple[int, int, int]) -> None:
    """Only the young generation's threshold changes."""
    _memory.settle_collector()

    assert gc.get_threshold() == (10_000, *thresholds[1:])
