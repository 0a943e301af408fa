"""How soon an alert starts its run: `python benchmarks/alert_latency.py [--alerts N] [--interval 10s]`.

The simulated tenant gets one alert after the other, at random moments within the poll interval; a playbook
with one reading step follows `m365.alerts`. Measured is the time from the alert's becoming visible to the
moment at which the run's first step began, as the run's own record says. Printed are median, 95th percentile
and largest. Design: p95 under 11 s with a 10 s poll. Nothing is asserted.

On a machine of two cores that other work kept busy (load 11): 60 alerts, poll 10s: median 5.54 s, p95 9.88 s,
largest 10.19 s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from counterplay.clock import from_text, now
from counterplay.language import parse_duration
from counterplay_sim.clock import stamp
from counterplay_sim.testing import Plan, Simulator

PLAYBOOK = "watch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=60)
    parser.add_argument("--interval", default="10s")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Simulator(folder / "sim", seed=options.seed, plan=Plan(events=50)) as simulator:
            waits = _measured(folder, simulator, options.alerts, options.interval, options.seed)
    tail = statistics.quantiles(waits, n=20)[-1]
    click.echo(
        f"{len(waits)} alerts, poll {options.interval}: median {statistics.median(waits):.2f} s, "
        f"p95 {tail:.2f} s, largest {max(waits):.2f} s"
    )


def _measured(folder: Path, simulator: Simulator, alerts: int, interval: str, seed: int) -> list[float]:
    """Seconds from visible to the first step, one for each alert."""
    workspace = _workspace(folder, simulator, interval)
    chance = random.Random(seed)
    period = parse_duration(interval).total_seconds()
    engine = subprocess.Popen(
        [sys.executable, "-m", "counterplay", "run", PLAYBOOK],
        cwd=workspace,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        database = workspace / ".counterplay" / "state.db"
        _until(lambda: len(_began(database)) >= 1, 60)  # the tenant's own alert: everything is warm
        raised: dict[str, datetime] = {}
        for number in range(alerts):
            time.sleep(chance.uniform(0.1, 0.3) * period)
            raised[_raise(simulator, number)] = now()
        _until(lambda: raised.keys() <= _began(database).keys(), 6 * period)
        began = _began(database)
        return [(began[one] - visible).total_seconds() for one, visible in raised.items()]
    finally:
        engine.terminate()
        engine.wait(30)


def _raise(simulator: Simulator, number: int) -> str:
    """A new alert like one that the tenant has, visible from now on; its id."""
    (tenant,) = simulator.tenants
    alerts = tenant.objects["alert"]
    moment = stamp(tenant.clock.now(), 7)
    made = {
        **next(iter(alerts.values())),
        "id": f"latency-{number:06d}",
        "createdDateTime": moment,
        "lastUpdateDateTime": moment,
    }
    alerts.put(made["id"], made)
    return str(made["id"])


def _began(database: Path) -> dict[str, datetime]:
    """When the first step of each run began, by the alert's id."""
    if not database.exists():
        return {}
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows: list[tuple[str, str]] = connection.execute(
            "SELECT r.run_key, MIN(s.started) FROM cp_run r JOIN cp_step s ON s.run_id = r.id GROUP BY r.id"
        ).fetchall()
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()
    return {key: from_text(started) for key, started in rows}


def _until(true: Any, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            raise TimeoutError("the runs did not begin in time")
        time.sleep(0.1)


def _workspace(folder: Path, simulator: Simulator, interval: str) -> Path:
    workspace = folder / "work"
    (workspace / "playbooks").mkdir(parents=True)
    settings = {"uses": "m365.tenant", **simulator.m365_settings()}
    (workspace / "counterplay.yaml").write_text(json.dumps({"connections": {"contoso": settings}}))
    playbook = {
        "name": PLAYBOOK,
        "description": "Look at the account of each alert.",
        "trigger": {
            "uses": "m365.alerts",
            "connection": "contoso",
            "with": {"poll_interval": interval},
        },
        "steps": [
            {"id": "user", "uses": "m365.get_user", "with": {"user_id": "{{ event | m365_users | first }}"}}
        ],
    }
    (workspace / "playbooks" / f"{PLAYBOOK}.yaml").write_text(json.dumps(playbook))
    return workspace


if __name__ == "__main__":
    main()
