"""Each scripted attack, and its truth: in the log, in Graph, in what the oracle says is left of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from counterplay_sim.cli import sim
from counterplay_sim.scenario.build import Plan, build
from counterplay_sim.scenario.chains import CHAINS
from counterplay_sim.testing import Simulator

CREATED = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "account-takeover": (
        {"UserLoginFailed", "UserLoggedIn", "New-InboxRule", "MailItemsAccessed", "FileDownloaded"},
        {"sessions", "malicious_rules"},
    ),
    "business-email-compromise": (
        {"UserLoggedIn", "New-InboxRule", "Set-Mailbox", "MailItemsAccessed", "Send", "AlertTriggered"},
        {"sessions", "malicious_rules", "forwarding"},
    ),
    "aitm-token-theft": (
        {"UserLoggedIn", "User registered security info", "Register device.", "MailItemsAccessed"},
        {"sessions", "authentication_methods", "devices"},
    ),
    "malicious-oauth-consent": (
        {"Consent to application.", "Add delegated permission grant.", "MailItemsAccessed", "AlertTriggered"},
        {"grants", "service_principals"},
    ),
    "malicious-oauth-tenant-wide": (
        {"Consent to application.", "Add delegated permission grant.", "MailItemsAccessed", "AlertTriggered"},
        {"grants", "app_roles", "service_principals"},
    ),
    "password-spray": ({"UserLoginFailed", "UserLoggedIn"}, {"sessions"}),
    "mfa-fatigue": (
        {"UserLoginFailed", "UserLoggedIn", "User registered security info"},
        {"sessions", "authentication_methods"},
    ),
    "mass-download": ({"UserLoggedIn", "FileDownloaded", "AnonymousLinkCreated"}, {"sessions"}),
    "compromised-device": ({"UserLoggedIn", "MailItemsAccessed"}, {"sessions", "devices", "machines"}),
}


def test_every_chain_is_told_apart_here() -> None:
    """A new scenario comes with what it promises."""
    assert set(EXPECTED) == set(CHAINS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_chain_leaves_what_its_truth_says(name: str) -> None:
    """Its events are in the log by id, its alert and incident exist and name each other and the victim."""
    scenario = build(1, CREATED, Plan(events=50, scenarios=(name,)))
    (truth,) = scenario.truth["chains"]
    log = {entry.event: json.loads(entry.body) for entry in scenario.log}
    operations, attackers = EXPECTED[name]

    assert set(truth["events"]) == set(log)
    assert operations <= {event["Operation"] for event in log.values()}
    assert {key for key in _STATE if truth[key]} == attackers
    alert = next(one for one in scenario.alerts if one["id"] == truth["alert"])
    incident = next(one for one in scenario.objects["incident"] if one["id"] == truth["incident"])
    assert alert["incidentId"] == incident["id"]
    accounts = [e["userAccount"]["userPrincipalName"] for e in alert["evidence"] if "userAccount" in e]
    assert accounts == [truth["victim_upn"]]
    assert all(event["CreationTime"] < "2026-03-02T10:30:00" for event in log.values())


_STATE = (
    "sessions",
    "malicious_rules",
    "grants",
    "service_principals",
    "app_roles",
    "authentication_methods",
    "devices",
    "machines",
    "forwarding",
)


def test_a_stolen_session_is_seen_from_two_networks() -> None:
    """Adversary in the middle: one session id, two addresses, one of them the replay."""
    scenario = build(1, CREATED, Plan(events=50, scenarios=("aitm-token-theft",)))
    (truth,) = scenario.truth["chains"]
    addresses = set()
    for entry in scenario.log:
        event = json.loads(entry.body)
        for one in event.get("DeviceProperties", []):
            if one["Name"] == "SessionId" and one["Value"] in truth["sessions"]:
                addresses.add(event["ClientIP"])

    assert len(addresses) == 2
    assert truth["attacker"] in addresses


def test_a_spray_reaches_many_and_gets_one() -> None:
    """Two attempts each, a long pause between, one success."""
    scenario = build(1, CREATED, Plan(events=50, scenarios=("password-spray",)))
    events = [json.loads(entry.body) for entry in scenario.log]
    failed = [event["UserId"] for event in events if event["Operation"] == "UserLoginFailed"]

    assert len(set(failed)) >= 20
    assert all(failed.count(user) == 2 for user in failed)
    assert [e["UserId"] for e in events if e["Operation"] == "UserLoggedIn"] == [
        scenario.truth["chains"][0]["victim_upn"]
    ]


def test_attacks_together_have_a_victim_each(tmp_path: Any) -> None:
    """All of them in one tenant: different users, and the oracle follows each to its end."""
    with Simulator(tmp_path, plan=Plan(events=50, scenarios=tuple(CHAINS))) as simulator:
        chains = simulator.oracle().verdict().chains
        assert len({chain.victim for chain in chains}) == len(CHAINS)
        assert all(chain.left or chain.scenario == "quiet" for chain in chains)
        (consent,) = [chain for chain in chains if chain.scenario == "malicious-oauth-consent"]
        tenant = simulator.tenant
        for grant in consent.grants:
            tenant.objects["oauth2PermissionGrant"].remove(grant)
        app = tenant.objects["servicePrincipal"][consent.service_principals[0]]
        tenant.objects["servicePrincipal"].put(app["id"], {**app, "accountEnabled": False})

        after = {chain.scenario: chain for chain in simulator.oracle().verdict().chains}

    assert not after["malicious-oauth-consent"].left
    assert after["aitm-token-theft"].left


def test_a_colleague_of_the_victim_consented_too(tmp_path: Any) -> None:
    """The alert names one of two people: whoever asks the application for its consents finds both."""
    scenario = build(1, CREATED, Plan(events=50, scenarios=("malicious-oauth-consent",)))
    (truth,) = scenario.truth["chains"]
    consents = {one["id"]: one for one in scenario.objects["oauth2PermissionGrant"]}

    people = {consents[key]["principalId"] for key in truth["grants"]}

    assert len(people) == len(truth["grants"]) == 2
    assert truth["victim"] in people
    assert {one["clientId"] for one in consents.values()} == set(truth["service_principals"])


def test_an_infected_notebook_is_named_by_the_ids_of_both_services(tmp_path: Any) -> None:
    """Defender for Endpoint isolates it by one id, Entra ID disables it by the other."""
    scenario = build(1, CREATED, Plan(events=50, scenarios=("compromised-device",)))
    (truth,) = scenario.truth["chains"]
    (device,), (machine,) = scenario.objects["device"], scenario.objects["machine"]
    alert = next(one for one in scenario.alerts if one["id"] == truth["alert"])
    (named,) = [one for one in alert["evidence"] if "mdeDeviceId" in one]

    assert (named["mdeDeviceId"], named["azureAdDeviceId"]) == (machine["id"], device["deviceId"])
    assert machine["aadDeviceId"] == device["deviceId"]


def test_a_quiet_tenant_has_no_victim(tmp_path: Any) -> None:
    """Nothing but ordinary work; the verdict and the report say nothing of an attack."""
    with Simulator(tmp_path, plan=Plan(events=30, scenarios=())) as simulator:
        verdict = simulator.oracle().verdict()
        assert verdict.victim.contained
        assert verdict.chains == ()
        assert verdict.events.offered == 30
    report = CliRunner().invoke(sim, ["report", "--state-dir", str(tmp_path)])
    assert "Attacked" not in report.stdout


def test_a_scenario_that_does_not_exist_is_said_so(tmp_path: Any) -> None:
    """With the names of those that do."""
    result = CliRunner().invoke(sim, ["--state-dir", str(tmp_path), "--scenario", "phishing"])

    assert result.exit_code == 2
    assert "no scenario is called 'phishing'; there are account-takeover, business-" in result.stderr
