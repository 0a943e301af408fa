"""A workspace on a tenant that was attacked, in which shipped playbooks run as an operator runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from tests.fixtures.at_work import call, connections

from counterplay.cli.doctor import needs_by_kind
from counterplay.plugins import PluginHost
from counterplay.workspace import Workspace
from counterplay_sim.digest import state
from counterplay_sim.oracle_chains import ChainState
from counterplay_sim.testing import Plan, Simulator, Verdict, close_all

HOST = PluginHost.load()
HERE = Path(__file__).resolve().parents[2] / "playbooks"
_SERVICES = {
    "Microsoft Graph": "graph",
    "Office 365 Management APIs": "activity",
    "Defender for Endpoint": "defender",
}


class Scene:
    """One attacked tenant, the workspace of those who respond, and what the oracle says."""

    def __init__(self, root: Path, simulator: Simulator) -> None:
        self.root = root
        self.simulator = simulator
        (root / "counterplay.yaml").write_text(yaml.safe_dump({"connections": connections(simulator)}))
        self.found = state(simulator.state_dir)

    def call(self, *words: str) -> Result:
        """The command line, in the workspace; an error that it would print stands in the output."""
        return call(self.root, *words)

    def data(self, *words: str) -> Any:
        """What a command says in JSON."""
        return json.loads(self.call(*words, "--json").stdout)

    def respond(self, name: str, *words: str, answer: str = "approve") -> Result:
        """Run a playbook over what its source holds; whatever it asks is answered, and it goes on."""
        result = self.call("run", name, "--once", *words)
        for question in self.data("approvals"):
            self.call(answer, question["id"])
        return self.call("run", name, "--once", *words) if result.exit_code == 3 else result

    def runs(self, name: str) -> list[str]:
        """The ids of a playbook's runs, newest first."""
        return [one["id"] for one in self.data("runs", "list", "--playbook", name)]

    def event(self, name: str) -> Path:
        """A file with what starts the playbook: the attack's alert, or its rule in the audit log."""
        tenant, truth = self.simulator.tenant, self.truth
        raw = json.dumps(tenant.alerts[truth["alert"]]).encode()
        if "m365.audit_log" in (HERE / f"{name}.yaml").read_text():
            found = (tenant.events()[key] for key in truth["events"])
            raw = next(one for one in found if b'"New-InboxRule"' in one)
        file = self.root / "event.json"
        file.write_bytes(raw)
        return file

    def give_role(self, role: str) -> None:
        """Let the app hold an Entra role itself, as an administrator would assign it."""
        tenant = self.simulator.tenant
        (app,) = tenant.objects["servicePrincipal"].where("appId", tenant.client_id)
        assignment = {
            "id": f"own-{role}",
            "principalId": app["id"],
            "roleDefinitionId": role,
            "directoryScopeId": "/",
            "appScopeId": None,
        }
        tenant.objects["roleAssignment"].put(assignment["id"], assignment)

    def record(self, run: str) -> str:
        """A file with what `runs show` says of a run."""
        file = self.root / "contained.json"
        file.write_text(json.dumps(self.data("runs", "show", run)))
        return str(file)

    @property
    def verdict(self) -> Verdict:
        return self.simulator.oracle().verdict()

    @property
    def chain(self) -> ChainState:
        """The attack, the only one of the tenant."""
        (found,) = self.verdict.chains
        return found

    @property
    def truth(self) -> dict[str, Any]:
        (found,) = self.simulator.tenant.row.doc["truth"]["chains"]
        return dict(found)

    @property
    def subject(self) -> str:
        """Whom a response is about: the application where one is the attacker's, else the victim."""
        for key in self.truth["service_principals"]:
            return str(self.simulator.tenant.objects["servicePrincipal"][key]["displayName"])
        return str(self.truth["victim_upn"])

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """What is otherwise than when the response began: object, or member of it, before and now.

        Objects go by `kind/id`, members of an object that is still there by `kind/id/member`. What was
        removed and made again is the same, though the service gave it another id.
        """
        before, now = dict(self.found), state(self.simulator.state_dir)
        for key in now.keys() - before.keys():
            for gone in before.keys() - now.keys():
                if _body(gone, before[gone]) == _body(key, now[key]):
                    before[key] = now[key]
                    del before[gone]
                    break
        found: dict[str, tuple[Any, Any]] = {}
        for key in before.keys() | now.keys():
            old, new = before.get(key), now.get(key)
            if isinstance(old, dict) and isinstance(new, dict):
                for name in old.keys() | new.keys():
                    was, now_is = old.get(name), new.get(name)
                    if was != now_is and (was or now_is or not name.startswith("@sim.")):
                        found[f"{key}/{name}"] = (was, now_is)
            elif old != new:
                found[key] = (old, new)
        return found


def _body(key: str, document: Any) -> Any:
    """An object without what a service makes up for it."""
    made_up = ("id", "createdDateTime")
    body = {name: value for name, value in document.items() if name not in made_up}
    return key.partition("/")[0], body


def least(*names: str) -> dict[str, list[str]]:
    """By service, what the modules of playbooks say that they need: the first of the alternatives each."""
    found: dict[str, set[str]] = {service: set() for service in _SERVICES.values()}
    for need in needs_by_kind(Workspace(HOST, None), names, "m365.tenant"):
        for permission in need.permissions:
            found[_SERVICES[permission["resource"]]].add(permission["any"][0])
    return {service: sorted(permissions) for service, permissions in found.items()}


Attacked = Callable[..., Scene]


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Attacked]:
    """Begins a tenant with an attack, or several; its app may do what playbooks say they need, no more."""
    with ExitStack() as stack:

        def begun(scenario: str | tuple[str, ...], *playbooks: str) -> Scene:
            root = tmp_path / "workspace"
            root.mkdir()
            chosen = (scenario,) if isinstance(scenario, str) else scenario
            plan = Plan(events=40, scenarios=chosen, fixed=True)
            simulator = Simulator(root / ".counterplay", seed=7, plan=plan, grants=least(*playbooks))
            return Scene(root, stack.enter_context(simulator))

        yield begun
    close_all()
