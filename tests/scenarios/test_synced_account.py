"""A compromised account that Active Directory owns: it may refuse the block, or undo it afterwards."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Strictness

CONTAIN = "contain-compromised-account"
OWNED = (
    "the account is synced from Active Directory, which owns it and may undo this at its next synchronisation"
)


@pytest.fixture
def synced(attacked: Any) -> Any:
    """The victim is a user of Active Directory; what Graph makes of that says each test."""
    scene = attacked("account-takeover", CONTAIN)
    scene.simulator.tenant.change_user(
        victim(scene), {"onPremisesSyncEnabled": True}, app="setup", request="r"
    )
    return scene


def victim(scene: Any) -> Any:
    return scene.simulator.tenant.users[scene.truth["victim"]]


def rules(scene: Any, synced_users: str) -> None:
    scene.simulator.tenant.strictness = Strictness(graph=GraphRules(synced_users=synced_users))


def pass_time(scene: Any) -> None:
    """Make every look due."""
    with closing(sqlite3.connect(scene.root / ".counterplay" / "state.db")) as database, database:
        database.execute("UPDATE cp_watch SET due = '2000-01-01T00:00:00.000000Z'")


def test_the_watch_reports_that_the_directory_let_the_account_in_again(synced: Any) -> None:
    """The plan cautions, the block holds at first; after the synchronisation the watch reports, and why."""
    rules(synced, "accept")
    plan = synced.call("plan", CONTAIN, "--event", str(synced.event(CONTAIN)))
    assert OWNED in plan.output

    assert synced.respond(CONTAIN).exit_code == 0
    assert synced.chain.contained
    assert victim(synced)["accountEnabled"] is False

    synced.simulator.tenant.change_user(
        victim(synced), {"accountEnabled": True}, app="Microsoft Entra Connect", request="sync"
    )
    pass_time(synced)
    result = synced.call("run", CONTAIN, "--once")

    assert result.exit_code == 1
    name = synced.truth["victim_upn"]
    said = f"m365.block_sign_in on {name}, made 24h ago by step block, does not hold any more ({OWNED}"
    assert said in result.output
    logged = [json.loads(line) for line in synced.call("audit", "export").output.splitlines()]
    looks = [json.loads(one["body"]) for one in logged if one["kind"] == "watch"]
    assert [one["held"] for one in looks] == [False, False, False]


def test_a_directory_that_refuses_the_block_fails_the_run_and_the_rest_is_done(synced: Any) -> None:
    """The step says where to act, the run that the account is not blocked; sessions and rules are ended."""
    rules(synced, "refuse")

    result = synced.respond(CONTAIN)

    assert result.exit_code == 1
    (run,) = synced.runs(CONTAIN)
    shown = synced.data("runs", "show", run)
    steps = {step["step_id"]: step for step in shown["steps"]}
    assert "is synced from Active Directory, which owns this setting" in steps["block"]["error"]
    assert steps["block"]["error"].endswith("change the account there, and let it synchronise")
    assert "is not blocked: the step `block` says why" in shown["error"]
    assert {name: steps[name]["status"] for name in ("revoke", "rules")} == {
        "revoke": "succeeded",
        "rules": "succeeded",
    }
    assert synced.verdict.collateral == ()
