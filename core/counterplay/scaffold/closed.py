"""The schema of an object from elsewhere, as modules have it: 2020-12, closed, every property described.

What cannot be said so, or is no schema at all, is named in the notes and takes anything then.
"""

from __future__ import annotations

import json
import re
from typing import Any

from counterplay.events import JsonObject
from counterplay.scaffold.draft7 import DIALECT, to_2020


def renamed(results: JsonObject) -> JsonObject:
    """The same schema with other names for what it defines: it lies beside what the arguments define."""
    defined = results.get("definitions")
    names = list(defined) if isinstance(defined, dict) else []
    text = json.dumps({key: value for key, value in results.items() if key != "definitions"})
    inner = json.dumps(defined or {})
    for one in names:
        old, new = (json.dumps(f"#/definitions/{name}") for name in (one, f"result_{one}"))
        text, inner = text.replace(old, new), inner.replace(old, new)
    found: JsonObject = json.loads(text)
    if names:
        found["definitions"] = {f"result_{name}": value for name, value in json.loads(inner).items()}
    return found


def closed(given: JsonObject, title: str, description: str, notes: list[str], *, at: str = "#") -> JsonObject:
    """The schema of an object in 2020-12, closed, every property described.

    `at`: where it will lie in its document, for references that name its own parts.
    """
    found = to_2020({key: value for key, value in given.items() if key not in ("$schema", "secrets")})
    schema: JsonObject = {
        "$schema": DIALECT,
        "title": title,
        "description": description,
        **{key: value for key, value in found.items() if key not in ("title", "description")},
        "type": "object",
    }
    for word in ("properties", "$defs"):
        if word in schema and not isinstance(schema[word], dict):
            del schema[word]
    schema.setdefault("properties", {})
    _mend(schema, title, notes)
    _resolve(schema, schema, at, title, notes)
    _close(schema, title, notes, schema.get("$defs", {}))
    schema["additionalProperties"] = False
    required = [
        key
        for key in schema.get("required", [])
        if key in schema["properties"] and "default" not in schema["properties"][key]
    ]
    schema.pop("required", None)
    return {**schema, **({"required": required} if required else {})}


def _mend(schema: JsonObject, where: str, notes: list[str]) -> None:
    """Leave out what is no schema, property by property, so that the rest can be used."""
    for word in ("properties", "$defs"):
        for key, one in schema.get(word, {}).items():
            if isinstance(one, bool):
                schema[word][key] = {}
            elif _flaw(one) is not None:
                kept = one.get("description") if isinstance(one, dict) else None
                schema[word][key] = {"description": kept} if isinstance(kept, str) else {}
                notes.append(f"{where}: {key!r} is no JSON Schema ({_flaw(one)}), so it takes anything")
    for key in [key for key in schema if key not in ("properties", "$defs")]:
        if _flaw({key: schema[key]}) is not None:
            del schema[key]
            notes.append(f"{where}: {key!r} is left out, it means nothing there")


def _flaw(schema: Any) -> str | None:
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return error.message
    return None


def _resolve(node: Any, whole: JsonObject, at: str, where: str, notes: list[str]) -> None:
    """References stay where they lead somewhere in the schema itself."""
    if isinstance(node, list):
        for one in node:
            _resolve(one, whole, at, where, notes)
    if not isinstance(node, dict):
        return
    node.pop("$id", None)  # references would begin there
    target = node.get("$ref")
    if isinstance(target, str):
        if not _leads_somewhere(target, whole):
            del node["$ref"]
            notes.append(f"{where}: the reference {target!r} leads nowhere here, so it takes anything")
        elif not target.startswith("#/$defs/"):
            node["$ref"] = at + target.removeprefix("#")
    for key, value in node.items():
        if key not in ("default", "const", "enum", "examples"):
            _resolve(value, whole, at, where, notes)


def _leads_somewhere(target: str, whole: JsonObject) -> bool:
    if not target.startswith("#"):
        return False
    node: Any = whole
    for part in [one for one in target.removeprefix("#").split("/") if one]:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return isinstance(node, dict)


def _close(
    schema: Any, where: str, notes: list[str], definitions: JsonObject, *, combined: bool = False
) -> None:
    """Close objects that name their members, and describe what is not described.

    One of several that are combined stays as it is: closed, it would refuse the members of the others.
    """
    if isinstance(schema, list):
        for one in schema:
            _close(one, where, notes, definitions, combined=combined)
        return
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    if isinstance(properties, dict):
        others = schema.get("additionalProperties")
        if not properties and isinstance(others, dict):
            del schema["properties"]  # members of any name, all alike
        elif not combined and others is not False:
            schema["additionalProperties"] = False
            if isinstance(others, dict):
                notes.append(f"{where}: members of an object that it does not name are refused now")
        for key, one in properties.items():
            if isinstance(one, bool):
                one = properties[key] = {}
            if not str(one.get("description", "")).strip():
                one["description"] = f"{one_line(str(one.get('title') or _words(key)))}."
                notes.append(f"{where}: {key!r} has no description of its own")
            if "default" in one and not _fits(one, definitions):
                del one["default"]
                notes.append(f"{where}: the default of {key!r} does not fit it, and is left out")
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for one in value.values():
                _close(one, where, notes, definitions)
        elif key in ("items", "prefixItems", "additionalProperties"):
            _close(value, where, notes, definitions)
        elif key in ("anyOf", "oneOf", "allOf", "not", "if", "then", "else"):
            _close(value, where, notes, definitions, combined=True)


def _words(key: str) -> str:
    return re.sub(r"[_-]+", " ", key).strip().capitalize() or "A value"


def _fits(schema: JsonObject, definitions: JsonObject) -> bool:
    import jsonschema
    import referencing.exceptions

    whole = {**schema, "$defs": definitions}
    try:
        return jsonschema.Draft202012Validator(whole).is_valid(schema["default"])
    except referencing.exceptions.Unresolvable:  # what it names lies elsewhere in the document
        return False


def one_line(text: str) -> str:
    """A text as it may stand in a docstring and in one line."""
    return " ".join(text.replace('"""', "'''").replace("\\", "/").split())
