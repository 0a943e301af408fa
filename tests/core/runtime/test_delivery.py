"""Batches, halving, dead letters and receipts of one delivery."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.errors import BlockedError, PermanentError, RejectedError, RetryableError
from counterplay.events import Event, Receipt
from counterplay.modules import Context, Sink
from counterplay.runtime.delivery import batches, deliver

CONTEXT: Any = Context(http=None)  # type: ignore[arg-type]  # these sinks ask no network


class Picky(Sink):
    """Refuses batches that hold a poison record; remembers what it took."""

    name = "picky"
    max_batch_records = 7
    max_batch_bytes = 200
    max_record_bytes = 90
    batch_overhead = 2

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        super().__init__({})
        self.taken: list[bytes] = []
        self.requests = 0
        self.fails_at = fails_at
        self.error = error

    def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
        self.requests += 1
        assert len(records) <= self.max_batch_records
        assert self.batch_overhead + sum(self.record_size(one) for one in records) <= self.max_batch_bytes
        if self.error is not None and self.requests == self.fails_at:
            raise self.error
        if any(b"poison" in one.raw for one in records):
            raise RejectedError("400: a record holds poison")
        self.taken += [one.raw for one in records]
        return [Receipt(one.raw.decode()) for one in records]


RAWS = st.lists(
    st.tuples(st.sampled_from([b"ok", b"poison"]), st.integers(0, 110)).map(
        lambda one: one[0] + b"." * one[1]
    ),
    max_size=25,
)


def sent(sink: Sink, raws: Sequence[bytes]) -> tuple[list[int], list[tuple[int, str]], list[str]]:
    """Deliver; positions that were told as delivered and as dead, and the receipts."""
    delivered: list[int] = []
    dead: list[tuple[int, str]] = []
    receipts: list[str] = []

    def on_delivered(batch: Sequence[Event], given: Sequence[Receipt]) -> None:
        delivered.extend(one.position for one in batch)
        receipts.extend(one.remote_id for one in given)

    records = [Event(raw, position=place) for place, raw in enumerate(raws)]
    deliver(sink, CONTEXT, records, on_delivered, lambda event, why: dead.append((event.position, why)))
    return delivered, dead, receipts


@given(RAWS)
def test_every_record_is_delivered_once_or_dead(raws: list[bytes]) -> None:
    """Halving finds exactly the poison; what is too large never leaves; order is kept."""
    sink = Picky()
    delivered, dead, receipts = sent(sink, raws)
    bad = [place for place, raw in enumerate(raws) if b"poison" in raw or len(raw) + 1 > 90]
    good = [place for place in range(len(raws)) if place not in bad]
    assert delivered == good
    assert sorted(place for place, _ in dead) == bad
    assert sink.taken == [raws[place] for place in good]
    assert receipts == [raws[place].decode() for place in good]


@given(st.lists(st.integers(0, 300), max_size=30))
def test_batches_keep_the_limits_and_the_order(sizes: list[int]) -> None:
    """A record that alone exceeds a batch goes alone; no batch is empty or needlessly small."""
    sink = Picky()
    records = [Event(b"x" * size, position=place) for place, size in enumerate(sizes)]
    found = list(batches(sink, records))
    assert [one.position for batch in found for one in batch] == list(range(len(sizes)))

    def size_of(batch: Sequence[Event]) -> int:
        return sink.batch_overhead + sum(sink.record_size(one) for one in batch)

    for batch in found:
        assert batch
        assert len(batch) <= sink.max_batch_records
        assert len(batch) == 1 or size_of(batch) <= sink.max_batch_bytes
    for batch, after in itertools.pairwise(found):
        full = len(batch) == sink.max_batch_records
        assert full or size_of([*batch, after[0]]) > sink.max_batch_bytes


@pytest.mark.parametrize("error", [RetryableError("503"), BlockedError("401")])
def test_what_was_taken_before_an_outage_is_told(error: Exception) -> None:
    """The rest is still to be sent, and neither told as delivered nor as dead."""
    sink = Picky(fails_at=2, error=error)
    delivered: list[int] = []
    dead: list[int] = []
    records = [Event(b"ok", position=place) for place in range(20)]
    with pytest.raises(type(error)):
        deliver(
            sink,
            CONTEXT,
            records,
            lambda batch, _: delivered.extend(one.position for one in batch),
            lambda event, _: dead.append(event.position),
        )
    assert delivered == list(range(7))
    assert dead == []


def test_a_record_that_is_too_large_is_dead_with_both_sizes() -> None:
    """The reason says what the receiver takes."""
    _, dead, _ = sent(Picky(), [b"x" * 1200])
    assert dead == [(0, "the record has 1,201 encoded bytes, the receiver takes 90")]


def test_a_sink_that_gives_too_few_receipts_is_at_fault() -> None:
    """Which record it took cannot be told."""

    class Careless(Picky):
        def deliver(self, context: Context, records: Sequence[Event]) -> Sequence[Receipt]:
            return [Receipt("one")]

    with pytest.raises(PermanentError, match="Careless gave 1 receipts for 3 records; this is a fault"):
        sent(Careless(), [b"a", b"b", b"c"])
