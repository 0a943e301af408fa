"""How records become batches: nothing left out, nothing beyond a limit, and full before the next begins."""

import threading
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from counterplay import BulkSink, Context, Receipt
from counterplay.runtime.outbox import Gate, Outbox, Outcome
from counterplay.runtime.subscribers import SinkPipe, Subscriber
from counterplay.wire import Wire

LARGEST, MOST, OVERHEAD = 40, 5, 10


class Shelf(BulkSink):
    """Takes whatever it is given."""

    name = "shelf"
    max_batch_bytes, max_batch_records, batch_overhead = LARGEST, MOST, OVERHEAD
    parallel = 1

    def send(self, context: Context, parts: Sequence[bytes]) -> Sequence[Receipt]:
        return [Receipt(part.decode()) for part in parts]


def batched(sizes: Sequence[int]) -> list[list[int]]:
    """Record by record: a batch is cut when the next one does not fit."""
    batches: list[list[int]] = []
    size = 0
    for number, one in enumerate(sizes):
        if not batches or size + one > LARGEST or len(batches[-1]) == MOST:
            batches.append([])
            size = OVERHEAD
        batches[-1].append(number)
        size += one
    return batches


def test_batches_are_as_full_as_their_limits_allow(bench) -> None:
    """Units of any number and size of records give the batches that one after the other would give."""
    playbook = bench.playbook("p", trigger={"uses": "std.manual"})
    taker = Subscriber(playbook, {}, {})

    @given(st.lists(st.lists(st.integers(1, 45), max_size=12), max_size=6))
    def check(units: list[list[int]]) -> None:
        outcomes: list[Outcome] = []
        gate = Gate()

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            outcome.outbox.settled(outcome)

        with Wire() as wire:
            pipe = SinkPipe("1:shelf", Shelf({}), Context(http=wire))
            outbox = Outbox(taker, pipe, gate, done, threading.Event())
            number = 0
            for unit, sizes in enumerate(units):
                records = [f"{number + place}".encode() for place in range(len(sizes))]
                outbox.put(unit, range(100, 100 + len(sizes)), records, sizes)
                number += len(sizes)
            outbox.cut()
            outbox.close()

        sent = [[int(one) for one in outcome.batch.records] for outcome in outcomes]
        assert sent == batched([size for sizes in units for size in sizes])
        assert _places(outcomes) == [
            (unit, 100 + at) for unit, one in enumerate(units) for at in range(len(one))
        ]
        assert not gate.shut

    check()


def _places(outcomes: Sequence[Outcome]) -> list[tuple[Any, int]]:
    """Unit and position of every record, as the batches have them."""
    found: list[tuple[Any, int]] = []
    for outcome in outcomes:
        for segment in outcome.batch.segments:
            assert segment.start == len(found) - sum(
                len(one.batch.records) for one in outcomes[: outcomes.index(outcome)]
            )
            found += [(segment.task, position) for position in segment.positions]
    return found


def test_a_gate_is_shut_while_as_many_are_inside_as_may_be() -> None:
    """Whoever comes then gives up after a while, and comes in when one has left."""
    gate = Gate()
    inside = 0
    while gate.enter(0):
        inside += 1

    assert gate.shut
    assert inside == 4
    gate.leave()
    assert gate.enter(0)
