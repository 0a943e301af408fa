"""Delivering records to a sink: batches by encoded size, halving of what is refused, receipts kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from counterplay.errors import PermanentError, RejectedError
from counterplay.events import Event, Receipt
from counterplay.modules import Context, Sink

OnDelivered = Callable[[Sequence[Event], Sequence[Receipt]], None]
OnDead = Callable[[Event, str], None]


def batches(sink: Sink, records: Sequence[Event]) -> Iterator[list[Event]]:
    """Cut by the sink's limits on encoded bytes; a record that alone exceeds a batch goes alone."""
    batch: list[Event] = []
    size = sink.batch_overhead
    for record in records:
        added = sink.record_size(record)
        if batch and (size + added > sink.max_batch_bytes or len(batch) >= sink.max_batch_records):
            yield batch
            batch, size = [], sink.batch_overhead
        batch.append(record)
        size += added
    if batch:
        yield batch


def deliver(
    sink: Sink, context: Context, records: Sequence[Event], on_delivered: OnDelivered, on_dead: OnDead
) -> None:
    """Send everything, telling of each batch as soon as the receiver took it.

    A record that is too large, or that is refused when it stands alone, goes to `on_dead` with the
    reason. RetryableError and BlockedError pass through: what was not told of is still to be sent.
    """
    fitting: list[Event] = []
    for record in records:
        flaw = _too_large(sink, record)
        if flaw is None:
            fitting.append(record)
        else:
            on_dead(record, flaw)
    for batch in batches(sink, fitting):
        _send(sink, context, batch, on_delivered, on_dead)


def _send(
    sink: Sink, context: Context, batch: Sequence[Event], on_delivered: OnDelivered, on_dead: OnDead
) -> None:
    try:
        receipts = sink.deliver(context, batch)
    except RejectedError as error:
        if len(batch) == 1:
            on_dead(batch[0], str(error))
            return
        middle = len(batch) // 2
        _send(sink, context, batch[:middle], on_delivered, on_dead)
        _send(sink, context, batch[middle:], on_delivered, on_dead)
        return
    if len(receipts) != len(batch):
        raise PermanentError(
            f"{type(sink).__name__} gave {len(receipts)} receipts for {len(batch)} records",
            hint="this is a fault of the plugin: a sink returns one receipt a record, or raises",
        )
    on_delivered(batch, receipts)


def _too_large(sink: Sink, record: Event) -> str | None:
    if sink.max_record_bytes is None:
        return None
    size = sink.record_size(record)
    if size <= sink.max_record_bytes:
        return None
    return f"the record has {size:,} encoded bytes, the receiver takes {sink.max_record_bytes:,}"
