"""The sink `intake.forward`: events to an HTTP intake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from counterplay import BulkSink, Context, Event, Receipt, RejectedError
from counterplay_intake.client import ENVELOPE, quoted, send

if TYPE_CHECKING:
    from msgspec import Raw

LARGEST_EVENT = 250_000
LARGEST_BATCH = 9_437_184  # of the 10 MiB that the intake takes


class Forward(BulkSink):
    """Forward events to an HTTP intake, byte for byte as their source sent them.

    A batch counts as delivered only when the intake named an id for each of its events.

    Delivery:
        At least once. The intake has no key to recognise a repeat by: after a lost answer, one batch
        of at most `batch_bytes` arrives twice; de-duplicate on the event's own id (`Id`).
    Limits:
        250,000 bytes an event, as encoded; a larger one becomes a dead letter.
    """

    name = "forward"
    connection = "intake.key"
    delivery = "at least once; a lost answer repeats one batch, and events carry their own ids"
    max_batch_records = 10_000
    max_batch_bytes = LARGEST_BATCH
    max_record_bytes = LARGEST_EVENT
    batch_overhead = ENVELOPE
    parallel = 3
    encodes_early = True

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        chosen = int(self.arguments.get("batch_bytes", 524_288))
        self.max_batch_bytes = min(chosen, LARGEST_BATCH)

    def record_size(self, record: Event) -> int:
        return len(quoted(record.raw.decode("utf-8", "replace"))) + 1

    def encode(self, raw: bytes | Raw) -> bytes:
        try:
            return quoted(str(raw, "utf-8"))
        except UnicodeDecodeError as error:
            raise RejectedError(
                f"an event is not UTF-8 text (byte {error.start}), so it cannot be sent"
            ) from error

    def encode_all(self, raws: Sequence[bytes | Raw]) -> list[bytes]:
        try:
            return [quoted(str(raw, "utf-8")) for raw in raws]
        except UnicodeDecodeError as error:
            raise RejectedError("an event is not UTF-8 text, so it cannot be sent") from error

    def send(self, context: Context, parts: Sequence[bytes]) -> Sequence[Receipt]:
        return Receipt.each(send(context, parts))
