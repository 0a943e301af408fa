"""From a unit's bytes to its events, as slices: nothing is re-encoded, nothing is dropped unseen."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from counterplay.errors import PermanentError
from counterplay.modules import Trigger

CUT_OFF = "the unit is cut off: its closing bracket is missing"
_array = msgspec.json.Decoder(list[msgspec.Raw])
_WHITE = " \t\r\n"
_NEXT = re.compile(r",[ \t\r\n]*(?=\{)")
_TRIES = 10_000
"""Places behind damage that are looked at in a unit: each costs a try to read an element there."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An element that is no event: its place, its bytes, and what is wrong with it."""

    position: int
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a unit by position: JSON objects as bytes, and those that are none."""

    events: tuple[tuple[int, bytes], ...]
    broken: tuple[Broken, ...]
    total: int
    whole: bool
    """False: the unit did not decode as one, and was taken apart element by element."""


def members_of(trigger: Trigger) -> list[str]:
    """What every event of the source has, as far as it says so."""
    return [name for name in (trigger.id_field, trigger.time_field) if name]


def elements(body: bytes, members: Collection[str] = ()) -> Elements:
    """Cut a JSON array into its elements. PermanentError: it is no array at all.

    `members` are those that every event has. Without them, an element that was never closed takes
    what follows it along, for an object inside of it looks like the next element.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")  # once a unit: the slicer does not look inside strings
        slices = _array.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _salvage(body, members)
    # A slice that is kept would keep the whole unit in memory: copy.
    return _sorted([(position, bytes(raw), None) for position, raw in enumerate(slices)], whole=True)


def of_lines(parts: Iterator[bytes]) -> Elements:
    """The same for a source that separates its events itself."""
    return _sorted([(position, raw, _flaw(raw)) for position, raw in enumerate(parts)], whole=True)


def _sorted(found: list[tuple[int, bytes, str | None]], *, whole: bool) -> Elements:
    events: list[tuple[int, bytes]] = []
    broken: list[Broken] = []
    for position, raw, flaw in found:
        if flaw is None and not raw.lstrip().startswith(b"{"):
            flaw = "not a JSON object"
        if flaw is None:
            events.append((position, raw))
        else:
            broken.append(Broken(position, raw, flaw))
    return Elements(tuple(events), tuple(broken), len(found), whole)


def _flaw(raw: bytes) -> str | None:
    """What is wrong with one element's bytes; None when it is JSON (a lone surrogate escape is)."""
    try:
        json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return f"invalid UTF-8 at byte {error.start}"
    except (ValueError, RecursionError) as error:
        return f"invalid JSON: {error}"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python's reader takes it, receivers do not


def _salvage(body: bytes, members: Collection[str]) -> Elements:
    """Element by element, by the brackets; invalid bytes stay in the element that holds them."""
    tries = _TRIES
    text = body.decode("utf-8", "surrogateescape").lstrip("\ufeff")
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        sample = body[:60].decode("utf-8", "replace")
        raise PermanentError(f"the unit is not a JSON array; it begins {sample!r}")
    found: list[tuple[int, bytes, str | None]] = []
    index = _skip(text, start + 1)
    while index < len(text) and text[index] != "]":
        end = _element_end(text, index)
        raw = text[index:end].rstrip(_WHITE).encode("utf-8", "surrogateescape")
        flaw = _flaw(raw) if raw else "an empty element"
        if flaw is not None and members:
            end, tries = _next_event(text, index, end, members, tries)
            raw = text[index:end].rstrip(_WHITE).encode("utf-8", "surrogateescape")
            flaw = _flaw(raw)
        found.append((len(found), raw, flaw))
        index = _skip(text, end)
        if index < len(text) and text[index] == ",":
            index = _skip(text, index + 1)
    rest = text[index + 1 :].strip(_WHITE) if index < len(text) else None
    if rest is None:
        found.append((len(found), b"", CUT_OFF))
    elif rest:
        raw = rest.encode("utf-8", "surrogateescape")
        found.append((len(found), raw, "something follows the end of the array"))
    return _sorted(found, whole=False)


def _next_event(text: str, start: int, end: int, members: Collection[str], tries: int) -> tuple[int, int]:
    """The comma before the first event inside of what damage runs together, or `end`; and the tries left."""
    reader = json.JSONDecoder(parse_constant=_no_constant)
    for comma in _NEXT.finditer(text, start, end):
        if tries <= 0:
            break
        tries -= 1
        try:
            value, _ = reader.raw_decode(text, comma.end())
        except (ValueError, RecursionError):
            continue
        if all(name in value for name in members):
            return comma.start(), tries
    return end, tries


def _skip(text: str, index: int) -> int:
    while index < len(text) and text[index] in _WHITE:
        index += 1
    return index


def _element_end(text: str, index: int) -> int:
    """Where the element ends: the comma or bracket that closes it, outside of strings."""
    depth = 0
    in_string = False
    while index < len(text):
        char = text[index]
        if in_string:
            if char == "\\":
                index += 1
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
        elif depth == 0 and char in ",]":
            return index
        elif char in "}]" and depth:
            depth -= 1  # a closing bracket that nothing opened is part of the damage
        index += 1
    return len(text)
