"""A fault campaign for the feeds of Graph and for the webhook, judged by what the simulated tenant holds.

`python benchmarks/graph_campaign.py [--seed N] [--rounds N] [--rate R] [--notifications N]`. Every trigger
that polls Graph is followed by a playbook of its own. Each round changes the tenant (new records, updates
of old ones), puts random faults in front of Graph and the sign-in, and kills the collector at a random
moment; `rate` multiplies how often a fault is met. Then the faults go, the collector runs to its end, and
each record, in its last state, must have arrived; what arrived must be a state that was; nothing is doubled
but what was in flight at a kill; the ledger balances. Hunting and the audit search are held against a
reading without faults. The webhook gets notifications, each again until it is answered with 200, as
Microsoft sends them, some once more after that, while the collector is killed now and then: none is lost.
Exits 0 when all of that holds; the seed that it prints repeats a failure (up to the timing of the kills).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import requests

from counterplay.events import Event
from counterplay.language import with_defaults
from counterplay.modules import Context
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.tenant import Tenant
from counterplay_sim.clock import stamp
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

UNRECORDED = 4
LARGEST_BATCH = 512
AUTH_ID = "an-id-that-the-campaign-sends"
#: Trigger, and the kind of object in the tenant that it follows; None: held against a clean reading.
FEEDS: dict[str, str | None] = {
    "m365.alerts": "alert",
    "m365.incidents": "incident",
    "m365.risk_detections": "riskDetection",
    "m365.risky_users": "riskyUser",
    "m365.sign_ins": "signIn",
    "m365.directory_audits": "directoryAudit",
    "m365.hunting": None,
    "m365.audit_search": None,
}
#: By kind: the time that moves with an update (or None), and the time of a new record.
TIMES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "alert": ("lastUpdateDateTime", ("createdDateTime", "lastUpdateDateTime")),
    "incident": ("lastUpdateDateTime", ("createdDateTime", "lastUpdateDateTime")),
    "riskDetection": ("lastUpdatedDateTime", ("detectedDateTime", "lastUpdatedDateTime")),
    "riskyUser": ("riskLastUpdatedDateTime", ("riskLastUpdatedDateTime",)),
    "signIn": (None, ("createdDateTime",)),
    "directoryAudit": (None, ("activityDateTime",)),
}
PASSING: tuple[dict[str, Any], ...] = (
    {"service": "graph", "status": 503, "probability": 0.2},
    {"service": "graph", "status": 500, "body": "<html>no</html>", "probability": 0.2},
    {"service": "graph", "status": 429, "headers": {"Retry-After": "0"}, "probability": 0.2},
    {"service": "graph", "status": 401, "body": "{}", "probability": 0.1},
    {"service": "graph", "reset": "before", "probability": 0.2},
    {"service": "graph", "reset": "after", "probability": 0.2},
    {"service": "graph", "truncate": 300, "probability": 0.1},
    {"service": "graph", "delay": 0.05, "probability": 0.3},
    {"service": "login", "status": 503, "body": "{}", "probability": 0.2},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--notifications", type=int, default=300)
    parser.add_argument("--webhook-kills", type=int, default=8)
    options = parser.parse_args()
    click.echo(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), options.seed, options.rate)
        campaign.run(options.rounds, options.notifications, options.webhook_kills)
    for failure in campaign.failures:
        click.echo(f"FAILED (seed {options.seed}): {failure}")
    sys.exit(1 if campaign.failures else 0)


class Campaign:
    """One campaign in a folder of its own."""

    def __init__(self, folder: Path, seed: int, rate: float) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.seed = seed
        self.rate = rate
        self.kills = 0
        self.made = 0
        self.failures: list[str] = []
        self.host = PluginHost.load()
        self.states: dict[str, set[str]] = {kind: set() for kind in TIMES}

    def run(self, rounds: int, notifications: int, webhook_kills: int) -> None:
        """All of it; `failures` has what did not hold."""
        rules = GraphRules(throttle_scale=0, empty_page_every=3, audit_search_runs=timedelta(0))
        plan = Plan(events=300, users=12, scenarios=("all",))
        simulator = Simulator(
            self.folder / "sim", seed=self.seed, plan=plan, strictness=Strictness(graph=rules)
        )
        with simulator:
            self.simulator = simulator
            (self.tenant,) = simulator.tenants
            until = self.tenant.clock.now()
            self.span = (f"{stamp(until - timedelta(days=1))[:19]}Z", f"{stamp(until)[:19]}Z")
            self._note_states()
            workspace = self._workspace()
            for number in range(rounds):
                self._change(number)
                simulator.calm()
                simulator.disturb(self._faults())
                self._killed(workspace, self.chance.uniform(0.7, 4.0))
            simulator.calm()
            self._change(rounds)
            self._finish(workspace, rounds)
            if notifications:
                self._webhook(notifications, webhook_kills)

    def _faults(self) -> list[dict[str, Any]]:
        chosen = self.chance.sample(PASSING, self.chance.randint(1, 5))
        return [{**one, "probability": min(0.8, one["probability"] * self.rate)} for one in chosen]

    # --- the tenant --------------------------------------------------------------------------------

    def _change(self, number: int) -> None:
        """Some records are new, some are updated; several get the very same time."""
        moment = stamp(self.tenant.clock.now(), 7)
        for kind, (moves, times) in TIMES.items():
            objects = self.tenant.objects[kind]
            known = list(objects.values())
            for _ in range(self.chance.randint(1, 3)):
                self.made += 1
                identity = f"{kind}-{self.made:06d}"
                made = {**self.chance.choice(known), "id": identity, **dict.fromkeys(times, moment)}
                objects.put(identity, {name: value for name, value in made.items() if name[0] != "@"})
            for old in self.chance.sample(known, min(2, len(known))) if moves else ():
                objects.put(old["id"], {**old, moves: moment})
        self._note_states()

    def _note_states(self) -> None:
        for uses, kind in FEEDS.items():
            if kind is not None:
                self.states[kind] |= self._keys(uses, kind)

    def _keys(self, uses: str, kind: str) -> set[str]:
        trigger = self._trigger(uses)
        return {
            str(trigger.delivery_key(Event(json.dumps(one).encode())))
            for one in self.tenant.objects[kind].values()
        }

    # --- the verdict --------------------------------------------------------------------------------

    def _finish(self, workspace: Path, rounds: int) -> None:
        ended = self._command(workspace, "run", "everything", "--once", "--json")
        self._hold(ended.returncode == 0, f"the last run exits {ended.returncode}: {ended.stdout[-1500:]!r}")
        most = self.kills * UNRECORDED * LARGEST_BATCH
        for uses, kind in FEEDS.items():
            found = self._arrived(workspace, uses)
            truth = self._clean(uses) if kind is None else self._keys(uses, kind)
            doubled = sum(count - 1 for count in found.values())
            click.echo(f"{uses}: {len(truth)} records, {len(truth - set(found))} missing, {doubled} doubled")
            self._hold(bool(truth), f"{uses}: the tenant has nothing to follow")
            self._hold(truth <= set(found), f"{uses}: missing are {sorted(truth - set(found))[:3]}")
            known = truth if kind is None else self.states[kind]
            self._hold(set(found) <= known, f"{uses}: never was {sorted(set(found) - known)[:3]}")
            self._hold(doubled <= most, f"{uses}: {doubled} doubled, {most} would be explained by the kills")
        click.echo(f"{rounds} rounds, {self.kills} kills, fault rate {self.rate:g}")
        self._balanced(workspace)

    def _balanced(self, workspace: Path) -> None:
        rows = json.loads(self._command(workspace, "ledger", "--json").stdout)
        self._hold(all(row["balanced"] for row in rows), "the ledger does not balance")
        self._hold(sum(row["waiting"] for row in rows) == 0, "the ledger says that units wait")
        gaps = json.loads(self._command(workspace, "ledger", "gaps", "--json").stdout)
        self._hold(not gaps, f"the ledger names {len(gaps)} gaps, such as {gaps[:2]}")
        letters = json.loads(self._command(workspace, "dead-letters", "--json").stdout)
        self._hold(not letters, f"there are {len(letters)} dead letters, such as {letters[:2]}")

    def _clean(self, uses: str) -> set[str]:
        """What a reading without faults and kills finds."""
        trigger = self._trigger(uses)
        connection = Tenant("truth", self.simulator.info()["m365.tenant"])
        found: set[str] = set()
        cursor = None
        with Wire(connection) as http:
            context = Context(http=http, connection=connection)
            while True:
                page = trigger.poll(context, cursor, context.now() - timedelta(hours=24, minutes=10))
                found |= {str(trigger.delivery_key(Event(raw))) for raw in page.events}
                cursor = page.cursor
                if not page.more:
                    return found

    def _arrived(self, workspace: Path, uses: str) -> Counter[str]:
        trigger = self._trigger(uses)
        file = workspace / f"{_name(uses)}.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        events = (json.loads(line) for line in lines)
        return Counter(
            str(trigger.delivery_key(Event(json.dumps(one.get("event", one)).encode()))) for one in events
        )

    def _hold(self, held: bool, text: str) -> None:
        if not held:
            self.failures.append(text)

    # --- the collector ------------------------------------------------------------------------------

    def _trigger(self, uses: str) -> Any:
        info = self.host.module(uses)
        return info.cls(with_defaults(info.schema, self._arguments(uses)))

    def _arguments(self, uses: str) -> dict[str, Any]:
        match uses:
            case "m365.hunting":
                return {"query": "IdentityLogonEvents", "overlap": "2h"}
            case "m365.audit_search":
                return {"start": self.span[0], "end": self.span[1], "window": "24h"}
        return {}

    def _workspace(self) -> Path:
        folder = self.folder / "work"
        (folder / "playbooks").mkdir(parents=True)
        self._configure(folder)
        for uses in FEEDS:
            self._playbook(folder, uses)
        everything = {"name": "everything", "description": "All.", "playbooks": [_name(one) for one in FEEDS]}
        (folder / "playbooks" / "everything.yaml").write_text(json.dumps(everything))
        return folder

    def _configure(self, folder: Path) -> None:
        settings = {"uses": "m365.tenant", **self.simulator.info()["m365.tenant"], "webhook_auth_id": AUTH_ID}
        (folder / "counterplay.yaml").write_text(json.dumps({"connections": {"contoso": settings}}))

    def _playbook(self, folder: Path, uses: str) -> None:
        playbook = {
            "name": _name(uses),
            "description": f"Write down {uses}.",
            "trigger": {"uses": uses, "connection": "contoso", "with": self._arguments(uses)},
            "sinks": [{"uses": "std.jsonl", "with": {"path": f"{folder}/{_name(uses)}.jsonl"}}],
        }
        (folder / "playbooks" / f"{_name(uses)}.yaml").write_text(json.dumps(playbook))

    def _command(self, workspace: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "counterplay", *words],
            cwd=workspace,
            env={**os.environ, "HOME": str(self.folder)},
            capture_output=True,
            timeout=600,
            check=False,
        )

    def _started(self, workspace: Path, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "counterplay", *words],
            cwd=workspace,
            env={**os.environ, "HOME": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _killed(self, workspace: Path, after: float) -> None:
        process = self._started(workspace, "run", "everything", "--once")
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills += 1

    # --- the webhook --------------------------------------------------------------------------------

    def _webhook(self, notifications: int, wanted: int) -> None:
        folder = self.folder / "hook"
        (folder / "playbooks").mkdir(parents=True)
        self._configure(folder)
        self._playbook(folder, "m365.audit_webhook")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = ("run", _name("m365.audit_webhook"), "--listen", f"127.0.0.1:{port}")
        process = self._started(folder, *words)
        kills = 0
        sent: set[str] = set()
        try:
            for number in range(notifications):
                body = [self._notification(number, place) for place in range(self.chance.randint(1, 3))]
                sent |= {one["contentId"] for one in body}
                while not self._taken(port, body):
                    if process.poll() is not None:
                        process = self._started(folder, *words)
                    time.sleep(0.05)
                if self.chance.random() < 0.1:
                    self._taken(port, body)  # as if the answer was lost on its way: it is sent again
                if self.chance.random() < wanted / notifications:
                    process.kill()
                    process.wait()
                    kills += 1
                    process = self._started(folder, *words)
        finally:
            process.terminate()
            process.wait(60)
        ended = self._command(folder, "run", _name("m365.audit_webhook"), "--once", "--json")
        self._hold(ended.returncode == 0, f"the webhook's last run exits {ended.returncode}")
        found = self._arrived(folder, "m365.audit_webhook")
        doubled = sum(count - 1 for count in found.values())
        click.echo(
            f"m365.audit_webhook: {len(sent)} records, {len(sent - set(found))} missing, {doubled} doubled, "
            f"{kills} kills"
        )
        self._hold(sent == set(found), f"m365.audit_webhook: missing are {sorted(sent - set(found))[:3]}")
        most = kills * UNRECORDED * LARGEST_BATCH
        self._hold(doubled <= most, f"m365.audit_webhook: {doubled} doubled, {kills} kills")
        self._balanced(folder)

    def _notification(self, number: int, place: int) -> dict[str, Any]:
        return {
            "tenantId": self.tenant.id,
            "clientId": self.tenant.client_id,
            "contentType": "Audit.General",
            "contentId": f"{number:06d}${place}",
            "contentUri": "https://127.0.0.1/x",
            "contentCreated": stamp(self.tenant.clock.now(), 3),
            "contentExpiration": stamp(self.tenant.clock.now() + timedelta(days=7), 3),
        }

    def _taken(self, port: int, body: list[dict[str, Any]]) -> bool:
        url = f"http://127.0.0.1:{port}/push/m365.audit_webhook/contoso"
        try:
            answer = requests.post(url, json=body, headers={"Webhook-AuthID": AUTH_ID}, timeout=20)
        except requests.RequestException:
            return False
        return answer.status_code == 200


def _name(uses: str) -> str:
    return uses.partition(".")[2].replace("_", "-")


if __name__ == "__main__":
    main()
