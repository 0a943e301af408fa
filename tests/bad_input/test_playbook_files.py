"""A playbook that is wrong is told line by line, by `check` and by `run`, and nothing runs."""

from typing import Any

import pytest

HEAD = "name: bad\ndescription: Wrong in one place.\ntrigger: {uses: std.manual}\n"
SINK = "sinks:\n  - uses: std.jsonl\n    with: {path: out.jsonl}\n"
REQUEST = 'steps:\n  - id: ask\n    uses: std.http\n    with: {{url: "http://127.0.0.1:9/", body: {body}}}\n'
BOMB = "a: &a [" + "x, " * 10 + "x]\n"
BOMB += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))

FILES = {
    "an unknown module": (
        HEAD + SINK.replace("std.jsonl", "std.jsnl"),
        "playbooks/bad.yaml:5:11: no module is called 'std.jsnl'; did you mean 'std.jsonl'?\n",
    ),
    "a misspelt argument": (
        HEAD + SINK.replace("path:", "pth: x, path:"),
        "playbooks/bad.yaml:6:12: 'pth' is not known here; did you mean 'path'?\n",
    ),
    "a value of the wrong type": (
        HEAD + SINK.replace("out.jsonl", "5"),
        "playbooks/bad.yaml:6:18: this has to be a text, not a whole number; put it in quotes\n",
    ),
    "a key that stands twice": (
        "name: other\n" + HEAD + SINK,
        "playbooks/bad.yaml:2:1: the key 'name' stands twice (first in line 1); keep one of them\n",
    ),
    "an indentation of tabs": (
        "name: bad\ntrigger:\n\tuses: std.manual\n",
        "playbooks/bad.yaml:3:1: a tab in the indentation; indent with spaces\n",
    ),
    "10 MB": (
        HEAD + SINK + "#" * 10_000_000,
        "playbooks/bad.yaml:1:1: the file has 10,000,126 bytes; 1,000,000 is the limit: split it up\n",
    ),
    "an anchor bomb": (
        BOMB + HEAD + SINK,
        "playbooks/bad.yaml:5:46: the file grows to more than 20,000 values by its aliases; "
        "write it out smaller\n",
    ),
    "a template that reaches for __class__": (
        HEAD + REQUEST.format(body="'{{ event.__class__ }}'") + SINK,
        "playbooks/bad.yaml:7:46: '__class__' cannot be reached: names that begin with _ are closed; "
        "read members of the data only\n",
    ),
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("command", [("check", "bad"), ("run", "bad", "--event", "-")])
def test_a_wrong_file_is_refused_with_its_place_and_a_next_step(
    desk: Any, what: str, command: tuple[str, ...]
) -> None:
    """Both commands say the same single line and exit with 2; no state is made, no event is taken."""
    text, line = FILES[what]
    desk.write("playbooks/bad.yaml", text)

    said = desk.playbook(*command, stdin=b'{"a": 1}')

    assert (said.code, said.out + said.err) == (2, line)
    assert sorted(file.name for file in desk.root.iterdir()) == ["counterplay.yaml", "playbooks"]


def test_every_finding_of_every_file_is_told_at_once(desk: Any) -> None:
    """`check` does not stop at the first thing that is wrong, nor at the first file."""
    wrong = HEAD + SINK.replace("std.jsonl", "std.jsnl") + "  - {uses: std.jsonl, with: {path: 5}}\n"
    desk.write("playbooks/bad.yaml", wrong)
    desk.write("playbooks/worse.yaml", wrong.replace("name: bad", "name: worse"))

    said = desk.playbook("check", "--json")

    assert said.code == 2
    assert [(one["file"], one["line"], one["column"]) for one in said.data["findings"]] == [
        ("playbooks/bad.yaml", 5, 11),
        ("playbooks/bad.yaml", 7, 36),
        ("playbooks/worse.yaml", 5, 11),
        ("playbooks/worse.yaml", 7, 36),
    ]


TOO_LARGE = "it would produce 200,000,000 characters or elements; 2,000,000 is the limit"
AT_RUN_TIME = {
    "multiplies a string": ("\"{{ 'a' * 200000000 }}\"", f"with.body: `'a' * 200000000`: {TOO_LARGE}"),
    "multiplies a string of the event": (
        '"{{ event.text * 40000000 }}"',
        f"with.body: `event.text * 40000000`: {TOO_LARGE}",
    ),
    "reaches for a method of the event": (
        '"{{ event.values }}"',
        "with.body: event.values is missing; write `| default(...)` where it may be missing",
    ),
    "joins what the sandbox closed": (
        '"{{ event.text.format_map }}"',
        "with.body: event.text.format_map is missing; write `| default(...)` where it may be missing",
    ),
}


def test_a_template_that_goes_too_far_fails_its_step_only(desk: Any) -> None:
    """Each step fails with the expression and the reason, and the sink hears of all of them."""
    steps = "".join(
        f"  - id: s{number}\n    uses: std.http\n    on_error: continue\n"
        f'    with: {{url: "http://127.0.0.1:9/", body: {body}}}\n'
        for number, (body, _) in enumerate(AT_RUN_TIME.values())
    )
    desk.write("playbooks/bad.yaml", HEAD + "steps:\n" + steps + SINK)

    said = desk.playbook("run", "bad", "--event", "-", "--json", stdin=b'{"text": "hello"}')
    run = desk.playbook("runs", "--json").data[0]
    shown = desk.playbook("runs", "show", run["id"], "--json").data

    assert said.data["figures"]["steps_failed"] == len(AT_RUN_TIME)
    failed = [step["error"] for step in shown["steps"] if step["status"] == "failed"]
    assert failed == [reason for _, reason in AT_RUN_TIME.values()]
    assert shown["event"] == {"text": "hello"}
    assert f'"run":"{run["id"]}"' in (desk.root / "out.jsonl").read_text()


def test_a_run_that_fails_says_where_and_how_to_look_at_it(desk: Any) -> None:
    """The summary names the run, the step, the argument, the expression and the next command."""
    desk.write("playbooks/bad.yaml", HEAD + REQUEST.format(body="\"{{ 'a' * 200000000 }}\"") + SINK)

    said = desk.playbook("run", "bad", "--event", "-", stdin=b"{}")
    run = desk.playbook("runs", "--json").data[0]["id"]

    assert said.code == 1
    assert said.out.splitlines()[1:] == [
        "  collected    1 event in 1 unit",
        "  delivered    1 record",
        "  runs         1 started: 1 failed",
        f"  ! run {run} of bad failed: step ask: with.body: `'a' * 200000000`: {TOO_LARGE}; "
        f"`playbook runs show {run}`",
    ]


def test_members_of_the_data_win_over_methods(desk: Any) -> None:
    """`event.items` and `event.values` are what the event says, in filters and in arguments."""
    desk.write("playbooks/members.yaml", "name: members\ndescription: Members.\ntrigger: {uses: std.manual}\n"
               "filter: event.items == 3 and event.values == 4\n" + SINK)  # fmt: skip
    events = b'{"items": 3, "values": 4}\n{"items": [3], "values": 4}\n{"values": 4}\n'

    said = desk.playbook("run", "members", "--event", "-", "--json", stdin=events)

    assert said.code == 0
    assert (desk.root / "out.jsonl").read_text() == '{"items": 3, "values": 4}\n'
    assert {key: said.data["figures"][key] for key in ("collected", "filtered", "delivered")} == {
        "collected": 3,
        "filtered": 2,
        "delivered": 1,
    }
