"""`kill -9` of a real worker between a write that took effect and its record, for every action that has one.

The conformance kit kills single attempts of every action, before and after its first write; here whole runs
die, in `playbook run`, and the next `playbook run` settles them. Each action has a tenant of its own, so
that many of them are in that moment at once and one kill does for all of these.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures.at_work import tenant_of
from tests.fixtures.m365_actions import actions, comparable, empower, example, inverse, lasting

from counterplay.plugins import ModuleInfo
from counterplay.runtime.dispatch import SLOTS
from counterplay.store.database import open_database
from counterplay.store.runs import RunStore, StoredEffect
from counterplay_sim.digest import state
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.testing import ManualClock, Plan, Simulator, Strictness

EFFECTS = actions(effect=True)
PATIENCE = 60.0


class Holding:
    """Graph, which does every write at once, and keeps the answer to each tenant's first one to itself."""

    name = "graph"

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.failure = graph.failure
        self.writes: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.holding = False
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._round = 0

    def handle(self, request: Request) -> Answer:
        answer: Answer = self._graph.handle(request)
        if request.method == "GET":
            return answer
        tenant = tenant_of(request)
        with self._changed:
            self.writes[tenant].append((request.method, request.raw_path))
            if self.holding and tenant not in self._held:
                self._held.add(tenant)
                self._changed.notify_all()
                this = self._round
                self._changed.wait_for(lambda: self._round > this, PATIENCE)
        return answer

    def await_held(self, number: int) -> bool:
        """Wait until so many tenants did their first write, whose answers are kept back."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._held) >= number, PATIENCE)

    def let_go(self) -> None:
        """Give the answers that are kept back: to nobody, if whoever asked is dead."""
        with self._changed:
            self._round += 1
            self._changed.notify_all()


@dataclass
class Site:
    """A workspace with one tenant for each action, and one playbook that uses each at once."""

    root: Path
    simulator: Simulator
    arguments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The tenants let their app act; what has to be done before is done."""
        self.root.joinpath("playbooks").mkdir(parents=True)
        connections = {}
        for info, settings in zip(EFFECTS, self.simulator.info()["tenants"], strict=True):
            connections[_short(info.uses)] = {"uses": "m365.tenant", **settings["m365.tenant"]}
        (self.root / "counterplay.yaml").write_text(yaml.safe_dump({"connections": connections}))
        (self.root / "event.json").write_text("{}")
        listener = self.simulator._listeners["graph"]
        self.graph = Holding(listener.service)
        listener.service = self.graph
        self._prepare()

    def tenant(self, uses: str) -> Any:
        """The tenant of an action."""
        place = next(number for number, info in enumerate(EFFECTS) if info.uses == uses)
        return self.simulator.tenants[place]

    def _prepare(self) -> None:
        first = {}
        for info in EFFECTS:
            tenant = self.tenant(info.uses)
            empower(tenant)
            found = example(info.uses, tenant)
            self.arguments[info.uses] = found.arguments
            if found.first is not None:
                first[info.uses] = found.first
        self.write("before", {uses: (one, given) for uses, (one, given) in first.items()})
        assert self.start("before", "--event", "event.json").wait(PATIENCE) == 0
        for effect in self.effects("before").values():
            uses = f"m365.{effect.connection}"
            self.arguments[uses] = inverse(effect.uses, first[uses][1], effect.before, effect.result)
        self.write("all", {info.uses: (info.uses, self.arguments[info.uses]) for info in EFFECTS})
        self.graph.writes.clear()
        self.simulator.clock.advance(timedelta(minutes=1))  # what was before is the older one

    def write(self, name: str, used: dict[str, tuple[str, dict[str, Any]]]) -> None:
        """A playbook that uses modules in parallel, each on the tenant that is named with it."""
        steps = [
            {"id": _short(place), "uses": uses, "connection": _short(place), "with": given}
            for place, (uses, given) in used.items()
        ]
        document = {
            "name": name,
            "trigger": {"uses": "std.manual"},
            "steps": [{"id": "at", "parallel": steps}],
        }
        (self.root / "playbooks" / f"{name}.yaml").write_text(yaml.safe_dump(document))

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "counterplay", "run", name, *words]
        log = (self.root / "log.txt").open("ab")
        with log:
            return subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log)

    def effects(self, playbook: str) -> dict[str, StoredEffect]:
        """The journal of a playbook's only run, by step."""
        with closing(open_database(f"sqlite:///{self.root}/.counterplay/state.db")) as database:
            runs = RunStore(database)
            (run,) = (one for one in runs.newest(playbook=playbook, status=None, limit=500) if not one.parent)
            return {effect.step_id: effect for effect in runs.effects_within(run.id)}

    def state(self, uses: str) -> Any:
        """What the action's tenant is like, without what a repetition makes anew."""
        found = lasting(state(self.simulator.state_dir, self.tenant(uses).id))
        return comparable(uses, found)


def _short(uses: str) -> str:
    return uses.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a site: how often its worker was killed, how the last one ended, and what was said."""

    site: Site
    kills: int
    code: int

    @property
    def said(self) -> str:
        return (self.site.root / "log.txt").read_text()


def calm(site: Site) -> Story:
    """The playbook runs undisturbed."""
    return Story(site, 0, site.start("all", "--event", "event.json").wait(PATIENCE))


def killed(site: Site) -> Story:
    """Its worker is killed as soon as all its slots wait for answers to writes that took effect; the next
    one goes on, and is killed in the same way, until each action was.
    """
    site.graph.holding = True
    words: Sequence[str] = ("--event", "event.json")
    done = kills = 0
    while done < len(EFFECTS):
        process = site.start("all", *words)
        done = min(done + SLOTS, len(EFFECTS))
        there = site.graph.await_held(done)
        process.kill()
        process.wait()
        site.graph.let_go()
        assert there, (site.root / "log.txt").read_text()
        kills += 1
        words = ("--once",)
    return Story(site, kills, site.start("all", *words).wait(PATIENCE))


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Story]:
    """The same tenants twice, at the same frozen time: one worker dies again and again, one does not."""
    began = datetime.now(UTC).replace(microsecond=0)
    told = []
    for play in (calm, killed):
        root = tmp_path_factory.mktemp(play.__name__)
        simulator = Simulator(
            root,
            seed=5,
            plan=Plan(events=10, users=40, scenarios=("all",), fixed=True),
            tenants=len(EFFECTS),
            strictness=Strictness(graph=GraphRules(throttle_scale=0)),
            clock=ManualClock(began),
        )
        with simulator:
            told.append(play(Site(root / "workspace", simulator)))
    return told[0], told[1]


def test_the_worker_died_in_the_middle_of_every_action(stories: tuple[Story, Story]) -> None:
    """As often as its slots need for all of them; the last worker ends the run as the calm one did."""
    undisturbed, disturbed = stories

    assert undisturbed.code == 0, undisturbed.said
    assert disturbed.code == 0, disturbed.said
    assert disturbed.kills == -(-len(EFFECTS) // SLOTS)


@pytest.mark.parametrize("info", EFFECTS, ids=lambda info: info.uses)
def test_a_worker_killed_before_the_outcome_is_on_record_changes_nothing(
    info: ModuleInfo, stories: tuple[Story, Story]
) -> None:
    """The tenant is as it is without a kill; what is settled by reading was sent once, the rest repeated."""
    undisturbed, disturbed = (story.site for story in stories)
    effect = disturbed.effects("all")[_short(info.uses)]
    once = undisturbed.graph.writes[undisturbed.tenant(info.uses).id]
    sent = disturbed.graph.writes[disturbed.tenant(info.uses).id]

    assert effect.status == "done", effect.error
    assert effect.verified is not False
    assert disturbed.state(info.uses) == undisturbed.state(info.uses)
    if info.cls.settle == "repeat":  # type: ignore[attr-defined]
        assert sent == [*once, once[0]]
        assert effect.settled is None
    else:
        assert sent == once
        assert (effect.settled == "read back after a stop") is (len(once) == 1)
