"""From a unit's bytes to its events: exact slices, and nothing dropped unseen."""

import hashlib
import json
import zlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import PermanentError, RejectedError
from counterplay.events import Event, Unit
from counterplay.modules import BulkSink, FeedTrigger
from counterplay.runtime.decoding import Elements, elements, of_lines
from counterplay.runtime.units import Opened, Opener, Sliced
from counterplay.store.feeds import StoredUnit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["]", "}", ',{"', '\\"', "\\", "[", "\u2028", "\U0001f600"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)
SPACE = st.sampled_from([b"", b" ", b"\n", b"\r\n\t "])


@st.composite
def encoded_objects(draw: st.DrawFn) -> bytes:
    """An object in one of the spellings that JSON allows."""
    ascii_only, spaced = draw(st.booleans()), draw(st.booleans())
    text = json.dumps(draw(OBJECTS), ensure_ascii=ascii_only, indent=1 if spaced else None)
    return text.encode()


def parts_of(found: Elements) -> list[bytes]:
    """All elements in their order, the broken ones included."""
    by_position = dict(found.events)
    by_position.update((one.position, one.raw) for one in found.broken)
    return [by_position[position] for position in sorted(by_position)]


@settings(max_examples=50)
@given(st.lists(encoded_objects(), max_size=6), SPACE, SPACE)
def test_events_are_the_bytes_that_were_sent(parts: list[bytes], before: bytes, after: bytes) -> None:
    """Any array of objects, however it is spelled and spaced, is cut without changing a byte."""
    body = before + b"[" + after + (after + b"," + before).join(parts) + before + b"]" + after
    found = elements(body)
    assert [raw for _, raw in found.events] == parts
    assert (found.broken, found.total, found.whole) == ((), len(parts), True)


FLAWS = [
    (b'{"a": "\xff\xfe"}', "invalid UTF-8 at byte 7"),
    (b'{"a": "\xed\xa0\x80"}', "invalid UTF-8"),
    (b'{"a" 1}', "invalid JSON"),
    (b'{"a": 1,}', "invalid JSON"),
    (b"{'a': 1}", "invalid JSON"),
    (b'{"a": "tab\there"}', "invalid JSON"),
    (b'{"a": NaN}', "NaN is not JSON"),
    (b'{"a": -Infinity}', "-Infinity is not JSON"),
    (b'{"a": "\\x"}', "invalid JSON"),
    (b"tru", "invalid JSON"),
    (b"", "an empty element"),
    (b"}", "invalid JSON"),
    (b'{"a": 1}}', "invalid JSON"),
    (b'{"a":' * 3000 + b"1" + b"}" * 3000, "invalid JSON"),
]


@settings(max_examples=50)
@given(st.lists(encoded_objects(), min_size=1, max_size=5), st.sampled_from(FLAWS), st.data())
def test_one_broken_element_costs_no_other(
    parts: list[bytes], flaw: tuple[bytes, str], data: st.DataObject
) -> None:
    """It is told with its bytes, its place and what is wrong; all others are delivered."""
    raw, reason = flaw
    place = data.draw(st.integers(0, len(parts) - (0 if raw else 1)))
    mixed = [*parts[:place], raw, *parts[place:]]
    found = elements(b"[" + b",".join(mixed) + b"]")
    assert [one for _, one in found.events] == parts
    (broken,) = found.broken
    assert (broken.position, broken.raw) == (place, raw)
    assert reason in broken.reason
    assert not found.whole


@settings(max_examples=50)
@given(st.lists(OBJECTS, min_size=2, max_size=5), st.data())
def test_an_element_that_was_never_closed_takes_no_other_along(
    objects: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Cut anywhere, in a string or deep in a list: what has the members of an event is the next one."""
    parts = [json.dumps({"Id": str(number), **one, "at": 1}).encode() for number, one in enumerate(objects)]
    place = data.draw(st.integers(0, len(parts) - 1))
    cut = parts[place][: data.draw(st.integers(1, len(parts[place]) - 1))]
    body = b"[" + b",".join([*parts[:place], cut, *parts[place + 1 :]]) + b"]"
    found = elements(body, ["Id", "at"])
    assert [raw for _, raw in found.events] == [*parts[:place], *parts[place + 1 :]]
    assert found.broken[0].raw.startswith(cut.rstrip())
    assert found.broken[0].position == place
    if place < len(parts) - 1:
        assert found.total == len(parts), "nothing is said to be cut off"


def test_what_lies_inside_a_broken_event_is_no_event() -> None:
    """Objects inside of it have not what every event has."""
    body = b'[{"Id":"1","at":1},{"Id":"2","in":[{"Id":"x"},{"Id":"y"},{"Id":"z"},{"Id":"3","at":1}]'
    found = elements(body, ["Id", "at"])
    assert [raw for _, raw in found.events] == [b'{"Id":"1","at":1}', b'{"Id":"3","at":1}']
    assert [one.raw for one in found.broken] == [b'{"Id":"2","in":[{"Id":"x"},{"Id":"y"},{"Id":"z"}']


@settings(max_examples=50)
@given(st.lists(encoded_objects(), min_size=1, max_size=4), st.binary(min_size=1, max_size=6), st.data())
def test_no_byte_disappears_whatever_is_damaged(
    parts: list[bytes], noise: bytes, data: st.DataObject
) -> None:
    """Bytes overwritten anywhere behind the first bracket: every byte is in an event or a broken element."""
    body = bytearray(b"[" + b",".join(parts) + b"]")
    start = data.draw(st.integers(1, len(body) - 1))
    body[start : start + len(noise)] = noise
    found = elements(bytes(body))

    def essence(text: bytes) -> bytes:
        return bytes(byte for byte in text if byte not in b" \t\r\n,[]")

    assert essence(b"".join(parts_of(found))) == essence(bytes(body))
    assert [position for position, _ in found.events] == sorted({position for position, _ in found.events})
    for _, raw in found.events:
        assert isinstance(json.loads(raw), dict)


@settings(max_examples=50)
@given(st.lists(encoded_objects(), min_size=1, max_size=3))
def test_a_unit_that_is_cut_off_says_so_at_every_byte(parts: list[bytes]) -> None:
    """Whole elements before the cut are delivered, the cut is always told."""
    body = b"[" + b",".join(parts) + b"]"
    ends = [1 + sum(len(one) + 1 for one in parts[: count + 1]) - 1 for count in range(len(parts))]
    for cut in range(1, len(body)):
        found = elements(body[:cut])
        assert found.broken
        assert "cut off" in found.broken[-1].reason
        whole = sum(1 for end in ends if end <= cut)
        assert [raw for _, raw in found.events] == parts[:whole]


def test_a_lone_surrogate_is_an_event_like_any_other() -> None:
    """Half an emoji, as a program that cuts texts writes it; other readers refuse it."""
    body = b'[{"a":"\\ud83d"},{"b":1}]'
    found = elements(body)
    assert found.events == ((0, b'{"a":"\\ud83d"}'), (1, b'{"b":1}'))
    assert not found.broken
    assert Event(found.events[0][1]).data == {"a": "\ud83d"}


def test_what_is_no_object_is_told() -> None:
    """Members of an array that are not events keep their place."""
    found = elements(b'[1, {"a":1}, "x", null, [{}]]')
    assert found.events == ((1, b'{"a":1}'),)
    assert [(one.position, one.raw, one.reason) for one in found.broken] == [
        (0, b"1", "not a JSON object"),
        (2, b'"x"', "not a JSON object"),
        (3, b"null", "not a JSON object"),
        (4, b"[{}]", "not a JSON object"),
    ]


@pytest.mark.parametrize("body", [b"", b"  ", b"<html>", b'{"value": []}', b"\xff\xfe", b"null"])
def test_a_unit_that_is_no_array_is_shown(body: bytes) -> None:
    """The message quotes its beginning."""
    with pytest.raises(PermanentError, match="the unit is not a JSON array; it begins"):
        elements(body)


def test_a_byte_order_mark_is_no_obstacle() -> None:
    """Some services write one."""
    found = elements(b'\xef\xbb\xbf[{"a":1}]')
    assert found.events == ((0, b'{"a":1}'),)
    assert not found.broken


def test_what_follows_the_array_is_kept() -> None:
    """Two arrays in one unit: the second is told, not swallowed."""
    found = elements(b'[{"a":1}] [{"b":2}]')
    assert found.events == ((0, b'{"a":1}'),)
    assert [(one.raw, one.reason) for one in found.broken] == [
        (b'[{"b":2}]', "something follows the end of the array")
    ]


def test_lines_are_judged_one_by_one() -> None:
    """A source that separates its events itself."""
    found = of_lines(iter([b'{"a":1}', b"oops", b'{"b":"\xff"}', b"3", b'{"c":1}']))
    assert found.events == ((0, b'{"a":1}'), (4, b'{"c":1}'))
    assert [one.position for one in found.broken] == [1, 2, 3]


def test_a_slice_does_not_keep_its_unit_in_memory() -> None:
    """An event that is kept for a run must not pin megabytes."""
    found = elements(b'[{"a":1},' + b'{"b":"' + b"x" * 100_000 + b'"}]')
    assert type(found.events[0][1]) is bytes
    assert found.events[0][1] == b'{"a":1}'


BODIES = [
    b'[{"Id": "1", "n": 1.50}, {"Id": "2", "deep": {"x": [1, "\xc3\xa9"]}}]',
    b'[{"Id": "1"}, {"Id": ""}, {"Id": 3}, {}]',
    b'[{"Id": "1"}, 5, {"Id": "2"}]',
    b'[{"Id": "\\ud83d"}, {"Id": "2"}]',
    b'[{"Id": "\xff"}, {"Id": "2"}]',
    b'[{"Id": "1"}, {"Id": "2"',
    b"[]",
    b'{"Id": "1"}',
]


def named(**rest: object) -> FeedTrigger:
    """A source whose events say who they are."""
    return type("Named", (FeedTrigger,), {"name": "named", "id_field": "Id", **rest})({})


@pytest.mark.parametrize("body", BODIES)
def test_a_unit_is_the_same_whether_all_of_it_is_decoded_or_some(body: bytes) -> None:
    """A condition that looks at whole events changes neither events, ids nor dead letters."""
    stored = StoredUnit(1, Unit("u"), "listed", 0, None, frozenset())
    trigger = named()
    try:
        some = Opener(trigger, {"n"}).open(stored, body, {})
    except PermanentError:
        with pytest.raises(PermanentError):
            Opener(trigger, {"n"}, whole=True).open(stored, body, {})
        return
    all_of_it = Opener(trigger, {"n"}, whole=True).open(stored, body, {})
    assert [bytes(raw) for raw in some.raws] == [bytes(raw) for raw in all_of_it.raws]
    assert (list(some.keys), list(some.positions)) == (list(all_of_it.keys), list(all_of_it.positions))
    assert (some.letters, some.total, some.whole) == (all_of_it.letters, all_of_it.total, all_of_it.whole)
    assert all_of_it.complete == (some.fields is not None)
    if all_of_it.complete:
        assert list(all_of_it.fields or ()) == [json.loads(bytes(raw)) for raw in some.raws]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("wanted", "whole"), [(set(), False), ({"n"}, False), ({"n"}, True)])
def test_a_unit_is_the_same_whether_its_bytes_were_looked_at_before_or_not(
    body: bytes, wanted: set[str], whole: bool
) -> None:
    """Events, ids, hours, checksums, digest and dead letters do not depend on when that was."""
    stored = StoredUnit(1, Unit("u"), "listed", 0, None, frozenset())
    opener = Opener(named(time_field="n"), wanted, whole=whole)

    def opened(sliced: Sliced | None) -> Opened | str:
        try:
            found = opener.open(stored, body, {}, sliced)
        except PermanentError as error:
            return str(error)
        return replace(found, raws=[bytes(raw) for raw in found.raws], positions=list(found.positions))

    before = opened(opener.sliced(body))
    assert before == opened(None)
    if isinstance(before, Opened):
        assert before.digest == hashlib.sha256(body).hexdigest()
        assert list(before.checks) == [zlib.crc32(raw) for raw in before.raws]


class Lines(BulkSink):
    """Takes text, one event a line."""

    encodes_early = True

    def encode(self, raw: bytes | msgspec.Raw) -> bytes:
        try:
            return str(raw, "utf-8").encode() + b"\n"
        except UnicodeDecodeError as error:
            raise RejectedError("no text") from error


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("wanted", [set(), {"n"}])
def test_a_unit_is_the_same_whether_its_events_were_encoded_early_or_not(
    body: bytes, wanted: set[str]
) -> None:
    """What is not text is found, too, and where a condition looks at events nothing is encoded in vain."""
    stored = StoredUnit(1, Unit("u"), "listed", 0, None, frozenset())
    plain, early = (Opener(named(time_field="n"), wanted, early=sink) for sink in (None, Lines({})))

    def opened(opener: Opener) -> Opened | str:
        try:
            found = opener.open(stored, body, {}, opener.sliced(body))
        except PermanentError as error:
            return str(error)
        raws = [bytes(raw) for raw in found.raws]
        if found.records is not None:
            assert list(found.records) == [raw + b"\n" for raw in raws]
        return replace(found, raws=raws, positions=list(found.positions), records=None)

    assert opened(early) == opened(plain)
    sliced = early.sliced(body)
    assert (sliced is not None and sliced.records is not None) == (sliced is not None and not wanted)


def test_what_cannot_be_encoded_early_is_left_to_who_delivers_it() -> None:
    """One event that a sink refuses, or its fault, changes nothing about the unit; nor does a large unit."""

    class Picky(Lines):
        def encode(self, raw: bytes | msgspec.Raw) -> bytes:
            if b"2" in bytes(raw):
                raise self.arguments["error"]
            return super().encode(raw)

    body = b'[{"Id": "1"}, {"Id": "2"}]'
    for error in (RejectedError("not that"), RuntimeError("a fault")):
        sliced = Opener(named(), set(), early=Picky({"error": error})).sliced(body)
        assert sliced is not None
        assert (sliced.keys, sliced.records) == (["1", "2"], None)
    large = b'[{"Id": "1", "x": "' + b"x" * 2**20 + b'"}]'
    sliced = Opener(named(), set(), early=Lines({})).sliced(large)
    assert sliced is not None
    assert (sliced.keys, sliced.records) == (["1"], None)


@pytest.mark.parametrize("gives", ["a generator", "one too few", "another order"])
def test_a_sink_that_breaks_its_promise_changes_nothing_about_a_unit(gives: str) -> None:
    """What it gives is not taken, and the events stay in their order."""

    class Careless(Lines):
        def encode_all(self, raws: Any) -> Any:
            if gives == "another order":
                raws.reverse()
            made = (self.encode(raw) for raw in raws)
            return made if gives == "a generator" else list(made)[1:]

    body = b'[{"Id": "1"}, {"Id": "2"}]'
    sliced = Opener(named(), set(), early=Careless({})).sliced(body)
    assert sliced is not None
    assert (sliced.keys, sliced.records) == (["1", "2"], None)
    assert [bytes(raw) for raw in sliced.raws] == [b'{"Id": "1"}', b'{"Id": "2"}']


def test_units_that_their_trigger_splits_are_not_looked_at_before() -> None:
    """No code of a trigger but `fetch` is called from other threads."""
    body = b'{"Id": "1"}\n{"Id": "2"}'

    def split(self: FeedTrigger, body: bytes) -> list[bytes]:
        return body.splitlines()

    opener = Opener(named(split=split), set())
    stored = StoredUnit(1, Unit("u"), "listed", 0, None, frozenset())
    assert opener.sliced(body) is None
    assert opener.open(stored, body, {}).keys == ["1", "2"]
