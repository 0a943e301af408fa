"""The elements of a list inside a JSON document, as the bytes in which they were sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_SPACE = re.compile(r"[ \t\r\n]*")
_SCAN = json.JSONDecoder().raw_decode


def members(document: bytes, name: str) -> list[bytes] | None:
    """The elements of the list that is the member `name` of a JSON object; None when there is no such.

    Half of a surrogate pair in some text makes strict decoders refuse the whole document; such a one
    is walked through by a lenient one, and its elements are still the bytes that were sent.
    """
    import msgspec  # a third of what naming all modules takes

    try:
        whole = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
        return [bytes(raw) for raw in msgspec.json.decode(whole[name], type=list[msgspec.Raw])]
    except KeyError:
        return None
    except msgspec.DecodeError:
        pass
    text = document.decode("utf-8", "surrogateescape")
    try:
        found = list(_walk(text, name))
    except (ValueError, IndexError, RecursionError):
        return None
    return [text[a:b].encode("utf-8", "surrogateescape") for a, b in found]


def lenient(document: bytes) -> object:
    """The JSON value of bytes that strict decoders refuse; None when it is none for anybody."""
    try:
        return json.loads(document.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _walk(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Where the elements stand. ValueError, IndexError: this is no object with such a list."""
    at = _after(text, 0, "{")
    while True:
        key, at = _SCAN(text, _skip(text, at))
        at = _after(text, at, ":")
        if key == name:
            yield from _elements(text, _after(text, at, "["))
            return
        _, at = _SCAN(text, _skip(text, at))
        at = _after(text, at, ",")


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    at = _skip(text, at)
    if text[at] == "]":
        return
    while True:
        start = _skip(text, at)
        _, end = _SCAN(text, start)
        yield start, end
        at = _skip(text, end)
        if text[at] == "]":
            return
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _after(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at] != sign:
        raise ValueError(f"{sign!r} expected")
    return at + 1
