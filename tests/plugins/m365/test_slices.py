"""Slices of a JSON document are the bytes that were sent, also where strict decoders give up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay_m365.slices import lenient, members

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans(), VALUES)
def test_elements_are_cut_where_they_stand(
    values: list[Any], indent: int | None, damaged: bool, other: Any
) -> None:
    """Strict and lenient reading find the same elements, in any layout."""
    before = {"a": other, **({"cut": "\ud83d"} if damaged else {})}
    text = json.dumps({**before, "value": values, "z": [other]}, indent=indent)

    found = members(text.encode(), "value")

    assert found is not None
    assert [json.loads(one) for one in found] == values
    assert all(one.decode() in text for one in found)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[1]",
        b"{}",
        b'{"value":3}',
        b'{"value":[1',
        b'{"a":"\\ud83d","value":{}}',
        b'{"a":"\\ud83d"',
        b'{"a":"\\ud83d","value":[1 2]}',
        b"\xff",
    ],
)
def test_what_holds_no_such_list_is_none(document: bytes) -> None:
    """A cut or foreign document is never a list without elements."""
    assert members(document, "value") is None


def test_lenient_reading_knows_its_limits() -> None:
    """Damaged text is read, what is no JSON is not."""
    assert lenient(b'"\\ud83d"') == "\ud83d"
    assert lenient(b"{") is None
