"""Durations are a number with a unit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from counterplay import ConfigError
from counterplay.language import parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("4h", timedelta(hours=4)),
        ("7d", timedelta(days=7)),
        ("0s", timedelta(0)),
    ],
)
def test_a_number_with_a_unit_is_a_duration(text: str, duration: timedelta) -> None:
    """Milliseconds, seconds, minutes, hours, days."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "1.5h", "5 s", "5S", "1h30m", "٣s", "5s\n", "9999999999d"]
)
def test_anything_else_is_refused(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(
        ConfigError, match=r"not a duration: .*; write a number with its unit, as in 90s, 4h, 7d"
    ):
        parse_duration(text)
