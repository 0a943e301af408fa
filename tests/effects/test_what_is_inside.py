"""Forwarding "outside" is judged by what the workspace, or the tenant, calls inside."""

from __future__ import annotations

from typing import Any

import pytest

PARTNER = "partner.example"


def forwarding(bench: Any) -> tuple[str, dict[str, Any]]:
    """A user with one rule, which forwards to the partner; the user's id, and the rule."""
    user, tenant = bench.with_rules(), bench.simulator.tenant
    rule = {
        **bench.rules(user)[0],
        "displayName": "To my colleagues there",
        "conditions": {},
        "actions": {"forwardTo": [{"emailAddress": {"address": f"ana@{PARTNER}", "name": "Ana"}}]},
    }
    tenant.objects["rules"].put(user["id"], [rule])
    return user["id"], rule


def verified(bench: Any) -> None:
    """The tenant has proved to own the partner's domain."""
    tenant = bench.simulator.tenant
    known = tenant.organization
    domain = {**known["verifiedDomains"][0], "name": PARTNER, "isDefault": False, "isInitial": False}
    tenant.objects["organization"].put(
        tenant.id, {**known, "verifiedDomains": [*known["verifiedDomains"], domain]}
    )


@pytest.mark.parametrize(
    ("internal", "own", "arguments", "outside"),
    [
        (None, False, {}, True),
        (None, True, {}, False),
        ([PARTNER], False, {}, False),
        (["contoso.example"], True, {}, True),
        ([PARTNER], False, {"internal_domains": []}, True),
        (None, False, {"internal_domains": [PARTNER]}, False),
    ],
    ids=[
        "nobody says it",
        "the tenant owns it",
        "the workspace says it",
        "the workspace says otherwise",
        "the step says otherwise",
        "the step says it",
    ],
)
def test_a_rule_is_disabled_only_if_it_forwards_outside(
    bench: Any, internal: list[str] | None, own: bool, arguments: dict[str, Any], outside: bool
) -> None:
    """The step's argument comes first, then `internal:` of counterplay.yaml, then the tenant's domains."""
    user_id, rule = forwarding(bench)
    if own:
        verified(bench)
    bench.configure(**({"internal": {"domains": internal}} if internal else {}))
    given = {"user_id": user_id, **arguments}
    bench.write({"uses": "m365.disable_inbox_rules", "connection": "contoso", "with": given})
    planned = bench.plan()["steps"][0]["calls"]

    assert bench.run().exit_code == 0, bench.runs()[0].error

    (now,) = bench.simulator.tenant.rules[user_id]
    assert now["isEnabled"] is not outside
    assert bool(planned) is outside
    assert rule["isEnabled"] is True
