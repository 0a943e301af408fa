"""Faults that lie in the log itself: they hold for every reader, and the oracle computes with them.

Each chooses events of the log once and for all: by content type, by their place in it (`nth`, counted
from 1) or by chance that only depends on the event.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

#: What a log fault does with the lines of the log: the default of its `minutes`.
LINES = {"late_listing": 30.0, "same_event_twice": 10.0, "redelivery": 5 * 24 * 60.0}
#: What it does with the bytes of an event.
EVENTS = (
    "creation_time_z",
    "creation_time_fraction",
    "missing_id",
    "unknown_record_type",
    "string_parameters",
    "string_modified_properties",
)
SKEWED = "skewed_tenant"
KINDS = (*LINES, *EVENTS, SKEWED)

_ID = re.compile(rb'"Id":"[^"]*",')
_RECORD_TYPE = re.compile(rb'"RecordType":\d+')
_TIME_END = len('{"CreationTime":"2026-03-02T08:14:07')


@dataclass(frozen=True, slots=True)
class LogFault:
    """One of `KINDS`, for the events that it chooses."""

    kind: str
    content_type: str = ""
    probability: float = 1.0
    nth: tuple[int, ...] = ()
    minutes: float = 0.0

    def chooses(self, content_type: str, token: bytes, place: int) -> bool:
        """Whether an event is meant: `token` is its own for good, `place` where it stands from 0."""
        if self.content_type and self.content_type.lower() != content_type.lower():
            return False
        if self.nth and place + 1 not in self.nth:
            return False
        if self.probability >= 1.0:
            return True
        return zlib.crc32(token, zlib.crc32(self.kind.encode())) < self.probability * 2**32

    @property
    def delay(self) -> timedelta:
        """How much later than it should a line appears."""
        return timedelta(minutes=self.minutes or LINES.get(self.kind, 0.0))


def changed(body: bytes, kind: str) -> bytes:
    """An event as that kind of fault (one of `EVENTS`) makes it; the same bytes where it does not apply."""
    return _CHANGES[kind](body)


def _after_time(body: bytes, added: bytes) -> bytes:
    return body[:_TIME_END] + added + body[_TIME_END:] if body.startswith(b'{"CreationTime":"') else body


def _string_parameters(body: bytes) -> bytes:
    event = json.loads(body)
    listed = event.get("Parameters")
    if not isinstance(listed, list):
        return body
    event["Parameters"] = " ".join(f'-{one["Name"]} "{one["Value"]}"' for one in listed)
    return _encoded(event)


def _string_properties(body: bytes) -> bytes:
    event = json.loads(body)
    listed = event.get("ModifiedProperties")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return body
    event["ModifiedProperties"] = [one["Name"] for one in listed]
    return _encoded(event)


def _encoded(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "creation_time_z": lambda body: _after_time(body, b"Z"),
    "creation_time_fraction": lambda body: _after_time(body, b".1234567"),
    "missing_id": lambda body: _ID.sub(b"", body, count=1),
    "unknown_record_type": lambda body: _RECORD_TYPE.sub(b'"RecordType":99999', body, count=1),
    "string_parameters": _string_parameters,
    "string_modified_properties": _string_properties,
}
