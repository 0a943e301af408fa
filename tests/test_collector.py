"""The collector as a whole, against the simulated tenant: several tenants, and what it cannot have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterplay_sim.oracle_ledger import LedgerEntry
from counterplay_sim.strictness import Strictness
from counterplay_sim.testing import Simulator

FORWARD: dict[str, Any] = {
    "name": "collect",
    "description": "Forward the audit log.",
    "steps": [],
    "sinks": [{"uses": "intake.forward", "connection": "siem"}],
}


def workspace(desk: Any, simulator: Simulator, tenants: int = 1, **limits: int) -> None:
    """One playbook for every tenant that has the label."""
    connections: dict[str, Any] = {"siem": {"uses": "intake.key", **simulator.intake_settings()}}
    for number in range(1, tenants + 1):
        connections[f"tenant-{number}"] = {
            "uses": "m365.tenant",
            **simulator.m365_settings(number),
            "labels": ["customer"],
            **limits,
        }
    desk.write("counterplay.yaml", json.dumps({"connections": connections}))
    trigger = {"uses": "m365.audit_log", "connection": {"labels": ["customer"]}}
    desk.write("playbooks/collect.yaml", json.dumps({**FORWARD, "trigger": trigger}))


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    from datetime import timedelta

    with Simulator(
        tmp_path / "sim", events=200, tenants=2, strictness=Strictness(start_cooldown=timedelta(0))
    ) as running:
        yield running


def test_a_tenant_that_refuses_costs_the_others_nothing(desk: Any, simulator: Simulator) -> None:
    """One playbook, two tenants by label: each with its own feeds, its own budget and its own trouble."""
    workspace(desk, simulator, tenants=2)
    first, second = simulator.tenants
    second.grants["activity"] = []
    said = desk.playbook("run", "collect", "--once", "--json", "--metrics", str(desk.root / "metrics"))
    assert said.code == 3
    arrived = simulator.oracle().verdict(first.id).events
    assert (arrived.missing, arrived.altered, arrived.duplicated) == ((), (), ())
    assert simulator.oracle().verdict(second.id).events.arrived == 0
    assert any("tenant-2" in about for about in said.data["notices"])
    metrics = (desk.root / "metrics").read_text()
    for name in ("tenant-1", "tenant-2"):
        assert f'counterplay_requests_last_minute{{service="{name}@{simulator.url("activity")}"}}' in metrics

    second.grants["activity"] = ["ActivityFeed.Read"]
    assert desk.playbook("run", "collect", "--once", "--json").code == 0
    rows = desk.playbook("ledger", "--json").data
    assert {row["feed"].split()[1] for row in rows} == {"tenant-1", "tenant-2"}
    assert all(row["balanced"] and not row["waiting"] for row in rows)


def test_a_content_type_that_is_refused_costs_the_others_nothing(desk: Any, simulator: Simulator) -> None:
    """The four others arrive; the blocked one says why, and arrives when it may."""
    workspace(desk, simulator)
    simulator.disturb([{"kind": "AF10001", "content_type": "Audit.General"}])
    said = desk.playbook("run", "collect", "--once", "--json")
    assert said.code == 3
    assert any("AF10001" in text for text in said.data["notices"])
    rows = desk.playbook("ledger", "--json").data
    assert {row["feed"].split()[-1] for row in rows if row["acknowledged"]} == {
        "Audit.AzureActiveDirectory",
        "Audit.Exchange",
        "Audit.SharePoint",
        "DLP.All",
    }
    simulator.calm()
    assert desk.playbook("run", "collect", "--once", "--json").code == 0
    events = simulator.oracle().verdict().events
    assert (events.missing, events.altered, events.duplicated) == ((), (), ())


def test_a_subscription_that_was_off_is_a_gap_that_explains_what_is_missing(
    desk: Any, simulator: Simulator
) -> None:
    """What became available meanwhile can never be had: the ledger says so, and says nothing else."""
    workspace(desk, simulator)
    assert desk.playbook("run", "collect", "--once", "--json").code == 0
    from counterplay_sim import activity_subscriptions as subscriptions

    tenant = simulator.tenants[0]
    subscriptions.stop(tenant, "Audit.Exchange", by="a tenant admin")
    for number in range(3):
        tenant.log("Audit.Exchange", {"Id": f"while-off-{number}"}, tenant.clock.now_ns())
    assert desk.playbook("run", "collect", "--once", "--json").code == 1
    gaps = desk.playbook("ledger", "gaps", "--json").data
    assert [(one["status"], one["cause"]) for one in gaps] == [
        ("gap", "the subscription was off: Audit.Exchange (disabled)")
    ]
    entries = [
        LedgerEntry.parse(
            {
                "reason": one["cause"],
                "content_type": one["feed"].split()[-1],
                "since": one["start"],
                "until": one["end"],
            }
        )
        for one in gaps
    ]
    match = simulator.oracle().match(entries)
    assert (len(match.covered), match.uncovered, match.unfounded) == (3, (), ())
    assert desk.playbook("run", "collect", "--once", "--json").code == 0
