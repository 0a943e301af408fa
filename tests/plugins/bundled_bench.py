"""The bench of the bundled plugins: a simulated tenant with its intake, and a service that takes anything."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

from tests.fixtures.at_work import Receiver
from tests.fixtures.m365_actions import actions, comparable, empower, example, lasting

from counterplay.testing import Bench, Example
from counterplay_sim.digest import state
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

NOW = timedelta(0)


def bench(plugin: str, folder: Path) -> Generator[Bench, None, None]:
    """A small tenant; `std.http` posts to the receiver."""
    if plugin == "std":
        with Receiver() as receiver:
            yield Bench(
                examples={
                    "std.http": Example({"method": "POST", "url": f"{receiver.url}/hook", "json": {"a": 1}}),
                    "std.jsonl": Example({"path": str(folder.with_name("events.jsonl"))}),
                },
                state=lambda: list(receiver.seen),
            )
        return
    unhurried = GraphRules(throttle_scale=0, directory_audit_latency=NOW, audit_search_runs=NOW)
    plan, strictness = Plan(events=60, fixed=True), Strictness(graph=unhurried)
    simulator = Simulator(folder, seed=5, plan=plan, strictness=strictness)
    simulator.clock.advance(-timedelta(seconds=5))  # what is changed now can be listed at once
    with simulator:
        (tenant,) = simulator._tenants.values()
        empower(tenant)
        made = {info.uses: example(info.uses, tenant) for info in actions()}
        someone = made["m365.block_sign_in"].arguments
        yield Bench(
            connections={
                "m365.tenant": simulator.m365_settings(),
                "intake.key": simulator.intake_settings(),
            },
            examples={
                **{
                    uses: Example(one.arguments, first=[one.first] if one.first else [])
                    for uses, one in made.items()
                },
                "m365.directory_audits": Example(first=[("m365.block_sign_in", someone)]),
                "m365.hunting": Example({"query": "AlertInfo"}),
            },
            state=lambda: comparable("m365.delete_inbox_rules", lasting(state(simulator.state_dir))),
        )
