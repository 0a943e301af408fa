"""Every kind of failure of a run is one line that names the run, the step and the next command."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

STEPS: dict[str, dict[str, Any]] = {
    "nobody listens": {"uses": "std.http", "with": {"url": "http://127.0.0.1:9/"}, "timeout": "100ms"},
    "a missing field": {"uses": "std.run_playbook", "with": {"playbook": "{{ event.nothing }}"}},
    "an argument that is wrong once it is known": {
        "uses": "std.wait",
        "with": {"duration": "{{ event.id }}"},
    },
    "a playbook that is not there": {"uses": "std.run_playbook", "with": {"playbook": "gone"}},
    "a playbook that stops as failed": {"uses": "std.stop", "with": {"status": "failed", "reason": "enough"}},
    "a loop over no list": {"for_each": "event.id", "uses": "std.wait", "with": {"duration": "1ms"}},
    "a time that is up": {"uses": "std.wait", "with": {"duration": "3s"}, "timeout": "20ms"},
    "a group": {"steps": [{"id": "inner", "uses": "std.stop", "with": {"status": "failed", "reason": "x"}}]},
    "a branch": {
        "parallel": [
            {"id": "one", "uses": "std.wait", "with": {"duration": "1ms"}},
            {"id": "two", "uses": "std.wait", "with": {"duration": "{{ event.id }}"}},
        ]
    },
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_failure_is_one_line_with_run_step_and_what_to_do(desk: Any, kind: str) -> None:
    """No traceback; the command that it names shows the run."""
    document = {
        "name": "fails",
        "description": "It fails.",
        "trigger": {"uses": "std.manual"},
        "steps": [{"id": "bad", **STEPS[kind]}],
    }
    desk.write("playbooks/fails.yaml", yaml.safe_dump(document))
    desk.write("event.json", '{"id": "e-1"}')

    said = desk.playbook("run", "fails", "--event", "event.json")

    assert said.code == 1
    everything = said.out + said.err
    assert "Traceback" not in everything
    (line,) = [one for one in said.out.splitlines() if " of fails failed: " in one]
    (identity,) = re.findall(r"`playbook runs show (r-[0-9a-f]+)`", line)
    assert f"run {identity} of fails failed: " in line
    assert re.search(r"step (bad|inner|one|two)\b", line)
    assert ("step bad: it stopped the run: enough; `playbook" in line) == ("stops" in kind)
    shown = desk.playbook("runs", "show", identity)
    assert shown.code == 0
    assert "failed" in shown.out


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("runs", "show", "r-none"), 2, "`playbook runs list` shows them"),
        (("runs", "cancel", "r-none"), 2, "`playbook runs list` shows them"),
        (("runs", "retry", "r-none"), 2, "`playbook runs list` shows them"),
        (("approve", "a-none"), 2, "`playbook approvals` lists those that are open"),
        (("deny", "a-none"), 2, "`playbook approvals` lists those that are open"),
        (("undo", "r-none"), None, "playbook run"),
        (("store", "prune"), 2, "`playbook run NAME` creates it"),
        (("run", "none"), 2, "`playbook list` shows what there is"),
    ],
)
def test_a_command_about_what_is_not_there_is_one_line(
    desk: Any, words: tuple[str, ...], code: int | None, hint: str
) -> None:
    """It says what is missing, and which command shows what there is."""
    said = desk.playbook(*words)

    assert said.code == code or (code is None and said.code in (1, 2))
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert hint in line


@pytest.mark.parametrize(
    "words",
    ["undo r-1", "record r-1", "evidence r-1", "audit verify", "audit export", "store show", "runs show r-1"],
)
def test_what_cannot_be_there_yet_is_invalid_input(desk: Any, words: str) -> None:
    """One exit code for all commands, before anything ran."""
    said = desk.playbook(*words.split())
    assert said.code == 2
    assert "there is no " in said.err
