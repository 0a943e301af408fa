"""From a unit's bytes to its events, as slices: nothing is re-encoded, nothing is dropped unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from counterplay.errors import PermanentError

CUT_OFF = "the unit is cut off: its closing bracket is missing"
_array = msgspec.json.Decoder(list[msgspec.Raw])
_WHITE = " \t\r\n"


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


def elements(body: bytes) -> Elements:
    """Cut a JSON array into its elements. PermanentError: it is no array at all."""
    try:
        if not body.isascii():
            body.decode("utf-8")  # once a unit: the slicer does not look inside strings
        slices = _array.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _salvage(body)
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


def _salvage(body: bytes) -> Elements:
    """Element by element, by the brackets; invalid bytes stay in the element that holds them."""
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
        found.append((len(found), raw, _flaw(raw) if raw else "an empty element"))
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
