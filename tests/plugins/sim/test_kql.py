"""The subset of Kusto that hunting takes, against Python's own logic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay_sim.graph.kql import KqlError, run, table_of

_NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
_COLUMNS = {"Time": "DateTime", "Name": "String", "Number": "Int64"}
_ROWS: list[dict[str, Any]] = [
    {"Time": _NOW - timedelta(hours=1), "Name": "New-InboxRule", "Number": 3},
    {"Time": _NOW - timedelta(hours=5), "Name": "FileDownloaded", "Number": 1},
    {"Time": _NOW - timedelta(days=2), "Name": "new inbox", "Number": 2},
    {"Time": _NOW - timedelta(days=3), "Name": None, "Number": 1},
]


def _numbers(query: str) -> list[Any]:
    return [row.get("Number") for row in run(f"T | {query}", _COLUMNS, _ROWS, _NOW).rows]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ('where Name == "New-InboxRule"', [3]),
        ("where Name != 'New-InboxRule'", [1, 2, 1]),
        ('where Name =~ "NEW-INBOXRULE"', [3]),
        ('where Name !~ "new-inboxrule"', [1, 2, 1]),
        ('where Name contains "inbox"', [3, 2]),
        ('where Name contains_cs "inbox"', [2]),
        ('where Name has "inbox"', [2]),
        ('where Name !has "inbox"', [3, 1, 1]),
        ('where Name startswith "NEW"', [3, 2]),
        ('where Name endswith "ed"', [1]),
        ('where Name in ("FileDownloaded", "x")', [1]),
        ('where Name !in ("FileDownloaded")', [3, 2, 1]),
        ('where Name in~ ("filedownloaded")', [1]),
        ("where isempty(Name)", [1]),
        ("where isnotempty(Name) and Number < 3", [1, 2]),
        ("where not(Number == 1)", [3, 2]),
        ("where Number between (2 .. 3)", [3, 2]),
        ("where Time > ago(6h)", [3, 1]),
        ("where Time < ago(1d) or Number == 3", [3, 2, 1]),
        ("where Time >= datetime(2026-03-02T05:30:00Z)", [3, 1]),
        ("where Number == 1 or Number == 2 and Name has 'new'", [1, 2, 1]),
        ("where (Number == 1 or Number == 2) and Name has 'new'", [2]),
        ("order by Number asc, Time desc | take 2", [1, 1]),
        ("sort by Number | limit 1", [3]),
        ("where Number > 1 // a comment\n| where Name has 'new' // and another", [3, 2]),
        ("distinct Number", [3, 1, 2]),
        ("project Number, Name | filter Number == 3", [3]),
    ],
)
def test_conditions_and_operators(query: str, numbers: list[int]) -> None:
    """Each gives the rows that its documentation says."""
    assert _numbers(query) == numbers


def test_shapes_follow_the_query() -> None:
    """Columns in the order of the projection, under new names, and counts."""
    assert run("T | project Who = Name, Number", _COLUMNS, _ROWS, _NOW).columns == {
        "Who": "String",
        "Number": "Int64",
    }
    assert run("T | count", _COLUMNS, _ROWS, _NOW).rows == [{"Count": 4}]
    assert run("T | summarize count() by Number", _COLUMNS, _ROWS, _NOW).rows == [
        {"Number": 3, "count_": 1},
        {"Number": 1, "count_": 2},
        {"Number": 2, "count_": 1},
    ]
    assert run("T | where Number > 9 | summarize n = count()", _COLUMNS, _ROWS, _NOW).rows == [{"n": 0}]


@pytest.mark.parametrize(
    "query",
    [
        "where",
        "where Nope == 1",
        "where Name = 'x'",
        "where Name ==",
        "where Name > 5",
        "where (Number == 1",
        "where Number == 1 2",
        "where Time > ago(x)",
        "where Time > datetime(never)",
        "take many",
        "take -1",
        "summarize max(Number)",
        "join T",
        "project",
        "order Number",
        "where Name == 'x",
        "__class__",
    ],
)
def test_what_is_not_simulated_is_refused(query: str) -> None:
    """With a message, never with another result."""
    with pytest.raises(KqlError, match=r"."):
        _numbers(query)


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    """Nothing else comes out of the parser."""
    try:
        table_of(text)
        run(text, _COLUMNS, _ROWS, _NOW)
    except KqlError:
        pass


@given(st.lists(st.integers(-5, 5), max_size=20), st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 25))
def test_numbers_are_chosen_and_ordered_as_python_does(
    values: list[int], low: int, high: int, most: int
) -> None:
    """A chain of operators over any numbers."""
    rows = [{"Number": value} for value in values]
    query = f"T | where Number >= {low} and not(Number > {high}) | order by Number asc | take {most}"

    found = run(query, {"Number": "Int64"}, rows, _NOW).rows

    assert [row["Number"] for row in found] == sorted(one for one in values if low <= one <= high)[:most]
