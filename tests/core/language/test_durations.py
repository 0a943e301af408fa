"""Durations are a number with a unit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay import ConfigError
from counterplay.language import duration_text, parse_duration


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [("365d", "365d"), ("36h", "36h"), ("48h", "2d"), ("90s", "90s"), ("120s", "2m"), ("1500ms", "1500ms")],
)
def test_a_duration_is_shown_as_playbooks_write_it(text: str, shown: str) -> None:
    """In the largest unit that gives a whole number."""
    assert duration_text(parse_duration(text)) == shown


@given(st.integers(0, 10**9 - 1), st.sampled_from(["ms", "s", "m", "h"]))
def test_what_is_shown_is_the_same_duration(number: int, unit: str) -> None:
    """Nothing is rounded."""
    duration = parse_duration(f"{number}{unit}")

    assert parse_duration(duration_text(duration)) == duration
