"""What the members of a fault and of the switches may hold.

A misspelt rule would meet nothing, and a test would pass that tests nothing.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

SERVICES = ("login", "graph", "activity", "intake")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def choice(name: str, value: object, known: Iterable[str], *, empty: bool = True) -> None:
    """One of the texts that are known. ValueError: it is not, with the nearest one."""
    known = tuple(known)
    if isinstance(value, str) and (value in known or (empty and not value)):
        return
    near = difflib.get_close_matches(str(value).lower(), [one.lower() for one in known], 1)
    meant = next((one for one in known if near and one.lower() == near[0]), None)
    hint = f"; did you mean {meant!r}?" if meant else ""
    raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}{hint}")


def whole(name: str, value: object, least: int = 0, most: int | None = None) -> None:
    """An int within limits; neither a bool nor a text of digits."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and isinstance(value, int) and value > most):
        upper = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is a whole number {upper}, not {value!r}")


def number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> None:
    """A finite number within limits."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if least <= value <= most:
            return
        limit = f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
        raise ValueError(f"{name} is a number {limit}, not {value!r}")
    raise ValueError(f"{name} is a number, not {value!r}")


def text(name: str, value: object) -> None:
    """A text that can go over the wire."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is a text, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half of a surrogate pair") from None


def pattern(name: str, value: object) -> None:
    """A regular expression."""
    text(name, value)
    try:
        re.compile(str(value))
    except re.error as error:
        raise ValueError(f"{name} is no regular expression: {error}") from error


def headers(pairs: Iterable[tuple[object, object]]) -> None:
    """Header lines: no name or value that would end one early and begin another."""
    for name, value in pairs:
        if not isinstance(name, str) or _HEADER_NAME.fullmatch(name) is None:
            raise ValueError(f"headers: {name!r} is no name of a header")
        if not isinstance(value, str) or _HEADER_VALUE.fullmatch(value) is None:
            raise ValueError(f"headers: {name} is a text on one line, not {value!r}")
