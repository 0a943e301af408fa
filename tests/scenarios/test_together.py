"""All responses at work in one tenant that was attacked in many ways."""

from __future__ import annotations

from typing import Any

RESPONSES = ["contain-compromised-account", "business-email-compromise", "contain-malicious-oauth-app"]
ATTACKS = (
    "account-takeover",
    "business-email-compromise",
    "malicious-oauth-consent",
    "password-spray",
    "mfa-fatigue",
)


def test_they_do_not_get_into_each_others_way(attacked: Any) -> None:
    """Several playbooks act on the same alerts and accounts, and every attacker is out in the end."""
    scene = attacked(ATTACKS, *RESPONSES)
    names = ", ".join(RESPONSES)
    (scene.root / "playbooks").mkdir()
    (scene.root / "playbooks" / "respond.yaml").write_text(f"name: respond\nplaybooks: [{names}]\n")

    result = scene.respond("respond")

    assert result.exit_code == 0, result.output
    verdict = scene.verdict
    assert verdict.collateral == ()
    assert verdict.harmless_rules_off == ()
    assert [chain.scenario for chain in verdict.chains if chain.left] == []
    assert [chain.evidence_lost for chain in verdict.chains if chain.evidence_lost] == []
