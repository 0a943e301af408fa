"""One JSON Schema of the language with the arguments of every installed module, for editors.

It is the language's own schema with each `uses` bound to the `with` that its module takes. Editors read
it as draft 7 for the most part, so that what they show is written with `if`/`then` and `anyOf` alone.
A value may always be given as a text with `{{ }}`: what it comes to is known only in a run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from copy import deepcopy
from typing import Any

from counterplay.events import JsonObject
from counterplay.language.load import playbook_schema
from counterplay.modules import Kind
from counterplay.plugins import ModuleInfo, PluginHost

_EXPRESSION = {"type": "string", "pattern": "\\{\\{"}
_PLACES: dict[str, tuple[Kind, ...]] = {
    "trigger": ("trigger",),
    "sink": ("sink",),
    "module_step": ("action", "transform", "sink"),
}
_MODULES_ONLY = frozenset({"$schema", "$id", "$defs", "title", "examples"})


def editor_schema(host: PluginHost, connections: Collection[str] = ()) -> JsonObject:
    """The schema; `connections` are the names that an editor offers.

    A module whose own schema cannot be read is left out: `PluginHost.unreadable` says why.
    """
    schema = deepcopy(playbook_schema())
    schema["description"] += " With the modules that are installed here."
    definitions: JsonObject = schema["$defs"]
    out = host.unreadable()
    modules = [
        info for uses, info in sorted(host.modules.items()) if info.kind != "connection" and uses not in out
    ]
    for info in modules:
        definitions[_name_of(info)] = _arguments(info)
    for place, kinds in _PLACES.items():
        own = [info for info in modules if info.kind in kinds]
        described = definitions[place]
        described["properties"]["uses"] = _uses(own)
        described["allOf"] = [_bound(info) for info in own]
    if connections:
        definitions["connection_name"]["examples"] = sorted(connections)
    return schema


def _name_of(info: ModuleInfo) -> str:
    return f"with {info.uses}"


def _uses(modules: Iterable[ModuleInfo]) -> JsonObject:
    """The names that may stand here, each with what it does."""
    return {
        "description": "The module, as `<plugin>.<name>`; `playbook modules` lists them.",
        "type": "string",
        "anyOf": [{"const": info.uses, "description": info.summary} for info in modules],
    }


def _bound(info: ModuleInfo) -> JsonObject:
    """With this module, `with` is what the module takes, and it is there where something is required."""
    then: JsonObject = {"properties": {"with": {"$ref": f"#/$defs/{_name_of(info)}"}}}
    if info.schema.get("required"):
        then["required"] = ["with"]
    return {"if": {"required": ["uses"], "properties": {"uses": {"const": info.uses}}}, "then": then}


def _arguments(info: ModuleInfo) -> JsonObject:
    """The module's schema as one definition among others: its own `$defs` are written out in place."""
    own = {name: value for name, value in info.schema.items() if name not in _MODULES_ONLY}
    own = {name: value for name, value in own.items() if not name.startswith("x-")}
    found: JsonObject = _written_out(own, info.schema.get("$defs", {}), ())
    found["description"] = f"{info.summary} ({info.kind})"
    members: JsonObject = found.get("properties", {})
    found["properties"] = {name: _or_expression(part) for name, part in members.items()}
    return found


_REFERENCE = re.compile(r"#/\$defs/([^/]+)")


def _written_out(schema: Any, definitions: JsonObject, open_now: tuple[str, ...]) -> Any:
    """References into the module's own definitions replaced by what they stand for.

    One that stands inside itself becomes "anything" there: an editor has no use for more.
    """
    if isinstance(schema, list):
        return [_written_out(part, definitions, open_now) for part in schema]
    if not isinstance(schema, dict):
        return schema
    reference = _REFERENCE.fullmatch(str(schema.get("$ref", "")))
    if reference is None:
        return {name: _written_out(part, definitions, open_now) for name, part in schema.items()}
    name = reference.group(1)
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    if name in open_now:
        return rest
    target = _written_out(definitions.get(name, {}), definitions, (*open_now, name))
    return {**target, **_written_out(rest, definitions, open_now)}


def _or_expression(schema: Any) -> Any:
    """The value itself or a text with an expression, at every depth where a value can stand."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    if isinstance(found.get("properties"), dict):
        found["properties"] = {name: _or_expression(part) for name, part in found["properties"].items()}
    if isinstance(found.get("items"), dict):
        found["items"] = _or_expression(found["items"])
    if isinstance(found.get("additionalProperties"), dict):
        found["additionalProperties"] = _or_expression(found["additionalProperties"])
    shown = {name: found.pop(name) for name in ("description", "default", "examples") if name in found}
    if found in ({}, {"type": "string"}):  # any text will do
        return {**shown, **found}
    return {**shown, "anyOf": [found, dict(_EXPRESSION)]}
