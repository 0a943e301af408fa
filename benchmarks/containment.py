"""How fast a page of alerts is contained: `python benchmarks/containment.py [--alerts 500]`.

A simulated tenant, a process of its own, was attacked so many times, each time another account, and lists
the alerts of all attacks in one page; it keeps Microsoft's limits as documented. One worker runs the shipped
playbook `contain-compromised-account` for all of them, with guardrails raised; nothing in it asks Identity
Protection. The oracle judges each attack: no session, rule, sign-in method or device of the attacker's left,
the account blocked, the evidence there, and nobody else touched. Told are the seconds from the first change
to the last by the simulated service's clock, the seconds that the whole run took, how often the service
refused for its limits (429), how often a limit was waited for beforehand, what worker and service took of
the processor, and how many changes of which kind the service made. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime
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
from counterplay_sim.grants import known
from counterplay_sim.graph.users import PRIVILEGED_AUTHENTICATION_ADMINISTRATOR
from counterplay_sim.simulator import FOLDER
from counterplay_sim.store import FILE
from counterplay_sim.testing import Plan, Simulator, Verdict, simulator_process

NAME = "contain-compromised-account"
FILE_OF = Path(__file__).resolve().parents[1] / "playbooks" / f"{NAME}.yaml"
#: Attacks that the playbook answers: their attackers left sessions, rules, sign-in methods.
ATTACKS = ("account-takeover", "mfa-fatigue", "aitm-token-theft", "password-spray", "mass-download")
STRICTNESS = {"graph": {"synced_users": "accept"}}
RAISED = {"effects_per_hour": {"*": 1_000_000}, "runs_per_hour": {"*": 1_000_000}}


def prepare(folder: Path, alerts: int) -> None:
    """Invent the tenant and its attacks. Its app may do everything, to administrators too."""
    names = tuple(ATTACKS[number % len(ATTACKS)] for number in range(alerts))
    plan = Plan(events=500, users=alerts + 60, scenarios=names)
    with Simulator(folder, seed=17, plan=plan) as simulator:
        tenant = simulator.tenant
        tenant.set_grants({service: sorted(names) for service, names in known().items()})
        (app,) = tenant.objects["servicePrincipal"].where("appId", tenant.client_id)
        role = {
            "id": "the-apps-own-role",
            "principalId": app["id"],
            "roleDefinitionId": PRIVILEGED_AUTHENTICATION_ADMINISTRATOR,
            "directoryScopeId": "/",
            "appScopeId": None,
        }
        tenant.objects["roleAssignment"].put(role["id"], role)


def contain(root: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Run the playbook once over all alerts; what it took."""
    kinds = {"contoso": "m365.tenant", "siem": "intake.key"}
    connections = {name: {"uses": kind, **info[kind]} for name, kind in kinds.items()}
    settings = {"connections": connections, "guardrails": RAISED}
    (root / "counterplay.yaml").write_text(yaml.safe_dump(settings))
    host = PluginHost.load()
    workspace, stop = Workspace(host, root), threading.Event()
    opener = Opener(workspace, stop)
    loaded = load(FILE_OF, host, workspace)
    assert isinstance(loaded, Playbook), loaded
    began = time.monotonic()
    task = Task(loaded, loaded.inputs_from({}))
    ended = Session(opener, NAME, [task], once=True, stop=stop).run()
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


def effects(folder: Path) -> dict[str, int]:
    """How many changes of which kind the tenant's journal holds."""
    with closing(sqlite3.connect(f"file:{folder / FOLDER / FILE}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT action, count(*) FROM journal GROUP BY action ORDER BY action")
        return dict(rows.fetchall())


def judged(verdict: Verdict) -> dict[str, Any]:
    """What the oracle says: how many attacks are contained, and what else was changed."""
    return {
        "contained": f"{sum(chain.contained for chain in verdict.chains)} of {len(verdict.chains)}",
        "left": [str(chain) for chain in verdict.chains if not chain.contained][:5],
        "collateral": list(verdict.collateral)[:5],
        "harmless_rules_off": list(verdict.harmless_rules_off)[:5],
    }


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alerts", type=int, default=500)
    given = parser.parse_args()
    figures: dict[str, Any]
    with tempfile.TemporaryDirectory() as folder:
        state_dir, root = Path(folder) / "tenant", Path(folder) / "workspace"
        root.mkdir()
        prepare(state_dir, given.alerts)
        with simulator_process(state_dir) as simulator:
            simulator.admin("POST", "/strictness", STRICTNESS | {"alerts_page": given.alerts + 1000})
            began = time.process_time()
            figures = contain(root, simulator.info)
            figures["worker_processor_seconds"] = round(time.process_time() - began, 1)
            verdict = simulator.oracle().verdict()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures["service_processor_seconds"] = round(children.ru_utime + children.ru_stime, 1)
        figures["seconds_at_the_service"] = round(seconds_at_the_service(state_dir), 1)
        figures.update(judged(verdict), effects=effects(state_dir))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
