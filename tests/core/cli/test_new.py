"""`playbook new`: a playbook that passes `check`, with a test that passes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml


def test_flags_give_a_playbook_and_a_test_that_pass(desk: Any) -> None:
    """Nothing is left to fill in before it can be tried."""
    said = desk.playbook(
        "new",
        "contain",
        "--trigger",
        "m365.alerts",
        "--step",
        "user=m365.get_user",
        "--step",
        "std.approval",
        "--step",
        "m365.block_sign_in",
        "--sink",
        "intake.forward",
        "--description",
        "Contain it.",
    )
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:2] == [
        "wrote playbooks/contain.yaml",
        "wrote playbooks/tests/contain.yaml",
    ]
    playbook = yaml.safe_load((desk.root / "playbooks" / "contain.yaml").read_text())
    assert [step["id"] for step in playbook["steps"]] == ["user", "approval", "block_sign_in"]
    assert playbook["description"] == "Contain it."
    assert desk.playbook("check").out == "1 playbook checked, nothing is wrong\n"
    tried = desk.playbook("test", "--json")
    assert [one["passed"] for one in tried.data["cases"]] == [True]
    assert (desk.root / ".counterplay" / "playbook.schema.json").is_file()
    assert (desk.root / ".counterplay" / "playbook-test.schema.json").is_file()


def test_what_is_not_given_is_asked(desk: Any) -> None:
    """Trigger, steps and sinks; an empty line ends a list."""
    said = desk.playbook("new", "asked", stdin=b"std.manual\nm365.get_user\n\nstd.jsonl\n\n")
    assert said.code == 0
    assert "Triggers: " in said.err
    playbook = yaml.safe_load((desk.root / "playbooks" / "asked.yaml").read_text())
    assert playbook["trigger"] == {"uses": "std.manual"}
    assert [step["uses"] for step in playbook["steps"]] == ["m365.get_user"]
    assert [sink["uses"] for sink in playbook["sinks"]] == ["std.jsonl"]
    assert desk.playbook("test").code == 0


@pytest.mark.parametrize(
    ("answers", "question"),
    [(b"", "Trigger"), (b"std.manual\nm365.get_user\n", "Step 2 (empty: no more)")],
)
def test_input_that_ends_before_the_answers_is_an_error_and_writes_nothing(
    desk: Any, answers: bytes, question: str
) -> None:
    """The line names the question, and how to answer it without a terminal."""
    said = desk.playbook("new", "asked", stdin=answers)

    assert said.code == 2
    assert said.err.endswith(
        f"error: no answer to `{question}`: the input has ended; without a terminal, give --trigger, "
        "and --step and --sink as often as needed\n"
    )
    assert not (desk.root / "playbooks" / "asked.yaml").exists()


def test_ctrl_c_at_a_question_is_no_missing_answer(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who interrupts it knows why it ends."""

    def interrupted(_question: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", interrupted)

    said = desk.playbook("new", "asked")

    assert said.code == 130
    assert "no answer" not in said.err


def test_connections_of_the_workspace_win_and_can_be_named(desk: Any) -> None:
    """The first of its kind, unless one is named."""
    desk.write(
        "counterplay.yaml",
        "connections:\n"
        "  contoso: &tenant\n"
        "    uses: m365.tenant\n"
        "    tenant_id: 6c2a8c5e-0d4b-4f0e-9a57-1f2b3c4d5e6f\n"
        "    managed_identity: system\n"
        "  fabrikam: *tenant\n",
    )
    flags = ("--trigger", "m365.alerts", "--sink", "std.jsonl")
    assert desk.playbook("new", "first", *flags).code == 0
    assert desk.playbook("new", "second", *flags, "--connection", "m365.tenant=fabrikam").code == 0
    for name, connection in (("first", "contoso"), ("second", "fabrikam")):
        found = yaml.safe_load((desk.root / "playbooks" / f"{name}.yaml").read_text())
        assert found["trigger"]["connection"] == connection


def test_what_cannot_be_written_leaves_nothing_behind(desk: Any) -> None:
    """A module that does not exist or does not belong there, a name that is taken or none."""
    cases = [
        (("new", "a", "--trigger", "m365.alert", "--sink", "std.jsonl"), "did you mean 'm365.alerts'?"),
        (("new", "a", "--trigger", "m365.get_user", "--sink", "std.jsonl"), "is an action, not a trigger"),
        (("new", "a", "--trigger", "std.manual"), "a playbook needs a step or a sink"),
        (("new", "A b", "--trigger", "std.manual", "--sink", "std.jsonl"), "playbooks/A b.yaml:2:7: "),
        (
            ("new", "a", "--trigger", "m365.alerts", "--sink", "std.jsonl", "--connection", "x"),
            "--connection x",
        ),
    ]
    for arguments, why in cases:
        said = desk.playbook(*arguments)
        assert (said.code, why in said.err) == (2, True), said
    assert not (desk.root / "playbooks").exists()
    assert desk.playbook("new", "a", "--trigger", "std.manual", "--sink", "std.jsonl").code == 0
    said = desk.playbook("new", "a", "--trigger", "std.manual", "--sink", "std.jsonl")
    assert said.code == 2
    assert "playbooks/a.yaml: it is there already; choose another name" in said.err
