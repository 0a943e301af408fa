"""A workspace with a simulated tenant: playbooks run in it as they do anywhere, in this process."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from tests.fixtures.at_work import Receiver, call, connections

from counterplay.audit import entries
from counterplay.language import Playbook, load
from counterplay.plugins import PluginHost
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import Ended, Session, Task
from counterplay.store.database import Database, open_database
from counterplay.store.runs import RunStore, StoredEffect, StoredRun
from counterplay.workspace import Workspace
from counterplay_sim.digest import digest, state
from counterplay_sim.faults import Fault, FaultPlan
from counterplay_sim.testing import Plan, Simulator, close_all


class Writes(FaultPlan):
    """Writes down every request to Graph that is no read, as the simulated tenant gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def pick(self, service: str, method: str, path: str) -> Fault | None:
        if service == "graph" and method not in ("GET", "HEAD"):
            self.seen.append((method, path))
        return super().pick(service, method, path)


HOST = PluginHost.load()
assert "guard" in HOST.plugins, "an entry point is new: run `pip install -e '.[dev]'` again"


class Bench:
    """One workspace on disk, its simulated tenant, and shorthand for what people do with it."""

    def __init__(self, root: Path, simulator: Simulator) -> None:
        self.root = root
        self.simulator = simulator

    def configure(self, **settings: Any) -> None:
        """Write counterplay.yaml. The tenant is a configured one, which no finished run brings to its end."""
        text = yaml.safe_dump({"connections": connections(self.simulator), **settings})
        (self.root / "counterplay.yaml").write_text(text)

    @property
    def workspace(self) -> Workspace:
        return Workspace(HOST, self.root)

    def write(self, *steps: Any, name: str = "test", **rest: Any) -> str:
        """Write a playbook that is started by hand; `contoso` and `siem` are the simulated connections."""
        document = {"name": name, "trigger": {"uses": "std.manual"}, "steps": list(steps), **rest}
        (self.root / "playbooks" / f"{name}.yaml").write_text(yaml.safe_dump(document))
        return name

    def playbook(self, name: str = "test") -> Playbook:
        found = load(self.root / "playbooks" / f"{name}.yaml", HOST, self.workspace)
        assert isinstance(found, Playbook)
        return found

    def run(self, name: str = "test", event: Any = None, **inputs: str) -> Ended:
        """Run a playbook for one event, to its end."""
        stop = threading.Event()
        opener = Opener(self.workspace, stop)
        loaded = self.playbook(name)
        task = Task(loaded, loaded.inputs_from(inputs))
        events = [json.dumps(event or {}).encode()]
        return Session(opener, name, [task], once=True, stop=stop, events=events).run()

    def database(self) -> Database:
        return open_database(self.workspace.store_url)

    def runs(self) -> list[StoredRun]:
        """All runs, newest first."""
        database = self.database()
        try:
            return RunStore(database).newest(playbook=None, status=None, limit=100)
        finally:
            database.close()

    def commands(self) -> list[str]:
        """What the audit log holds of commands, as its entries' bodies."""
        database = self.database()
        try:
            return [one.body for one in entries(database) if one.kind == "command"]
        finally:
            database.close()

    def runs_made(self) -> int:
        """How many runs there are; none before there is a store."""
        return len(self.runs()) if (self.root / ".counterplay" / "state.db").exists() else 0

    def digest(self) -> str:
        return digest(self.simulator.state_dir)

    def state(self) -> dict[str, Any]:
        """The objects that `digest` is made of."""
        return state(self.simulator.state_dir)

    def user(self, number: int = 2) -> dict[str, Any]:
        """An account of the tenant that an app may change: no administrator's, not synced."""
        return self._plain_users()[number]

    def _plain_users(self) -> list[dict[str, Any]]:
        (tenant,) = self.simulator._tenants.values()
        held = {one["principalId"] for one in tenant.objects["roleAssignment"].values()}
        for group in tenant.objects["group"].values():
            if group.get("isAssignableToRole"):
                held |= set(group.get("@sim.members", ()))
        return [
            one
            for key, one in tenant.users.items()
            if key not in held and not one.get("onPremisesSyncEnabled")
        ]

    def rules(self, user: dict[str, Any]) -> list[dict[str, Any]]:
        """The inbox rules of an account that Graph can change."""
        (tenant,) = self.simulator._tenants.values()
        return [rule for rule in tenant.rules[user["id"]] if not rule["isReadOnly"] and rule["isEnabled"]]

    def with_rules(self) -> dict[str, Any]:
        """An account that has at least two such rules."""
        found = max(self._plain_users(), key=lambda user: len(self.rules(user)))
        assert len(self.rules(found)) >= 2
        return dict(found)

    @property
    def writes(self) -> list[tuple[str, str]]:
        """(method, path) of every write that the tenant's Graph has got so far."""
        assert isinstance(self.simulator.faults, Writes)
        return self.simulator.faults.seen

    def effects(self, run: StoredRun) -> list[StoredEffect]:
        """The journal of a run."""
        database = self.database()
        try:
            return RunStore(database).effects(run.id)
        finally:
            database.close()

    def plan(self, name: str = "test", event: Any = None) -> dict[str, Any]:
        """The plan for one event, as JSON."""
        file = self.root / "event.json"
        file.write_text(json.dumps(event or {}))
        result = self.call("plan", name, "--event", str(file), "--json")
        found: dict[str, Any] = json.loads(result.stdout)["plans"][0]
        return found

    def call(self, *words: str) -> Result:
        """The command line, in the workspace; an error that it would print stands in the output."""
        return call(self.root, *words)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace whose connection `sim` is a small tenant."""
    root = tmp_path / "workspace"
    (root / "playbooks").mkdir(parents=True)
    simulator = Simulator(root / ".counterplay", seed=5, plan=Plan(events=60, fixed=True))
    simulator.faults = Writes()
    with simulator:
        made = Bench(root, simulator)
        made.configure()
        yield made
    close_all()


@pytest.fixture
def block() -> Callable[..., dict[str, Any]]:
    """A step that blocks a user."""

    def step(user_id: str, **rest: Any) -> dict[str, Any]:
        return {"uses": "m365.block_sign_in", "connection": "contoso", "with": {"user_id": user_id}, **rest}

    return step


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A service that is no simulated tenant."""
    with Receiver() as server:
        yield server
