"""A tenant with hundreds of alerts, whose service answers nothing, and another one with a single alert."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import yaml
from tests.fixtures.at_work import tenant_of

from counterplay.runtime.dispatch import SLOTS
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.testing import Plan, Simulator, Strictness

ALERTS = 60
PATIENCE = 60.0


class Stuck:
    """Graph, which keeps the single alerts of one tenant to itself until the other tenant got its own."""

    name = "graph"

    def __init__(self, graph: Any, large: str) -> None:
        self._graph = graph
        self._large = large
        self.failure = graph.failure
        self.served: list[str] = []
        self._other = threading.Event()

    def handle(self, request: Request) -> Answer:
        answer: Answer = self._graph.handle(request)
        if "/security/alerts_v2/" in request.raw_path:
            tenant = tenant_of(request)
            if tenant == self._large:
                self._other.wait(PATIENCE)
            self.served.append(tenant)
            if tenant != self._large:
                self._other.set()
        return answer


def playbook(name: str) -> str:
    """Looks at each alert of a tenant."""
    return yaml.safe_dump(
        {
            "name": name,
            "trigger": {
                "uses": "m365.alerts",
                "connection": name,
                "with": {"severity": ["high"], "poll_interval": "1s"},
            },
            "filter": "event.title == 'Many'",
            "steps": [{"id": "look", "uses": "m365.get_alert", "with": {"alert_id": "{{ event.id }}"}}],
        }
    )


def alerts(tenant: Any, number: int) -> None:
    """So many alerts, of this minute."""
    template = next(one for one in tenant.alerts.values() if one["severity"] == "high")
    for at in range(number):
        tenant.alerts.put(f"many{at:04d}", {**template, "id": f"many{at:04d}", "title": "Many"})


def test_a_tenant_with_many_alerts_holds_back_nobody_elses(desk: Any, tmp_path: Path) -> None:
    """Its runs take every slot and do not end; the other tenant's only run begins and ends all the same."""
    simulator = Simulator(
        tmp_path / "tenants",
        seed=3,
        plan=Plan(events=10, users=20),
        tenants=2,
        strictness=Strictness(graph=GraphRules(throttle_scale=0)),
    )
    with simulator:
        large, small = simulator.tenants
        alerts(large, ALERTS)
        alerts(small, 1)
        listener = simulator._listeners["graph"]
        listener.service = stuck = Stuck(listener.service, large.id)
        settings = [one["m365.tenant"] for one in simulator.info()["tenants"]]
        connections = {
            name: {"uses": "m365.tenant", **given}
            for name, given in zip(("large", "small"), settings, strict=True)
        }
        desk.write("counterplay.yaml", yaml.safe_dump({"connections": connections}))
        for name in connections:
            desk.write(f"playbooks/{name}.yaml", playbook(name))
        desk.write("playbooks/both.yaml", "name: both\nplaybooks: [large, small]\n")

        said = desk.playbook("run", "both", "--once")

    assert said.code == 0, said
    assert len(stuck.served) == ALERTS + 1 > SLOTS
    assert stuck.served[0] == small.id
