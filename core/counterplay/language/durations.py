"""Durations as playbooks write them: a number with a unit."""

from __future__ import annotations

import re
from datetime import timedelta

from counterplay.errors import ConfigError

DURATION_PATTERN = r"^[0-9]{1,9}(ms|s|m|h|d)$"
"""For module schemas: `{"type": "string", "pattern": DURATION_PATTERN}`."""

_FORM = re.compile(DURATION_PATTERN, re.ASCII)
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta:
    """`250ms`, `90s`, `5m`, `4h` or `7d`. ConfigError: it is none of these."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(
            f"not a duration: {str(text)[:40]!r}", hint="write a number with its unit, as in 90s, 4h, 7d"
        )
    unit = found.group(1)
    return timedelta(**{_UNITS[unit]: int(text.removesuffix(unit))})


def duration_text(span: timedelta) -> str:
    """The reverse, in the largest unit that gives a whole number; below a millisecond it is cut off."""
    for unit, name in reversed(_UNITS.items()):
        size = timedelta(**{name: 1})
        if span >= size and not span % size:
            return f"{span // size}{unit}"
    return f"{span // timedelta(milliseconds=1)}ms" if span else "0s"
