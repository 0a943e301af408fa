"""Values that fit a JSON Schema, taken from its own examples where it has some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay.events import JsonObject
from counterplay.language.arguments import problems

SECRET = "stand-in-value"
_TEXTS = (
    "something",
    "00000000-0000-4000-8000-000000000000",
    "https://stand-in.example/",
    "https://stand-in.example",
    "stand-in@example.com",
    "2026-03-02T08:00:00Z",
    "1h",
    "a",
    "A1",
)
_OTHERS: tuple[Any, ...] = (1, True, False, 1.5, None, [], {})


def example_of(schema: Mapping[str, Any]) -> JsonObject:
    """An object with every member that the schema requires.

    The schema's own `examples` win; a `writeOnly` member gets a value that is no secret.
    """
    for whole in schema.get("examples", []):
        if isinstance(whole, dict) and not _holds_reference(whole):
            return dict(whole)
        if isinstance(whole, dict):
            return {
                name: SECRET if schema.get("properties", {}).get(name, {}).get("writeOnly") else value
                for name, value in whole.items()
            }
    found: JsonObject = {}
    _complete(found, schema, schema.get("$defs", {}))
    return found


def _complete(found: JsonObject, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> None:
    """Add members until the object fits: those that are required, then any that help."""
    described = schema.get("properties", {})
    for name in schema.get("required", []):
        found[name] = _example(described.get(name, {}), definitions)
    whole = {**schema, "$defs": definitions}
    for name, one in described.items():
        if next(problems(found, whole), None) is None:
            return
        if name not in found:
            with_it = {**found, name: _example(one, definitions)}
            if _count(with_it, whole) < _count(found, whole):
                found[name] = with_it[name]


def _count(value: Any, schema: JsonObject) -> int:
    return sum(1 for _ in problems(value, schema))


def _example(described: Any, definitions: Mapping[str, Any]) -> Any:
    if not isinstance(described, dict):
        return "something"
    reference = str(described.get("$ref", ""))
    if reference.startswith("#/$defs/"):
        target = definitions.get(reference.removeprefix("#/$defs/"), {})
        described = {**target, **{key: value for key, value in described.items() if key != "$ref"}}
    if "const" in described:
        return described["const"]
    if described.get("writeOnly"):
        return SECRET
    whole = {**described, "$defs": definitions}
    offered = [*described.get("examples", []), *described.get("enum", [])]
    if "default" in described:
        offered.append(described["default"])
    for guess in (*(one for one in offered if not _holds_reference(one)), *_TEXTS, *_OTHERS):
        if next(problems(guess, whole), None) is None:
            return guess
    if "object" in described.get("type", "") or "properties" in described:
        found: JsonObject = {}
        _complete(found, described, definitions)
        return found
    if "array" in described.get("type", ""):
        return [_example(described.get("items", {}), definitions)] * max(1, described.get("minItems", 1))
    return "something"


def _holds_reference(value: Any) -> bool:
    """Does it hold an expression or a reference to a secret, which mean nothing elsewhere?"""
    if isinstance(value, str):
        return "{{" in value or "${" in value
    if isinstance(value, dict):
        return any(map(_holds_reference, value.values()))
    return isinstance(value, list) and any(map(_holds_reference, value))
