"""First versions of playbooks and their tests, from any module that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from counterplay.cases.compare import differences
from counterplay.cases.examples import example_of
from counterplay.cases.model import Case, given_from
from counterplay.cases.record import expected
from counterplay.cases.sketch import Wish, sketched, sketched_case
from counterplay.language import Playbook, load_text
from counterplay.language.arguments import problems
from counterplay.plugins import PluginHost

INSTALLED = PluginHost.load().modules
CALLS_OTHERS = {"std.run_playbook"}
"""What it does is what another playbook does, which has steps of its own to answer."""


@pytest.mark.parametrize("uses", sorted(set(INSTALLED) - CALLS_OTHERS))
def test_every_module_makes_a_playbook_and_a_test_that_pass(bench: Any, uses: str) -> None:
    """Whatever its arguments need, its schema's examples give it."""
    info = INSTALLED[uses]
    if info.kind == "connection":
        pytest.skip("no playbook uses a connection")
    if info.kind == "trigger":
        wish = Wish("tried", "A try.", uses, sinks=["std.jsonl"])
    elif info.kind == "sink":
        wish = Wish("tried", "A try.", "std.manual", sinks=[uses])
    else:
        wish = Wish("tried", "A try.", "std.manual", steps=[uses], sinks=["std.jsonl"])
    document = sketched(wish, bench.workspace)
    text = yaml.safe_dump(document, sort_keys=False)
    playbook = load_text(text.encode(), "tried.yaml", bench.workspace.host, bench.workspace)
    assert isinstance(playbook, Playbook)

    given = given_from({}, sketched_case(playbook.document, bench.workspace.host))
    seen = bench.play(Case("it", given, {}), playbook)

    assert differences(expected(seen), seen) == []
    assert sum(map(len, seen.records.values())) == 1


def test_an_example_fits_its_schema(bench: Any) -> None:
    """Of the arguments and of the result of every module."""
    for uses, info in bench.workspace.host.modules.items():
        if info.kind == "connection":
            continue
        assert list(problems(example_of(info.schema), info.schema)) == [], uses
        result = info.schema.get("$defs", {}).get("result")
        if result is not None:
            whole = {**result, "$defs": info.schema["$defs"]}
            assert list(problems(example_of(whole), whole)) == [], uses


def test_a_secret_is_never_an_example() -> None:
    """A reference would be resolved, and an example could be somebody's."""
    schema = {
        "properties": {"key": {"type": "string", "writeOnly": True, "examples": ["${env:KEY}"]}},
        "required": ["key"],
    }
    assert example_of(schema) == {"key": "stand-in-value"}
