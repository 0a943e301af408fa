"""`playbook record`: a real run becomes a test that passes, and tells nobody who it was about."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

PLAYBOOK = """\
name: contain
trigger: {uses: std.manual}
filter: "'takeover' in event.title"
steps:
  - id: user
    uses: m365.get_user
    connection: contoso
    with: {user_id: "{{ event.user }}"}
  - id: decide
    uses: std.approval
    with: {question: "Block {{ steps.user.result.userPrincipalName }}?"}
  - id: block
    uses: m365.block_sign_in
    connection: contoso
    when: steps.decide.result.approved
    with: {user_id: "{{ steps.user.result.id }}"}
  - id: gone
    uses: m365.get_user
    connection: contoso
    with: {user_id: "nobody@{{ event.domain }}"}
    on_error: continue
sinks:
  - {uses: std.jsonl, with: {path: out.jsonl}}
"""
EVENT = {
    "user": "alice@contoso.example",
    "title": "An account takeover of Alice Abel",
    "domain": "contoso.example",
    "seen": "2026-03-02T08:00:00Z",
    "from": "203.0.113.9",
    "kind": "signIn",
}


@pytest.fixture
def recorded(desk: Any) -> Any:
    """A workspace in which one run has ended, and its id."""
    desk.write("playbooks/contain.yaml", PLAYBOOK)
    desk.write("event.json", json.dumps(EVENT))
    arguments = ("run", "contain", "--event", "event.json", "--connection", "contoso=sim")
    assert desk.playbook(*arguments).code == 3
    (question,) = desk.playbook("approvals", "--json").data
    assert desk.playbook("approve", question["id"]).code == 0
    said = desk.playbook("run", "contain", "--once", "--connection", "contoso=sim")
    (run,) = desk.playbook("runs", "list", "--json").data
    assert run["status"] == "succeeded", said
    return desk, run["id"]


def test_a_run_becomes_a_test_that_passes_without_names(recorded: Any) -> None:
    """What was equal stays equal, what the playbook looks at stays, and nobody is named."""
    desk, run = recorded
    said = desk.playbook("record", run[:8])
    assert (said.code, said.err) == (0, "")
    for name in ("alice", "abel", "contoso.example", "203.0.113.9", "signin_of_alice"):
        assert name not in said.out.casefold()
    (case,) = yaml.safe_load(said.out)["cases"]
    event = case["given"]["event"]
    assert event["user"] == case["given"]["answers"]["user"]["result"]["userPrincipalName"]
    assert "takeover" in event["title"]
    assert (event["seen"], event["kind"]) == (EVENT["seen"], EVENT["kind"])
    (block,) = case["expect"]["effects"]
    assert block["target"] == case["given"]["answers"]["user"]["result"]["id"]
    assert block["calls"][0]["body"] == {"accountEnabled": False}
    assert case["expect"]["steps"]["gone"] == "failed"
    assert case["expect"]["questions"] == [f"Block {block['subject']}?"]

    desk.write("playbooks/tests/contain.yaml", said.out)
    tried = desk.playbook("test", "--json")
    assert tried.code == 0
    assert [one["passed"] for one in tried.data["cases"]] == [True]


def test_a_playbook_that_does_otherwise_by_now_is_told(recorded: Any) -> None:
    """The test is played before it is written; what differs from the run is named."""
    desk, run = recorded
    desk.write(
        "playbooks/contain.yaml", PLAYBOOK.replace("when: steps.decide.result.approved", "when: false")
    )
    desk.write(
        "playbooks/contain.yaml",
        PLAYBOOK.replace("when: steps.decide.result.approved", "when: not steps.decide.result.approved"),
    )
    said = desk.playbook("record", run)
    assert said.code == 1
    assert "this is not as in the run: step block: skipped in the case, succeeded in the run" in said.err


def test_a_run_that_is_not_there_or_has_not_ended_is_refused(desk: Any) -> None:
    """A test of half a run would prove nothing."""
    desk.write("playbooks/contain.yaml", PLAYBOOK)
    desk.write("event.json", json.dumps(EVENT))
    desk.playbook("run", "contain", "--event", "event.json", "--connection", "contoso=sim")
    assert "there is no run 'r-nothing'" in desk.playbook("record", "r-nothing").err
    (run,) = desk.playbook("runs", "list", "--json").data
    said = desk.playbook("record", run["id"])
    assert said.code == 2
    assert "is waiting; record a run that succeeded or failed" in said.err


PLANNED = """\
name: planned
trigger: {uses: std.manual}
steps:
  - id: user
    uses: m365.get_user
    connection: sim
    with: {user_id: "{{ event.user }}"}
  - id: block
    uses: m365.block_sign_in
    connection: sim
    with: {user_id: "{{ steps.user.result.id }}"}
"""


def planned(desk: Any) -> None:
    """A plan file for the playbook `planned`."""
    desk.write("playbooks/planned.yaml", PLANNED)
    desk.write("event.json", json.dumps(EVENT))
    desk.write("plan.json", desk.playbook("plan", "planned", "--event", "event.json", "--json").out)


def test_a_run_that_carried_out_a_plan_becomes_a_test_of_its_playbook(desk: Any) -> None:
    """What was agreed about that one run is no part of it: it would make the test stop to ask."""
    planned(desk)
    assert desk.playbook("run", "planned", "--plan-file", "plan.json").code == 0

    said = desk.playbook("record", "r-")

    assert (said.code, said.err) == (0, "")
    (case,) = yaml.safe_load(said.out)["cases"]
    assert case["expect"]["status"] == "succeeded"
    assert not any(name.startswith("_") for name in case["given"].get("meta", {}))
    assert [one["step"] for one in case["expect"]["effects"]] == ["block"]
    desk.write("playbooks/tests/planned.yaml", said.out)
    tried = desk.playbook("test", "--json")
    assert [one["passed"] for one in tried.data["cases"]] == [True]


def test_what_people_agreed_about_a_plan_is_no_answer_of_the_test(desk: Any) -> None:
    """The account was blocked between the plan and the run: in the test nobody asks about that."""
    planned(desk)
    desk.write("playbooks/other.yaml", PLANNED.replace("name: planned", "name: other"))
    assert desk.playbook("run", "other", "--event", "event.json").code == 0
    assert desk.playbook("run", "planned", "--plan-file", "plan.json").code == 3
    (question,) = desk.playbook("approvals", "--json").data
    assert "not as it was when the plan was made" in question["question"]
    assert desk.playbook("approve", question["id"]).code == 0
    assert desk.playbook("run", "planned", "--plan-file", "plan.json").code == 0

    said = desk.playbook("record", question["run_id"])

    assert (said.code, said.err) == (0, "")
    (case,) = yaml.safe_load(said.out)["cases"]
    assert "approvals" not in case["given"]


@pytest.mark.parametrize(("limit", "asks"), [(0, True), (1, False)])
def test_what_people_agreed_to_at_a_limit_is_recorded_where_the_test_alone_reaches_it(
    desk: Any, limit: int, asks: bool
) -> None:
    """A limit that was reached by other runs, too, is none in a test, where nothing else has run."""
    desk.write("playbooks/planned.yaml", PLANNED)
    desk.write("event.json", json.dumps(EVENT))
    if not asks:  # an earlier run uses it up
        assert desk.playbook("run", "planned", "--event", "event.json").code == 0
    desk.write("counterplay.yaml", f"guardrails: {{effects_per_hour: {{'*': {limit}}}}}\n")
    assert desk.playbook("run", "planned", "--event", "event.json").code == 3
    (question,) = desk.playbook("approvals", "--json").data
    assert desk.playbook("approve", question["id"]).code == 0
    assert desk.playbook("run", "planned", "--once").code == 0

    said = desk.playbook("record", question["run_id"])

    assert (said.code, said.err) == (0, "")
    (case,) = yaml.safe_load(said.out)["cases"]
    assert ("approvals" in case["given"]) == asks
    desk.write("playbooks/tests/planned.yaml", said.out)
    assert [one["passed"] for one in desk.playbook("test", "--json").data["cases"]] == [True]


WATCHED = """\
name: watched
trigger: {uses: std.manual}
steps:
  - id: block
    uses: m365.block_sign_in
    connection: sim
    with: {user_id: "{{ event.user }}"}
    verify: {after: [1ms]}
  - {id: decide, uses: std.approval, with: {question: "Enough?"}}
"""


def test_what_later_looks_showed_is_recorded_and_expected(desk: Any) -> None:
    """The look was made while the run waited; the test says what it showed."""
    desk.write("playbooks/watched.yaml", WATCHED)
    desk.write("event.json", json.dumps(EVENT))
    assert desk.playbook("run", "watched", "--event", "event.json").code == 3
    (question,) = desk.playbook("approvals", "--json").data
    assert desk.playbook("approve", question["id"]).code == 0
    assert desk.playbook("run", "watched", "--once").code == 0

    said = desk.playbook("record", "r-")

    assert (said.code, said.err) == (0, "")
    (case,) = yaml.safe_load(said.out)["cases"]
    assert case["given"]["answers"]["block"]["looks"] == {"1ms": True}
    assert case["expect"]["looks"] == [{"step": "block", "after": "1ms", "held": True}]
