"""What a module says of itself: names, schema, methods, promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from counterplay.modules import (
    Action,
    Control,
    FeedTrigger,
    Module,
    PollTrigger,
    PushTrigger,
    Sink,
    Transform,
)
from counterplay.testing.case import Case
from counterplay.testing.rules._rule import Broken, rule

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECRET = re.compile(r"secret|password|(^|_)key$|token|passphrase")
_COMBINED = re.compile(r"/(anyOf|oneOf|allOf|not|if|then|else)$")
_METHODS: tuple[tuple[type[Module], tuple[str, ...]], ...] = (
    (FeedTrigger, ("discover", "fetch")),
    (PollTrigger, ("poll",)),
    (PushTrigger, ("receive",)),
    (Transform, ("apply",)),
    (Control, ("direct",)),
    (Action, ("run",)),
    (Sink, ("deliver",)),
)


@rule()
def name_in_snake_case(case: Case) -> None:
    """A module's name is written in one way, `like_this`."""
    name = case.info.cls.name
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise Broken(f"{name!r} is not snake_case")


@rule()
def summary_in_one_line(case: Case) -> None:
    """The docstring's first line says what the module does, in a sentence of at most 100 characters."""
    if "__doc__" not in vars(case.info.cls) or not case.info.cls.__doc__:
        raise Broken("the class has no docstring of its own")
    if not re.fullmatch(r"[A-Z].{10,98}[.?]", case.info.summary):
        raise Broken(f"{case.info.summary!r} is no sentence of 12 to 100 characters on one line")


@rule()
def schema_is_closed(case: Case) -> None:
    """The schema is valid 2020-12, and a misspelt argument is an error at every level."""
    schema = case.info.schema
    if schema.get("$schema") != _DIALECT or schema.get("type") != "object":
        raise Broken(f"write `$schema`: {_DIALECT} and `type`: object")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Broken(f"it is no JSON Schema: {error.message}") from error
    for where, one in _subschemas(schema):
        named = "properties" in one or where == ""
        if named and not _COMBINED.search(where) and one.get("additionalProperties") is not False:
            raise Broken(f"{where or 'the schema'} is open: write `additionalProperties`: false")


@rule()
def properties_are_described(case: Case) -> None:
    """Every property has a description: the schema is the documentation."""
    for where, schema in _subschemas(case.info.schema):
        for name, one in schema.get("properties", {}).items():
            if not (isinstance(one, dict) and str(one.get("description", "")).strip()):
                raise Broken(f"{where}/{name} has no `description`")


@rule()
def defaults_fit(case: Case) -> None:
    """A default is a value that the author could have written, and what has one is not required."""
    for name, one in case.info.schema.get("properties", {}).items():
        if "default" not in one:
            continue
        if name in case.info.schema.get("required", []):
            raise Broken(f"{name} is required and has a default")
        problem = next(jsonschema.Draft202012Validator(one).iter_errors(one["default"]), None)
        if problem is not None:
            raise Broken(f"the default of {name} does not fit: {problem.message}")


@rule("connection")
def secrets_are_write_only(case: Case) -> None:
    """What is named like a secret is `writeOnly`, so that it is resolved when used, and masked."""
    for name, one in case.info.schema.get("properties", {}).items():
        if _SECRET.search(name) and one.get("writeOnly") is not True:
            raise Broken(f"{name} is named like a secret: write `writeOnly`: true")


@rule()
def result_is_declared(case: Case) -> None:
    """Actions, and only they, describe under `$defs/result` what later steps can use."""
    result = case.info.schema.get("$defs", {}).get("result")
    if case.info.kind != "action" and result is not None:
        raise Broken(f"a {case.info.kind} has no result: remove `$defs/result`")
    if case.info.kind == "action" and (result is None or result.get("type") != "object"):
        raise Broken("describe what it returns under `$defs/result`, of `type`: object")


@rule()
def methods_are_there(case: Case) -> None:
    """The methods that its kind has to have are its own."""
    for base, names in _METHODS:
        if issubclass(case.info.cls, base):
            missing = [name for name in names if not _has_own(case, name, base)]
            if missing:
                raise Broken(f"a {base.__name__} needs {', '.join(missing)}")
            return


@rule("action")
def settling_is_declared(case: Case) -> None:
    """An effect says what it changes and how an attempt with unknown outcome is settled."""
    cls = case.info.cls
    if not issubclass(cls, Action) or not cls.effect:
        return
    if cls.settle not in ("read", "repeat", "ask"):
        raise Broken(f"settle is {cls.settle!r}: write read, repeat or ask")
    if _has_own(case, "settled", Action) != (cls.settle == "read"):
        raise Broken("`settled` is needed for settle = 'read', and for nothing else")
    for name in ("capture", "target") if cls.settle != "ask" else ():
        if not _has_own(case, name, Action):
            raise Broken(f"an effect that is settled by {cls.settle} needs `{name}`")


@rule()
def permissions_are_complete(case: Case) -> None:
    """Each permission says for what it is needed, and belongs to a connection or to a module with one."""
    for need in case.info.permissions:
        if set(need) != {"resource", "any", "for"} or not need["any"]:
            raise Broken(f"{need}: give resource, any (at least one) and for")
        if case.info.cls.connection is None and case.info.kind != "connection":
            raise Broken("it needs permissions, and has no connection")


@rule()
def roles_are_complete(case: Case) -> None:
    """Each role that the identity needs is named, with what it is for and whether it always is."""
    for need in case.info.roles:
        if set(need) != {"any", "for", "always"} or not need["any"]:
            raise Broken(f"{need}: give any (at least one), for and always")


@rule()
def connection_exists(case: Case) -> None:
    """The kind of connection that the module needs is installed."""
    kind = case.info.cls.connection
    if kind is None:
        return
    found = case.host.modules.get(kind)
    if found is None or found.kind != "connection":
        raise Broken(f"no connection is called {kind}")


def _subschemas(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas inside it, each with its path."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for name, one in [*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()]:
        yield from _subschemas(one, f"{where}/{name}")
    for name in ("items", "additionalProperties", "not", "if", "then", "else"):
        yield from _subschemas(schema.get(name), f"{where}/{name}")
    for name in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(name, []):
            yield from _subschemas(one, f"{where}/{name}")


def _has_own(case: Case, method: str, base: type) -> bool:
    return getattr(case.info.cls, method) is not getattr(base, method)
