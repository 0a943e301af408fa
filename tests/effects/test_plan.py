"""`playbook plan`, and carrying out what was approved."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from counterplay.clock import now
from counterplay.store.retention import delete_old


def by_step(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps of a plan by name."""
    return {one["step"]: one for one in plan["steps"]}


def get(user_id: str, **rest: Any) -> dict[str, Any]:
    """A step that reads a user."""
    return {"uses": "m365.get_user", "connection": "contoso", "with": {"user_id": user_id}, **rest}


def test_a_plan_writes_nothing_to_the_store(bench: Any, block: Callable[..., Any]) -> None:
    """There is no state file afterwards where there was none."""
    bench.write(block(bench.user()["id"]))

    bench.plan()

    assert not (bench.root / ".counterplay" / "state.db").exists()


def test_reads_go_through_and_decide_what_follows(bench: Any, block: Callable[..., Any]) -> None:
    """A condition over what was read is settled in the plan."""
    user = bench.user()
    bench.write(
        get(user["userPrincipalName"], id="user"),
        block("{{ steps.user.result.id }}", id="one", when="steps.user.result.accountEnabled"),
        block("{{ steps.user.result.id }}", id="two", when="not steps.user.result.accountEnabled"),
    )

    steps = by_step(bench.plan())

    assert steps["one"]["calls"][0]["url"].endswith(f"/users/{user['id']}")
    assert steps["one"]["subject"] == user["userPrincipalName"]
    assert steps["one"]["undo"] == "m365.allow_sign_in"
    assert steps["two"]["does"] == "skipped"


def test_what_depends_on_an_unsent_write_is_listed_with_its_condition(
    bench: Any, block: Callable[..., Any]
) -> None:
    """Its result is not known, so neither is what follows from it."""
    user = bench.user()
    bench.write(
        {
            "id": "revoke",
            "uses": "m365.revoke_sessions",
            "connection": "contoso",
            "with": {"user_id": user["id"]},
        },
        block(user["id"], id="sure", when="steps.revoke.result.revoked"),
        block("{{ steps.revoke.result.user_id }}", id="whom"),
        block(bench.user(3)["id"], id="never", when="event.no and steps.revoke.result.revoked"),
    )

    steps = by_step(bench.plan(event={"no": False}))

    assert steps["revoke"]["undo_note"] == "it cannot be taken back"
    assert steps["sure"]["conditions"] == ["if steps.revoke.result.revoked"]
    assert len(steps["sure"]["calls"]) == 1
    assert steps["whom"]["calls"] is None
    assert steps["whom"]["note"] == "depends on steps.revoke.result.user_id"
    assert steps["never"]["does"] == "skipped"


def test_the_sum_names_as_lasting_only_what_nothing_takes_back(bench: Any, block: Callable[..., Any]) -> None:
    """Not what changes nothing, nor what is not known yet or shows when it runs; an account counts once."""
    user = bench.user()
    revoke = {"uses": "m365.revoke_sessions", "connection": "contoso", "with": {"user_id": user["id"]}}
    add = {"user_id": user["id"], "role": "User Administrator"}
    bench.write(block(user["id"]), name="blocked")
    assert bench.run("blocked").exit_code == 0
    bench.write(
        {**revoke, "id": "revoke"},
        block(user["userPrincipalName"].upper(), id="again"),
        block("{{ steps.revoke.result.user_id }}", id="whom"),
        {"id": "role", "uses": "m365.add_to_role", "connection": "contoso", "with": add},
    )
    (bench.root / "event.json").write_text("{}")

    text = bench.call("plan", "test", "--event", str(bench.root / "event.json")).stdout

    assert "cannot be taken back: m365.revoke_sessions\n" in text, text
    assert f"on (not known yet), {user['userPrincipalName']}\n" in text, text


def test_sinks_are_listed_and_not_sent(bench: Any) -> None:
    """A delivery is no effect, and a plan makes none."""
    bench.write(get(bench.user()["id"]), sinks=[{"uses": "intake.forward", "connection": "siem"}])

    plan = bench.plan()

    assert plan["steps"][-1]["does"] == "delivers"
    assert plan["steps"][-1]["connection"] == "siem"
    assert bench.simulator.oracle().verdict().outcomes == 0


def test_a_step_that_would_fail_is_said_and_ends_the_plan(bench: Any, block: Callable[..., Any]) -> None:
    """The steps behind it would not be reached."""
    bench.write(get("nobody@contoso.example"), block(bench.user()["id"], id="block"))
    file = bench.root / "event.json"
    file.write_text("{}")

    result = bench.call("plan", "test", "--event", str(file))

    assert result.exit_code == 1
    assert "no user 'nobody@contoso.example' in the tenant" in result.stdout
    assert "m365.block_sign_in" not in result.stdout


def test_guards_are_heard_in_a_plan(bench: Any, block: Callable[..., Any]) -> None:
    """What a guard would refuse stands beside the step."""
    user = bench.user()
    bench.configure(guardrails={"protected_users": [user["userPrincipalName"]]})
    bench.write(block(user["id"], id="block"))

    assert by_step(bench.plan())["block"]["guard"].startswith("refuses: ")
    assert bench.call("plan", "test", "--event", str(bench.root / "event.json")).exit_code == 1


def test_the_text_names_people_calls_permissions_and_the_way_back(
    bench: Any, block: Callable[..., Any]
) -> None:
    """What an operator reads before saying yes."""
    user = bench.user()
    bench.write(block(user["id"], id="block"))
    file = bench.root / "event.json"
    file.write_text("{}")

    text = bench.call("run", "test", "--event", str(file), "--plan").stdout

    assert f"CHANGES {user['userPrincipalName']}" in text
    assert f"/v1.0/users/{user['id']}" in text
    assert '{"accountEnabled": false}' in text
    assert "needs Microsoft Graph: User.EnableDisableAccount.All or User.ReadWrite.All" in text
    assert "taken back by m365.allow_sign_in" in text
    assert "nothing was sent" in text


@pytest.fixture
def approved(bench: Any, block: Callable[..., Any]) -> Path:
    """A plan file for blocking one user."""
    bench.write(block(bench.user()["id"], id="block"))
    file: Path = bench.root / "event.json"
    file.write_text("{}")
    made: Path = bench.root / "plan.json"
    made.write_text(bench.call("plan", "test", "--event", str(file), "--json").stdout)
    return made


def test_an_approved_plan_is_carried_out_once(bench: Any, approved: Path) -> None:
    """It sends what the plan says; a second time it does nothing."""
    for _ in range(2):
        result = bench.call("run", "test", "--plan-file", str(approved))
        assert result.exit_code == 0, result.stdout

    assert bench.user()["accountEnabled"] is False
    assert len(bench.writes) == 1
    assert len(bench.runs()) == 1


def test_a_plan_that_was_carried_out_says_so_by_which_run_and_when(bench: Any, approved: Path) -> None:
    """It does nothing then, for other runs of the store neither, and its outcome is still its exit code."""
    first = bench.call("run", "test", "--plan-file", str(approved))
    assert "already" not in first.output
    (run,) = bench.runs()
    starts = len(bench.commands())

    again = bench.call("run", "test", "--plan-file", str(approved))
    told = json.loads(bench.call("run", "test", "--plan-file", str(approved), "--json").stdout)

    assert again.stdout == (
        f"this plan was carried out already, by the run {run.id} of test: it succeeded at {run.ended[:19]}Z; "
        "nothing was done now; to do it again, make a new plan\n"
    )
    (shown,) = told["runs"]
    assert (shown["already"], shown["ended"]) == (True, run.ended)
    assert len(bench.commands()) == starts


def test_a_plan_whose_run_failed_says_so_and_fails_again(bench: Any, approved: Path) -> None:
    """It is not tried again by itself: `runs retry` is the way."""
    bench.configure(guardrails={"protected_users": [bench.user()["userPrincipalName"]]})
    assert bench.call("run", "test", "--plan-file", str(approved)).exit_code == 1
    (run,) = bench.runs()

    again = bench.call("run", "test", "--plan-file", str(approved))

    assert again.exit_code == 1
    assert again.stdout.startswith(
        f"this plan was carried out already, by the run {run.id} of test: it failed"
    )
    assert str(run.error) in again.stdout


def test_a_plan_whose_run_was_deleted_since_says_so(bench: Any, approved: Path) -> None:
    """Retention keeps the run's identity: the plan is not carried out a second time."""
    bench.call("run", "test", "--plan-file", str(approved))
    (run,) = bench.runs()
    with closing(bench.database()) as database:
        assert delete_old(database, now() + timedelta(hours=1)) == 1

    again = bench.call("run", "test", "--plan-file", str(approved))

    assert again.exit_code == 0
    assert f"by the run {run.id} of test: that run was deleted at 2" in again.stdout, again.output
    assert len(bench.writes) == 1


def test_a_plan_whose_run_waits_goes_on_and_says_that_it_had_begun(bench: Any, approved: Path) -> None:
    """Who gives the plan again sees that it is the same run."""
    (tenant,) = bench.simulator._tenants.values()
    tenant.change_user(bench.user(), {"accountEnabled": False}, app="somebody", request="r")
    assert "already" not in bench.call("run", "test", "--plan-file", str(approved)).output
    (run,) = bench.runs()

    again = bench.call("run", "test", "--plan-file", str(approved))

    assert again.exit_code == 3
    assert f"the run {run.id} of test began with this at {run.created[:19]}Z; it goes on" in again.stderr


def test_a_plan_stops_to_ask_when_the_state_drifted(bench: Any, approved: Path) -> None:
    """Somebody blocked the account between the plan and the run: nothing is sent."""
    (tenant,) = bench.simulator._tenants.values()
    tenant.change_user(bench.user(), {"accountEnabled": False}, app="somebody", request="r")

    result = bench.call("run", "test", "--plan-file", str(approved))

    assert result.exit_code == 3
    assert "not as it was when the plan was made: accountEnabled differs" in result.stdout
    assert bench.writes == []


def test_who_agrees_that_the_state_drifted_has_not_agreed_to_go_past_a_limit(
    bench: Any, approved: Path
) -> None:
    """Each question is its own, and says whom the effect would touch."""
    (tenant,) = bench.simulator._tenants.values()
    tenant.change_user(bench.user(), {"accountEnabled": False}, app="somebody", request="r")
    bench.configure(guardrails={"effects_per_hour": {"*": 0}})
    asked = []
    for _ in range(2):
        assert bench.call("run", "test", "--plan-file", str(approved)).exit_code == 3
        (question,) = json.loads(bench.call("approvals", "--json").stdout)
        asked.append(question["question"])
        bench.call("approve", question["id"])

    result = bench.call("run", "test", "--plan-file", str(approved))

    whom = f"m365.block_sign_in on {bench.user()['userPrincipalName']}: "
    assert [text.startswith(whom) for text in asked] == [True, True]
    assert ["accountEnabled differs" in text for text in asked] == [True, False]
    assert ["`guardrails.effects_per_hour.*` allows 0" in text for text in asked] == [False, True]
    assert result.exit_code == 0, result.stdout


def test_a_plan_stops_to_ask_when_a_call_differs(bench: Any, approved: Path) -> None:
    """A plan that names another call than the run would make: nothing is sent."""
    from counterplay.runtime.plans import digest_of

    document = json.loads(approved.read_text())
    document["plans"][0]["steps"][0]["calls"][0]["body"] = {"accountEnabled": True}
    document["digests"] = [digest_of(one) for one in document["plans"]]
    approved.write_text(json.dumps(document))

    result = bench.call("run", "test", "--plan-file", str(approved))

    assert result.exit_code == 3
    assert "it would send PATCH" in result.stdout
    assert bench.writes == []


def test_a_plan_that_was_edited_is_refused(bench: Any, approved: Path) -> None:
    """The file says what was approved, to the letter."""
    approved.write_text(approved.read_text().replace(bench.user()["id"], bench.user(3)["id"]))

    result = bench.call("run", "test", "--plan-file", str(approved))

    assert "the plan was changed after it was made" in result.stdout
    assert bench.writes == []


def test_a_plan_of_an_edited_playbook_is_refused(
    bench: Any, approved: Path, block: Callable[..., Any]
) -> None:
    """What was approved is the playbook as it was."""
    bench.write(block(bench.user(3)["id"], id="block"))

    result = bench.call("run", "test", "--plan-file", str(approved))

    assert "test was edited after the plan was made" in result.stdout
    assert bench.writes == []


def everything(users: list[str]) -> list[dict[str, Any]]:
    """A playbook with every form of step and no question: its plan can be exact."""

    def change(name: str, user_id: str, **rest: Any) -> dict[str, Any]:
        return {
            "id": name,
            "uses": "m365.block_sign_in",
            "connection": "contoso",
            "with": {"user_id": user_id},
            **rest,
        }

    return [
        get("{{ event.users[0] }}", id="user"),
        {"id": "group", "steps": [change("one", "{{ steps.user.result.id }}")]},
        {
            "id": "both",
            "parallel": [change("two", users[1]), change("three", users[2], retry={"attempts": 2})],
        },
        change("each", "{{ item }}", for_each="event.users[3:]", when=f"item != '{users[4]}'"),
        {
            "id": "nested",
            "for_each": "event.users[5:]",
            "steps": [get("{{ item }}", id="again"), change("inner", "{{ steps.again.result.id }}")],
        },
        {
            "id": "call",
            "uses": "std.run_playbook",
            "with": {"playbook": "called", "inputs": {"who": users[7]}},
        },
        change("never", users[8], when="steps.user.result.accountEnabled == false"),
        {"uses": "std.stop", "with": {"reason": "enough"}},
        change("behind", users[8]),
    ]


def side_by_side(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The calls with those of the two branches in one order."""
    return [*calls[:1], *sorted(calls[1:3]), *calls[3:]]


def test_a_plan_of_every_form_says_what_its_run_sends(bench: Any, block: Callable[..., Any]) -> None:
    """Groups, branches, loops, called playbooks, `finally`, an early stop: the same calls in order."""
    users = [bench.user(number)["id"] for number in range(2, 11)]
    bench.write(
        block("{{ inputs.who }}", id="called_block"),
        name="called",
        inputs={"who": {"type": "string"}},
    )
    bench.write(*everything(users), **{"finally": [block(users[8], id="last")]})
    event = {"users": users[:7]}
    before = bench.digest()

    plan = bench.plan(event=event)

    assert bench.digest() == before
    planned = [
        (call["method"], "/" + call["url"].split("/", 3)[3])
        for one in plan["steps"]
        for call in one["calls"] or ()
    ]
    assert all(one["conditions"] == [] for one in plan["steps"])
    assert bench.run(event=event).exit_code == 0, bench.runs()[-1].error
    assert side_by_side(bench.writes) == side_by_side(planned)
    assert len(planned) == 10


def test_an_approved_plan_of_every_form_is_carried_out(bench: Any, block: Callable[..., Any]) -> None:
    """The steps of branches, elements and called playbooks are found in the plan."""
    users = [bench.user(number)["id"] for number in range(2, 11)]
    bench.write(
        block("{{ inputs.who }}", id="called_block"), name="called", inputs={"who": {"type": "string"}}
    )
    bench.write(*everything(users))
    (bench.root / "event.json").write_text(json.dumps({"users": users[:7]}))
    file = bench.root / "plan.json"
    file.write_text(bench.call("plan", "test", "--event", "event.json", "--json").stdout)

    result = bench.call("run", "test", "--plan-file", str(file))

    assert result.exit_code == 0, result.stdout
    assert len(bench.writes) == 9


def test_what_follows_an_approval_or_a_wait_is_conditional(bench: Any, block: Callable[..., Any]) -> None:
    """Nobody is asked; what depends on the answer says so, what does not stands there for certain."""
    user = bench.user()["id"]
    bench.write(
        {"id": "decide", "uses": "std.approval", "with": {"question": "Block?"}},
        block(user, id="yes", when="steps.decide.result.approved"),
        {"id": "pause", "uses": "std.wait", "with": {"duration": "1h"}},
        {"uses": "std.stop", "when": "not steps.decide.result.approved", "with": {"reason": "no"}},
        block(user, id="later", on_error=[block(bench.user(3)["id"], id="instead")]),
    )

    steps = by_step(bench.plan())

    assert steps["decide"]["does"] == "asks"
    assert steps["pause"]["does"] == "waits"
    assert steps["yes"]["conditions"] == ["if steps.decide.result.approved"]
    assert steps["later"]["conditions"] == ["if stop does not stop the run"]
    assert steps["instead"]["conditions"] == ["if stop does not stop the run", "if later fails"]
    assert bench.runs_made() == 0
