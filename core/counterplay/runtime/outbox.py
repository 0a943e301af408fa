"""What a playbook hands to a sink: batches over several units, sent from a few threads, bisected at need."""

from __future__ import annotations

import queue
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

from counterplay.errors import InterruptedWork, PermanentError, RejectedError, WorkError, as_work_error
from counterplay.events import Receipt
from counterplay.modules import BulkSink
from counterplay.runtime.subscribers import SinkPipe, Subscriber

UNRECORDED = 4
"""Batches that a receiver may have taken before that is on record: what a kill repeats at most."""


class Gate:
    """Bounds the unrecorded batches of one receiver."""

    def __init__(self) -> None:
        self._free = UNRECORDED
        self._waiting = 0
        self._changed = threading.Condition()

    @property
    def shut(self) -> bool:
        """Nothing more is sent before something is on record."""
        return not self._free

    @property
    def wanted(self) -> bool:
        """Somebody waits for something to be on record."""
        return self.shut and self._waiting > 0

    def enter(self, patience: float) -> bool:
        """Take a place, or give up after `patience` seconds."""
        with self._changed:
            self._waiting += 1
            try:
                if not self._changed.wait_for(lambda: self._free, patience):
                    return False
            finally:
                self._waiting -= 1
            self._free -= 1
            return True

    def leave(self) -> None:
        """Give a place back."""
        with self._changed:
            self._free += 1
            self._changed.notify()


class Gates:
    """The gate of each receiver, for all feeds that deliver to it."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()

    def of(self, receiver: str) -> Gate:
        with self._lock:
            return self._gates.setdefault(receiver, Gate())


class Task(Protocol):
    """A unit's records for one playbook; the outbox only keeps it beside them."""


@dataclass(slots=True)
class Segment:
    """Records of one task that stand next to each other in a batch, by their positions in the unit."""

    task: Any
    start: int
    positions: Sequence[int]


@dataclass(slots=True)
class Batch:
    """Records to be sent as one: encoded parts for a BulkSink, else events."""

    records: list[Any] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    size: int = 0
    since: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What became of a batch. `accepted`: [start, end) with receipts; `dead`: index and reason."""

    outbox: Outbox
    batch: Batch
    accepted: list[tuple[int, int, Sequence[Receipt]]]
    dead: list[tuple[int, str]]
    error: WorkError | InterruptedWork | None
    gate: bool


class Outbox:
    """Collects the records of one playbook for one sink. All but the posters runs in one thread."""

    def __init__(
        self,
        taker: Subscriber,
        pipe: SinkPipe,
        gate: Gate,
        done: Callable[[Outcome], None],
        stop: threading.Event,
    ) -> None:
        self.taker = taker
        self.pipe = pipe
        self.bulk = isinstance(pipe.sink, BulkSink)
        self.gate = gate
        self._done = done
        self._stop = stop
        self._open = Batch(size=pipe.sink.batch_overhead)
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._parallel = pipe.sink.parallel if isinstance(pipe.sink, BulkSink) else 1
        self.sending = 0  # cut, and not reported yet
        self._heard = 0.0

    def put(self, task: Any, positions: Sequence[int], records: Sequence[Any], sizes: Sequence[int]) -> None:
        """Add records of a task; batches that are full are sent."""
        sink = self.pipe.sink
        most, largest = sink.max_batch_records, sink.max_batch_bytes
        ends = list(accumulate(sizes, initial=0))
        start = 0
        while start < len(records):
            batch = self._open
            end = bisect_right(ends, ends[start] + largest - batch.size) - 1
            end = min(end, start + most - len(batch.records))
            if end <= start:
                if batch.records:
                    self.cut()
                    continue
                end = start + 1  # it fits into no batch, so it goes alone
            batch.segments.append(Segment(task, len(batch.records), positions[start:end]))
            batch.since = batch.since or time.monotonic()
            batch.records += records[start:end]
            batch.size += ends[end] - ends[start]
            start = end

    @property
    def waiting_since(self) -> float | None:
        """When the oldest record came that no batch was cut for."""
        return self._open.since if self._open.records else None

    @property
    def silent(self) -> float:
        """Seconds since the receiver last answered, while something is being sent to it."""
        return time.monotonic() - self._heard if self.sending else 0.0

    def cut(self) -> None:
        """Send what there is."""
        if not self._open.records:
            return
        if not self.sending:
            self._heard = time.monotonic()
        self._queue.put(self._open)
        self._open = Batch(size=self.pipe.sink.batch_overhead)
        self.sending += 1
        if len(self._threads) < min(self._parallel, self.sending):
            thread = threading.Thread(target=self._post, name=f"{self.taker.name} sink", daemon=True)
            self._threads.append(thread)
            thread.start()

    def drop(self) -> Counter[Any]:
        """Give up what no poster has begun with: how many records of which task."""
        dropped = [self._open]
        self._open = Batch(size=self.pipe.sink.batch_overhead)
        while True:
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                break
            if batch is not None:
                dropped.append(batch)
                self.sending -= 1
        counts: Counter[Any] = Counter()
        for batch in dropped:
            for segment in batch.segments:
                counts[segment.task] += len(segment.positions)
        return counts

    def settled(self, outcome: Outcome) -> None:
        """The outcome is on record."""
        self.sending -= 1
        if outcome.gate:
            self._heard = time.monotonic()
            self.gate.leave()

    def close(self) -> None:
        """Let the posters end. Call it when nothing is sent any more."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _post(self) -> None:
        while (batch := self._queue.get()) is not None:
            outcome = Outcome(self, batch, [], [], None, gate=False)
            while not (got := self.gate.enter(0.2)) and not self._stop.is_set():
                if self.taker.pause.active:
                    break
            if self._stop.is_set():
                outcome.error = InterruptedWork("stopped before the batch was sent")
                if got:
                    self.gate.leave()
            elif not got:
                outcome.error = InterruptedWork("its playbook is held back")
            else:
                outcome.gate = True
                self._send(outcome, 0, len(batch.records))
            self._done(outcome)

    def _send(self, outcome: Outcome, start: int, end: int) -> None:
        """Send a part of the batch; one that is refused is halved down to the record at fault."""
        if outcome.error is not None or start == end:
            return
        sink, context = self.pipe.sink, self.pipe.context
        records = outcome.batch.records[start:end]
        try:
            if isinstance(sink, BulkSink):
                receipts = sink.send(context, records)
            else:
                receipts = sink.deliver(context, records)
        except RejectedError as error:
            if end - start == 1:
                outcome.dead.append((start, str(error)))
                return
            middle = start + (end - start) // 2
            self._send(outcome, start, middle)
            self._send(outcome, middle, end)
            return
        except InterruptedWork as error:
            outcome.error = error
            return
        except Exception as error:
            outcome.error = as_work_error(error, f"a sink of {self.taker.name}")
            return
        if len(receipts) != end - start:
            outcome.error = PermanentError(
                f"{type(sink).__name__} gave {len(receipts)} receipts for {end - start} records",
                hint="this is a fault of the plugin: a sink returns one receipt a record, or raises",
            )
            return
        outcome.accepted.append((start, end, receipts))
