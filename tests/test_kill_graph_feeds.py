"""`kill -9` and faults of Graph in the middle of every polled feed: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from counterplay.events import Event
from counterplay.plugins import PluginHost
from counterplay_sim.faults import Fault, FaultPlan
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

HOST = PluginHost.load()
FEEDS = {
    "m365.alerts": "alert",
    "m365.incidents": "incident",
    "m365.risk_detections": "riskDetection",
    "m365.risky_users": "riskyUser",
    "m365.sign_ins": "signIn",
}
PERMISSIONS = [
    "AuditLog.Read.All",
    "IdentityRiskEvent.Read.All",
    "IdentityRiskyUser.Read.All",
    "LicenseAssignment.Read.All",
    "SecurityAlert.Read.All",
    "SecurityIncident.Read.All",
]


class Killer(FaultPlan):
    """Kills the engine at the nth request to Graph; breaks each seventh answer."""

    def __init__(self) -> None:
        super().__init__()
        self._armed: tuple[int, int, str] | None = None
        self._requests = 0
        self._guard = threading.Lock()

    def arm(self, pid: int, nth: int, when: str) -> None:
        with self._guard:
            self._armed = (pid, nth, when)

    def pick(self, service: str, method: str, path: str) -> Fault | None:
        if service != "graph":
            return None
        with self._guard:
            self._requests += 1
            if self._armed is not None:
                pid, nth, when = self._armed
                if nth == 1:
                    self._armed = None
                    os.kill(pid, signal.SIGKILL)
                    return Fault(reset=when)
                self._armed = (pid, nth - 1, when)
            faults = (
                Fault(status=503),
                Fault(status=429, headers=(("Retry-After", "0"),)),
                Fault(reset="after"),
            )
            return faults[self._requests // 7 % 3] if self._requests % 7 == 0 else None


def start(workspace: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HOME": str(workspace)}
    return subprocess.Popen(
        [sys.executable, "-m", "counterplay", "run", "everything", "--once", "--json"],
        cwd=workspace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What it printed; one that does not end is killed, and the test fails."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def write(workspace: Path, simulator: Simulator) -> None:
    """A workspace with one playbook for each feed, and the set of them all."""
    (workspace / "playbooks").mkdir()
    settings = {"uses": "m365.tenant", **simulator.info()["m365.tenant"]}
    (workspace / "counterplay.yaml").write_text(yaml.safe_dump({"connections": {"contoso": settings}}))
    names = [uses.partition(".")[2].replace("_", "-") for uses in FEEDS]
    for uses, name in zip(FEEDS, names, strict=True):
        playbook = {
            "name": name,
            "trigger": {"uses": uses, "connection": "contoso"},
            "sinks": [{"uses": "std.jsonl", "with": {"path": f"{workspace}/{name}.jsonl"}}],
        }
        (workspace / "playbooks" / f"{name}.yaml").write_text(yaml.safe_dump(playbook))
    everything = {"name": "everything", "playbooks": names, "connections": {"contoso": "contoso"}}
    (workspace / "playbooks" / "everything.yaml").write_text(yaml.safe_dump(everything))


def arrived(workspace: Path, uses: str) -> Counter[str]:
    """How often each record of a feed was delivered, by its delivery key."""
    file = workspace / f"{uses.partition('.')[2].replace('_', '-')}.jsonl"
    trigger: Any = HOST.module(uses).cls({})
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(str(trigger.delivery_key(Event(record(line)))) for line in lines)


def record(line: str) -> bytes:
    """The event of a line, without what the sink adds to it."""
    found = json.loads(line)
    return json.dumps(found.get("event", found)).encode()


def test_every_polled_feed_survives_kills_and_faults(tmp_path: Path) -> None:
    """Killed at six requests, with each seventh answer broken: at the end each record is there once."""
    rules = GraphRules(throttle_scale=0, empty_page_every=3)
    simulator = Simulator(
        tmp_path / "tenant",
        seed=9,
        plan=Plan(events=300, users=12, scenarios=("all",)),
        strictness=Strictness(graph=rules),
    )
    simulator.faults = killer = Killer()
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with simulator:
        (tenant,) = simulator._tenants.values()
        tenant.grants["graph"] = PERMISSIONS
        write(workspace, simulator)
        killed = 0
        for nth, when in (
            (1, "before"),
            (2, "after"),
            (3, "before"),
            (4, "after"),
            (5, "before"),
            (6, "after"),
        ):
            process = start(workspace)
            killer.arm(process.pid, nth, when)
            _, errors = ended(process)
            assert b"Traceback" not in errors, errors.decode()
            killed += process.returncode == -signal.SIGKILL
        process = start(workspace)
        output, errors = ended(process)
        assert process.returncode == 0, errors.decode() + output.decode()
        assert killed >= 4
        for uses, kind in FEEDS.items():
            trigger: Any = HOST.module(uses).cls({})
            truth = {
                str(trigger.delivery_key(Event(json.dumps(one).encode())))
                for one in tenant.objects[kind].values()
            }
            found = arrived(workspace, uses)
            assert truth, uses
            assert truth - set(found) == set(), uses
            assert [key for key, count in found.items() if count > 1] == [], uses
