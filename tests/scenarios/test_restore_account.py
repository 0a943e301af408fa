"""`restore-account`: the owner gets the account back, the attacker gets nothing."""

from __future__ import annotations

from typing import Any

import pytest

CONTAIN = "contain-compromised-account"
USER_ADMINISTRATOR = "fe930be7-5e62-47db-91af-98c3a49a38b1"


@pytest.mark.parametrize("scenario", ["account-takeover", "aitm-token-theft"])
def test_a_contained_account_is_given_back_without_the_attacker(attacked: Any, scenario: str) -> None:
    """It may sign in, the password is another one, and what was the attacker's stays off."""
    scene = attacked(scenario, CONTAIN, "restore-account")
    scene.give_role(USER_ADMINISTRATOR)
    scene.respond(CONTAIN)
    (run,) = scene.runs(CONTAIN)

    result = scene.respond("restore-account", "--event", scene.record(run))

    assert result.exit_code == 0, result.output
    assert (scene.chain.blocked, scene.chain.left, scene.chain.evidence_lost) == (False, False, ())
    assert scene.verdict.collateral == ()


def test_an_account_whose_password_cannot_be_changed_stays_blocked(attacked: Any) -> None:
    """The app has no role of its own: whoever knows the password must not get in again."""
    scene = attacked("account-takeover", CONTAIN, "restore-account")
    scene.respond(CONTAIN)
    (run,) = scene.runs(CONTAIN)

    result = scene.respond("restore-account", "--event", scene.record(run))

    assert result.exit_code == 1
    assert scene.chain.contained

    result = scene.respond("restore-account", "--event", scene.record(run), "--input", "new_password=false")
    assert result.exit_code == 0, result.output
    assert not scene.chain.blocked


def test_a_run_that_blocked_nobody_restores_nobody(attacked: Any) -> None:
    """Somebody said no: there is nothing to give back."""
    scene = attacked("business-email-compromise", "business-email-compromise", "restore-account")
    scene.respond("business-email-compromise", answer="deny")
    before = scene.changed()

    for run in scene.runs("business-email-compromise"):
        assert scene.respond("restore-account", "--event", scene.record(run)).exit_code == 0

    assert scene.changed() == before


def test_a_cleaned_notebook_comes_back_with_its_owner(attacked: Any) -> None:
    """Machines and devices only where that is asked for: nobody but a person knows that they are clean."""
    scene = attacked("compromised-device", "isolate-user-and-devices", "restore-account")
    scene.give_role(USER_ADMINISTRATOR)
    scene.respond("isolate-user-and-devices")
    (run,) = scene.runs("isolate-user-and-devices")
    record = scene.record(run)

    scene.respond("restore-account", "--event", record)
    assert (scene.chain.blocked, scene.chain.devices, scene.chain.machines) == (False, (), ())

    result = scene.respond("restore-account", "--event", record, "--input", "devices=true")
    assert result.exit_code == 0, result.output
    assert list(scene.chain.devices) == scene.truth["devices"]
    assert list(scene.chain.machines) == scene.truth["machines"]
    assert not scene.chain.password
    assert scene.verdict.collateral == ()


def test_a_plan_shows_who_gets_the_account_back(attacked: Any) -> None:
    """For the record of the run: the tenant stays as it is, and the password is shown to nobody."""
    scene = attacked("account-takeover", CONTAIN, "restore-account")
    scene.give_role(USER_ADMINISTRATOR)
    scene.respond(CONTAIN)
    (run,) = scene.runs(CONTAIN)
    before = scene.changed()

    result = scene.call("plan", "restore-account", "--event", scene.record(run))

    assert result.exit_code == 0, result.output
    assert scene.truth["victim_upn"] in result.output
    assert '{"accountEnabled": true}' in result.output
    assert '"password": "***"' in result.output
    assert scene.changed() == before
