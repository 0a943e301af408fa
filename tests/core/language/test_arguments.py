"""Defaults, and the schema of the language itself."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from counterplay.language import DURATION_PATTERN, playbook_schema, with_defaults
from counterplay.language.arguments import problems, schema_problem

SCHEMA: dict[str, Any] = {
    "$defs": {"colour": {"type": "string", "default": "red"}, "secret": {"writeOnly": True, "$ref": "#/$defs/word"},
              "word": {"type": "string", "pattern": "^[a-z]+$"}},
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "level": {"type": "string", "default": "info"},
        "list": {"type": "array", "items": {"type": "integer"}, "default": [1]},
        "colour": {"$ref": "#/$defs/colour"},
        "nested": {"type": "object", "properties": {"colour": {"$ref": "#/$defs/colour"}, "size": {"default": 3}}},
        "secret": {"$ref": "#/$defs/secret"},
        "keys": {"type": "object", "writeOnly": True, "properties": {"a": {"enum": ["x"]}}},
        "one": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}]},
        "mode": {"enum": ["a", "b"]},
    },
    "if": {"properties": {"mode": {"const": "b"}}, "required": ["mode"]},
    "then": {"required": ["level"]},
}  # fmt: skip


def found(value: Any, **options: Any) -> list[str]:
    """What is wrong, as `path: message`."""
    return [f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems(value, SCHEMA, **options)]


def test_defaults_fill_what_is_not_given() -> None:
    """Through `$ref` and into objects that are given; the arguments are not changed."""
    given = {"level": "x", "nested": {"size": 1}}

    assert with_defaults(SCHEMA, given) == {
        "level": "x",
        "list": [1],
        "colour": "red",
        "nested": {"size": 1, "colour": "red"},
    }
    assert given == {"level": "x", "nested": {"size": 1}}


def test_defaults_are_copies() -> None:
    """A module that changes its arguments does not change the schema."""
    with_defaults(SCHEMA, {})["list"].append(2)

    assert with_defaults(SCHEMA, {})["list"] == [1]


@pytest.mark.parametrize("value", [{"secret": "HUNTER2"}, {"keys": {"a": "HUNTER2"}}, {"keys": "HUNTER2"}])
def test_values_of_secrets_are_never_quoted(value: Any) -> None:
    """Whether the property itself is writeOnly, what it refers to, or what holds it."""
    (problem,) = problems(value, SCHEMA)

    assert "HUNTER2" not in str(problem)


def test_alternatives_say_what_the_nearest_one_misses() -> None:
    """Not that none of the given schemas is valid."""
    assert found({"one": {"a": "x"}}) == ["one.a: this has to be a whole number, not a text"]


def test_rules_under_a_condition_wait_for_the_template_that_decides() -> None:
    """A mode that is only known later may or may not need the level."""
    assert found({"mode": "b"}) == [": 'level' is missing"]
    assert found({"mode": "{{ inputs.mode }}"}, templates=True) == []


def test_a_schema_is_checked_as_a_schema() -> None:
    """With jsonschema's own words."""
    assert schema_problem({"type": "text"}) == "'text' is not valid under any of the given schemas"
    assert schema_problem({"type": "string"}) == ""


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property's schema."""
    if isinstance(schema, dict):
        for name, described in schema.get("properties", {}).items():
            yield f"{path}/{name}", described
        for key, value in schema.items():
            yield from subschemas(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for place, value in enumerate(schema):
            yield from subschemas(value, f"{path}/{place}")


def test_the_schema_of_the_language_describes_every_property() -> None:
    """Itself, or by what it refers to, as editors show it."""
    schema = playbook_schema()

    assert schema_problem(schema) == ""
    for path, described in subschemas(schema):
        target = schema["$defs"].get(described.get("$ref", "").removeprefix("#/$defs/"), {})
        assert described.get("description") or target.get("description"), path


def test_every_mapping_of_the_language_is_closed() -> None:
    """A typo is an error: whatever has properties allows no others."""
    for name, definition in playbook_schema()["$defs"].items():
        assert ("properties" not in definition) or definition["additionalProperties"] is False, name


def test_durations_are_written_the_same_in_schema_and_code() -> None:
    """One pattern."""
    assert playbook_schema()["$defs"]["duration"]["pattern"] == DURATION_PATTERN
