"""std.pick: keep, drop and rename members of events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay import ConfigError, Event
from counterplay_std.pick import Pick

SIGN_IN = {
    "Id": "a1",
    "user": {"name": "ada", "id": 7, "home": {"city": "Paris"}},
    "@odata.type": "#signIn",
    "devices": [{"os": "mac", "id": 1}, {"os": "win", "id": 2}, "none"],
}


def pick(event: Any, **arguments: Any) -> Any:
    """The content of the one event that comes out."""
    (picked,) = Pick(arguments).apply(None, [Event(json.dumps(event).encode())])
    assert json.loads(picked.raw) == picked.data
    return picked.data


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"keep": ["Id"]}, {"Id": "a1"}),
        ({"keep": ["Id", "user.name"]}, {"Id": "a1", "user": {"name": "ada"}}),
        ({"keep": ["user", "user.name"]}, {"user": SIGN_IN["user"]}),
        ({"keep": ["devices.os"]}, {"devices": [{"os": "mac"}, {"os": "win"}]}),
        ({"keep": ["@odata.type"]}, {"@odata.type": "#signIn"}),
        ({"keep": ["Id.x", "nobody"]}, {}),
        (
            {"drop": ["user.home", "devices.id", "@odata.type"]},
            {
                "Id": "a1",
                "user": {"name": "ada", "id": 7},
                "devices": [{"os": "mac"}, {"os": "win"}, "none"],
            },
        ),
        ({"keep": ["Id"], "rename": {"Id": "event.id"}}, {"event": {"id": "a1"}}),
        ({"keep": ["user.name"], "rename": {"user.name": "account"}}, {"user": {}, "account": "ada"}),
        ({"keep": ["@odata.type"], "rename": {"@odata.type": "type"}}, {"type": "#signIn"}),
        (
            {"keep": ["Id", "user.id"], "rename": {"Id": "user.id", "user.id": "Id"}},
            {"Id": 7, "user": {"id": "a1"}},
        ),
        ({"keep": ["Id"], "rename": {"nobody": "else", "Id.x": "y"}}, {"Id": "a1"}),
    ],
)
def test_members_are_kept_dropped_and_renamed_by_path(arguments: Any, expected: Any) -> None:
    """Paths reach into objects and the elements of arrays; what is not there is no error."""
    assert pick(SIGN_IN, **arguments) == expected


def test_a_member_that_stands_at_the_new_name_is_replaced() -> None:
    """Renaming onto a member takes its place, also where an object has to be made for it."""
    assert pick({"a": 1, "b": 2}, rename={"a": "b"}) == {"b": 1}
    assert pick({"a": 1, "b": 2}, rename={"a": "b.c"}) == {"b": {"c": 1}}


def test_an_unchanged_event_is_the_same_bytes() -> None:
    """The source's own spelling survives when there is nothing to do."""
    event = Event(b'{ "a" : 1.0, "a2": "\\u0041" }')
    (picked,) = Pick({"drop": ["x"], "rename": {"y": "z"}}).apply(None, [event])
    assert picked.raw is event.raw


def test_a_changed_event_keeps_key_position_and_meta_and_leaves_the_original_alone() -> None:
    """Other playbooks share the event; the changed one still belongs to the same unit."""
    event = Event(b'{"a":{"b":1,"c":2}}', {"unit": "u1"}, position=3, key="k")
    (picked,) = Pick({"drop": ["a.b"]}).apply(None, [event])
    assert (picked.raw, picked.key, picked.position, picked.meta) == (
        b'{"a":{"c":2}}',
        "k",
        3,
        {"unit": "u1"},
    )
    assert event.data == {"a": {"b": 1, "c": 2}}


_names = st.sampled_from(["a", "b", "c", "a.b"])
_values = st.recursive(
    st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=10,
)
_events = st.dictionaries(_names, _values, max_size=3)
_paths = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join), min_size=1, max_size=3
)


@given(_events, _paths)
def test_picking_twice_is_picking_once(event: Any, paths: list[str]) -> None:
    """Keep and drop are done when they are done, whatever the event looks like."""
    for arguments in ({"keep": paths}, {"drop": paths}):
        once = pick(event, **arguments)
        assert pick(once, **arguments) == once


@given(_events, _paths)
def test_nothing_is_kept_of_what_is_dropped(event: Any, paths: list[str]) -> None:
    """After a drop, no path that was dropped has a value left."""
    assert not leaves(pick(pick(event, drop=paths), keep=paths))


def leaves(value: Any) -> list[Any]:
    """The values inside objects and arrays, at any depth."""
    if isinstance(value, (dict, list)):
        inside = value.values() if isinstance(value, dict) else value
        return [leaf for item in inside for leaf in leaves(item)]
    return [value]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"keep": []},
        {"keep": ["a"], "drop": ["b"]},
        {"keep": ["a..b"]},
        {"keep": [""]},
        {"rename": {}},
        {"rename": {"a": ".b"}},
        {"rename": {"a": 1}},
        {"kep": ["a"]},
    ],
)
def test_the_schema_refuses(accept, arguments: Any) -> None:
    """Nothing to do, contradictions, empty names and typing errors are found before anything runs."""
    with pytest.raises(ConfigError):
        accept("std.pick", arguments)


def test_the_schema_accepts_all_that_the_module_knows(accept) -> None:
    """Either of keep and drop goes together with rename."""
    accept("std.pick", {"keep": ["a.b", "@odata.type"], "rename": {"a.b": "c"}})
    accept("std.pick", {"drop": ["a"]})
