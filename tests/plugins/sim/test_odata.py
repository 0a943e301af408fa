"""The filter grammar against Python's own logic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay_sim.odata import ODataError, parse_filter

_NAMES = ("severity", "status")
_VALUES = st.sampled_from(("low", "high", "it's", ""))
_COMPARISON = st.tuples(st.sampled_from(_NAMES), st.sampled_from(("eq", "ne", "ge", "lt")), _VALUES)
_EXPRESSION = st.recursive(
    _COMPARISON, lambda inner: st.tuples(st.sampled_from(("and", "or", "not")), inner, inner), max_leaves=8
)


def _text(tree: Any) -> str:
    if tree[0] == "not":
        return f"not ({_text(tree[1])})"
    if tree[0] in ("and", "or"):
        return f"({_text(tree[1])}) {tree[0]} ({_text(tree[2])})"
    literal = tree[2].replace("'", "''")
    return f"{tree[0]} {tree[1]} '{literal}'"


def _truth(tree: Any, document: dict[str, str]) -> bool:
    if tree[0] == "not":
        return not _truth(tree[1], document)
    if tree[0] == "and":
        return _truth(tree[1], document) and _truth(tree[2], document)
    if tree[0] == "or":
        return _truth(tree[1], document) or _truth(tree[2], document)
    value, literal = document[tree[0]], tree[2]
    return {"eq": value == literal, "ne": value != literal, "ge": value >= literal, "lt": value < literal}[
        tree[1]
    ]


@given(_EXPRESSION, _VALUES, _VALUES)
def test_a_filter_means_what_it_says(tree: Any, severity: str, status: str) -> None:
    """Any nesting of and, or, not and comparisons agrees with Python."""
    document = {"severity": severity, "status": status}

    assert parse_filter(_text(tree), _NAMES, "alert")(document) == _truth(tree, document)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_an_odata_error(text: str) -> None:
    """Nothing else comes out of the parser."""
    try:
        parse_filter(text, _NAMES, "alert")
    except ODataError:
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("createdDateTime ge 2026-03-02T10:00:00Z", True),
        ("createdDateTime gt 2026-03-02T10:00:00.1234567Z", False),
        ("createdDateTime ge 2026-03-02T10:00:00.1234567Z", True),
        ("createdDateTime lt 2026-03-02T12:00:00.2+02:00", True),
        ("severity in ('low','high')", True),
        ("severity in ('low')", False),
        ("assignedTo eq null", True),
    ],
)
def test_times_lists_and_null(text: str, expected: bool) -> None:
    """Times compare to the last digit and across zones."""
    document = {"createdDateTime": "2026-03-02T10:00:00.1234567Z", "severity": "high", "assignedTo": None}

    assert parse_filter(text, ("createdDateTime", "severity", "assignedTo"), "alert")(document) is expected
