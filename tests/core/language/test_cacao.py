"""Playbooks as CACAO 2.0: valid by the rules of the specification, stable, and honest about what is lost.

The rules are those of "CACAO Security Playbooks Version 2.0" (OASIS), by section. With
COUNTERPLAY_CACAO_SCHEMAS naming a checkout of github.com/oasis-open/cacao-json-schemas, every export is
held against the official JSON Schemas, too, in the draft that they declare.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterplay._data_files import shipped_playbooks
from counterplay.language import Playbook, load_text
from counterplay.language.cacao import Export, cacao, playbook_id, timestamp
from counterplay.plugins import PluginHost

SCHEMAS = os.environ.get("COUNTERPLAY_CACAO_SCHEMAS")
TIMES = {"created": "2026-01-01T00:00:00.000Z", "modified": "2026-03-02T08:00:00.000Z"}
WHOLE = {
    "name": "whole",
    "description": "Every form of the language.",
    "inputs": {
        "limit": {"type": "integer", "default": 3, "description": "A limit."},
        "who": {"type": "string"},
        "x": {"type": "boolean"},
    },
    "trigger": {"uses": "m365.alerts", "connection": "contoso", "with": {"severity": ["high"]}},
    "filter": 'event.status != "resolved"',
    "once_per": {"key": "{{ event.id }}", "window": "1h"},
    "steps": [
        {"id": "user", "uses": "m365.get_user", "with": {"user_id": "{{ event.user }}"}, "timeout": "90s"},
        {
            "id": "both",
            "parallel": [
                {"id": "revoke", "uses": "m365.revoke_sessions", "with": {"user_id": "a"}},
                {
                    "id": "rules",
                    "uses": "m365.disable_inbox_rules",
                    "with": {"user_id": "a"},
                    "when": "inputs.x",
                },
            ],
            "on_error": "continue",
        },
        {
            "id": "ask",
            "uses": "std.approval",
            "with": {"question": "Block {{ event.user }}?", "timeout": "4h"},
        },
        {
            "id": "block",
            "uses": "m365.block_sign_in",
            "with": {"user_id": "a"},
            "when": "steps.ask.result.approved",
            "retry": {"attempts": 3},
            "on_error": [{"id": "tell", "uses": "std.jsonl", "with": {"path": "x"}}],
        },
        {
            "id": "each",
            "for_each": "event.devices",
            "steps": [{"id": "one", "uses": "m365.get_user", "with": {"user_id": "{{ item }}"}}],
        },
        {"id": "call", "uses": "std.run_playbook", "with": {"playbook": "contain-compromised-account"}},
    ],
    "finally": [{"id": "last", "uses": "std.wait", "with": {"duration": "5s"}}],
    "sinks": [{"uses": "intake.forward", "connection": "siem"}],
}


@pytest.fixture(scope="module")
def installed() -> PluginHost:
    return PluginHost.load()


def _loaded(document: dict[str, Any], host: PluginHost) -> Playbook:
    found = load_text(yaml.safe_dump(document, sort_keys=False).encode(), "it.yaml", host, None)
    assert isinstance(found, Playbook)
    return found


def _exports(host: PluginHost) -> Iterator[Export]:
    """Every form of the language, and every shipped playbook."""
    yield cacao(
        _loaded({**WHOLE, "inputs": {**WHOLE["inputs"], "x": {"type": "boolean"}}}, host), host, **TIMES
    )
    for file in shipped_playbooks().iterdir():
        if file.name.endswith(".yaml"):
            found = load_text(file.read_bytes(), file.name, host, None)
            if isinstance(found, Playbook):
                yield cacao(found, host, **TIMES)


@pytest.fixture(scope="module")
def whole(installed: PluginHost) -> Export:
    return next(_exports(installed))


def test_every_export_keeps_the_rules_of_the_specification(installed: PluginHost) -> None:
    """Sections 3.1, 4 and 10.10: what has to be there, identifiers, and where they lead."""
    for export in _exports(installed):
        assert list(_broken(export.document)) == [], export.document["name"]


UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
REQUIRED = (
    "type",
    "spec_version",
    "id",
    "name",
    "created_by",
    "created",
    "modified",
    "workflow_start",
    "workflow",
)
"""Section 3.1, "required" in the table of properties."""
OF_STEPS = {
    "action": ("commands", "agent"),
    "playbook-action": ("playbook_id",),
    "parallel": ("next_steps",),
    "if-condition": ("condition", "on_true"),
    "while-condition": ("condition", "on_true"),
}
"""Sections 4.5 to 4.9."""
BRANCHES = ("on_true", "on_false")


def _broken(playbook: dict[str, Any]) -> Iterator[str]:
    """The rules that a playbook breaks."""
    yield from (f"{name} is missing" for name in REQUIRED if name not in playbook)
    if (playbook["type"], playbook["spec_version"]) != ("playbook", "cacao-2.0"):
        yield "3.1: type or spec_version"
    if playbook["modified"] < playbook["created"]:
        yield "3.1: modified has to be later than or equal to created"
    if "playbook_types" in playbook and not playbook.get("playbook_activities"):
        yield "3.1: playbook_types needs playbook_activities"
    workflow = playbook["workflow"]
    defined = {*workflow, *playbook.get("agent_definitions", {}), *playbook.get("extension_definitions", {})}
    for name in (playbook["workflow_start"], playbook.get("workflow_exception")):
        if name is not None and name not in workflow:
            yield f"3.1: {name} is no step"
    if workflow[playbook["workflow_start"]]["type"] != "start":
        yield "3.1: workflow_start is no start step"
    kinds = [step["type"] for step in workflow.values()]
    if kinds.count("start") != 1 or "end" not in kinds or not {"action", "playbook-action"} & set(kinds):
        yield "3.1: a start, an action and an end step"
    for name in playbook.get("playbook_variables", {}):
        if not re.fullmatch("__[a-zA-Z_][a-zA-Z0-9_-]{0,199}__", name):
            yield f"10.18: {name}"
    for identity, step in workflow.items():
        if not re.fullmatch(f"{step['type']}--{UUID}", identity):
            yield f"10.10: {identity}"
        yield from _broken_step(identity, step, workflow, defined)
    reached: set[str] = set()
    _follow(playbook["workflow_start"], workflow, reached)
    if "workflow_exception" in playbook:
        _follow(playbook["workflow_exception"], workflow, reached)
    yield from (f"{one} is never reached" for one in workflow if one not in reached)


def _broken_step(
    identity: str, step: dict[str, Any], workflow: dict[str, Any], defined: set[str]
) -> Iterator[str]:
    yield from (
        f"{identity}: {name} is missing" for name in OF_STEPS.get(step["type"], ()) if name not in step
    )
    following = {"on_completion", "on_success", "on_failure"} & set(step)
    if step["type"] == "end":
        if following:
            yield f"4.4: {identity} goes on"
    elif not following or ("on_completion" in following and len(following) > 1):
        yield f"4.1: {identity} has {sorted(following)}"
    for name in (*following, *BRANCHES, "agent"):
        if name in step and step[name] not in defined:
            yield f"{identity}: {name} leads nowhere"
    if len(step.get("next_steps", [0, 0])) < 2:
        yield f"4.7: {identity} has one branch"
    ends = [_ends(step[name], workflow) for name in BRANCHES if name in step]
    ends += [_ends(one, workflow) for one in step.get("next_steps", [])]
    for number, own in enumerate(ends):
        if not own or any(own & other for other in ends[number + 1 :]):
            yield f"4.7 to 4.9: a branch of {identity} has no end of its own"


def _ends(identity: str, workflow: dict[str, Any]) -> set[str]:
    """The end steps that a branch comes to."""
    reached: set[str] = set()
    _follow(identity, workflow, reached)
    return {one for one in reached if workflow[one]["type"] == "end"}


def _follow(identity: str, workflow: dict[str, Any], reached: set[str]) -> None:
    if identity in reached:
        return
    reached.add(identity)
    step = workflow[identity]
    for name in ("on_completion", "on_success", "on_failure", *BRANCHES):
        if name in step:
            _follow(step[name], workflow, reached)
    for one in step.get("next_steps", []):
        _follow(one, workflow, reached)


@pytest.mark.skipif(SCHEMAS is None, reason="COUNTERPLAY_CACAO_SCHEMAS names no checkout of the schemas")
def test_every_export_is_valid_under_the_official_schemas(installed: PluginHost) -> None:
    """In the draft that they declare; each step, command and agent by its own schema as well."""
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT7

    root = Path(SCHEMAS or "") / "schemas"
    documents = {
        file.relative_to(root).as_posix(): json.loads(file.read_text()) for file in root.rglob("*.json")
    }
    assert {one["$schema"] for one in documents.values()} == {"http://json-schema.org/draft-07/schema#"}
    registry: Registry[Any] = Registry().with_resources(
        (one["$id"], Resource.from_contents(one, default_specification=DRAFT7)) for one in documents.values()
    )

    def check(value: Any, name: str) -> None:
        errors = [
            error.message for error in Draft7Validator(documents[name], registry=registry).iter_errors(value)
        ]
        assert errors == [], name

    for export in _exports(installed):
        playbook = export.document
        check(playbook, "playbook.json")
        for step in playbook["workflow"].values():
            check(step, f"workflows/{step['type']}.json")
            for command in step.get("commands", []):
                check(command, f"commands/{command['type']}.json")
        for agent in playbook["agent_definitions"].values():
            check(agent, f"agent-target/{agent['type']}.json")


def test_ids_are_the_same_wherever_and_whenever_it_is_exported(installed: PluginHost) -> None:
    """UUIDv5 of names: two exports differ in nothing but their times."""
    playbook = _loaded(WHOLE, installed)
    first = cacao(playbook, installed, **TIMES).document
    later = {**TIMES, "modified": "2026-04-01T00:00:00.000Z"}
    again = cacao(playbook, installed, **later).document
    assert {**first, "modified": again["modified"]} == again
    assert first["id"] == playbook_id("whole") != playbook_id("other")
    assert playbook_id("a") == "playbook--499a1657-900e-52ff-96b8-9cef922a4b8b"


def test_the_exact_words_stand_in_the_extension(whole: Export) -> None:
    """Whoever knows the extension gets the playbook back, whatever CACAO makes of it."""
    document = whole.document
    (identity,) = document["extension_definitions"]
    assert document["playbook_extensions"][identity]["trigger"] == WHOLE["trigger"]
    steps = {step["name"]: step for step in document["workflow"].values() if "name" in step}
    assert steps["block"]["step_extensions"][identity] == {
        "uses": "m365.block_sign_in",
        "with": {"user_id": "a"},
        "when": "steps.ask.result.approved",
        "retry": {"attempts": 3},
    }
    assert steps["user"]["timeout"] == 90_000
    assert steps["call"]["playbook_id"] == playbook_id("contain-compromised-account")
    assert steps["ask"]["commands"][0]["command"] == "Block {{ event.user }}?"


def test_what_it_cannot_say_is_told(whole: Export) -> None:
    """Each condition, loop, retry, the trigger, and that modules become words."""
    told = "\n".join(whole.not_carried)
    for text in (
        "the trigger m365.alerts: ",
        "once_per: ",
        "the condition `steps.ask.result.approved` stands behind the variable __when_block__",
        'the condition `event.status != "resolved"` stands behind the variable __filter__',
        "step each: `for_each: event.devices` is a loop on the variable __each_each__",
        "step block: `retry` has no counterpart",
        "what m365.get_user, ",
    ):
        assert text in told


def test_a_step_that_fails_goes_on_as_on_error_says(whole: Export) -> None:
    """`continue` goes on, a list is gone through, and `stop` leads to what always runs."""
    workflow = whole.document["workflow"]
    by_name = {step["name"]: step for step in workflow.values() if "name" in step}
    assert workflow[by_name["block"]["on_failure"]]["name"] == "tell"
    assert by_name["both"]["on_success"] == by_name["both"]["on_failure"]
    assert "on_failure" not in by_name["user"]
    assert workflow[whole.document["workflow_exception"]]["name"] == "last"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("2026-03-02T08:00:00Z", "2026-03-02T08:00:00.000Z"),
        ("2026-03-02T09:00:00.5+01:00", "2026-03-02T08:00:00.500Z"),
        ("2026-03-02", "2026-03-02T00:00:00.000Z"),
    ],
)
def test_times_have_milliseconds(text: str, made: str) -> None:
    """Section 10.16: UTC, three digits."""
    assert timestamp(text) == made
