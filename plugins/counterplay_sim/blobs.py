"""Content blobs as ranges over the ingestion log.

The real service stores no blobs: what a listing shows is cut out of the log for the window that was
asked for, so that another window gives other ids for the same events. Identifiers carry the range:
`{first}${last}$audit_general$Audit_General$sim0001`, times with nine fraction digits.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from counterplay_sim.clock import NANOSECONDS, from_ns, to_ns
from counterplay_sim.store import Entry
from counterplay_sim.strictness import Strictness

_ID = re.compile(r"(\d{23})\$(\d{23})\$([a-z_]+)\$([A-Za-z_]+)\$sim0001")
_CACHED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """One item of a listing. `first` and `last` are ingestion times in ns, both included."""

    content_type: str
    first: int
    last: int

    @property
    def id(self) -> str:
        """The opaque identifier."""
        feed = self.content_type.replace(".", "_")
        return f"{_digits(self.first)}${_digits(self.last)}${feed.lower()}${feed}$sim0001"

    @property
    def created(self) -> int:
        """When the blob became available: its newest entry, cut to milliseconds, in ns."""
        return self.last // 1_000_000 * 1_000_000


class BlobIndex:
    """The ingestion log of one tenant, by content type."""

    def __init__(self, entries: Iterable[Entry], strictness: Strictness) -> None:
        self._most = strictness.blob_events
        self._span = strictness.blob_span // timedelta(microseconds=1) * 1000
        self._times: dict[str, list[int]] = {}
        self._bodies: dict[str, list[bytes]] = {}
        for entry in entries:
            self._times.setdefault(entry.content_type, []).append(entry.ingested)
            self._bodies.setdefault(entry.content_type, []).append(entry.body)
        self._feeds = {name.replace(".", "_"): name for name in self._times}
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def listing(self, content_type: str, start: int, end: int) -> Iterator[Blob]:
        """The blobs of a window [start, end) in ns, oldest first."""
        times = self._times.get(content_type, [])
        position, stop = bisect_left(times, start), bisect_left(times, end)
        while position < stop:
            until = min(position + self._most, bisect_left(times, times[position] + self._span), stop)
            yield Blob(content_type, times[position], times[until - 1])
            position = until

    def append(self, entry: Entry) -> int:
        """Add one entry, at its time or right after the newest of its content type; gives that time."""
        with self._lock:
            times = self._times.setdefault(entry.content_type, [])
            self._feeds[entry.content_type.replace(".", "_")] = entry.content_type
            at = entry.ingested if not times else max(entry.ingested, times[-1] + 1)
            self._bodies.setdefault(entry.content_type, []).append(entry.body)
            times.append(at)
            return at

    def between(self, content_type: str, start: int, end: int) -> Iterator[bytes]:
        """The events that were taken in within [start, end) in ns, as they were logged."""
        times = self._times.get(content_type, [])
        yield from self._bodies.get(content_type, [])[bisect_left(times, start) : bisect_left(times, end)]

    def find(self, content_id: str) -> Blob | None:
        """The blob of an identifier, None when no such range exists. ValueError: it is malformed."""
        match = _ID.fullmatch(content_id)
        if match is None or match[3] != match[4].lower():
            raise ValueError(content_id)
        content_type = self._feeds.get(match[4])
        first, last = _from_digits(match[1]), _from_digits(match[2])
        if content_type is None:
            return None
        times = self._times[content_type]
        at = bisect_left(times, first)
        if (
            at == len(times)
            or times[at] != first
            or times[bisect_right(times, last) - 1] != last
            or last < first
        ):
            return None
        return Blob(content_type, first, last)

    def body(self, blob: Blob, content_id: str) -> bytes:
        """The JSON array of the blob's events, as they were logged."""
        with self._lock:
            found = self._cache.get(content_id)
            if found is not None:
                self._cache.move_to_end(content_id)
                return found
        times, bodies = self._times[blob.content_type], self._bodies[blob.content_type]
        made = (
            b"[" + b",".join(bodies[bisect_left(times, blob.first) : bisect_right(times, blob.last)]) + b"]"
        )
        with self._lock:
            if content_id not in self._cache:
                self._cache[content_id] = made
                self._cached += len(made)
            while self._cached > _CACHED_BYTES:
                self._cached -= len(self._cache.popitem(last=False)[1])
        return made


def _digits(nanoseconds: int) -> str:
    moment = from_ns(nanoseconds // NANOSECONDS * NANOSECONDS)
    return f"{moment:%Y%m%d%H%M%S}{nanoseconds % NANOSECONDS:09d}"


def _from_digits(text: str) -> int:
    moment = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return to_ns(moment) + int(text[14:])
