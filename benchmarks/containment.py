"""How fast a page of alerts is contained: `python benchmarks/containment.py [--alerts 500]`.

A simulated tenant, a process of its own, gets so many alerts in one page, each with an account of its own
that is compromised, and keeps Microsoft's limits as documented. One worker runs the playbook for all of
them, with guardrails raised. Told are the seconds from the first change to the last by the simulated
service's clock, the seconds that the whole run took, how often the service refused for its limits (429),
and how many of the accounts are blocked. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import argparse
import copy
import json
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from counterplay.language import Playbook, load
from counterplay.plugins import PluginHost
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import Session, Task
from counterplay.store.database import open_database
from counterplay.store.runs import RunStore
from counterplay.workspace import Workspace
from counterplay_sim.clock import stamp
from counterplay_sim.digest import state
from counterplay_sim.grants import known
from counterplay_sim.simulator import FOLDER
from counterplay_sim.store import FILE
from counterplay_sim.testing import Plan, Simulator, simulator_process

PLAYBOOK = """
name: contain-page
trigger: {uses: m365.alerts, connection: contoso, with: {severity: [high], poll_interval: 1s}}
filter: event.title == "Containment benchmark"
steps:
  - id: user
    uses: m365.get_user
    with: {user_id: "{{ event.evidence | m365_users | first }}"}
  - {id: block, uses: m365.block_sign_in, with: {user_id: "{{ steps.user.result.id }}"}}
  - {id: revoke, uses: m365.revoke_sessions, with: {user_id: "{{ steps.user.result.id }}"}}
  - {id: rules, uses: m365.disable_inbox_rules, with: {user_id: "{{ steps.user.result.id }}"}}
"""
RAISED = {"effects_per_hour": {"*": 1_000_000}, "runs_per_hour": {"*": 1_000_000}}


def prepare(folder: Path, alerts: int) -> list[str]:
    """Invent the tenant and its alerts; the accounts that they name."""
    plan = Plan(events=500, users=alerts + alerts // 3 + 40, rules=alerts * 2)
    with Simulator(folder, seed=17, plan=plan) as simulator:
        (tenant,) = simulator.tenants
        tenant.set_grants({service: sorted(names) for service, names in known().items()})
        held = {one["principalId"] for one in tenant.objects["roleAssignment"].values()}
        for group in tenant.objects["group"].values():
            held |= set(group.get("@sim.members", ())) if group.get("isAssignableToRole") else set()
        users = [
            one
            for key, one in sorted(tenant.users.items())
            if key not in held and not one.get("onPremisesSyncEnabled") and one.get("accountEnabled")
        ][:alerts]
        template = next(iter(tenant.alerts.values()))
        at = tenant.clock.now() - timedelta(minutes=5)
        for number, user in enumerate(users):
            tenant.alerts.put(f"cb{number:06d}", _alert(template, number, user, at))
        return [user["id"] for user in users]


def _alert(template: dict[str, Any], number: int, user: dict[str, Any], at: datetime) -> dict[str, Any]:
    moment = stamp(at + timedelta(milliseconds=number), 7)
    account = {
        "accountName": user["userPrincipalName"].partition("@")[0],
        "azureAdUserId": user["id"],
        "userPrincipalName": user["userPrincipalName"],
        "displayName": user["displayName"],
    }
    evidence = {
        "@odata.type": "#microsoft.graph.security.userEvidence",
        "createdDateTime": moment,
        "verdict": "malicious",
        "remediationStatus": "none",
        "remediationStatusDetails": None,
        "roles": ["compromised"],
        "detailedRoles": [],
        "tags": [],
        "userAccount": account,
    }
    made = {name: value for name, value in copy.deepcopy(template).items() if not name.startswith("@")}
    return {
        **made,
        "id": f"cb{number:06d}",
        "title": "Containment benchmark",
        "status": "new",
        "severity": "high",
        "createdDateTime": moment,
        "lastUpdateDateTime": moment,
        "evidence": [evidence],
    }


def contain(root: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Run the playbook once over all alerts; what it took."""
    (root / "playbooks").mkdir()
    (root / "playbooks" / "contain-page.yaml").write_text(PLAYBOOK)
    connections = {"contoso": {"uses": "m365.tenant", **info["m365.tenant"]}}
    settings = {"connections": connections, "guardrails": RAISED}
    (root / "counterplay.yaml").write_text(yaml.safe_dump(settings))
    host = PluginHost.load()
    workspace, stop = Workspace(host, root), threading.Event()
    opener = Opener(workspace, stop)
    loaded = load(root / "playbooks" / "contain-page.yaml", host, workspace)
    assert isinstance(loaded, Playbook), loaded
    began = time.monotonic()
    task = Task(loaded, loaded.inputs_from({}))
    ended = Session(opener, "contain-page", [task], once=True, stop=stop).run()
    took = time.monotonic() - began
    database = open_database(workspace.store_url)
    with closing(database):
        runs = RunStore(database).newest(playbook=None, status=None, limit=100_000)
    limits = opener.budgets.counted()
    return {
        "exit_code": ended.exit_code,
        "seconds": round(took, 1),
        "runs": len(runs),
        "succeeded": sum(run.status == "succeeded" for run in runs),
        "refusals": sum(refusals for refusals, _ in limits.values()),
        "waits": {name: waits for name, (_, waits) in limits.items() if waits},
    }


def seconds_at_the_service(folder: Path) -> float:
    """From the first change to the last, by the journal of the simulated tenant."""
    with closing(sqlite3.connect(f"file:{folder / FOLDER / FILE}?mode=ro", uri=True)) as database:
        first, last = database.execute("SELECT min(at), max(at) FROM journal").fetchone()
    if not first:
        return 0.0
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def contained(folder: Path, users: list[str]) -> int:
    """How many of the accounts are blocked."""
    found = state(folder)
    return sum(found[f"user/{one}"]["accountEnabled"] is False for one in users)


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alerts", type=int, default=500)
    parser.add_argument(
        "--slots", type=int, default=0, help="runs at once; the program's own choice by default"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state_dir, root = Path(folder) / "tenant", Path(folder) / "workspace"
        root.mkdir()
        users = prepare(state_dir, given.alerts)
        with simulator_process(state_dir) as simulator:
            simulator.admin("POST", "/strictness", {"alerts_page": given.alerts + 1000})
            figures = contain(root, simulator.info)
        figures["seconds_at_the_service"] = round(seconds_at_the_service(state_dir), 1)
        figures["contained"] = f"{contained(state_dir, users)} of {len(users)}"
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
