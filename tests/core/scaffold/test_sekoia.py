"""A module of Sekoia's format becomes a plugin's skeleton."""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.errors import ConfigError
from counterplay.plugins import PluginHost
from counterplay.scaffold.draft7 import to_2020
from counterplay.scaffold.sekoia import read_module, skeleton
from counterplay.testing.case import Case
from counterplay.testing.rules import RULES, Broken
from counterplay.testing.rules import declared as declared_rules

DRAFT7 = "http://json-schema.org/draft-07/schema#"
MANIFEST = {
    "name": "Weather Station",
    "slug": "weather-station",
    "configuration": {
        "$schema": DRAFT7,
        "type": "object",
        "properties": {
            "base_url": {
                "type": "string",
                "description": "Where it answers.",
                "default": "https://w.example",
            },
            "api_key": {"type": "string", "description": ""},
        },
        "required": ["base_url", "api_key"],
        "secrets": ["api_key"],
    },
}
ACTION = {
    "name": "Ring",
    "description": "Ring the bell of a\nstation.",
    "arguments": {
        "$schema": DRAFT7,
        "definitions": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
        "type": "object",
        "properties": {
            "times": {"type": "integer", "minimum": 1, "description": "How often.", "default": 1},
            "at": {"$ref": "#/definitions/place", "description": "Where."},
            "pair": {
                "type": "array",
                "items": [{"type": "string"}, {"type": "integer"}],
                "description": "Two.",
            },
            "password": {"type": "string", "description": "The bell's password."},
        },
        "required": ["times", "pair"],
    },
    "results": {"type": "object", "properties": {"rung": {"type": "boolean"}}},
}
CONNECTOR = {
    "name": "Weather events",
    "description": "Everything that happens.",
    "arguments": {
        "type": "object",
        "properties": {"intake_key": {"type": "string"}, "frequency": {"type": "integer", "default": None}},
        "required": ["intake_key"],
    },
    "results": {},
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module's folder."""
    folder = tmp_path / "WeatherStation"
    folder.mkdir()
    files = {
        "manifest": MANIFEST,
        "action_ring-bell": ACTION,
        "connector_events": CONNECTOR,
        "trigger_events": {**CONNECTOR, "name": "Weather events, polled"},
    }
    for name, document in files.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], PluginHost]]:
    """Write the files of a skeleton that is called `weather`, and load it."""

    def _made(files: dict[str, str]) -> PluginHost:
        for name, text in files.items():
            path = tmp_path / "made" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "made" / "src")
        return PluginHost.load([EntryPoint("weather", "counterplay_weather", "counterplay")])

    yield _made
    for name in [name for name in sys.modules if name.startswith("counterplay_weather")]:
        del sys.modules[name]


@pytest.fixture
def host(module: Path, made: Callable[[dict[str, str]], PluginHost]) -> PluginHost:
    """The skeleton, loaded."""
    files, _ = skeleton(read_module(module), "weather")
    return made(files)


def broken(host: PluginHost, folder: Path) -> list[tuple[str, str, str]]:
    """The rules that can be told from the files, and are not kept."""
    wrong = []
    for info in host.modules.values():
        case = Case(host, info, None, folder / info.uses)
        for rule in RULES.values():
            if rule.check.__module__ == declared_rules.__name__ and info.kind in rule.kinds:
                try:
                    rule.check(case)
                except Broken as error:
                    wrong.append((info.uses, rule.name, str(error)))
    return wrong


def test_each_part_becomes_a_module(host: PluginHost) -> None:
    """Actions stay actions, triggers and connectors become triggers, the configuration a connection."""
    assert host.problems == []
    assert {info.uses: info.kind for info in host.modules.values()} == {
        "weather.account": "connection",
        "weather.ring_bell": "action",
        "weather.events": "trigger",
        "weather.events_connector": "trigger",
    }
    assert host.module("weather.events_connector").summary == "Weather events."


def test_what_the_modules_declare_keeps_every_rule(host: PluginHost, tmp_path: Path) -> None:
    """Everything that can be told from the files passes the conformance kit."""
    assert broken(host, tmp_path) == []


def test_the_schemas_say_the_same(host: PluginHost) -> None:
    """Draft 7 in the words of 2020-12, closed; secrets are settings; forwarding is a sink's work."""
    bell, account = host.module("weather.ring_bell").schema, host.module("weather.account").schema
    assert bell["required"] == ["pair"], "what has a default is filled in"
    assert bell["properties"]["at"]["$ref"] == "#/$defs/place"
    assert bell["$defs"]["place"]["additionalProperties"] is False
    assert bell["properties"]["pair"]["prefixItems"] == [{"type": "string"}, {"type": "integer"}]
    assert "password" not in bell["properties"]
    assert account["properties"]["password"]["writeOnly"] is True
    assert account["properties"]["api_key"] == {
        "type": "string",
        "description": "Api key.",
        "writeOnly": True,
    }
    assert list(host.module("weather.events").schema["properties"]) == ["frequency"]
    assert bell["$defs"]["result"]["properties"]["rung"]["description"] == "Rung."


def test_the_hosts_are_those_of_the_settings(host: PluginHost) -> None:
    """Credentials go nowhere else."""
    account: Any = host.module("weather.account").cls("w", {"base_url": "https://w.example/api"})
    assert account.origins() == ("https://w.example",)


ODD = {
    "manifest": {
        "name": 'Odd "Station"',
        "configuration": {
            "properties": {
                "base-url": {"type": "string"},
                "wait": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
                "proxy": {"$ref": "#/definitions/proxy", "default": {"port": "many"}},
            },
            "definitions": {"proxy": {"type": "object", "properties": {"port": {"type": "integer"}}}},
        },
    },
    "action_import": {
        "name": '1st "import"',
        "description": 'Say """hi""" \\ "',
        "arguments": {
            "definitions": {"z": {"type": "string"}},
            "properties": {
                "any": {"type": "any"},
                "pattern": {"type": "string", "pattern": "["},
                "lost": {"$ref": "https://elsewhere.example/x.json#/y"},
                "gone": {"$ref": "#/definitions/gone"},
                "true": True,
                "tags": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
                "both": {
                    "allOf": [
                        {"type": "object", "properties": {"a": {"type": "string"}}},
                        {"type": "object", "properties": {"b": {"type": "string"}}},
                    ]
                },
                "z": {"$ref": "#/definitions/z"},
            },
            "required": ["z", "nowhere"],
        },
        "results": {
            "definitions": {"z": {"type": "integer"}},
            "properties": {"z": {"$ref": "#/definitions/z"}, "y": {"$ref": "#/properties/z"}},
        },
    },
    "action_action": {"arguments": "none", "results": ["x"]},
    "trigger_account": {"name": "Account", "arguments": {"properties": ["x"], "required": True}},
    "connector_account": {},
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A module with names that Python reserves, and schemas that are none."""
    folder = tmp_path / "Odd"
    folder.mkdir()
    for name, document in ODD.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def test_a_module_of_odd_names_and_schemas_becomes_a_plugin_all_the_same(
    odd: Path, made: Any, tmp_path: Path
) -> None:
    """Its modules load and keep every rule that can be told from the files; what was lost is named."""
    files, notes = skeleton(read_module(odd), "weather")
    host = made(files)
    assert host.problems == []
    assert broken(host, tmp_path) == []
    assert sorted(host.modules) == [
        "weather.account",
        "weather.account_connector",
        "weather.account_trigger",
        "weather.action_action",
        "weather.import_action",
    ]
    tomllib.loads(files["pyproject.toml"])
    said = "\n".join(notes)
    for line in (
        "weather.import_action: 'any' is no JSON Schema ('any' is not valid under any of the given schemas)",
        "weather.import_action: 'pattern' is no JSON Schema ('[' is not a 'regex'), so it takes anything",
        "the reference 'https://elsewhere.example/x.json#/y' leads nowhere here, so it takes anything",
        "the reference '#/$defs/gone' leads nowhere here",
        "weather.account: the default of 'proxy' does not fit it, and is left out",
    ):
        assert line in said
    schema = host.module("weather.import_action").schema
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid({"z": "a", "both": {"a": "x", "b": "y"}, "tags": {"x": "y"}, "lost": 3, "true": []})
    assert not valid({"z": 1})
    assert not valid({"tags": {"x": 1}, "z": "a"})
    result = jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/result"})
    assert result.is_valid({"z": 1, "y": 2})
    assert not result.is_valid({"y": "a"})
    wait = {"properties": {"wait": host.module("weather.account").schema["properties"]["wait"]}}
    assert not jsonschema.Draft202012Validator(wait).is_valid({"wait": 1})


def test_every_file_that_cannot_be_read_is_named(odd: Path) -> None:
    """Not the first alone."""
    (odd / "action_broken.json").write_text("{")
    (odd / "trigger_list.json").write_text("[]")
    with pytest.raises(ConfigError) as error:
        read_module(odd)
    first, second = str(error.value).splitlines()
    assert "action_broken.json: cannot be read: " in first
    assert second.endswith("trigger_list.json: it is no JSON object")


@pytest.mark.parametrize(
    ("file", "member"),
    [("manifest.json", "configuration"), ("action_odd.json", "arguments"), ("action_odd.json", "results")],
)
def test_a_schema_that_is_none_is_not_taken_for_an_empty_one(odd: Path, file: str, member: str) -> None:
    """The file and the member are named among what was not carried over."""
    (odd / file).write_text(json.dumps({"name": "x", member: ["a"]}))
    _, notes = skeleton(read_module(odd), "weather")
    assert f"{file}: {member!r} is no JSON object, so it says nothing" in notes


def test_what_is_not_carried_over_is_said(module: Path) -> None:
    """Each in one line."""
    _, notes = skeleton(read_module(module), "weather")
    assert "weather.ring_bell: the secret 'password' became a setting of weather.account" in notes
    assert "weather.events: 'intake_key' is left out, forwarding is the work of a sink" in notes


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_folder_that_is_no_module_is_refused(tmp_path: Path, text: str) -> None:
    """The message names the file."""
    if text:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        read_module(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer"}, {"enum": [1, "a"]}, {"$ref": "#/definitions/d"}]
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"items": inner | st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"items": st.lists(inner, min_size=1, max_size=2), "additionalItems": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries({"dependencies": st.fixed_dictionaries({"a": inner | st.just(["b"])})}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
    ),
    max_leaves=4,
)


@given(schema=SCHEMAS, value=VALUES)
def test_a_schema_takes_what_it_took(schema: Any, value: Any) -> None:
    """The translation accepts and refuses the same values."""
    old = {"allOf": [schema], "definitions": {"d": {"type": "boolean"}}}
    before = jsonschema.Draft7Validator(old).is_valid(value)
    after = jsonschema.Draft202012Validator(to_2020(old)).is_valid(value)
    assert before == after
