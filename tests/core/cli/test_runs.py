"""`runs`, `approvals`, `approve`, `deny` and `show` from the command line, on playbooks of `std` alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

HEAD = "description: A test.\ntrigger: {uses: std.manual}\n"
ASK = (
    "name: ask\n" + HEAD + "steps:\n"
    "  - {id: decide, uses: std.approval, with: {question: 'Block {{ event.user }}?', people: 1}}\n"
    "  - {id: out, uses: std.jsonl, with: {path: out.jsonl}}\n"
)
FAILS = (
    "name: fails\n" + HEAD + "steps:\n"
    "  - {id: first, uses: std.jsonl, with: {path: first.jsonl}}\n"
    "  - parallel:\n"
    "      - {id: in, uses: std.jsonl, with: {path: in.jsonl}}\n"
    "      - {id: get, uses: std.http, with: {url: '{{ event.url }}'}, timeout: 1s}\n"
    "    id: both\n"
    "finally: [{id: tidy, uses: std.jsonl, with: {path: tidy.jsonl}}]\n"
)


@pytest.fixture
def asked(desk: Any) -> str:
    """A run that waits for an answer; its id."""
    desk.write("playbooks/ask.yaml", ASK)
    desk.write("event.json", '{"user": "ada@contoso.example"}')
    said = desk.playbook("run", "ask", "--event", "event.json")
    assert said.code == 3, said
    return str(desk.playbook("runs", "list", "--json").data[0]["id"])


def test_a_question_is_listed_answered_and_shown(desk: Any, asked: str) -> None:
    """From the list to the timeline of the run."""
    (one,) = desk.playbook("approvals", "--json").data
    assert (one["question"], one["status"]) == ("Block ada@contoso.example?", "open")
    said = desk.playbook("approve", one["id"], "--comment", "seen in person")
    assert (said.code, "is approved" in said.out) == (0, True)
    assert desk.playbook("run", "ask", "--once").code == 0
    shown = desk.playbook("runs", "show", asked).out
    assert f"asked ({one['id']}): Block ada@contoso.example?  approved" in shown
    assert "(playbook approve) approve: seen in person" in shown
    assert desk.playbook("approvals").out.count("\n") == 1
    assert "approved" in desk.playbook("approvals", "--all").out
    assert desk.playbook("runs", "follow", asked).code == 0


def test_a_file_that_is_not_there_is_no_broken_archive(desk: Any) -> None:
    """Neither evidence nor an exported log: what is wrong is that it cannot be read."""
    for words in (("evidence", "--verify", "gone.zip"), ("audit", "verify", "--file", "gone.jsonl")):
        said = desk.playbook(*words)
        assert (said.code, said.err.endswith(": No such file or directory\n")) == (2, True), said


def test_an_event_cannot_rewrite_what_an_approver_reads(desk: Any) -> None:
    """Control characters, breaks of lines and turns of direction are shown, never sent to the terminal."""
    desk.write("playbooks/ask.yaml", ASK)
    user = "eve\x1b[2K\rada\x07\x9b\u202e\u2028\n  approve"
    desk.write("event.json", json.dumps({"user": user}))
    said = desk.playbook("run", "ask", "--event", "event.json")
    assert said.code == 3, said
    (run,) = desk.playbook("runs", "list", "--json").data
    question = r"Block eve\x1b[2K\rada\x07\x9b\u202e\u2028\n  approve?"
    outputs = [said.out]
    outputs += [
        desk.playbook(*words).out for words in (("approvals",), ("runs", "show", run["id"]), ("runs",))
    ]
    for output in outputs:
        assert question in output, output
        assert set(output + said.err) & set("\x1b\r\x07\x9b\u202e\u2028") == set()
    assert json.loads(desk.playbook("approvals", "--json").out)[0]["question"] == f"Block {user}?"


def test_a_step_that_will_be_tried_again_is_not_shown_as_running(desk: Any) -> None:
    """A run that waits for a worker, and one that was cancelled before it went on, have no step at work."""
    desk.write("playbooks/fails.yaml", FAILS)
    desk.write("event.json", '{"url": "http://127.0.0.1:9/"}')
    assert desk.playbook("run", "fails", "--event", "event.json").code == 1
    (run,) = desk.playbook("runs", "list", "--json").data
    assert desk.playbook("runs", "retry", run["id"]).code == 0
    waits = desk.playbook("runs", "show", run["id"]).out
    assert "tidy  std.jsonl  waiting" in waits, waits
    assert "running" not in waits


def test_an_answer_that_does_not_count_says_why(desk: Any, asked: str) -> None:
    """An unknown id, a form that nobody asked for, a second answer: exit code 2 and one line."""
    for words, reason in [
        (("approve", "a-none"), "there is no approval 'a-none'; `playbook approvals` lists"),
        (("approve", asked, "--form", "{"), "--form is not JSON"),
        (("approve", asked, "--form", "{}"), "asks for no form"),
    ]:
        said = desk.playbook(*words)
        assert (said.code, reason in said.err, said.err.count("\n")) == (2, True, 1), said
    (one,) = desk.playbook("approvals", "--json").data
    assert desk.playbook("deny", one["id"][:6]).code == 0
    said = desk.playbook("approve", one["id"])
    assert said.code == 2
    assert "is denied since" in said.err


def test_a_waiting_run_is_cancelled_and_its_question_with_it(desk: Any, asked: str) -> None:
    """The next worker ends it; who asked for it is on record."""
    said = desk.playbook("runs", "cancel", asked)
    assert said.code == 0
    assert desk.playbook("approvals", "--json").data == []
    desk.playbook("run", "ask", "--once")
    shown = desk.playbook("runs", "show", asked)
    assert f"{asked}  ask  cancelled" in shown.out
    assert "cancelled by " in shown.out
    assert not (desk.root / "out.jsonl").exists()
    said = desk.playbook("runs", "cancel", asked)
    assert (said.code, "ended already: cancelled" in said.err) == (2, True)


def test_runs_are_found_by_playbook_status_entity_and_time(desk: Any, asked: str) -> None:
    """Each filter alone; branches of runs are no rows of the list."""
    for words, count in [
        (("--playbook", "ask"), 1),
        (("--playbook", "other"), 0),
        (("--status", "waiting"), 1),
        (("--status", "failed"), 0),
        (("--entity", "ADA@contoso.example"), 1),
        (("--entity", "eve"), 0),
        (("--since", "1h"), 1),
        (("--since", "2099-01-01"), 0),
        (("--until", "1h"), 0),
    ]:
        assert len(desk.playbook("runs", "list", *words, "--json").data) == count, words
    said = desk.playbook("runs", "list", "--since", "yesterday")
    assert (said.code, "--since yesterday: no time" in said.err) == (2, True)


def test_a_failed_run_goes_on_where_it_failed(desk: Any) -> None:
    """What succeeded is not repeated, `finally` is; the timeline keeps the first attempt."""
    desk.write("playbooks/fails.yaml", FAILS)
    desk.write("event.json", '{"url": "http://127.0.0.1:9/"}')
    assert desk.playbook("run", "fails", "--event", "event.json").code == 1
    (run,) = desk.playbook("runs", "list", "--json").data
    assert run["error"].startswith(f"{run['id']}/both/1 (fails): step get: no answer from")
    said = desk.playbook("runs", "retry", run["id"])
    assert (said.code, "goes on from both, tidy" in said.out) == (0, True), said
    assert desk.playbook("run", "fails", "--once").code == 1
    lines = {name: (desk.root / f"{name}.jsonl").read_text().count("\n") for name in ("first", "in", "tidy")}
    assert lines == {"first": 1, "in": 1, "tidy": 2}
    shown = desk.playbook("runs", "show", run["id"]).out
    assert "attempt 1: failed: no answer from" in shown
    assert "tried again by" in shown


def test_a_run_goes_back_to_a_step_that_is_named(desk: Any) -> None:
    """That step and all behind it run again; one that is not there is told."""
    desk.write("playbooks/fails.yaml", FAILS)
    desk.write("event.json", '{"url": "http://127.0.0.1:9/"}')
    desk.playbook("run", "fails", "--event", "event.json")
    (run,) = desk.playbook("runs", "list", "--json").data
    said = desk.playbook("runs", "retry", run["id"], "--from", "frist")
    assert (said.code, "has no step 'frist'; its steps: first, both, in, get, tidy" in said.err) == (2, True)
    assert desk.playbook("runs", "retry", run["id"], "--from", "first").code == 0
    desk.playbook("run", "fails", "--once")
    lines = {name: (desk.root / f"{name}.jsonl").read_text().count("\n") for name in ("first", "in", "tidy")}
    assert lines == {"first": 2, "in": 2, "tidy": 2}
    assert json.loads((desk.root / "first.jsonl").read_text().splitlines()[0])


WHOLE = (
    "name: whole\n" + HEAD + "once_per: {key: '{{ event.user }}', window: 24h}\n"
    "steps:\n"
    "  - {id: ask, uses: std.approval, with: {question: '?'}, timeout: 4h}\n"
    "  - id: act\n    when: steps.ask.result.approved\n    steps:\n"
    "      - {id: a, uses: std.http, with: {url: 'https://x.example'}, retry: {attempts: 3}}\n"
    "      - id: each\n        for_each: event.users\n        max_parallel: 4\n"
    "        parallel: [{id: b, uses: std.jsonl, with: {path: b}}, "
    "{id: c, uses: std.jsonl, with: {path: c}}]\n"
    "    on_error: [{id: mend, uses: std.jsonl, with: {path: d}}]\n"
    "finally: [{id: tidy, uses: std.jsonl, with: {path: e}, on_error: continue}]\n"
    "sinks: [{uses: std.jsonl, with: {path: f}}]\n"
)


def test_the_tree_shows_every_form(desk: Any) -> None:
    """What stands inside a step is below it."""
    desk.write("playbooks/whole.yaml", WHOLE)
    lines = desk.playbook("show", "whole").out.splitlines()
    shown = [line.split(" - ")[0].rstrip() for line in lines]
    assert shown[2:] == [
        "  trigger  std.manual",
        "  once per {{ event.user }} within 1d",
        "  ── each event that is left becomes a durable run ──",
        "  ├─ ask: std.approval",
        "  └─ act: a group, when steps.ask.result.approved",
        "     ├─ a: std.http [changes something]",
        "     └─ each: side by side, for each of event.users, 4 at once",
        "        ├─ b: std.jsonl",
        "        └─ c: std.jsonl",
        "     on error",
        "     └─ mend: std.jsonl",
        "  finally",
        "  └─ tidy: std.jsonl",
        "  sink     std.jsonl",
    ]
    assert "up to 3 attempts" in lines[7]
    assert "at most 4h" in lines[5]


def test_the_chart_has_a_node_for_each_step(desk: Any) -> None:
    """Mermaid: boxes for groups and branches, a rhombus for a condition, and every end leads on."""
    desk.write("playbooks/whole.yaml", WHOLE)
    chart = desk.playbook("show", "whole", "--mermaid").out
    assert chart.startswith("flowchart TD\n")
    nodes = ('(["std.manual"])', '{"steps.ask.result.approved"}', "subgraph g", '"tidy', '[("std.jsonl")]')
    for part in nodes:
        assert part in chart, part
    assert chart.count("subgraph") == sum(line.strip() == "end" for line in chart.splitlines())
