"""A third party's modules in the schema for editors."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from counterplay.language.editor import editor_schema
from counterplay.plugins import PluginHost


def test_a_third_partys_arguments_are_completed_and_checked(host: PluginHost) -> None:
    """From the schemas inside its own package."""
    schema = editor_schema(host)
    assert schema["$defs"]["with acme.close_ticket"]["properties"].keys() >= {"ticket_id"}
    validator = Draft202012Validator(schema)
    playbook = {
        "name": "a",
        "trigger": {"uses": "acme.changes", "connection": "acme"},
        "steps": [{"uses": "acme.close_ticket", "with": {"ticket_id": "{{ event.id }}"}}],
        "sinks": [{"uses": "acme.archive"}],
    }
    assert list(validator.iter_errors(playbook)) == []
    playbook["steps"] = [{"uses": "acme.close_ticket", "with": {"ticket": "T-1"}}]
    assert list(validator.iter_errors(playbook))
