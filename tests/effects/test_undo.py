"""`playbook undo`: several effects, drift, and what cannot be taken back."""

from typing import Any

import pytest


def steps(user_id: str) -> list[dict[str, Any]]:
    """End the sessions, switch rules off, block."""
    return [
        {"id": name, "uses": f"m365.{name}", "connection": "contoso", "with": {"user_id": user_id, **more}}
        for name, more in (("revoke_sessions", {}), ("disable_inbox_rules", {}), ("block_sign_in", {}))
    ]


@pytest.fixture
def contained(bench: Any) -> str:
    """A run that contained an account, with all its rules off."""
    user = bench.with_rules()
    made = steps(user["id"])
    made[1]["with"]["rule_ids"] = [rule["id"] for rule in bench.rules(user)]
    bench.write(*made)
    assert bench.run().exit_code == 0, bench.runs()[0].error
    return str(bench.runs()[0].id)


def test_effects_are_taken_back_in_reverse_and_the_rest_is_named(bench: Any, contained: str) -> None:
    """The last effect first; what cannot be taken back makes the exit code 1."""
    result = bench.call("undo", contained)

    undo = bench.runs()[0]
    assert [one.uses for one in bench.effects(undo)] == ["m365.allow_sign_in", "m365.enable_inbox_rules"]
    assert result.exit_code == 1
    assert "m365.revoke_sessions cannot be taken back" in result.stdout
    assert bench.with_rules()["accountEnabled"] is True


def test_one_effect_can_be_taken_back_alone(bench: Any, contained: str) -> None:
    """`--effect 3` is the last one of three."""
    result = bench.call("undo", contained, "--effect", "3")

    assert result.exit_code == 0, result.stdout
    assert [one.uses for one in bench.effects(bench.runs()[0])] == ["m365.allow_sign_in"]


def test_the_plan_of_an_undo_sends_nothing(bench: Any, contained: str) -> None:
    """It lists the calls, and what it leaves."""
    before, sent = bench.digest(), list(bench.writes)

    result = bench.call("undo", contained, "--plan")

    assert result.exit_code == 0
    assert '{"accountEnabled": true}' in result.stdout
    assert "effect 1: m365.revoke_sessions" in result.stdout
    assert (bench.digest(), bench.writes) == (before, sent)
    assert len(bench.runs()) == 1


def test_what_was_changed_since_is_left_alone_unless_forced(bench: Any, contained: str) -> None:
    """Somebody switched one of the rules on again: they know more than the journal does."""
    (tenant,) = bench.simulator._tenants.values()
    user = tenant.users[bench.effects(bench.runs()[0])[0].target]
    first, *rest = tenant.rules[user["id"]]
    assert len(rest) >= 1
    tenant.rules.put(user["id"], [{**first, "isEnabled": True}, *rest])

    result = bench.call("undo", contained, "--effect", "2")

    assert result.exit_code == 1
    assert (
        "does not stand any more: somebody changed the target since (other than before: rules)"
        in result.stdout
    )
    assert bench.call("undo", contained, "--effect", "2", "--force").exit_code == 0
    assert all(rule["isEnabled"] for rule in tenant.rules[user["id"]] if not rule["isReadOnly"])


def test_a_second_undo_finds_nothing_to_do(bench: Any, contained: str) -> None:
    """What is as it was before is not touched again."""
    bench.call("undo", contained)
    sent = list(bench.writes)

    result = bench.call("undo", contained)

    assert bench.writes == sent
    assert result.stdout.count("was as before already") == 2


def test_a_second_undo_of_what_was_created_anew_says_that_it_did_nothing(bench: Any) -> None:
    """Rules that were deleted come back with new ids: it is not as it was, and yet there is nothing to do."""
    user = bench.with_rules()
    given = {"user_id": user["id"], "rule_ids": [bench.rules(user)[0]["id"]]}
    bench.write({"uses": "m365.delete_inbox_rules", "connection": "contoso", "with": given})
    assert bench.run().exit_code == 0, bench.runs()[0].error
    run = bench.runs()[0].id
    assert bench.call("undo", run).stdout.count(": taken back") == 1
    sent = list(bench.writes)

    result = bench.call("undo", run)

    assert bench.writes == sent
    assert "was as before already" in result.stdout
    assert result.exit_code == 0


def test_the_plan_of_an_undo_shows_what_is_as_before_and_what_was_changed_since(
    bench: Any, contained: str
) -> None:
    """Only what the undo would send counts as a write."""
    (tenant,) = bench.simulator._tenants.values()
    user = tenant.users[bench.effects(bench.runs()[0])[0].target]
    first, *rest = tenant.rules[user["id"]]
    tenant.rules.put(user["id"], [{**first, "isEnabled": True}, *rest])
    tenant.change_user(user, {"accountEnabled": True}, app="somebody", request="r")

    result = bench.call("undo", contained, "--plan")

    assert result.exit_code == 1
    assert "in all: 0 changes, 0 writes" in result.stdout
    assert "not taken back: the effect of m365.disable_inbox_rules does not stand any more" in result.stdout
    assert f"m365.block_sign_in on {user['userPrincipalName']}: is as before already" in result.stdout
    assert "in all: 1 change, " in bench.call("undo", contained, "--plan", "--force").stdout


def test_texts_of_an_effect_are_no_templates(bench: Any) -> None:
    """An identifier with braces goes back to the service as it came."""
    from counterplay.runtime.undo import Prospect, undo_run

    bench.write(*steps(bench.user()["id"])[2:])
    bench.run()
    run = bench.runs()[0]
    (effect,) = bench.effects(run)
    from counterplay import Inverse
    from counterplay.language import from_document
    from counterplay.plugins import PluginHost

    inverse = Inverse("m365.allow_sign_in", {"user_id": "{{ event }}"})

    made = undo_run(run, [Prospect(effect, inverse)], force=False, by="somebody")

    (step,) = from_document(made.document, PluginHost.load()).steps
    import json

    assert step.arguments.render({"event": json.loads(made.event)}) == {"user_id": "{{ event }}"}


def test_a_run_that_changed_nothing_has_nothing_to_take_back(bench: Any) -> None:
    """The message says where to look."""
    bench.write({"uses": "m365.get_user", "connection": "contoso", "with": {"user_id": bench.user()["id"]}})
    bench.run()
    identity = bench.runs()[0].id

    result = bench.call("undo", identity)

    assert f"the run {identity} changed nothing: there is nothing to take back" in result.stdout


@pytest.fixture
def refused(bench: Any) -> str:
    """A run that failed before its one effect took place."""
    bench.configure(guardrails={"protected_users": [bench.user()["userPrincipalName"]]})
    bench.write(*steps(bench.user()["id"])[2:])
    assert bench.run().exit_code == 1
    return str(bench.runs()[0].id)


def test_no_undo_is_offered_for_a_run_that_failed_before_it_changed_anything(
    bench: Any, refused: str, contained: str
) -> None:
    """It is offered, by its command, for one that did."""
    assert bench.call("runs", "show", refused).stdout.endswith(
        "goes on where it ended\n  it changed nothing: there is nothing to take back\n"
    )
    assert f"`playbook undo {contained}` takes that back" in bench.call("runs", "show", contained).stdout


def test_an_undo_of_what_did_not_take_place_says_that_there_is_nothing_to_take_back(
    bench: Any, refused: str
) -> None:
    """No run is made for it, and its plan is none."""
    said = bench.call("undo", refused)
    planned = bench.call("undo", refused, "--plan")

    assert said.stdout.splitlines()[0] == f"undo of {refused} (test): there is nothing to take back"
    assert planned.stdout.splitlines()[0] == f"{refused}: there is nothing to take back"
    assert "what a run would do" not in planned.stdout
    assert (said.exit_code, planned.exit_code, len(bench.runs())) == (0, 0, 1)


def test_an_undo_of_what_nothing_takes_back_does_not_call_it_nothing(bench: Any) -> None:
    """Sessions that were ended stay ended: that is something, and the exit code says so."""
    bench.write(*steps(bench.user()["id"])[:1])
    assert bench.run().exit_code == 0
    run = bench.runs()[0].id

    said = bench.call("undo", run)

    assert said.exit_code == 1
    assert "nothing to take back" not in said.stdout
    assert bench.call("undo", run, "--plan").stdout.startswith(f"{run}: nothing of it can be taken back\n")


def test_a_run_shows_what_can_be_taken_back_and_what_cannot(bench: Any, contained: str) -> None:
    """`runs show` says it before anybody tries."""
    text = bench.call("runs", "show", contained).stdout

    assert "m365.revoke_sessions cannot be taken back" in text
    assert "can be taken back by m365.enable_inbox_rules" in text
    assert "can be taken back by m365.allow_sign_in" in text
