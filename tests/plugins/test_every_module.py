"""What holds for every module that is registered, today's and tomorrow's."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from counterplay import Action, FeedTrigger, PollTrigger, PushTrigger, Sink, Transform
from counterplay.plugins import ModuleInfo, PluginHost

HOST = PluginHost.load()
MODULES = sorted(HOST.modules.values(), key=lambda info: info.uses)
SECRETS = re.compile(r"secret|password|(^|_)key$|token|passphrase")


def every(test: Any) -> Any:
    """Run a test for each module."""
    return pytest.mark.parametrize("info", MODULES, ids=lambda info: info.uses)(test)


def subschemas(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas inside it, each with its path."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for name, one in [*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()]:
        yield from subschemas(one, f"{where}/{name}")
    for name in ("items", "additionalProperties", "not", "if", "then", "else"):
        yield from subschemas(schema.get(name), f"{where}/{name}")
    for name in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(name, []):
            yield from subschemas(one, f"{where}/{name}")


def overrides(info: ModuleInfo, method: str, base: type) -> bool:
    """Whether the module's class has its own version of a method."""
    return getattr(info.cls, method) is not getattr(base, method)


def test_every_plugin_takes_part() -> None:
    """No bundled plugin is out, and there is something to test."""
    assert [(plugin.name, plugin.problem) for plugin in HOST.problems] == []
    assert {"m365.tenant", "intake.forward"} <= {info.uses for info in MODULES}


@every
def test_names_are_snake_case(info: ModuleInfo) -> None:
    """A module's name is written in one way."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", info.cls.name)


@every
def test_the_first_line_of_the_docstring_says_what_it_does(info: ModuleInfo) -> None:
    """`playbook modules` prints it, so it is the class's own sentence, on one line."""
    assert "__doc__" in vars(info.cls)
    assert re.fullmatch(r"[A-Z].{10,98}[.?]", info.summary)


@every
def test_the_schema_is_valid_and_closed(info: ModuleInfo) -> None:
    """2020-12, and a misspelt argument is an error at every level that names its members."""
    jsonschema.Draft202012Validator.check_schema(info.schema)
    assert info.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert info.schema["type"] == "object"
    for where, schema in subschemas(info.schema):
        if "properties" in schema and not re.search(r"/(anyOf|oneOf|allOf|not|if|then|else)$", where):
            assert schema.get("additionalProperties") is False, where


@every
def test_every_property_is_described(info: ModuleInfo) -> None:
    """The schema is the documentation."""
    for where, schema in subschemas(info.schema):
        for name, one in schema.get("properties", {}).items():
            assert one.get("description", "").strip(), f"{where}/{name}"


@every
def test_defaults_fit_their_schema(info: ModuleInfo) -> None:
    """A value that the host fills in is one that the author could have written."""
    for name, one in info.schema.get("properties", {}).items():
        if "default" in one:
            jsonschema.Draft202012Validator(one).validate(one["default"])
        assert not ("default" in one and name in info.schema.get("required", [])), name


@every
def test_secrets_are_write_only(info: ModuleInfo) -> None:
    """What is named like a secret is never shown."""
    for name, one in info.schema.get("properties", {}).items():
        if info.kind == "connection" and SECRETS.search(name):
            assert one.get("writeOnly") is True, name


@every
def test_actions_and_only_actions_have_a_result(info: ModuleInfo) -> None:
    """`$defs/result` describes what later steps can use."""
    result = info.schema.get("$defs", {}).get("result")

    assert (result is not None) == (info.kind == "action")
    if result is not None:
        assert result["type"] == "object"


@every
def test_each_kind_keeps_its_contract(info: ModuleInfo) -> None:
    """The methods that a kind has to have are there."""
    needed: list[tuple[type, tuple[str, ...]]] = [
        (FeedTrigger, ("discover", "fetch")),
        (PollTrigger, ("poll",)),
        (PushTrigger, ("receive",)),
        (Transform, ("apply",)),
        (Action, ("run",)),
        (Sink, ("deliver",)),
    ]
    for base, methods in needed:
        if issubclass(info.cls, base):
            assert [name for name in methods if not overrides(info, name, base)] == []


@every
def test_effects_can_be_settled(info: ModuleInfo) -> None:
    """An action that changes something says what it changes, and how an unknown outcome is settled."""
    if not issubclass(info.cls, Action) or not info.cls.effect:
        return
    assert info.cls.settle in ("read", "repeat", "ask")
    assert overrides(info, "settled", Action) == (info.cls.settle == "read")
    if info.cls.settle != "ask":
        assert overrides(info, "capture", Action)
        assert overrides(info, "target", Action)


@every
def test_permissions_are_complete(info: ModuleInfo) -> None:
    """Each says for what it is needed, and belongs to a connection or to a module with one."""
    for need in info.permissions:
        assert set(need) == {"resource", "any", "for"}
        assert need["any"]
        assert info.cls.connection is not None or info.kind == "connection"


@every
def test_roles_are_complete(info: ModuleInfo) -> None:
    """Each names roles that doctor knows, and says for what and whether always."""
    from counterplay_m365.own_roles import ROLES

    for need in info.roles:
        assert set(need) == {"any", "for", "always"}
        assert need["any"]
        assert info.cls.connection != "m365.tenant" or set(need["any"]) <= set(ROLES)


@every
def test_connections_exist(info: ModuleInfo) -> None:
    """The kind of connection that a module needs is one that is installed."""
    if info.cls.connection is not None:
        assert HOST.module(info.cls.connection).kind == "connection"
