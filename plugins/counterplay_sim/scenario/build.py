"""A whole tenant from a seed and the moment of its creation, the same bytes every time."""

from __future__ import annotations

import random
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import to_ns
from counterplay_sim.scenario import shapes
from counterplay_sim.scenario.background import (
    NEWEST,
    Background,
    Ids,
    backgrounds,
    encode,
    latency,
)
from counterplay_sim.scenario.cast import DOMAIN, Person, more_rules, organization, people
from counterplay_sim.scenario.chains import CHAINS
from counterplay_sim.scenario.noise import Scene
from counterplay_sim.scenario.story import Story
from counterplay_sim.scenario.takeover import alert, user_evidence
from counterplay_sim.store import Entry

Doc = dict[str, Any]

DEFAULT = "account-takeover"
QUIET = "quiet"
ALL = "all"
_SHOWN_SIGN_INS = 120  # ordinary sign-ins that Graph shows beside those of an attack


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tenant is invented from, besides its seed and its moment. Kept with it, to invent it again.

    * `events`: ordinary audit events, in the `hours` before the tenant's creation. `users`, and `rules`: how
      many inbox rules they have together, None for a handful each.
    * `scenarios`: the attacks that happen, by name, each to a user of its own; what is named twice happens
      twice.
    * `skewed`: one hour holds nine events of ten.
    * `licence`: what the tenant has bought (`playbook sim --help` lists the profiles).
    * `fixed`: the same people and ids whenever it is created, for tests; a tenant that takes its place has
      them too.
    """

    events: int = 4000
    users: int = 40
    rules: int | None = None
    hours: float = 23.0
    scenarios: tuple[str, ...] = (DEFAULT,)
    skewed: bool = False
    licence: str = "e5"
    fixed: bool = False

    @classmethod
    def of(cls, doc: Doc) -> Plan:
        """The plan of a tenant that exists."""
        return cls(**{**doc, "scenarios": tuple(doc["scenarios"])})

    def to_dict(self) -> Doc:
        """As the tenant keeps it."""
        return {**asdict(self), "scenarios": list(self.scenarios)}


def scenario_names(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The chains that `--scenario` means, as often as they are named. ValueError: one does not exist."""
    if ALL in names:
        return tuple(CHAINS)
    wrong = [name for name in names if name not in CHAINS and name != QUIET]
    if wrong:
        raise ValueError(f"no scenario is called {wrong[0]!r}; there are {', '.join((*CHAINS, QUIET, ALL))}")
    return tuple(name for name in names if name != QUIET)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A tenant's beginning. `truth` is what only the oracle knows: victims, the attackers' state, alerts.

    `ordinary` events are made when they are read, `log` holds the others. `objects` go by kind, then in
    the order in which Graph should know them.
    """

    tenant: str
    client: str
    domain: str
    ids: Ids
    people: list[Person]
    alerts: list[Doc]
    organization: Doc
    ordinary: dict[str, Background]
    log: list[Entry]
    objects: dict[str, list[Doc]] = field(default_factory=dict)
    truth: Doc = field(default_factory=dict)


@dataclass(slots=True)
class _Ground:
    """Everything but the attacks."""

    chance: random.Random
    tenant: str
    client: str
    scene: Scene
    ids: Ids
    ordinary: dict[str, Background]


def _ground(seed: int, created: datetime, plan: Plan) -> _Ground:
    name = str(seed) if plan.fixed else f"{seed}/{created.isoformat()}"
    chance = random.Random(name)
    tenant = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    client = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    crowd = people(chance, plan.users, created)
    if plan.rules is not None:
        more_rules(chance, crowd, plan.rules)
    scene = Scene(random.Random(f"{name}/noise"), tenant, crowd)
    ids = Ids(name)
    ordinary = backgrounds(scene, ids, created, plan.events, plan.hours, skewed=plan.skewed)
    scene.chance = chance
    return _Ground(chance, tenant, client, scene, ids, ordinary)


def ordinary(seed: int, created: datetime, plan: Plan) -> tuple[Ids, dict[str, Background]]:
    """The ordinary events of a tenant that exists, once more."""
    ground = _ground(seed, created, plan)
    return ground.ids, ground.ordinary


def build(seed: int, created: datetime, plan: Plan | None = None) -> Scenario:
    """Invent a tenant: its ordinary days, and the attacks of the plan on top of them."""
    plan = plan or Plan()
    ground = _ground(seed, created, plan)
    scene, crowd, chance = ground.scene, ground.scene.people, ground.chance
    stories = list(_stories(scene, created, plan.scenarios))
    objects: dict[str, list[Doc]] = {"signIn": _ordinary_sign_ins(scene, created)}
    for story in stories:
        for kind, documents in story.objects.items():
            objects.setdefault(kind, []).extend(documents)
    alerts = [*objects.pop("alert", []), *_lesser_alerts(scene, created)]
    alerts.sort(key=lambda one: str(one["createdDateTime"]), reverse=True)
    happenings = [
        (kind, _ingestion(chance, at, created), event)
        for story in stories
        for kind, at, event in story.events
    ]
    return Scenario(
        tenant=ground.tenant,
        client=ground.client,
        domain=DOMAIN,
        ids=ground.ids,
        people=crowd,
        alerts=alerts,
        organization=organization(ground.tenant, created),
        ordinary=ground.ordinary,
        log=_log(happenings, ground.ordinary),
        objects=objects,
        truth=_truth(stories),
    )


def _stories(scene: Scene, created: datetime, names: tuple[str, ...]) -> Iterator[Story]:
    """Play each chain on a victim of its own; the administrator (the second user) is spared."""
    for number, name in enumerate(scenario_names(names)):
        chain, address = CHAINS[name]
        victim = scene.people[(number if number == 0 else number + 1) % len(scene.people)]
        story = Story(name, scene, [victim], address)
        chain(story, created)
        yield story


def _truth(stories: list[Story]) -> Doc:
    """The truth of the first attack on top, all of them under `chains`."""
    chains = [story.truth() for story in stories]
    first = chains[0] if chains else {}
    return {
        "victim": first.get("victim"),
        "victim_upn": first.get("victim_upn"),
        "alert": first.get("alert"),
        "attacker": first.get("attacker"),
        "malicious_rules": [rule for chain in chains for rule in chain["malicious_rules"]],
        "chains": chains,
    }


def _ordinary_sign_ins(scene: Scene, created: datetime) -> list[Doc]:
    chance = scene.chance
    made = []
    for number in range(_SHOWN_SIGN_INS):
        person = scene.people[number % len(scene.people)]
        at = created - timedelta(minutes=chance.randint(30, 23 * 60))
        made.append(shapes.sign_in(scene, person, at, error=50126 if chance.random() < 0.06 else 0))
    return made


def _ingestion(chance: random.Random, at: datetime, created: datetime) -> int:
    latest = created - NEWEST - timedelta(seconds=chance.randint(0, 300))
    return to_ns(min(at + timedelta(seconds=latency(chance, 0.45)), latest))


def _log(happenings: list[tuple[str, int, Doc]], ordinary: dict[str, Background]) -> list[Entry]:
    """The lines of the attacks, at times that no other line of their content type has."""
    taken: dict[str, set[int]] = {name: set() for name in ordinary}
    made: list[Entry] = []
    for content_type, ingested, event in sorted(happenings, key=lambda one: (one[0], one[1])):
        used, times = taken[content_type], ordinary[content_type].times
        while ingested in used or (ingested in times[(at := bisect_left(times, ingested)) : at + 1]):
            ingested += 1
        used.add(ingested)
        made.append(Entry(content_type, ingested, event["Id"], encode(event)))
    return made


_LESSER = (
    ("Impossible travel activity", "low", "new", "InitialAccess"),
    ("Unusual volume of file deletion", "medium", "resolved", "Impact"),
    ("Activity from infrequent country", "low", "resolved", "InitialAccess"),
    ("Email reported by user as malware or phish", "informational", "new", "InitialAccess"),
    ("Unfamiliar sign-in properties", "medium", "resolved", "InitialAccess"),
)


def _lesser_alerts(scene: Scene, created: datetime) -> list[Doc]:
    made = []
    for number, (title, severity, status, category) in enumerate(_LESSER):
        person = scene.people[(number * 5 + 2) % len(scene.people)]
        raised = created - timedelta(hours=2 + 4 * number, seconds=scene.chance.randint(0, 3000))
        one = alert(
            scene,
            title=title,
            severity=severity,
            status=status,
            category=category,
            raised=raised,
            first=raised - timedelta(minutes=30),
            last=raised - timedelta(minutes=20),
        )
        one["evidence"] = [{**user_evidence(person, raised), "verdict": "unknown"}]
        made.append(one)
    return made
