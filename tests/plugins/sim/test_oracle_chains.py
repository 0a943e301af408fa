"""How the oracle judges the end of an attack: what is left, what got lost, who else was changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from counterplay_sim.grants import parse_grants
from counterplay_sim.oracle_chains import ChainState
from counterplay_sim.report import full
from counterplay_sim.testing import Plan, Simulator

Attacked = Callable[[str], tuple[Simulator, Any]]


@pytest.fixture
def attacked(start: Any) -> Attacked:
    """A tenant with one attack, and a client that may do anything."""

    def begun(scenario: str) -> tuple[Simulator, Any]:
        plan = Plan(events=30, scenarios=(scenario,))
        started: tuple[Simulator, Any] = start(plan=plan, grants=parse_grants("all"))
        return started

    return begun


def chain(simulator: Simulator) -> ChainState:
    (found,) = simulator.oracle().verdict().chains
    return found


def truth(simulator: Simulator) -> dict[str, Any]:
    (found,) = simulator.tenant.row.doc["truth"]["chains"]
    return dict(found)


def close(simulator: Simulator, client: Any) -> None:
    """End the sessions of the victim and block the account."""
    victim = truth(simulator)["victim"]
    assert client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False}).status_code == 204
    assert client.graph("POST", f"/users/{victim}/revokeSignInSessions").ok


def test_a_known_password_is_something_that_is_left(attacked: Attacked) -> None:
    """Until the account is blocked, or the password is another one."""
    simulator, client = attacked("password-spray")
    victim = truth(simulator)["victim"]
    client.graph("POST", f"/users/{victim}/revokeSignInSessions")
    assert (chain(simulator).sessions, chain(simulator).password, chain(simulator).left) == ((), True, True)

    client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False})
    assert (chain(simulator).left, chain(simulator).contained) == (False, True)

    client.graph("PATCH", f"/users/{victim}", {"accountEnabled": True})
    assert chain(simulator).left
    user = simulator.tenant.users[victim]
    simulator.tenant.users.put(victim, {**user, "lastPasswordChangeDateTime": "2026-03-02T10:31:00Z"})
    assert (chain(simulator).left, chain(simulator).contained) == (False, False)


def test_an_account_that_nobody_took_over_has_to_stay_open(attacked: Attacked) -> None:
    """A consent gives no password away: blocking the victim is not what is expected."""
    simulator, client = attacked("malicious-oauth-consent")
    known = truth(simulator)
    for grant in known["grants"]:
        assert client.graph("DELETE", f"/oauth2PermissionGrants/{grant}").status_code == 204
    app = f"/servicePrincipals/{known['service_principals'][0]}"
    assert chain(simulator).left
    client.graph("PATCH", app, {"accountEnabled": False})
    assert chain(simulator).contained

    client.graph("PATCH", f"/users/{known['victim']}", {"accountEnabled": False})
    assert not chain(simulator).contained


def test_what_was_deleted_is_missed(attacked: Attacked) -> None:
    """A rule and an application are evidence: off is enough, gone is too much."""
    simulator, client = attacked("account-takeover")
    close(simulator, client)
    known = truth(simulator)
    rule = known["malicious_rules"][0]
    assert not chain(simulator).contained

    client.graph("DELETE", f"/users/{known['victim']}/mailFolders/inbox/messageRules/{rule}")

    found = chain(simulator)
    assert (found.left, found.evidence_lost, found.contained) == (False, (f"rule {rule}",), False)
    assert f"evidence is gone: rule {rule}" in "\n".join(full(simulator.oracle().verdict()))


def test_a_foothold_counts_until_it_is_cut_off(attacked: Attacked) -> None:
    """The infected notebook: disabled in the directory, and isolated by Defender."""
    simulator, client = attacked("compromised-device")
    close(simulator, client)
    known = truth(simulator)
    client.graph("PATCH", f"/devices/{known['devices'][0]}", {"accountEnabled": False})
    assert chain(simulator).machines == tuple(known["machines"])

    machine = simulator.tenant.objects["machine"][known["machines"][0]]
    simulator.tenant.objects["machine"].put(machine["id"], {**machine, "@sim.isolated": True})

    assert chain(simulator).contained
    assert simulator.oracle().verdict().collateral == ()


def test_whatever_else_was_changed_is_named(attacked: Attacked) -> None:
    """Somebody else's account, and a harmless rule of the victim's own."""
    simulator, client = attacked("account-takeover")
    close(simulator, client)
    known = truth(simulator)
    other = list(simulator.tenant.users)[5]
    harmless = next(
        one for one in simulator.tenant.rules[known["victim"]] if one["id"] not in known["malicious_rules"]
    )
    rules = f"/users/{known['victim']}/mailFolders/inbox/messageRules"
    assert simulator.oracle().verdict().collateral == ()

    client.graph("PATCH", f"/users/{other}", {"accountEnabled": False})
    client.graph("PATCH", f"{rules}/{harmless['id']}", {"isEnabled": False})

    verdict = simulator.oracle().verdict()
    upn = simulator.tenant.users[other]["userPrincipalName"]
    assert verdict.collateral == (
        f"update_user {other} of {upn}",
        f"update_rule {harmless['id']} of {known['victim_upn']}",
    )
    assert f"Changed without being part of an attack: update_user {other} of {upn}" in full(verdict)


def test_forwarding_is_told_and_does_not_count(attacked: Attacked) -> None:
    """Graph neither shows nor ends it, so no playbook can be asked to."""
    simulator, client = attacked("business-email-compromise")
    close(simulator, client)
    known = truth(simulator)
    rule = f"/users/{known['victim']}/mailFolders/inbox/messageRules/{known['malicious_rules'][0]}"
    client.graph("PATCH", rule, {"isEnabled": False})

    assert chain(simulator).contained
    said = "\n".join(full(simulator.oracle().verdict()))
    assert f"the mailbox forwards to {known['forwarding']}, which Graph cannot end" in said
