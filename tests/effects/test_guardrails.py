"""Guardrails, from counterplay.yaml to the tenant that stays as it was."""

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("spelt", ["id", "userPrincipalName"])
@pytest.mark.parametrize("listed", ["id", "userPrincipalName"])
def test_a_protected_account_is_refused_however_it_is_named(
    bench: Any, block: Callable[..., Any], spelt: str, listed: str
) -> None:
    """The list and the step may name the account by id or by principal name, in any case of letters."""
    user = bench.user()
    bench.configure(guardrails={"protected_users": [user[listed].upper()]})
    bench.write(block(user[spelt]))
    before = bench.digest()

    ended = bench.run()

    assert ended.exit_code == 1
    assert "is a protected account (`guardrails.protected_users`)" in str(bench.runs()[0].error)
    assert bench.digest() == before


def test_a_protected_mailbox_keeps_its_rules(bench: Any) -> None:
    """Actions on something that belongs to an account are refused by the account."""
    user = bench.user()
    bench.configure(guardrails={"protected_users": [user["userPrincipalName"]]})
    bench.write(
        {"uses": "m365.disable_inbox_rules", "connection": "contoso", "with": {"user_id": user["id"]}}
    )

    bench.run()

    assert "is a protected account" in str(bench.runs()[0].error)


def test_read_only_refuses_every_effect(bench: Any, block: Callable[..., Any]) -> None:
    """Playbooks still read; nothing is changed."""
    bench.configure(guardrails={"read_only": True})
    bench.write(
        {"uses": "m365.get_user", "connection": "contoso", "with": {"user_id": bench.user()["id"]}},
        block(bench.user()["id"]),
    )
    before = bench.digest()

    bench.run()

    assert "`guardrails.read_only` is set" in str(bench.runs()[0].error)
    assert bench.digest() == before


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"effects_per_hour": {"m365.block_sign_in": 2}}, "effects of m365.block_sign_in: 2"),
        ({"effects_per_hour": {"*": 2}}, "effects: 2"),
        ({"effects_per_hour_by_playbook": {"test": 2}}, "effects of the playbook test: 2"),
        ({"effects_per_hour_by_tenant": {"*": 2}}, "effects in the tenant"),
        ({"runs_per_hour": {"*": 2}}, "runs of the playbook test that changed something: 2"),
    ],
)
def test_a_limit_pauses_the_run_and_drops_nothing(bench: Any, limits: dict[str, Any], text: str) -> None:
    """The third effect waits for a person; the first two took place."""
    bench.configure(guardrails=limits)
    step = {"uses": "m365.block_sign_in", "connection": "contoso", "with": {"user_id": "{{ event.user }}"}}
    bench.write(step)

    codes = [bench.run(event={"user": bench.user(number)["id"]}).exit_code for number in (2, 3, 4)]

    assert codes == [0, 0, 3], [(run.status, run.error, run.id) for run in bench.runs()]
    waiting = [run for run in bench.runs() if run.status not in ("succeeded", "failed")]
    assert len(waiting) == 1
    assert text in str(waiting[0].error)
    assert [bench.user(number)["accountEnabled"] for number in (2, 3, 4)] == [False, False, True]


def test_guardrails_without_their_plugin_refuse_everything(
    bench: Any, block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disabling the plugin does not take the guardrails off."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "guard")
    bench.configure(guardrails={"effects_per_hour": {"m365.block_sign_in": 10}})
    bench.write(block(bench.user()["id"]))

    result = bench.call("run", "test", "--event", "-", "--json")

    assert result.exit_code != 0
    assert bench.user()["accountEnabled"] is True


def test_a_person_may_agree_to_go_past_a_limit(bench: Any) -> None:
    """The run that waited goes on with that one effect, and who agreed is in the audit log."""
    bench.configure(guardrails={"effects_per_hour": {"*": 1}})
    step = {"uses": "m365.block_sign_in", "connection": "contoso", "with": {"user_id": "{{ event.user }}"}}
    bench.write(step)
    assert [bench.run(event={"user": bench.user(number)["id"]}).exit_code for number in (2, 3)] == [0, 3]
    question = json.loads(bench.call("approvals", "--json").stdout)[0]

    bench.call("approve", question["id"], "--comment", "an incident")
    ended = bench.run(event={"user": bench.user(2)["id"]})

    assert "`guardrails.effects_per_hour.*` allows 1" in question["question"]
    assert f"m365.block_sign_in on {bench.user(3)['userPrincipalName']}: " in question["question"]
    assert bench.user(3)["accountEnabled"] is False
    assert ended.exit_code == 3, "the next effect is past the limit, too"
    logged = [json.loads(line) for line in bench.call("audit", "export").stdout.splitlines()]
    answers = [json.loads(one["body"]) for one in logged if one["kind"] == "approval"]
    assert answers[0]["decision"] == "approve"
    assert answers[0]["comment"] == "an incident"
    assert bench.call("audit", "verify").exit_code == 0


def test_the_last_global_administrator_keeps_access_to_the_simulated_tenant(
    bench: Any, block: Callable[..., Any]
) -> None:
    """Read from the tenant's own roles, where the app may read them."""
    from counterplay_m365.administrators import GLOBAL_ADMINISTRATOR

    (tenant,) = bench.simulator._tenants.values()
    tenant.grants["graph"].append("RoleManagement.Read.Directory")
    holders = [
        tenant.users[one["principalId"]]
        for one in tenant.objects["roleAssignment"].values()
        if one["roleDefinitionId"] == GLOBAL_ADMINISTRATOR and one["principalId"] in tenant.users
    ]
    last, *others = holders
    for other in others:
        tenant.change_user(other, {"accountEnabled": False}, app="somebody", request="r")
    bench.write(block(last["id"]))

    bench.run()

    assert "is the last Global Administrator of the tenant who can sign in" in str(bench.runs()[0].error)
    assert bench.writes == []
