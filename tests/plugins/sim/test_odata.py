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


_DOCUMENT = {
    "name": "Ada O'Neil",
    "status": {"errorCode": 50126},
    "evidence": [
        {"@odata.type": "#a.b.user", "account": {"upn": "ada@x.example"}, "tags": ["red", "blue"]},
        {"@odata.type": "#a.b.ip", "account": {"upn": "eve@x.example"}, "tags": []},
    ],
    "kinds": ["one", "two"],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("startswith(name,'Ada')", True),
        ("startswith(name,'ada')", False),
        ("startswith(name,'Eve') eq false", True),
        ("endswith(name,'O''Neil')", True),
        ("contains(name,'a O')", True),
        ("status/errorCode eq 50126", True),
        ("status/errorCode in (1,2)", False),
        ("kinds/any(k: k eq 'two')", True),
        ("kinds/all(k: k eq 'two')", False),
        ("evidence/any(e: e/account/upn eq 'eve@x.example')", True),
        ("evidence/any(e: e/a.b.user/account/upn eq 'ada@x.example')", True),
        ("evidence/any(e: e/a.b.user/account/upn eq 'eve@x.example')", False),
        ("evidence/any(e: e/tags/any(t: t eq 'blue'))", True),
        ("evidence/any(e: startswith(e/account/upn,'eve') and not(e/account/upn eq 'x'))", True),
    ],
)
def test_functions_paths_and_lambdas(text: str, expected: bool) -> None:
    """Over nested members, lists and casts."""
    names = ("name", "status/*", "evidence", "kinds")

    assert parse_filter(text, names, "alert")(_DOCUMENT) is expected


def test_a_filter_tells_what_an_index_can_look_up() -> None:
    """Equalities that must hold, and no others."""
    names = ("a", "b")

    assert parse_filter("a eq 'x' and b ne 'y'", names, "t").equals == {"a": "x"}
    assert parse_filter("a eq 'x' or b eq 'y'", names, "t").equals == {}
    assert parse_filter("not(a eq 'x')", names, "t").equals == {}
    assert parse_filter("a eq 'X'", names, "t", fold=True)({"a": "x"})
