"""What a step and a called playbook are given, checked now that the values are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay.errors import PermanentError
from counterplay.events import JsonObject
from counterplay.language import Playbook, Use, with_defaults
from counterplay.language.arguments import problems
from counterplay.plugins import PluginHost

DEEPEST = 16
"""How many playbooks may call one another."""


def arguments_of(host: PluginHost, use: Use, rendered: object) -> JsonObject:
    """Rendered arguments with the schema's defaults, checked now that their values are known."""
    if not isinstance(rendered, dict):
        raise PermanentError(f"`with` of {use.uses} is not a mapping")
    schema = host.module(use.uses).schema
    arguments = with_defaults(schema, rendered)
    for problem in problems(arguments, schema):
        place = ".".join(["with", *(str(part) for part in problem.path)])
        raise PermanentError(f"{place}: {problem.message}", hint="the value comes from an expression")
    return arguments


def inputs_of(playbook: Playbook, given: Mapping[str, Any]) -> JsonObject:
    values: JsonObject = {}
    for name in given:
        if name not in playbook.inputs:
            raise PermanentError(f"the playbook {playbook.name} has no input {name!r}")
    for name, schema in playbook.inputs.items():
        if name in given:
            values[name] = given[name]
        elif "default" in schema:
            values[name] = schema["default"]
        else:
            raise PermanentError(f"the playbook {playbook.name} needs the input {name!r}")
        for problem in problems(values[name], schema):
            raise PermanentError(f"the input {name!r} of {playbook.name}: {problem.message}")
    return values
