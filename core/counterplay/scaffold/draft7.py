"""JSON Schema of draft 7 in the words of 2020-12."""

from __future__ import annotations

from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def to_2020(schema: Any) -> Any:
    """The same schema: `definitions`, tuples of `items`, `dependencies` and references have new names."""
    if isinstance(schema, list):
        return [to_2020(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties") and isinstance(value, dict):
            found[key] = {name: to_2020(one) for name, one in value.items()}
        elif key == "definitions" and isinstance(value, dict):
            found["$defs"] = {name: to_2020(one) for name, one in value.items()}
        elif key == "$ref" and isinstance(value, str):
            found[key] = value.replace("#/definitions/", "#/$defs/")
        elif key == "items" and isinstance(value, list):
            found["prefixItems"] = to_2020(value)
            if "additionalItems" in schema:
                found["items"] = to_2020(schema["additionalItems"])
        elif key == "additionalItems":
            continue  # beside a list of `items`, see above; else it means nothing
        elif key == "dependencies" and isinstance(value, dict):
            _dependencies(value, found)
        elif key == "required" and not isinstance(value, list):
            continue  # the older `required: true` of a property, which draft 7 ignores
        elif key in _BOUNDS and isinstance(value, bool):
            continue  # draft 4: it says of the bound beside it that it is not reached, see below
        elif key in _BOUNDS.values() and schema.get(f"exclusive{key.capitalize()}") is True:
            found[f"exclusive{key.capitalize()}"] = value
        elif key in ("default", "const", "enum", "examples"):
            found[key] = value
        else:
            found[key] = to_2020(value)
    return found


def _dependencies(given: dict[str, Any], found: dict[str, Any]) -> None:
    names = {key: value for key, value in given.items() if isinstance(value, list)}
    schemas = {key: to_2020(value) for key, value in given.items() if not isinstance(value, list)}
    if names:
        found["dependentRequired"] = names
    if schemas:
        found["dependentSchemas"] = schemas
