"""A fetched unit, taken apart: its events as slices, their ids and the few fields that somebody asks for."""

from __future__ import annotations

import hashlib
import zlib
from codecs import getincrementaldecoder
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from mmap import mmap
from typing import Any, TypedDict

import msgspec
import orjson

from counterplay.events import Event, JsonObject
from counterplay.modules import BulkSink, FeedTrigger, Trigger
from counterplay.runtime import decoding
from counterplay.store.database import storable
from counterplay.store.feeds import DeadLetter, StoredUnit
from counterplay.store.key_claims import UNTIMED, UnitKeys

Slice = bytes | msgspec.Raw
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_CHUNK = 8 * 1024  # it stays in the nearest cache
_AT_ONCE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sliced:
    """What the bytes of a plain unit, an array of objects, say of it; `checks` are checksums of its events.

    `keys` and `hours` are None where fields are going to be decoded, which tell them, too. `first_time` is
    what the first event says of when it happened. `records`: the events as one sink takes them, see `Opener`.
    """

    digest: str
    raws: Sequence[Slice]
    checks: Sequence[int]
    keys: Sequence[str | None] | None
    hours: Sequence[int] | None
    first_time: Any = None
    records: Sequence[bytes] | None = None


@dataclass(slots=True)
class Opened:
    """A unit's events in order: their bytes, their place in the unit, their id, and named fields.

    `fields` is None when nobody names any, and when the unit had to be taken apart with care: whoever
    needs an event decodes it.
    `complete`: they hold every member of an event, and not only those that somebody names.
    `records`: the events as one sink takes them, where they were encoded already.
    """

    stored: StoredUnit
    size: int
    digest: str
    meta: JsonObject
    raws: Sequence[Slice]
    positions: Sequence[int]
    keys: Sequence[str | None]
    hours: Sequence[int]
    fields: Sequence[Mapping[str, Any]] | None
    total: int
    whole: bool
    complete: bool = False
    letters: list[DeadLetter] = field(default_factory=list)
    checks: Sequence[int] = ()
    first_time: Any = None
    records: Sequence[bytes] | None = None

    def owned_keys(self) -> UnitKeys:
        """The ids that the store has to look at, with the checksums of their events."""
        again = self.stored.digest is not None
        if all(self.keys):
            keys: Sequence[Any] = self.keys
            return UnitKeys(self.stored.id, keys, self.positions, self.hours, self.checks, again)
        found = [
            one for one in zip(self.keys, self.positions, self.hours, self.checks, strict=True) if one[0]
        ]
        columns: Sequence[Any] = list(zip(*found, strict=True)) or ((), (), (), ())
        names, positions, hours, sums = columns
        return UnitKeys(self.stored.id, names, positions, hours, sums, again)

    def event(self, index: int) -> Event:
        """One event as an object; its bytes are a copy that does not keep the unit in memory."""
        return Event(bytes(self.raws[index]), self.meta, position=self.positions[index], key=self.keys[index])


class Opener:
    """Takes units of one feed apart.

    `wanted`: the top-level members that conditions look at. `whole`: some look at all of an event, so that
    all is decoded at once, as far as that is not too much to hold. `early`: the sink that gets all events as
    they are, if it encodes in any thread.
    """

    def __init__(
        self,
        trigger: Trigger,
        wanted: Collection[str],
        *,
        whole: bool = False,
        early: BulkSink | None = None,
    ) -> None:
        self._trigger = trigger
        self._early = early
        self._decodes_all = whole
        self._id, self._time = trigger.id_field, trigger.time_field
        self._members = decoding.members_of(trigger)
        self._plain = not isinstance(trigger, FeedTrigger) or type(trigger).split is FeedTrigger.split
        self._fields: Any = None
        if wanted:
            names = {*self._members, *wanted}
            shape: Any = TypedDict("Fields", dict.fromkeys(names, Any), total=False)  # type: ignore[misc]
            self._fields = msgspec.json.Decoder(list[shape])
        # where nobody names a field, an object with two members costs less than a dict of them
        mark: Any = msgspec.defstruct(
            "Mark",
            [("key", Any, None), ("time", Any, None)],
            rename={"key": self._id or "", "time": self._time or " "},
            gc=False,
        )
        self._marks: Any = msgspec.json.Decoder(list[mark])

    def sliced(self, body: bytes | mmap) -> Sliced | None:
        """What can be said of a unit by its bytes alone, in any thread: none of a trigger's code is called.

        One that is small enough to be encoded as a whole is, where a sink asks for that.
        None: it is not a plain one, `open` takes it apart with care.
        """
        return self._sliced(body, early=len(body) <= _AT_ONCE) if self._plain else None

    def _sliced(self, body: bytes | mmap, *, early: bool = False) -> Sliced | None:
        if not self._id:
            return None
        records: Sequence[bytes] | None = None
        keys: Sequence[str | None] | None = None
        hours: Sequence[int] | None = None
        first = None
        try:
            raws = _ARRAY.decode(body)
            if self._fields is None and not self._complete(body):
                records = self._encoded(raws) if early else None
                if records is None and not _is_utf8(body):
                    return None
                marks = self._marks.decode(body)
                keys = _keys([one.key for one in marks])
                hours = self._hours_of([one.time for one in marks])
                first = marks[0].time if marks else None
        except (ValueError, RecursionError):  # of msgspec, and of bytes that are no UTF-8
            return None
        checks = list(map(zlib.crc32, raws))
        return Sliced(hashlib.sha256(body).hexdigest(), raws, checks, keys, hours, first, records)

    def _encoded(self, raws: Sequence[Slice]) -> Sequence[bytes] | None:
        """The events as the sink takes them, now that they are at hand; it looks at every byte of them."""
        if self._early is None:
            return None
        try:
            records = self._early.encode_all(tuple(raws))
            return records if len(records) == len(raws) else None
        except Exception:  # whoever delivers them asks for each, and says what is wrong
            return None

    def open(
        self, stored: StoredUnit, body: bytes | mmap, meta: JsonObject, sliced: Sliced | None = None
    ) -> Opened:
        """PermanentError: the bytes are no unit. What a trigger's own code raises passes through.

        `sliced`: what was said of the body before.
        """
        trigger = self._trigger
        meta.update(trigger.meta(stored.unit))
        parts = None
        if isinstance(trigger, FeedTrigger):
            parts = trigger.split(body)  # type: ignore[arg-type]  # a memory map reads like bytes
        if parts is None and (sliced := sliced or self._sliced(body)) is not None:
            opened = self._whole(stored, body, sliced, meta)
            if opened is not None:
                return opened
        digest = hashlib.sha256(body).hexdigest() if sliced is None else sliced.digest
        found = (
            decoding.elements(bytes(body), self._members) if parts is None else decoding.of_lines(iter(parts))
        )
        return self._with_care(stored, found, len(body), digest, meta)

    def first_time(self, opened: Opened) -> datetime | None:
        """When the unit's first event happened, as far as it says so; a time without a zone is UTC."""
        if self._time is None or not opened.raws:
            return None
        said = opened.first_time
        if said is None:
            fields = opened.fields[0] if opened.fields is not None else opened.event(0).data
            said = fields.get(self._time)
        try:
            moment = datetime.fromisoformat(str(said))
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _complete(self, body: bytes | mmap) -> bool:
        """All of its events are going to be decoded."""
        return self._decodes_all and len(body) <= _AT_ONCE

    def _hours_of(self, times: list[Any]) -> list[int]:
        return _hours(times) if self._time else [UNTIMED] * len(times)

    def _whole(
        self, stored: StoredUnit, body: bytes | mmap, sliced: Sliced, meta: JsonObject
    ) -> Opened | None:
        """The fast way, for a unit that is what it should be."""
        keys, hours, fields, complete = sliced.keys, sliced.hours, None, False
        if keys is None or hours is None:
            complete = self._complete(body)
            try:
                fields = _objects(body) if complete else self._fields.decode(body)
            except (ValueError, RecursionError):  # of orjson, msgspec
                return None
            if not complete and not _is_utf8(body):
                return None
            name, time = self._id or "", self._time or ""
            keys = _keys([one.get(name) for one in fields])
            hours = self._hours_of([one.get(time) for one in fields])
        raws = sliced.raws
        return Opened(
            stored,
            len(body),
            sliced.digest,
            meta,
            raws,
            range(len(raws)),
            keys,
            hours,
            fields,
            len(raws),
            True,
            complete,
            checks=sliced.checks,
            first_time=sliced.first_time,
            records=sliced.records,
        )

    def _with_care(
        self, stored: StoredUnit, found: decoding.Elements, size: int, digest: str, meta: JsonObject
    ) -> Opened:
        raws: list[bytes] = []
        positions: list[int] = []
        keys: list[str | None] = []
        hours: list[int] = []
        letters = [DeadLetter(one.reason, one.raw, one.position, unit_id=stored.id) for one in found.broken]
        for position, raw in found.events:
            event = Event(raw, meta, position=position)
            try:
                key = self._trigger.delivery_key(event)
                hour = _hour(event.data.get(self._time)) if self._time else UNTIMED
            except Exception as error:
                reason = f"the event cannot be read: {error!r}"
                letters.append(DeadLetter(reason, raw, position, unit_id=stored.id))
                continue
            raws.append(raw)
            positions.append(position)
            keys.append(None if key is None else storable(str(key)))
            hours.append(hour)
        return Opened(
            stored,
            size,
            digest,
            meta,
            raws,
            positions,
            keys,
            hours,
            None,
            found.total,
            found.whole,
            letters=letters,
            checks=list(map(zlib.crc32, raws)),
        )


def _objects(body: bytes | mmap) -> list[JsonObject]:
    """All events, decoded. ValueError: the unit is no array of objects."""
    found = orjson.loads(memoryview(body))
    if not all(type(one) is dict for one in found):
        raise ValueError("an element is no object")
    return found  # type: ignore[no-any-return]


def _keys(values: list[Any]) -> list[str | None]:
    """The ids; None for what is none."""
    if set(map(type, values)) != {str} or not all(values):
        values = [value if type(value) is str and value else None for value in values]
    if not "".join(filter(None, values)).isascii():
        values = [value and storable(value) for value in values]
    return values


def _hours(values: list[Any]) -> list[int]:
    if set(map(type, values)) != {str}:
        return [_hour(value) for value in values]
    stamps = [value[:13] for value in values]
    known = {stamp: _hour_of(stamp) for stamp in set(stamps)}
    return list(map(known.__getitem__, stamps))


def _hour(value: object) -> int:
    return _hour_of(value[:13]) if type(value) is str else UNTIMED


@lru_cache(maxsize=4096)
def _hour_of(text: str) -> int:
    """`2026-03-02T08` → hours since 1970. The same text always gives the same number."""
    try:
        return int(datetime.fromisoformat(f"{text}:00:00+00:00").timestamp() // 3600)
    except ValueError:
        return UNTIMED


def _is_utf8(body: bytes | mmap) -> bool:
    """The slicer does not look inside strings, so this is asked once a unit."""
    try:
        if isinstance(body, bytes) and body.isascii():
            return True
        decoder = getincrementaldecoder("utf-8")()
        with memoryview(body) as view:
            for start in range(0, len(view), _CHUNK):
                decoder.decode(view[start : start + _CHUNK])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True
