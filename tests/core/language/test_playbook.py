"""What a checked playbook is: its parts, its snapshot, its inputs."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

import json
from typing import Any

import pytest

from counterplay import ConfigError
from counterplay.language import (
    ConnectionCatalogue,
    Labels,
    Playbook,
    PlaybookSet,
    connection_of,
    expressions_of,
    from_document,
)
from counterplay.plugins import PluginHost

CONTAIN = """
name: contain
description: Contain it.
inputs:
  approver: {type: string, default: ""}
  limit: {type: integer, minimum: 1}
  groups: {type: array, items: {type: string}, default: []}
  deep: {type: [boolean, "null"], default: null}
trigger: {uses: demo.alerts, connection: contoso, with: {severity: [high]}}
filter: event.status != "resolved"
steps:
  - {uses: demo.pick, with: {keep: [evidence]}}
  - id: user
    uses: demo.get_user
    with: {user_id: "{{ event.evidence | demo_users | first }}"}
  - {uses: demo.log, when: steps.user.result.id is defined, with: {text: "{{ event.n }}"}, on_error: continue}
  - {uses: demo.log}
  - {uses: demo.pick}
sinks:
  - {uses: demo.forward, connection: siem}
"""


@pytest.fixture
def contain(read: Any) -> Playbook:
    """A playbook with every form that runs."""
    found = read(CONTAIN)
    assert isinstance(found, Playbook)
    return found


def test_a_playbook_is_split_where_the_run_begins(contain: Playbook) -> None:
    """The leading transforms map batches; the first other step begins the run, and later transforms stay in it."""
    assert [step.id for step in contain.batch_steps] == ["pick"]
    assert [step.id for step in contain.run_steps] == ["user", "log", "log_2", "pick_2"]


@pytest.mark.parametrize("extra", ["when: event.a", "on_error: continue"])
def test_a_transform_with_more_than_arguments_begins_the_run(read: Any, extra: str) -> None:
    """A batch has no single event to ask."""
    found = read(f"name: p\ntrigger: {{uses: demo.clock}}\nsteps: [{{uses: demo.pick, {extra}}}]")

    assert found.batch_steps == ()
    assert len(found.run_steps) == 1


def test_a_playbook_without_run_steps_only_forwards(read: Any) -> None:
    """Then its sinks take events, not outcomes."""
    found = read("name: p\ntrigger: {uses: demo.clock}\nsinks: [{uses: demo.forward, connection: siem}]")

    assert (found.batch_steps, found.run_steps) == ((), ())


def test_a_step_without_an_id_never_takes_one_that_is_given(read: Any) -> None:
    """Wherever the given one stands; the same document gives the same ids."""
    found = read("name: p\ntrigger: {uses: demo.clock}\nsteps: [{uses: demo.log}, {uses: demo.log, id: log}]")

    assert [step.id for step in found.steps] == ["log_2", "log"]


def test_a_snapshot_builds_the_same_playbook(contain: Playbook, host: PluginHost) -> None:
    """A run carries the document as JSON; names, ids, conditions and templates come back equal."""
    again = from_document(json.loads(json.dumps(contain.document)), host)

    assert (again.name, again.inputs, again.filter, again.sinks) == (
        contain.name, contain.inputs, contain.filter, contain.sinks,
    )  # fmt: skip
    assert [(s.id, s.when, s.on_error) for s in again.steps] == [
        (s.id, s.when, s.on_error) for s in contain.steps
    ]


def test_the_parts_of_a_playbook_work(contain: Playbook) -> None:
    """The filter is asked, the arguments render, with the plugin's filters."""
    assert contain.filter is not None
    assert not contain.filter.evaluate({"event": {"status": "resolved"}})
    assert contain.filter.evaluate({"event": {"status": "new"}})
    scope = {"event": {"evidence": [{"user": "ada"}]}}
    assert contain.run_steps[0].arguments.render(scope) == {"user_id": "ada"}


def test_the_rest_of_the_language_is_built_too(read: Any, host: PluginHost) -> None:
    """Every form of the language is in the playbook."""
    found = read("""
name: whole
trigger: {uses: demo.alerts, connection: {labels: [customer]}, on: updates}
once_per: {key: "{{ event.user }}", window: 24h}
steps:
  - parallel: [{id: a, uses: demo.log}, {id: b, uses: demo.log}]
  - steps: [{uses: demo.forward, connection: siem}]
    for_each: event.list
    max_parallel: 4
  - id: user
    uses: demo.get_user
    for_each: event.users
    with: {user_id: "{{ item }}"}
    retry: {attempts: 5, backoff: 2s, max_backoff: 60s}
    timeout: 60s
    verify: true
    on_error: [{uses: demo.log, with: {text: "{{ error.message }} {{ steps.a.status }}"}}]
finally: [{uses: demo.log, when: steps.user.status == "failed"}]
""")

    parallel, group, user = found.steps
    assert found.trigger.connection == Labels(("customer",))
    assert found.trigger.on == "updates"
    assert found.once_per.key.render({"event": {"user": "ada"}}) == "ada"
    assert found.once_per.window.total_seconds() == 86_400
    assert (parallel.form, [step.id for step in parallel.steps]) == ("parallel", ["a", "b"])
    assert (group.form, group.max_parallel) == ("group", 4)
    assert group.for_each.render({"event": {"list": [1, 2]}}) == [1, 2]
    assert (user.retry.attempts, user.retry.max_backoff.seconds, user.timeout.seconds) == (5, 60, 60)
    assert user.verify
    assert user.on_error[0].id == "log"
    assert [step.id for step in found.finally_steps] == ["log_2"]


def test_a_connection_is_the_steps_own_else_the_triggers_if_the_kind_fits(
    contain: Playbook, host: PluginHost
) -> None:
    """A module that needs none has none."""
    _, user, log, *_ = contain.steps
    assert user.use is not None
    assert log.use is not None

    assert connection_of(contain.trigger, contain, host) == "contoso"
    assert connection_of(user.use, contain, host) == "contoso"
    assert connection_of(log.use, contain, host) is None
    assert connection_of(contain.sinks[0], contain, host) == "siem"


def test_connections_that_are_known_pass(read: Any, catalogue: ConnectionCatalogue) -> None:
    """By name, by labels, and in a set."""
    assert isinstance(read(CONTAIN, catalogue), Playbook)
    labelled = read(
        "name: p\ntrigger: {uses: demo.alerts, connection: {labels: [customer]}}\nsteps: []", catalogue
    )
    assert labelled.trigger.connection == Labels(("customer",))


def test_a_set_names_its_playbooks(read: Any, catalogue: ConnectionCatalogue) -> None:
    """And which connections stand in for theirs."""
    found = read("name: quick\nplaybooks: [a, b]\nconnections: {contoso: sim}\nonce: true\n", catalogue)

    assert isinstance(found, PlaybookSet)
    assert (found.name, found.playbooks, found.connections, found.once) == (
        "quick",
        ("a", "b"),
        {"contoso": "sim"},
        True,
    )


def test_inputs_are_converted_to_their_types(contain: Playbook) -> None:
    """Texts stay as they are, everything else is read as JSON; defaults fill the rest."""
    assert contain.inputs_from({"limit": "3", "approver": "12", "deep": "true"}) == {
        "approver": "12",
        "limit": 3,
        "groups": [],
        "deep": True,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the input 'limit' is missing; give it with --input limit=..."),
        ({"limt": "3"}, "the playbook contain has no input 'limt'; did you mean 'limit'?"),
        ({"limit": "x"}, "the input 'limit' has to be a whole number; write --input limit=3"),
        ({"limit": "0"}, "the input 'limit' is not right: 0 breaks the rule minimum: 1; write --input limit=3"),
        ({"limit": "1", "groups": "[1]"},
         "the input 'groups' is not right: this has to be a text, not a whole number; "
         "write --input groups='[\"a\", \"b\"]'"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_named(contain: Playbook, given: dict[str, str], message: str) -> None:
    """With what to write."""
    with pytest.raises(ConfigError) as caught:
        contain.inputs_from(given)

    assert str(caught.value) == message


def test_a_host_has_one_compiler(host: PluginHost) -> None:
    """So that an expression is compiled once, however many playbooks hold it."""
    assert expressions_of(host) is expressions_of(host)
