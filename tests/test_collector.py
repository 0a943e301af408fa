"""The collector as a whole, against the simulated tenant: several tenants, and what it cannot have."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from counterplay.clock import now
from counterplay.runtime import fetching, opening, reception
from counterplay.wire import Wire
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


def moments(monkeypatch: pytest.MonkeyPatch, calm: Callable[[], object]) -> None:
    """What takes seconds takes moments; ten minutes of waiting for the source pass at once, then `calm`."""

    class Clock:
        """Five seconds pass whenever a thread looks whether its pause is over."""

        seconds = 0.0

        def monotonic(self) -> float:
            self.seconds += 5
            if self.seconds >= 600 and over.acquire(blocking=False):
                calm()
            return self.seconds

    over = threading.Lock()
    monkeypatch.setattr(opening, "Wire", partial(Wire, backoff=0.001))
    monkeypatch.setattr(fetching, "time", Clock())
    monkeypatch.setattr(reception, "now", lambda: now() - timedelta(hours=1))  # so that all is due at once


def test_an_outage_of_the_content_blames_no_blob_and_costs_little(
    desk: Any, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every blob answers 503 for ten minutes: few requests, nothing in quarantine, then all arrives."""
    asked: list[int] = []

    def calm() -> None:
        asked.extend(rule["used"] for rule in simulator.faults.report())
        simulator.calm()

    moments(monkeypatch, calm)
    monkeypatch.setattr(reception, "UNIT_ATTEMPTS", 2)  # so few would be too many for a blob that is well
    workspace(desk, simulator)
    simulator.disturb([{"service": "activity", "path": "/audit/", "status": 503, "body": "busy"}])
    said = desk.playbook("run", "collect", "--once", "--json")
    assert (said.code, said.data["notices"]) == (0, [])
    assert "trying again, its units wait until it answers" in said.err
    events = simulator.oracle().verdict(simulator.tenants[0].id).events
    assert (events.missing, events.altered, events.duplicated) == ((), (), ())
    (requests,) = asked
    assert 0 < requests < 500, "a minute of it took more when nobody noticed the outage"
    assert desk.playbook("ledger", "gaps", "--json").data == []


def test_one_bad_blob_is_set_aside_and_tried_again_on_demand(
    desk: Any, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others arrive, it is quarantined after eight attempts; after a retry that helped all is well."""
    moments(monkeypatch, lambda: None)
    workspace(desk, simulator)
    simulator.tighten({"stored_blobs": True})
    day = int((now() - timedelta(hours=20)).timestamp() * 1e9)
    bad, *others = simulator.tenants[0].blobs.listing("Audit.Exchange", day, 2**63)
    assert others
    simulator.disturb([{"service": "activity", "blob": re.escape(bad.id), "status": 503}])
    assert desk.playbook("run", "collect", "--once", "--json").code == 1
    missing = set(simulator.oracle().verdict(simulator.tenants[0].id).events.missing)
    assert missing == set(simulator.tenants[0].blobs.keys(bad))
    (aside,) = desk.playbook("ledger", "gaps", "--json").data
    assert (aside["unit"], aside["status"]) == (bad.id, "quarantined")
    assert aside["cause"].endswith("(8 attempts, others were given)")

    simulator.calm()
    assert desk.playbook("run", "collect", "--once", "--json").code == 1
    assert desk.playbook("ledger", "retry").out == "1 unit to be tried again\n"
    for _ in range(2):
        said = desk.playbook("run", "collect", "--once", "--json")
        assert (said.code, said.data["notices"]) == (0, [])
    assert simulator.oracle().verdict(simulator.tenants[0].id).events.missing == ()
