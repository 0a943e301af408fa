"""The schema for editors: the language with every installed module's arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from counterplay._data_files import shipped_playbooks
from counterplay.language.editor import editor_schema
from counterplay.plugins import PluginHost


@pytest.fixture(scope="module")
def installed() -> PluginHost:
    return PluginHost.load()


@pytest.fixture(scope="module")
def wrong(installed: PluginHost) -> Any:
    """What the schema finds in a playbook."""
    schema = editor_schema(installed)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    return lambda playbook: [error.message for error in validator.iter_errors(playbook)]


def test_every_shipped_playbook_fits(wrong: Any) -> None:
    """What `check` passes, an editor must not mark."""
    for file in shipped_playbooks().iterdir():
        if file.name.endswith(".yaml"):
            document = yaml.safe_load(file.read_text("utf-8"))
            if "on" in document.get("trigger", {}) or True in document.get("trigger", {}):
                continue  # PyYAML reads `on` as true
            assert wrong(document) == [], file.name


def test_every_module_has_its_place_and_its_arguments(installed: PluginHost) -> None:
    """Triggers under `trigger`, sinks under `sinks`, and all that a step can use under `steps`."""
    schema = editor_schema(installed)

    def names(place: str) -> set[str]:
        return {one["const"] for one in schema["$defs"][place]["properties"]["uses"]["anyOf"]}

    by_kind: dict[str, set[str]] = {}
    for uses, info in installed.modules.items():
        by_kind.setdefault(info.kind, set()).add(uses)
        if info.kind != "connection":
            members = schema["$defs"][f"with {uses}"].get("properties", {})
            assert set(members) == set(info.schema.get("properties", {})), uses
    assert names("trigger") == by_kind["trigger"]
    assert names("sink") == by_kind["sink"]
    assert names("module_step") == by_kind["action"] | by_kind["transform"] | by_kind["sink"]


def test_no_reference_leads_out_of_the_schema(installed: PluginHost) -> None:
    """A module's own definitions are written out: an editor has only this one file."""
    schema = editor_schema(installed)
    text = json.dumps(schema)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert reference.removeprefix("#/$defs/") in schema["$defs"], reference


@pytest.mark.parametrize(
    "step",
    [
        {"uses": "m365.get_user", "with": {"user_id": "a", "user": "b"}},
        {"uses": "m365.get_user"},
        {"uses": "m365.alerts"},
        {"uses": "m365.nothing"},
        {"uses": "std.approval", "with": {"question": "?", "people": "two"}},
        {"parallel": [{"uses": "std.approval", "with": {"question": "?", "on_timeout": "perhaps"}}]},
    ],
)
def test_a_step_that_cannot_be_right_is_found(wrong: Any, step: dict[str, Any]) -> None:
    """Arguments that are missing, unknown or of the wrong kind, and modules of the wrong place."""
    assert wrong({"name": "a", "trigger": {"uses": "std.manual"}, "steps": [step]})


@pytest.mark.parametrize(
    "arguments",
    [
        {"question": "{{ event.x }}", "people": "{{ inputs.n }}", "on_timeout": "{{ inputs.then }}"},
        {"question": "?", "people": 2, "timeout": "{{ inputs.hours }}h"},
    ],
)
def test_an_expression_may_stand_for_any_value(wrong: Any, arguments: dict[str, Any]) -> None:
    """What it comes to is checked in the run."""
    step = {"uses": "std.approval", "with": arguments}
    assert wrong({"name": "a", "trigger": {"uses": "std.manual"}, "steps": [step]}) == []


def test_connections_are_offered(installed: PluginHost) -> None:
    """By the names that the workspace knows."""
    schema = editor_schema(installed, ["siem", "contoso"])
    assert schema["$defs"]["connection_name"]["examples"] == ["contoso", "siem"]
