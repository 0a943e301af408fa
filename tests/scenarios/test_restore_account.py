"""`restore-account`: the owner gets the account back, the attacker gets nothing."""

from __future__ import annotations

from typing import Any

import pytest

CONTAIN = "contain-compromised-account"
USER_ADMINISTRATOR = "fe930be7-5e62-47db-91af-98c3a49a38b1"


@pytest.mark.parametrize("scenario", ["account-takeover", "mfa-fatigue"])
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
