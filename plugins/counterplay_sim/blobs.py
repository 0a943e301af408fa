"""The ingestion log of one tenant, and content blobs as ranges over it.

The real service stores no blobs: what a listing shows is cut out of the log for the window that was
asked for, so that another window gives other ids for the same events. Identifiers carry the range:
`{first}${last}$audit_general$Audit_General$sim0001`, times with nine fraction digits. The last part names
the stream: what is listed late or again is a stream of its own beside the ordinary one.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from counterplay_sim import faults_log
from counterplay_sim.clock import NANOSECONDS, from_ns, span_ns, to_ns
from counterplay_sim.faults_log import LogFault
from counterplay_sim.scenario.background import Background, Ids
from counterplay_sim.scenario.noise import CONTENT_TYPES
from counterplay_sim.store import Entry
from counterplay_sim.strictness import Strictness

Span = tuple[int, int]  # [from, to) in ns

_ID = re.compile(r"(\d{23})\$(\d{23})\$([a-z_]+)\$([A-Za-z_]+)\$sim(\d{4})")
_CACHED_BYTES = 192 * 1024 * 1024
_WRITTEN = 1 << 31  # numbers from here on are entries of the store, below are ordinary events
ALWAYS: tuple[Span, ...] = ((0, 2**63 - 1),)


@dataclass(frozen=True, slots=True)
class Blob:
    """One item of a listing. `first` and `last` are ingestion times in ns, both included.

    `created` is what `contentCreated` shows, in ns, cut to milliseconds.
    """

    content_type: str
    first: int
    last: int
    stream: int
    created: int

    @property
    def id(self) -> str:
        """The opaque identifier."""
        feed = self.content_type.replace(".", "_")
        return f"{_digits(self.first)}${_digits(self.last)}${feed.lower()}${feed}$sim{self.stream + 1:04d}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log: an event, when it was taken in, and from when on it can be listed (ns)."""

    content_type: str
    ingested: int
    listable: int
    key: str
    body: bytes


@dataclass(slots=True)
class _Stream:
    """Lines that are listed together, `delay` ns after their times."""

    delay: int = 0
    times: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("I"))
    stored: list[Blob] | None = None

    def insert(self, at: int, number: int) -> int:
        """Put a line at a time, or at the first one after it that is free."""
        place = bisect_left(self.times, at)
        while place < len(self.times) and self.times[place] == at:
            at, place = at + 1, place + 1
        self.times.insert(place, at)
        self.numbers.insert(place, number)
        self.stored = None
        return at


class _Feed:
    """The streams of one content type."""

    def __init__(self, content_type: str, background: Background | None, entries: Iterable[Entry]) -> None:
        self.content_type = content_type
        self.background = background
        self.written: list[tuple[str, bytes]] = []
        self.entries = list(entries)
        self.by_key: dict[str, int] = {}
        self.streams: list[_Stream] = []
        self._lines: list[tuple[LogFault, int]] = []
        self._changes: list[LogFault] = []

    def build(self, faults: Sequence[LogFault]) -> None:
        """Lay the streams out anew."""
        chosen = [f for f in faults if f.content_type.lower() in ("", self.content_type.lower())]
        self._changes = [fault for fault in chosen if fault.kind in faults_log.EVENTS]
        lines = [fault for fault in chosen if fault.kind in faults_log.LINES]
        self._lines = [(fault, number) for number, fault in enumerate(lines, start=1)]
        main = _Stream()
        if self.background is not None:
            main.times, main.numbers = self.background.times[:], self.background.numbers[:]
        late = (span_ns(f.delay) if f.kind == "late_listing" else 0 for f in lines)
        self.streams = [main, *(_Stream(delay) for delay in late)]
        if lines:
            self._lay_out()
        self.written, self.by_key = [], {}
        for entry in self.entries:
            self._write(entry)

    def add(self, entry: Entry) -> int:
        """One more entry; gives the time that it got."""
        at = self._write(entry)
        self.entries.append(entry)
        return at

    def event(self, number: int) -> bytes:
        """The bytes of an event."""
        if number & _WRITTEN:
            body = self.written[number ^ _WRITTEN][1]
        else:
            assert self.background is not None
            body = self.background.body(number)
        for fault in self._changes:
            if fault.chooses(self.content_type, self._token(number), number & ~_WRITTEN):
                body = faults_log.changed(body, fault.kind)
        return body

    def key(self, number: int) -> str:
        """The `Id` of an event, also of one that does not show it."""
        if number & _WRITTEN:
            return self.written[number ^ _WRITTEN][0]
        assert self.background is not None
        return self.background.key(number)

    def array_of(self, numbers: Sequence[int]) -> bytes:
        """The JSON array of events."""
        if self._changes or self.background is None:
            return b"[" + b",".join(map(self.event, numbers)) + b"]"
        pieces: list[bytes] = [b"["]
        if max(numbers, default=0) < _WRITTEN:
            self.background.write(numbers, pieces)
        else:
            for number in numbers:
                pieces += (b",", self.event(number))
        if len(pieces) > 1:
            pieces[1] = pieces[1][1:]  # there is no comma before the first
        pieces.append(b"]")
        return b"".join(pieces)

    def _write(self, entry: Entry) -> int:
        number = self.by_key.get(entry.event)
        if number is None:
            number = len(self.written) | _WRITTEN
            self.written.append((entry.event, entry.body))
            self.by_key[entry.event] = number
        stream = self.streams[0]
        for fault, place in self._lines:
            if fault.chooses(self.content_type, self._token(number), number & ~_WRITTEN):
                if fault.kind == "late_listing":
                    stream = self.streams[place]
                else:
                    self.streams[place].insert(entry.ingested + span_ns(fault.delay), number)
        return stream.insert(entry.ingested, number)

    def _lay_out(self) -> None:
        """Move lines of the ordinary events from the main stream to others, or repeat them there."""
        main, kept = self.streams[0], _Stream()
        again: dict[int, list[tuple[int, int]]] = {}
        for at, number in zip(main.times, main.numbers, strict=True):
            stream = kept
            for fault, place in self._lines:
                if fault.chooses(self.content_type, self._token(number), number):
                    if fault.kind == "late_listing":
                        stream = self.streams[place]
                    else:
                        again.setdefault(place, []).append((at + span_ns(fault.delay), number))
            stream.times.append(at)
            stream.numbers.append(number)
        self.streams[0] = kept
        for place, lines in again.items():
            stream = self.streams[place]
            for at, number in sorted(lines):
                at = max(at, stream.times[-1] + 1) if stream.times else at
                stream.times.append(at)
                stream.numbers.append(number)

    def _token(self, number: int) -> bytes:
        if number & _WRITTEN:
            return self.written[number ^ _WRITTEN][0].encode()
        return number.to_bytes(8, "big")


class BlobIndex:
    """The ingestion log of one tenant, by content type."""

    def __init__(
        self,
        entries: Iterable[Entry],
        strictness: Strictness,
        ordinary: Mapping[str, Background] | None = None,
        ids: Ids | None = None,
        faults: Sequence[LogFault] = (),
    ) -> None:
        self._strictness = strictness
        self._ids = ids
        self._faults = list(faults)
        by_type: dict[str, list[Entry]] = {name: [] for name in CONTENT_TYPES}
        for entry in entries:
            by_type[entry.content_type].append(entry)
        self._feeds = {
            name: _Feed(name, (ordinary or {}).get(name), listed) for name, listed in by_type.items()
        }
        self._names = {name.replace(".", "_"): name for name in self._feeds}
        self._cache: OrderedDict[str, tuple[bytes, Blob]] = OrderedDict()
        self._cached = 0
        self._lock = threading.RLock()
        self._build()

    @property
    def faults(self) -> tuple[LogFault, ...]:
        """The log faults in force."""
        return tuple(self._faults)

    def disturb(self, faults: Sequence[LogFault], strictness: Strictness | None = None) -> None:
        """Put these log faults, and no others, in force."""
        with self._lock:
            self._strictness = strictness or self._strictness
            self._faults = list(faults)
            self._build()

    def append(self, entry: Entry) -> int:
        """Add one entry at its time, or at the first one after it that is free; gives that time."""
        with self._lock:
            self._forget_cache()
            return self._feeds[entry.content_type].add(entry)

    def between(self, content_type: str, start: int, end: int) -> Iterator[bytes]:
        """The events that were taken in within [start, end) in ns, as they are served."""
        feed = self._feeds[content_type]
        for stream in feed.streams:
            for number in stream.numbers[bisect_left(stream.times, start) : bisect_left(stream.times, end)]:
                yield feed.event(number)

    def lines(self, until: int) -> Iterator[Line]:
        """Every line that can be listed at `until` (ns) or before."""
        for name, feed in self._feeds.items():
            for stream in feed.streams:
                stop = bisect_right(stream.times, until - stream.delay)
                for at, number in zip(stream.times[:stop], stream.numbers[:stop], strict=True):
                    yield Line(name, at, at + stream.delay, feed.key(number), feed.event(number))

    def knows(self, key: str) -> bool:
        """Whether an event of this log has that `Id`."""
        if any(key in feed.by_key for feed in self._feeds.values()):
            return True
        found = self._ids.read(key) if self._ids is not None else None
        if found is None or found[0] >= len(CONTENT_TYPES):
            return False
        background = self._feeds[CONTENT_TYPES[found[0]]].background
        return background is not None and found[1] < len(background)

    def listing(
        self, content_type: str, start: int, end: int, now: int = 2**63 - 1, spans: Sequence[Span] = ALWAYS
    ) -> Iterator[Blob]:
        """The blobs of a window [start, end) in ns that can be seen `now`, oldest first.

        `spans` are the times from which content exists at all: a window is cut to them.
        """
        found: list[Blob] = []
        with self._lock:
            for number, stream in enumerate(self._feeds[content_type].streams):
                for since, to in spans:
                    a, b = max(start, since), min(end, to, now - stream.delay + 1)
                    if a < b:
                        cut = self._stored if self._strictness.stored_blobs else self._cut
                        found += cut(content_type, number, stream, a, b)
        found.sort(key=lambda blob: (blob.created, blob.first))
        yield from found

    def _cut(self, content_type: str, number: int, stream: _Stream, start: int, end: int) -> Iterator[Blob]:
        times, most, span = (
            stream.times,
            self._strictness.blob_events,
            span_ns(self._strictness.blob_span),
        )
        position, stop = bisect_left(times, start), bisect_left(times, end)
        while position < stop:
            most_here = min(position + most, stop)
            until = bisect_left(times, times[position] + span, position, most_here)
            yield self._blob(content_type, number, times[position], times[until - 1])
            position = until

    def _stored(
        self, content_type: str, number: int, stream: _Stream, start: int, end: int
    ) -> Iterator[Blob]:
        """Blobs as objects of their own: closed for good when they are full or their time is up."""
        if stream.stored is None:
            stream.stored = list(self._cut(content_type, number, stream, 0, 2**63 - 1))
        for blob in stream.stored:
            if start <= blob.created < end and blob.last < end:
                yield blob

    def _blob(self, content_type: str, number: int, first: int, last: int) -> Blob:
        shown = first if self._strictness.created_is == "first" else last
        return Blob(content_type, first, last, number, shown // 1_000_000 * 1_000_000)

    def find(self, content_id: str, now: int = 2**63 - 1) -> Blob | None:
        """The blob of an identifier, None when no such range exists. ValueError: it is malformed."""
        match = _ID.fullmatch(content_id)
        if match is None or match[3] != match[4].lower():
            raise ValueError(content_id)
        content_type = self._names.get(match[4])
        first, last = _from_digits(match[1]), _from_digits(match[2])
        number = int(match[5]) - 1
        if content_type is None or number >= len(self._feeds[content_type].streams):
            return None
        stream = self._feeds[content_type].streams[number]
        times = stream.times
        at = bisect_left(times, first)
        if (
            at == len(times)
            or times[at] != first
            or times[bisect_right(times, last) - 1] != last
            or last < first
            or last + stream.delay > now
        ):
            return None
        return self._blob(content_type, number, first, last)

    def body(self, blob: Blob, content_id: str) -> bytes:
        """The JSON array of the blob's events, as they were logged."""
        with self._lock:
            found = self._cache.get(content_id)
            if found is not None:
                self._cache.move_to_end(content_id)
                return found[0]
            made = self._feeds[blob.content_type].array_of(self._numbers(blob))
            self._cache[content_id] = (made, blob)
            self._cached += len(made)
            while self._cached > _CACHED_BYTES and len(self._cache) > 1:
                self._cached -= len(self._cache.popitem(last=False)[1][0])
            return made

    def cached(self, content_id: str) -> tuple[bytes, Blob] | None:
        """The body and the blob of an identifier that was asked for lately."""
        return self._cache.get(content_id)

    def events(self, blob: Blob) -> list[bytes]:
        """The events of a blob."""
        with self._lock:
            return [self._feeds[blob.content_type].event(number) for number in self._numbers(blob)]

    def keys(self, blob: Blob) -> list[str]:
        """The `Id`s of its events."""
        with self._lock:
            return [self._feeds[blob.content_type].key(number) for number in self._numbers(blob)]

    def before(self, blob: Blob) -> bytes | None:
        """The event on the line before the blob's first."""
        feed = self._feeds[blob.content_type]
        stream = feed.streams[blob.stream]
        at = bisect_left(stream.times, blob.first)
        return feed.event(stream.numbers[at - 1]) if at else None

    def _numbers(self, blob: Blob) -> Sequence[int]:
        stream = self._feeds[blob.content_type].streams[blob.stream]
        return stream.numbers[bisect_left(stream.times, blob.first) : bisect_right(stream.times, blob.last)]

    def _build(self) -> None:
        for feed in self._feeds.values():
            feed.build(self._faults)
        self._forget_cache()

    def _forget_cache(self) -> None:
        self._cache.clear()
        self._cached = 0


def range_of(content_id: str) -> tuple[str, int, int]:
    """The content type and the first and last ingestion time (ns) in an id. ValueError: it is malformed."""
    match = _ID.fullmatch(content_id)
    if match is None:
        raise ValueError(content_id)
    return match[4].replace("_", "."), _from_digits(match[1]), _from_digits(match[2])


def _digits(nanoseconds: int) -> str:
    moment = from_ns(nanoseconds // NANOSECONDS * NANOSECONDS)
    return f"{moment:%Y%m%d%H%M%S}{nanoseconds % NANOSECONDS:09d}"


def _from_digits(text: str) -> int:
    hour, minute, second = int(text[8:10]), int(text[10:12]), int(text[12:14])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(text)
    return _day(text[:8]) + (hour * 3600 + minute * 60 + second) * NANOSECONDS + int(text[14:])


@lru_cache(maxsize=256)
def _day(text: str) -> int:
    return to_ns(datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC))
