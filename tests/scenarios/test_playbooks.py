"""Each attack and the playbook that answers it: the end that the oracle expects, and the way back."""

from __future__ import annotations

import re
from typing import Any

import pytest

#: What stays changed after an undo: sessions that were ended, and who changed an object last.
LASTING = re.compile(r"^user/.*/signInSessionsValidFromDateTime$")

#: The scenario, the playbook that answers it, how many runs that takes.
ANSWERS = [
    ("account-takeover", "contain-compromised-account", 1),
    ("business-email-compromise", "business-email-compromise", 2),
    ("malicious-oauth-consent", "contain-malicious-oauth-app", 1),
    ("malicious-oauth-tenant-wide", "contain-malicious-oauth-app", 1),
    ("aitm-token-theft", "contain-compromised-account", 1),
    ("password-spray", "contain-compromised-account", 1),
    ("mfa-fatigue", "contain-compromised-account", 1),
    ("compromised-device", "isolate-user-and-devices", 1),
    ("mass-download", "contain-compromised-account", 1),
]


@pytest.mark.parametrize(("scenario", "playbook", "runs"), ANSWERS, ids=[one[0] for one in ANSWERS])
def test_a_playbook_ends_the_attack(attacked: Any, scenario: str, playbook: str, runs: int) -> None:
    """The attacker is out, the evidence stands, and nobody and nothing else was changed."""
    scene = attacked(scenario, playbook)
    assert scene.chain.left

    result = scene.respond(playbook)

    assert result.exit_code == 0, result.output
    verdict = scene.verdict
    assert scene.chain.contained, scene.chain
    assert verdict.collateral == ()
    assert verdict.harmless_rules_off == ()
    assert len(scene.runs(playbook)) == verdict.outcomes == runs


@pytest.mark.parametrize(("scenario", "playbook", "runs"), ANSWERS, ids=[one[0] for one in ANSWERS])
def test_an_undo_gives_back_what_was_taken(attacked: Any, scenario: str, playbook: str, runs: int) -> None:
    """All is as it was but what no API can give back: it was the attacker's, and the undo names it."""
    scene = attacked(scenario, playbook)
    scene.respond(playbook)
    assert scene.changed()

    said = [scene.call("undo", run).output for run in scene.runs(playbook)]

    theirs = {f"authenticationMethod/{key}" for key in scene.truth["authentication_methods"]}
    changed = set(scene.changed())
    assert {key for key in changed if not LASTING.search(key)} == theirs, said
    assert ("cannot be taken back" in "".join(said)) == bool(changed)


@pytest.mark.parametrize(("scenario", "playbook", "runs"), ANSWERS, ids=[one[0] for one in ANSWERS])
def test_a_plan_names_whom_it_is_about_and_changes_nothing(
    attacked: Any, scenario: str, playbook: str, runs: int
) -> None:
    """For the alert, or for the entry of the audit log that shows the attack: the tenant is as before."""
    scene = attacked(scenario, playbook)

    result = scene.call("plan", playbook, "--event", str(scene.event(playbook)))

    assert result.exit_code == 0, result.output
    assert scene.subject in result.output
    assert scene.changed() == {}


REMOVED = [
    ("mfa-fatigue", "contain-compromised-account", "authenticationMethod", "authentication_methods"),
    ("malicious-oauth-consent", "contain-malicious-oauth-app", "oauth2PermissionGrant", "grants"),
    ("malicious-oauth-tenant-wide", "contain-malicious-oauth-app", "oauth2PermissionGrant", "grants"),
    ("malicious-oauth-tenant-wide", "contain-malicious-oauth-app", "appRoleAssignment", "app_roles"),
]


@pytest.mark.parametrize(("scenario", "playbook", "kind", "held"), REMOVED)
def test_what_could_only_be_removed_stands_in_the_journal(
    attacked: Any, scenario: str, playbook: str, kind: str, held: str
) -> None:
    """As Graph showed it: there is no other evidence of it than what was captured before."""
    scene = attacked(scenario, playbook)
    wanted = [scene.found[f"{kind}/{key}"] for key in scene.truth[held]]

    scene.respond(playbook)

    (run,) = scene.runs(playbook)
    shown = scene.data("runs", "show", run)
    effects = shown["effects"] + [effect for inner in shown["inside"] for effect in inner["effects"]]
    captured = [one for effect in effects for one in effect["before"].get("objects", [])]
    for one in wanted:
        plain = {name: value for name, value in one.items() if not name.startswith("@")}
        assert any(plain.items() <= known.items() for known in captured), (one, captured)
