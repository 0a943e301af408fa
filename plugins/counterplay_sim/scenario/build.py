"""A whole tenant from a seed and the moment of its creation, the same bytes every time."""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import NANOSECONDS, to_ns
from counterplay_sim.scenario import noise
from counterplay_sim.scenario.cast import DOMAIN, Person, organization, people
from counterplay_sim.scenario.noise import Scene
from counterplay_sim.scenario.takeover import alert, take_over
from counterplay_sim.store import Entry

Doc = dict[str, Any]

USERS = 40
OLDEST = timedelta(hours=23)
NEWEST = timedelta(minutes=1)
_MEDIAN_LATENCY = 20 * 60.0  # seconds
_SPREAD = math.log(4.5) / 1.645  # so that the 95th percentile is at 90 minutes
_DELIVERED_TWICE = 0.015
_ESCAPED = 0.01


@dataclass(frozen=True, slots=True)
class Scenario:
    """A tenant's beginning. `truth` is what only the oracle knows: victim, malicious rules, alert."""

    tenant: str
    client: str
    domain: str
    people: list[Person]
    alerts: list[Doc]
    organization: Doc
    log: list[Entry]
    truth: Doc


def build(seed: int, created: datetime, events: int = 4000, users: int = USERS) -> Scenario:
    """Invent a tenant with so many ordinary events, and one takeover on top of them."""
    chance = random.Random(f"{seed}/{created.isoformat()}")
    tenant = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    client = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    crowd = people(chance, users, created)
    scene = Scene(chance, tenant, crowd)
    victim = crowd[0]
    happenings = list(_ordinary(scene, created, events))
    attack = take_over(scene, victim, created)
    victim.rules.insert(0, attack.rule)
    victim.sessions.append(attack.session)
    happenings += [(kind, _ingestion(chance, at, created), event) for kind, at, event in attack.events]
    alerts = [attack.alert, *_lesser_alerts(scene, created)]
    alerts.sort(key=lambda one: str(one["createdDateTime"]), reverse=True)
    return Scenario(
        tenant=tenant,
        client=client,
        domain=DOMAIN,
        people=crowd,
        alerts=alerts,
        organization=organization(tenant, created),
        log=_log(chance, happenings, created),
        truth={
            "victim": victim.id,
            "victim_upn": victim.upn,
            "malicious_rules": [attack.rule["id"]],
            "alert": attack.alert["id"],
            "attacker": attack.session["ip"],
        },
    )


def _ordinary(scene: Scene, created: datetime, count: int) -> Iterable[tuple[str, int, Doc]]:
    chance = scene.chance
    span = (OLDEST - NEWEST).total_seconds()
    weights = [share for _, share, _ in noise.KINDS]
    for number, (content_type, _, write) in enumerate(chance.choices(noise.KINDS, weights=weights, k=count)):
        ago = NEWEST.total_seconds() + span * chance.random()
        ingested = to_ns(created) - int(ago * NANOSECONDS)
        latency = chance.lognormvariate(math.log(_MEDIAN_LATENCY), _SPREAD)
        at = created - timedelta(seconds=ago + latency)
        person = (
            scene.people[number % len(scene.people)] if chance.random() < 0.5 else chance.choice(scene.people)
        )
        yield content_type, ingested, write(scene, person, at)


def _ingestion(chance: random.Random, at: datetime, created: datetime) -> int:
    latency = chance.lognormvariate(math.log(_MEDIAN_LATENCY), _SPREAD / 2)
    latest = created - NEWEST - timedelta(seconds=chance.randint(0, 300))
    return to_ns(min(at + timedelta(seconds=latency), latest))


def _log(chance: random.Random, happenings: list[tuple[str, int, Doc]], created: datetime) -> list[Entry]:
    """The ingestion log: in order, times unique within a content type, some events in it twice."""
    lines: list[tuple[str, int, str, bytes]] = []
    newest = to_ns(created - NEWEST)
    for content_type, ingested, event in happenings:
        body = _encode(chance, event)
        lines.append((content_type, ingested, event["Id"], body))
        if chance.random() < _DELIVERED_TWICE:  # the service retries within itself; this API shows it
            again = ingested + int(chance.uniform(60, 6 * 3600) * NANOSECONDS)
            lines.append((content_type, min(again, newest), event["Id"], body))
    lines.sort(key=lambda line: (line[0], line[1], line[2]))
    made: list[Entry] = []
    previous: Entry | None = None
    for content_type, ingested, key, body in lines:
        if previous is not None and previous.content_type == content_type:
            ingested = max(ingested, previous.ingested + 1)
        previous = Entry(content_type, ingested, key, body)
        made.append(previous)
    return made


def _encode(chance: random.Random, event: Doc) -> bytes:
    escaped = chance.random() < _ESCAPED  # some of the service's writers escape what is not ASCII
    return json.dumps(event, ensure_ascii=escaped, separators=(",", ":")).encode()


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
        one["evidence"] = [
            {
                "@odata.type": "#microsoft.graph.security.userEvidence",
                "createdDateTime": one["createdDateTime"],
                "verdict": "unknown",
                "remediationStatus": "none",
                "remediationStatusDetails": None,
                "roles": [],
                "detailedRoles": [],
                "tags": [],
                "stream": None,
                "userAccount": {
                    "accountName": person.alias,
                    "domainName": None,
                    "userSid": None,
                    "azureAdUserId": person.id,
                    "userPrincipalName": person.upn,
                    "displayName": person.name,
                },
            }
        ]
        made.append(one)
    return made
