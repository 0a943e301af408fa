"""A fault campaign against the simulated tenant: random faults and kills from a seed, judged by the oracle.

`python benchmarks/campaign.py [--seed N] [--rounds N] [--events N]`. Each round puts random faults in
front of the collector and kills it at a random moment; at the end the faults go, the collector runs to
its end, and the oracle must say: nothing missing, nothing altered, no event doubled but those of batches
in flight at a kill, and a ledger that balances. Then one part of the log is made to go missing for good:
the ledger must name every unit of it, and nothing else. Exits 0 when all of that holds; the seed that it
prints repeats a failure (up to the timing of the kills).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from counterplay_sim.testing import SimulatorProcess, simulator_process

UNRECORDED = 4
LARGEST_BATCH = 512
PASSING: tuple[dict[str, Any], ...] = (
    {"kind": "AF50000", "probability": 0.2},
    {"kind": "AF50005", "probability": 0.2},
    {"kind": "html_503", "probability": 0.2},
    {"kind": "timeout_408", "probability": 0.1},
    {"kind": "AF429", "probability": 0.05},
    {"kind": "unauthorized", "probability": 0.05},
    {"kind": "truncated_json", "per_target": 1},
    {"kind": "AF20050", "per_target": 2},
    {"kind": "repeat_last", "probability": 0.3},
    {"kind": "fraction_digits"},
    {"kind": "wrong_content_type", "probability": 0.3},
    {"service": "activity", "reset": "before", "probability": 0.1},
    {"service": "activity", "reset": "after", "probability": 0.1},
    {"service": "activity", "path": "/audit/", "truncate": 500, "probability": 0.1},
    {"service": "activity", "delay": 0.05, "probability": 0.2},
    {"service": "login", "status": 503, "body": "{}", "nth": [1]},
    {"service": "intake", "status": 503, "probability": 0.3},
    {"service": "intake", "status": 429, "headers": {"Retry-After": "1"}, "probability": 0.1},
    {"service": "intake", "reset": "before", "probability": 0.2},
    {"service": "intake", "delay": 0.05, "probability": 0.3},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--events", type=int, default=20_000)
    options = parser.parse_args()
    click.echo(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        failures = Campaign(Path(folder), options.seed, options.rounds, options.events).run()
    for failure in failures:
        click.echo(f"FAILED (seed {options.seed}): {failure}")
    sys.exit(1 if failures else 0)


class Campaign:
    """One campaign in a folder of its own."""

    def __init__(self, folder: Path, seed: int, rounds: int, events: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.seed = seed
        self.rounds = rounds
        self.events = events
        self.kills = 0
        self.failures: list[str] = []

    def run(self) -> list[str]:
        """What did not hold; nothing when everything did."""
        arguments = ("--seed", str(self.seed), "--events", str(self.events))
        with simulator_process(self.folder / "sim", *arguments) as simulator:
            workspace = self._workspace(simulator)
            for number in range(self.rounds):
                faults = self.chance.sample(PASSING, self.chance.randint(1, 6))
                simulator.admin("DELETE", "/faults")
                simulator.admin("POST", "/faults", faults)
                self._killed(workspace, self.chance.uniform(0.7, 2.5 + 0.2 * number))
            simulator.admin("DELETE", "/faults")
            self._finish(workspace, simulator)
        with simulator_process(self.folder / "lossy", *arguments) as simulator:
            self._lossy(simulator)
        return self.failures

    def _finish(self, workspace: Path, simulator: SimulatorProcess) -> None:
        ended = self._command(workspace, "run", "collect", "--once", "--json")
        self._hold(ended.returncode == 0, f"the last run exits {ended.returncode}: {ended.stdout[-2000:]!r}")
        told = simulator.oracle().verdict().events
        doubled = told.arrived - told.offered + len(told.missing)
        click.echo(
            f"{self.rounds} rounds, {self.kills} kills: {told.offered} offered, {len(told.missing)} missing, "
            f"{len(told.altered)} altered, {doubled} doubled"
        )
        self._hold(not told.missing, f"{len(told.missing)} events are missing, such as {told.missing[:3]}")
        self._hold(not told.altered, f"{len(told.altered)} events are altered, such as {told.altered[:3]}")
        most = self.kills * UNRECORDED * LARGEST_BATCH
        self._hold(doubled <= most, f"{doubled} events are doubled, {most} would be explained by the kills")
        rows = json.loads(self._command(workspace, "ledger", "--json").stdout)
        self._hold(all(row["balanced"] for row in rows), "the ledger does not balance")
        self._hold(sum(row["waiting"] for row in rows) == 0, "the ledger says that units wait")
        gaps = json.loads(self._command(workspace, "ledger", "gaps", "--json").stdout)
        letters = json.loads(self._command(workspace, "dead-letters", "--json").stdout)
        self._hold(not letters, f"there are {len(letters)} dead letters, such as {letters[:2]}")
        self._hold(not gaps, f"the ledger names {len(gaps)} gaps, such as {gaps[:3]}")

    def _lossy(self, simulator: SimulatorProcess) -> None:
        """Content that expires between listing and fetch: every missing event is covered by the ledger."""
        simulator.admin("POST", "/faults", [{"kind": "AF20051", "probability": 0.3}])
        workspace = self._workspace(simulator)
        ended = self._command(workspace, "run", "collect", "--once", "--json")
        self._hold(ended.returncode == 1, f"a run that lost units exits {ended.returncode}")
        gaps = json.loads(self._command(workspace, "ledger", "gaps", "--json").stdout)
        entries = [{"reason": one["cause"], "unit": one["unit"]} for one in gaps]
        match = simulator.admin("POST", "/ledger", entries)
        told = simulator.oracle().verdict().events
        click.echo(
            f"lossy: {len(told.missing)} missing, {len(entries)} ledger entries, "
            f"{len(match['uncovered'])} uncovered, {len(match['unfounded'])} unfounded"
        )
        self._hold(not match["uncovered"], f"the ledger does not cover {match['uncovered'][:3]}")
        self._hold(not match["unfounded"], f"the ledger names what was not lost: {match['unfounded'][:3]}")

    def _hold(self, held: bool, text: str) -> None:
        if not held:
            self.failures.append(text)

    def _workspace(self, simulator: SimulatorProcess) -> Path:
        folder = simulator.state_dir.with_name(f"{simulator.state_dir.name}-work")
        (folder / "playbooks").mkdir(parents=True)
        connections = {
            "contoso": {"uses": "m365.tenant", **simulator.m365_settings()},
            "siem": {"uses": "intake.key", **simulator.intake_settings()},
        }
        (folder / "counterplay.yaml").write_text(json.dumps({"connections": connections}))
        playbook = {
            "name": "collect",
            "description": "Forward the audit log.",
            "trigger": {"uses": "m365.audit_log", "connection": "contoso"},
            "steps": [],
            "sinks": [{"uses": "intake.forward", "connection": "siem"}],
        }
        (folder / "playbooks" / "collect.yaml").write_text(json.dumps(playbook))
        return folder

    def _command(self, workspace: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "counterplay", *words],
            cwd=workspace,
            env={**os.environ, "HOME": str(self.folder)},
            capture_output=True,
            timeout=600,
            check=False,
        )

    def _killed(self, workspace: Path, after: float) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "counterplay", "run", "collect", "--once", "--json"],
            cwd=workspace,
            env={**os.environ, "HOME": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills += 1


if __name__ == "__main__":
    main()
