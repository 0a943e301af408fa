"""Holds values against a JSON Schema, and says what is wrong as people would.

A text that holds an expression is any value until it is rendered: what the schema says of it is
not reported. Values of `writeOnly` properties are never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError
from referencing import Registry

from counterplay.events import JsonObject
from counterplay.language.expressions import is_template
from counterplay.language.findings import did_you_mean

Path = tuple[str | int, ...]
_Error = Any
"""A ValidationError: its attributes are typed as possibly unset, which no error that is raised has."""

_ARTICLES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


class Problem(NamedTuple):
    """One thing that is wrong with a value. `at_key`: its name is at fault, not the value."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False


def problems(value: Any, schema: JsonObject, *, templates: bool = False) -> Iterator[Problem]:
    """Everything that a schema finds in a value; with `templates`, as far as the value is literal."""
    for error in _validator(orjson.dumps(schema)).iter_errors(value):
        if templates and _depends_on_template(error):
            continue
        yield from _explained(error, schema)


def first_problem(value: Any, schema: JsonObject) -> str:
    """The first thing that is wrong with a value, or nothing."""
    return next((problem.message for problem in problems(value, schema)), "")


def schema_problem(schema: JsonObject) -> str:
    """What is wrong with a JSON Schema itself, or nothing."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return str(error.message)
    return ""


def with_defaults(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> JsonObject:
    """The arguments with the schema's defaults for what is not given, in nested objects too.

    Neither is changed. A nested object that is not given stays away, unless it has a default itself.
    """
    filled = dict(arguments)
    for name, described in schema.get("properties", {}).items():
        described = _resolved(described, schema)
        if name not in filled:
            if "default" in described:
                filled[name] = _copied(described["default"])
        elif isinstance(filled[name], Mapping) and "properties" in described:
            filled[name] = with_defaults({"$defs": schema.get("$defs", {}), **described}, filled[name])
    return filled


def _resolved(described: Any, schema: Mapping[str, Any]) -> JsonObject:
    """A property's schema with its own `$ref` into `$defs` followed."""
    if not isinstance(described, Mapping):
        return {}
    reference = described.get("$ref", "")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return {
            **_resolved(target, schema),
            **{key: value for key, value in described.items() if key != "$ref"},
        }
    return dict(described)


def _copied(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value)) if isinstance(value, (dict, list)) else value


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Draft202012Validator:
    # the empty registry: a schema's `$ref` never makes a request
    return Draft202012Validator(orjson.loads(schema), registry=Registry())


def _depends_on_template(error: _Error) -> bool:
    value = error.instance
    if isinstance(value, str) and is_template(value):
        return not (error.validator == "type" and "string" not in _types(error) and not _is_whole(value))
    if error.validator in (
        "additionalProperties",
        "required",
        "type",
        "propertyNames",
        "unevaluatedProperties",
    ):
        return _within_choice(error) and _holds_template(_root(error).instance)
    return _holds_template(value)


def _is_whole(text: str) -> bool:
    """Whether a text is one expression, and so may have any type."""
    stripped = text.strip()
    return stripped == text and text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1


def _within_choice(error: _Error) -> bool:
    """Whether the rule holds only under a condition that a template may decide."""
    return any(
        part in ("then", "else", "dependentSchemas", "dependentRequired")
        for part in error.absolute_schema_path
    )


def _root(error: _Error) -> _Error:
    while isinstance(error.parent, ValidationError):
        error = error.parent
    return error


def _holds_template(value: Any) -> bool:
    if isinstance(value, str):
        return is_template(value)
    if isinstance(value, Mapping):
        return any(map(_holds_template, value.values()))
    return isinstance(value, list) and any(map(_holds_template, value))


def _explained(error: _Error, schema: JsonObject) -> Iterable[Problem]:
    path = tuple(error.absolute_path)
    secret = _is_secret(error.absolute_schema_path, schema) or _any_secret(error.schema)
    shown = "this" if secret else _short(error.instance)
    if "propertyNames" in error.absolute_schema_path:
        yield Problem((*path, error.instance), f"the name {shown} is not allowed here", _about(error), True)
    elif error.validator in ("anyOf", "oneOf"):
        yield from _alternatives(error, path, schema)
    elif error.validator in _EXPLANATIONS:
        yield from _EXPLANATIONS[error.validator](error, path, shown)
    else:
        rule = f"{error.validator}: {_short(error.validator_value)}"
        yield Problem(path, f"{shown} breaks the rule {rule}", _about(error))


def _unknown_keys(error: _Error, path: Path, shown: str) -> Iterator[Problem]:
    known = list(error.schema.get("properties", {})) if isinstance(error.schema, Mapping) else []
    patterns = error.schema.get("patternProperties", {}) if isinstance(error.schema, Mapping) else {}
    for key in error.instance:
        if key not in known and not any(re.search(pattern, key) for pattern in patterns):
            otherwise = f"known here: {', '.join(known)}" if known else "remove it"
            yield Problem(
                (*path, key), f"{key!r} is not known here", did_you_mean(key, known, otherwise), True
            )


def _required(error: _Error, path: Path, shown: str) -> Iterator[Problem]:
    properties = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    for name in error.validator_value:
        if name not in error.instance and error.message.startswith(repr(name)):
            described = properties.get(name, {}).get("description", "")
            meaning = f" ({described.rstrip('.')})" if described else ""
            yield Problem(path, f"{name!r} is missing", f"add `{name}:`{meaning}", True)


def _types(error: _Error) -> list[str]:
    wanted = error.validator_value
    return [wanted] if isinstance(wanted, str) else list(wanted)


def _wrong_type(error: _Error, path: Path, shown: str) -> Iterator[Problem]:
    wanted = " or ".join(_ARTICLES.get(name, name) for name in _types(error))
    hint = ""
    if _types(error) == ["string"] and isinstance(error.instance, (int, float, bool)):
        hint = "put it in quotes"
    yield Problem(path, f"this has to be {wanted}, not {_named(error.instance)}", hint or _about(error))


def _named(value: Any) -> str:
    for types, name in (
        (bool, "boolean"),
        (str, "string"),
        (int, "integer"),
        (list, "array"),
    ):
        if isinstance(value, types):
            return _ARTICLES[name]
    if isinstance(value, float):
        return "a number with a fraction"
    return "nothing" if value is None else _ARTICLES["object"]


def _choice(error: _Error, path: Path, shown: str) -> Iterator[Problem]:
    allowed = error.validator_value if error.validator == "enum" else [error.validator_value]
    listed = ", ".join(map(_short, allowed))
    near = ""
    if isinstance(error.instance, str) and shown != "this":
        near = did_you_mean(error.instance, [word for word in allowed if isinstance(word, str)])
    yield Problem(path, f"{shown} is not one of {listed}", near)


def _pattern(error: _Error, path: Path, shown: str) -> Iterator[Problem]:
    yield Problem(path, f"{shown} is not written as it has to be", _about(error))


def _alternatives(error: _Error, path: Path, schema: JsonObject) -> Iterator[Problem]:
    """anyOf and oneOf: the alternatives that only ask for a key, else what the nearest one says."""
    asked = [branch["required"][0] for branch in error.validator_value if set(branch) == {"required"}]
    if len(asked) == len(error.validator_value):
        names = " or ".join(f"`{name}:`" for name in asked)
        yield Problem(path, f"one of {names} is missing", f"add {names}", True)
        return
    nearest = max(
        error.context or [], key=lambda e: (len(e.absolute_path), e.validator != "type"), default=None
    )
    if nearest is not None:
        yield from _explained(nearest, schema)
    else:
        yield Problem(
            path, f"this fits more than one of the forms that {error.validator} allows", _about(error)
        )


_EXPLANATIONS: dict[str, Callable[[_Error, Path, str], Iterable[Problem]]] = {
    "additionalProperties": _unknown_keys,
    "unevaluatedProperties": _unknown_keys,
    "required": _required,
    "type": _wrong_type,
    "enum": _choice,
    "const": _choice,
    "pattern": _pattern,
}


def _about(error: _Error) -> str:
    """The schema's own words on the property, with an example."""
    if not isinstance(error.schema, Mapping):
        return ""
    text = str(error.schema.get("description", "")).rstrip(".")
    if text[1:2].islower():  # it follows a semicolon
        text = text[0].lower() + text[1:]
    examples = error.schema.get("examples") or []
    if examples:
        text += f"{', for instance' if text else 'for instance'} {_short(examples[0])}"
    return text


def _is_secret(path: Iterable[str | int], schema: JsonObject) -> bool:
    """Whether the way to a rule passes a schema that is `writeOnly`; true when it cannot be followed."""
    here: Any = schema
    for part in path:  # jsonschema leaves `$ref` and `if` out of it
        if isinstance(here, Mapping):
            here = _resolved(here, schema)
            if here.get("writeOnly") is True:
                return True
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return True
    return False


def _any_secret(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        return schema.get("writeOnly") is True or any(map(_any_secret, schema.values()))
    return isinstance(schema, list) and any(map(_any_secret, schema))


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
