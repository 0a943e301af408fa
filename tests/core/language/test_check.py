"""What `check` finds in a playbook: every finding at its place, with what to write."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterplay import ConfigError
from counterplay.language import Finding, Playbook, PlaybookError, PlaybookSet, load, load_text
from counterplay.plugins import PluginHost

Findings = Callable[..., list[str]]

HEAD = "name: p\ntrigger: {uses: demo.clock}\n"  # steps begin in line 3
TENANT = "name: p\ntrigger: {uses: demo.alerts, connection: contoso}\n"
USER = "  - {id: user, uses: demo.get_user, with: {user_id: x}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "steps: [{uses: demo.lgo}]",
         "p.yaml:3:16: no module is called 'demo.lgo'; did you mean 'demo.log'?"),
        (HEAD + "steps: [{uses: demo.log, with: {txt: hi}}]",
         "p.yaml:3:33: 'txt' is not known here; did you mean 'text'?"),
        (HEAD + "steps: [{uses: demo.log, with: {text: 5}}]",
         "p.yaml:3:39: this has to be a text, not a whole number; put it in quotes"),
        (HEAD + "steps: [{uses: demo.log, with: {level: inof}}]",
         "p.yaml:3:40: 'inof' is not one of 'info', 'warning'; did you mean 'info'?"),
        (HEAD + "steps: [{uses: demo.log, with: {times: 1.5}}]",
         "p.yaml:3:40: this has to be a whole number, not a number with a fraction"),
        (HEAD + "steps: [{uses: demo.log, with: {times: 0}}]", "p.yaml:3:40: 0 breaks the rule minimum: 1"),
        (HEAD + "steps: [{uses: demo.log, with: {options: {color: true}}}]",
         "p.yaml:3:43: 'color' is not known here; did you mean 'colour'?"),
        (TENANT + "steps: [{uses: demo.get_user}]",
         "p.yaml:3:16: 'user_id' is missing; add `with:` with `user_id:` (The user's id or principal name)"),
        (TENANT + "steps: [{uses: demo.get_user, with: {}}]",
         "p.yaml:3:31: 'user_id' is missing; add `user_id:` (The user's id or principal name)"),
        (HEAD + "step: []\nsinks: []", "p.yaml:3:1: 'step' is not known here; did you mean 'steps'?"),
        (HEAD + "steps: [{usess: demo.log, uses: demo.log}]",
         "p.yaml:3:10: 'usess' is not known here; did you mean 'uses'?"),
        (HEAD, "p.yaml:1:1: one of `steps:` or `sinks:` is missing; add `steps:` or `sinks:`"),
        ("name: My Playbook\ntrigger: {uses: demo.clock}\nsteps: []",
         "p.yaml:1:7: 'My Playbook' is not written as it has to be; the name of a playbook: small letters, "
         "digits and hyphens, for instance 'contain-compromised-account'"),
        ("trigger: {uses: demo.clock}\nsteps: []",
         "p.yaml:1:1: 'name' is missing; add `name:`"),
        (HEAD + "steps: {uses: demo.log}", "p.yaml:3:8: this has to be a list, not a mapping"),
        (HEAD + "steps: [{uses: demo.log, on_error: ignore}]",
         "p.yaml:3:36: 'ignore' is not one of 'stop', 'continue'"),
        # a module in the wrong place
        ("name: p\ntrigger: {uses: demo.forward}\nsteps: []",
         "p.yaml:2:17: demo.forward is a sink, and this is a trigger; it belongs under `sinks:`"),
        (HEAD + "steps: [{uses: demo.alerts}]",
         "p.yaml:3:16: demo.alerts is a trigger, and this is a step; it belongs under `trigger:`"),
        (HEAD + "sinks: [{uses: demo.log}]",
         "p.yaml:3:16: demo.log is an action, and this is a sink; it belongs under `steps:`"),
        (HEAD + "steps: [{uses: demo.tenant}]",
         "p.yaml:3:16: demo.tenant is a connection, and this is a step; "
         "it belongs in counterplay.yaml, and is named by `connection:`"),
        # expressions
        (HEAD + "filter: event.a ==\nsteps: []",
         "p.yaml:3:9: cannot read the expression `event.a ==`: unexpected end; "
         "expressions are written as in Jinja2"),
        (HEAD + "filter: steps.a.result\nsteps: []",
         "p.yaml:3:9: `steps` is not known here; filters see the event alone: event, meta, inputs and internal"),
        (HEAD + "filter: inputs.gone == 1\nsteps: []",
         "p.yaml:3:9: there is no input 'gone'; declare it under `inputs:` (declared: none)"),
        (HEAD + "steps: [{uses: demo.log, with: {text: '{{ event.__class__ }}'}}]",
         "p.yaml:3:39: '__class__' cannot be reached: names that begin with _ are closed; "
         "read members of the data only"),
        (HEAD + "steps: [{uses: demo.log, with: {text: '{{ event.items() }}'}}]",
         "p.yaml:3:39: items() cannot be called: only methods of text can; "
         "for the member of that name write .items without (), or use a filter"),
        (HEAD + "steps: [{uses: demo.log, with: {text: 'a {{ item }}'}}]",
         "p.yaml:3:39: `item` is not known here; "
         "it is the element of `for_each`, inside the step that has one"),
        (HEAD + "steps: [{uses: demo.log, with: {text: 'a {{ error }}'}}]",
         "p.yaml:3:39: `error` is not known here; only the steps under `on_error` see it"),
        (HEAD + "steps: [{uses: demo.log, with: {times: 'n {{ 1 }}'}}]",
         "p.yaml:3:40: this has to be a whole number, not a text"),
        ("name: p\ntrigger: {uses: demo.alerts, connection: c, with: {poll_interval: '{{ event.a }}'}}\nsteps: []",
         "p.yaml:2:67: `event` is not known here; the trigger begins before there is an event"),
        (HEAD + "steps: [{uses: demo.pick, with: {keep: ['{{ event.a }}']}}]",
         "p.yaml:3:41: `event` is not known here; a leading transform takes many events at once: "
         "it sees inputs only"),
        (HEAD + "sinks: [{uses: demo.forward, connection: siem, with: {batch: '{{ event.a }}'}}]",
         "p.yaml:3:62: `event` is not known here; a sink takes many records at once: it sees inputs only"),
        # references to steps
        (TENANT + "steps:\n" + USER + "  - {uses: demo.log, when: steps.usr.result.id}",
         "p.yaml:5:28: there is no step 'usr'; did you mean 'user'?"),
        (TENANT + "steps:\n" + USER + "  - {uses: demo.log, when: steps.user.reslt.id}",
         "p.yaml:5:28: a step has no 'reslt'; did you mean 'result'?"),
        (TENANT + "steps:\n" + USER + "  - {uses: demo.log, when: steps.user.result.manger}",
         "p.yaml:5:28: steps.user.result has no 'manger'; did you mean 'manager'?"),
        (TENANT + "steps:\n" + USER + "  - {uses: demo.log, when: 'steps.user.result.groups[0].titel'}",
         "p.yaml:5:28: steps.user.result.groups[0] has no 'titel'; did you mean 'title'?"),
        (TENANT + "steps:\n  - {uses: demo.log, when: steps.user.status}\n" + USER,
         "p.yaml:4:28: the step 'user' has not run here; only steps that stand before can be named; move it up"),
        (TENANT + "steps:\n" + USER + USER, "p.yaml:5:10: the id 'user' is taken (line 4); give each step its own"),
        # connections
        ("name: p\ntrigger: {uses: demo.alerts}\nsteps: []",
         "p.yaml:2:17: demo.alerts needs a connection of kind demo.tenant; add `connection: <name>`"),
        (HEAD + "steps: [{uses: demo.get_user, with: {user_id: x}}]",
         "p.yaml:3:16: demo.get_user needs a connection of kind demo.tenant, "
         "and the trigger has none of that kind; add `connection: <name>`"),
        (HEAD + "steps: [{uses: demo.log, connection: contoso}]",
         "p.yaml:3:26: demo.log takes no connection; remove it"),
        (HEAD + "sinks: [{uses: demo.forward, connection: {labels: [a]}}]",
         "p.yaml:3:42: this has to be a text, not a mapping; "
         "the name of a connection in counterplay.yaml, for instance 'contoso'"),
        (HEAD + "steps: [{uses: demo.log, with: {text: '${env:SECRET}'}}]",
         "p.yaml:3:39: a ${...} reference in a playbook; put it into counterplay.yaml and name the connection"),
        # inputs
        ("name: p\ninputs: {n: {type: integr}}\ntrigger: {uses: demo.clock}\nsteps: []",
         "p.yaml:2:13: this is no JSON Schema: 'integr' is not valid under any of the given schemas; "
         "write for instance {type: string, default: x}"),
        ("name: p\ninputs: {n: {type: integer, default: x}}\ntrigger: {uses: demo.clock}\nsteps: []",
         "p.yaml:2:38: the default does not fit: this has to be a whole number, not a text"),
        ("name: p\ninputs: {a-b: {}}\ntrigger: {uses: demo.clock}\nsteps: []",
         "p.yaml:2:10: the name 'a-b' is not allowed here; "
         "A name that expressions can spell: letters, digits and _, with a letter first"),
        # sets
        ("name: s\nplaybooks: []", "p.yaml:2:12: [] breaks the rule minItems: 1; "
                                   "the names of the playbooks that run together"),
        ("name: s\nplaybooks: [a]\ntrigger: {uses: demo.clock}",
         "p.yaml:3:1: 'trigger' is not known here; "
         "known here: name, description, playbooks, connections, once"),
    ],
)  # fmt: skip
def test_a_finding_says_the_place_the_fact_and_the_next_step(
    findings: Findings, text: str, expected: str
) -> None:
    """Exactly one line for each thing that is wrong."""
    assert findings(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: p\ntrigger: {uses: demo.alerts, connection: contso}\nsteps: []",
         "p.yaml:2:42: no connection is called 'contso'; did you mean 'contoso'?"),
        ("name: p\ntrigger: {uses: demo.alerts, connection: siem}\nsteps: []",
         "p.yaml:2:42: 'siem' is demo.key, and demo.alerts needs demo.tenant; name another one"),
        ("name: p\ntrigger: {uses: demo.alerts, connection: {labels: [gone]}}\nsteps: []",
         "p.yaml:2:42: no connection of kind demo.tenant carries gone; add `labels:` in counterplay.yaml"),
        ("name: s\nplaybooks: [a]\nconnections: {contoso: zzz}",
         "p.yaml:3:24: no connection is called 'zzz'; there are contoso, siem, sim"),
    ],
)  # fmt: skip
def test_connection_names_are_checked_against_the_workspace(
    findings: Findings, catalogue: Any, text: str, expected: str
) -> None:
    """By name and kind: `sim` can be a tenant and an intake."""
    assert findings(text, catalogue) == [expected]


def test_the_name_of_an_argument_cannot_be_an_expression(findings: Findings) -> None:
    """Names are known before anything runs."""
    assert findings(HEAD + "steps: [{uses: demo.log, with: {'{{ event.a }}': x}}]") == [
        "p.yaml:3:33: '{{ event.a }}' is not known here; known here: text, level, times, password, options",
        "p.yaml:3:33: an expression as a name; write the name out",
    ]


def test_parallel_branches_do_not_see_each_other(findings: Findings) -> None:
    """What follows the branches sees them all."""
    text = HEAD + (
        "steps:\n  - parallel:\n    - {id: a, uses: demo.log}\n    - {id: b, uses: demo.log, when: steps.a.status}\n"
        "  - {uses: demo.log, when: steps.a.status and steps.b.status}\n"
    )

    assert [line for line in findings(text) if "this version" not in line] == [
        "p.yaml:6:37: the step 'a' has not run here; only steps that stand before can be named; move it up"
    ]


def test_everything_that_is_wrong_is_found_at_once(findings: Findings) -> None:
    """In the order of the file."""
    lines = findings(
        "nme: p\ntrigger: {uses: demo.clck}\nsteps:\n  - {uses: demo.log, with: {txt: x, times: a}}\n"
    )

    assert [line.split(";")[0] for line in lines] == [
        "p.yaml:1:1: 'name' is missing",
        "p.yaml:1:1: 'nme' is not known here",
        "p.yaml:2:17: no module is called 'demo.clck'",
        "p.yaml:4:29: 'txt' is not known here",
        "p.yaml:4:44: this has to be a whole number, not a text",
    ]


def test_the_value_of_a_secret_is_not_quoted(findings: Findings) -> None:
    """A `writeOnly` property says which rule is broken, and nothing else."""
    assert findings(HEAD + "steps: [{uses: demo.log, with: {password: HUNTER2}}]") == [
        "p.yaml:3:43: this is not written as it has to be"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "{times: '{{ event.n }}', level: '{{ event.level }}', options: '{{ event.options }}'}",
        "{text: 'hello {{ event.name }}', password: 'x{{ event.n }}'}",
        "{options: {colour: '{{ event.flag }}'}}",
    ],
)
def test_an_argument_with_an_expression_counts_as_any_value(read: Any, arguments: str) -> None:
    """What the schema says of it is decided when it is rendered."""
    assert isinstance(read(HEAD + f"steps: [{{uses: demo.log, with: {arguments}}}]"), Playbook)


def test_a_plugin_that_is_disabled_is_named(monkeypatch: pytest.MonkeyPatch, host: PluginHost) -> None:
    """A module of a plugin that takes no part says why."""
    without = PluginHost()
    without.plugins = {
        name: type(info)(name, "", "", info.point, problem="disabled") for name, info in host.plugins.items()
    }

    with pytest.raises(PlaybookError) as caught:
        load_text((HEAD + "steps: []").encode(), "p.yaml", without)

    assert str(caught.value) == (
        "p.yaml:2:17: no module is called 'demo.clock': the plugin demo is disabled by COUNTERPLAY_DISABLE"
    )


def test_a_file_of_ten_megabytes_is_not_read(tmp_path: Path, host: PluginHost) -> None:
    """The message has the size and the limit."""
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: 1\n" * 2_000_000)

    with pytest.raises(ConfigError) as caught:
        load(path, host)

    assert (
        str(caught.value) == f"{path}:1:1: the file has 10,000,000 bytes; 1,000,000 is the limit: split it up"
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path, host: PluginHost) -> None:
    """With the system's reason."""
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot read the playbook: No such file or directory"):
        load(tmp_path / "gone.yaml", host)


WORDS = st.sampled_from(
    [
        "p",
        "demo.log",
        "demo.alerts",
        "demo.forward",
        "x",
        "{{ event.a }}",
        "{{",
        "steps.a",
        "${env:X}",
        "updates",
    ]
)
# fmt: off
KEYS = st.sampled_from([
    "name", "description", "inputs", "trigger", "filter", "once_per", "steps", "finally", "sinks", "playbooks", "connections", "once", "uses", "connection", "with", "on", "key", "window", "id", "when", "for_each", "max_parallel", "retry", "timeout", "on_error", "verify", "parallel", "labels", "attempts", "type",
])
# fmt: on
SCALARS = st.one_of(
    WORDS, st.none(), st.booleans(), st.integers(-2, 3), st.floats(allow_nan=False, allow_infinity=False)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=25,
)


def outcome(text: bytes, host: PluginHost) -> tuple[Finding, ...]:
    """The findings on a text; none when it is a playbook."""
    try:
        assert isinstance(load_text(text, "p.yaml", host), (Playbook, PlaybookSet))
    except PlaybookError as error:
        return error.findings
    return ()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, DATA, max_size=8))
def test_whatever_the_file_holds_is_checked_without_a_crash(host: PluginHost, data: Any) -> None:
    """A playbook of the right words in the wrong places is refused like any other."""
    lines = outcome(json.dumps(data).encode(), host)

    assert all(finding.line == 1 and finding.column > 0 for finding in lines)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(alphabet="ab:-{}[]&*#|>'\"\n\t !%@,?.1é", max_size=60)))
def test_whatever_bytes_there_are_give_a_finding(host: PluginHost, text: bytes | str) -> None:
    """No input reaches the parser's own errors."""
    with pytest.raises(PlaybookError):
        load_text(text if isinstance(text, bytes) else text.encode(), "p.yaml", host)
