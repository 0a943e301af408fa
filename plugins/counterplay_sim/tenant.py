"""One pretend tenant: what its services read and change, kept in memory and written through to the store."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson

from counterplay.errors import StateError
from counterplay_sim.blobs import BlobIndex
from counterplay_sim.clock import NANOSECONDS, Clock, stamp
from counterplay_sim.faults_log import LogFault
from counterplay_sim.objects import Collection, Objects
from counterplay_sim.scenario.background import Background, Ids, key_of
from counterplay_sim.scenario.build import Plan, Scenario, ordinary
from counterplay_sim.scenario.directory import by_kind, directory, mark_synced
from counterplay_sim.store import Change, Entry, Store, TenantRow
from counterplay_sim.strictness import Strictness

Doc = dict[str, Any]

GRANTS = {
    "graph": [
        "AuditLog.Read.All",
        "AuditLogsQuery.Read.All",
        "Device.ReadWrite.All",
        "Directory.Read.All",
        "IdentityRiskEvent.Read.All",
        "IdentityRiskyUser.Read.All",
        "MailboxSettings.ReadWrite",
        "Organization.Read.All",
        "SecurityAlert.Read.All",
        "SecurityIncident.Read.All",
        "ThreatHunting.Read.All",
        "User.EnableDisableAccount.All",
        "User.Read.All",
        "User.RevokeSessions.All",
        "UserAuthenticationMethod.ReadWrite.All",
    ],
    "activity": ["ActivityFeed.Read", "ActivityFeed.ReadDlp"],
}


def begin(
    store: Store, scenario: Scenario, plan: Plan, seed: int, created: datetime, slot: int = 1
) -> TenantRow:
    """Write a new tenant into the store, in one transaction; finished ones of its slot make room for it."""
    doc = {
        "client_id": scenario.client,
        "client_secret": secrets.token_urlsafe(32),
        "intake_key": secrets.token_urlsafe(32),
        "domain": scenario.domain,
        "licence": plan.licence,
        "grants": {service: list(roles) for service, roles in GRANTS.items()},
        "plan": plan.to_dict(),
        "fingerprint": fingerprint(scenario.ordinary),
        "truth": scenario.truth,
    }
    row = TenantRow(scenario.tenant, slot, seed, stamp(created), None, doc)
    with store.transaction():
        for old in store.tenants():
            if old.finished and old.slot == slot:
                store.drop_tenant(old.id)
        store.add_tenant(row)
        store.add_entries(row.id, scenario.log)
        _static_objects(store, row, scenario)
        store.put_objects(row.id, "user", ((person.id, person.doc) for person in scenario.people))
        store.put_objects(row.id, "sessions", ((person.id, person.sessions) for person in scenario.people))
        store.put_objects(row.id, "rules", ((person.id, person.rules) for person in scenario.people))
        store.put_objects(row.id, "alert", ((str(alert["id"]), alert) for alert in scenario.alerts))
        store.put_objects(row.id, "organization", [(row.id, scenario.organization)])
        for kind, documents in scenario.objects.items():
            store.put_objects(row.id, kind, ((str(document["id"]), document) for document in documents))
    return row


def _static_objects(store: Store, row: TenantRow, scenario: Scenario) -> None:
    """Write what stands in the directory before anything happens."""
    mark_synced(scenario.people)
    made = directory(
        tenant=row.id,
        client=scenario.client,
        domain=scenario.domain,
        people=scenario.people,
        created=datetime.fromisoformat(row.created),
        licence=row.doc["licence"],
        grants=row.doc["grants"],
        alerts=scenario.alerts,
        present={kind: [str(one["id"]) for one in found] for kind, found in scenario.objects.items()},
    )
    for kind, objects in by_kind(made).items():
        store.put_objects(row.id, kind, objects)


def fingerprint(ordinary: Mapping[str, Background]) -> str:
    """Tells whether a program still invents the same events."""
    digest = hashlib.sha256()
    for _, background in sorted(ordinary.items()):
        for number in range(0, len(background), max(1, len(background) // 50)):
            digest.update(background.body(number))
    return digest.hexdigest()


def log_of(
    store: Store,
    row: TenantRow,
    strictness: Strictness,
    ground: tuple[Ids, Mapping[str, Background]] | None = None,
) -> BlobIndex:
    """The ingestion log of a tenant. StateError: this program would invent other events."""
    ids, events = ground or ordinary(row.seed, datetime.fromisoformat(row.created), Plan.of(row.doc["plan"]))
    if fingerprint(events) != row.doc["fingerprint"]:
        raise StateError(
            f"the simulated tenant {row.id} was invented by another version of this program",
            hint="delete the simulator's state folder: the next start begins a new tenant",
        )
    saved = json.loads(store.setting(f"log_faults/{row.id}") or "[]")
    faults = [LogFault(**{**one, "nth": tuple(one["nth"])}) for one in saved]
    return BlobIndex(store.entries(row.id), strictness, events, ids, faults)


class Tenant:
    """A tenant's present state. Its services read the members and change them by the methods only."""

    def __init__(
        self,
        store: Store,
        row: TenantRow,
        clock: Clock,
        strictness: Strictness,
        ground: tuple[Ids, Mapping[str, Background]] | None = None,
    ) -> None:
        self.id = row.id
        self.row = row
        self.clock = clock
        self.strictness = strictness
        self.client_id: str = row.doc["client_id"]
        self.client_secret: str = row.doc["client_secret"]
        self.intake_key: str = row.doc["intake_key"]
        self.grants: dict[str, list[str]] = row.doc["grants"]
        self.domain: str = row.doc["domain"]
        self.licence: str = row.doc.get("licence", "e5")
        self.lock = threading.RLock()
        self._store = store
        self.blobs = log_of(store, row, strictness, ground)
        self.objects = Objects(store, row.id)
        self.subscriptions: dict[str, Doc] = store.objects(row.id, "subscription")
        self._recent: dict[str, deque[int]] = {}

    @property
    def users(self) -> Collection:
        """The users as Graph shows them, by object id."""
        return self.objects["user"]

    @property
    def sessions(self) -> Collection:
        """The sessions of each user, by the user's id: `[{"id", "issued", "ip"}]`."""
        return self.objects["sessions"]

    @property
    def rules(self) -> Collection:
        """The inbox rules of each user, by the user's id."""
        return self.objects["rules"]

    @property
    def alerts(self) -> Collection:
        """The alerts of `alerts_v2`, by id."""
        return self.objects["alert"]

    @property
    def organization(self) -> Doc:
        """The organisation as Graph shows it."""
        found: Doc = self.objects["organization"][self.id]
        return found

    def user(self, name: str) -> Doc | None:
        """The user of that object id or user principal name, whatever their case."""
        found: Doc | None = self.users.get(name.lower())
        if found is None and "@" in name:
            found = next(iter(self.users.where("userPrincipalName", name)), None)
        return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """State, journal and log change together, or not at all."""
        with self.lock, self._store.transaction():
            yield

    def change_user(self, user: Doc, values: Doc, *, app: str, request: str) -> None:
        """Set properties of a user."""
        with self.transaction():
            known = self.users[user["id"]]
            before = {name: known.get(name) for name in values}
            self.users.put(user["id"], {**known, **values})
            self.journal(
                "update_user",
                user=user["id"],
                target=user["id"],
                before=before,
                after=values,
                app=app,
                request=request,
            )

    def set_grants(self, grants: dict[str, list[str]]) -> None:
        """Keep what the tenant's own application may do, by service, also after a restart."""
        with self.transaction():
            self._store.change_tenant(self.id, {**self.row.doc, "grants": grants})
            self.row.doc["grants"] = self.grants = grants

    def log(self, content_type: str, event: Doc, at: int) -> None:
        """Append an event to the ingestion log; it can be listed from `at` (ns) on."""
        entry = Entry(content_type, at, event["Id"], orjson.dumps(event))
        with self.transaction():
            entry = replace(entry, ingested=self.blobs.append(entry))
            self._store.add_entries(self.id, [entry])

    def journal(
        self, action: str, *, user: str, target: str, before: Doc, after: Doc, app: str, request: str
    ) -> None:
        """Append to the write journal: which app changed what of whom (`user` is empty when of nobody)."""
        at = stamp(self.clock.now(), 6)
        self._store.add_change(self.id, Change(at, app, action, user, target, before, dict(after), request))

    def changes(self) -> list[Change]:
        """The write journal, in order."""
        return self._store.changes(self.id)

    def events(self) -> dict[str, bytes]:
        """Every audit event that can be listed by now, by `Id`, as it is served."""
        return {line.key: line.body for line in self.blobs.lines(self.clock.now_ns())}

    def put_subscription(self, subscription: Doc) -> None:
        """Keep the state of a subscription to a content type; members with `@sim.` are nobody's business."""
        with self.lock:
            self.subscriptions[subscription["contentType"]] = subscription
            self._store.put_objects(self.id, "subscription", [(subscription["contentType"], subscription)])

    def remove_subscription(self, content_type: str) -> None:
        """Let a subscription be as if it had never been, but for the times when it was."""
        with self.lock:
            found = self.subscriptions.get(content_type)
            if found is not None:
                self.put_subscription({**found, "status": "disabled", "webhook": None, "@sim.removed": True})

    def disturb(self, faults: Sequence[LogFault]) -> None:
        """Let these log faults, and no others, hold for this tenant, also after a restart."""
        with self.lock:
            if tuple(faults) != self.blobs.faults:
                saved = json.dumps([asdict(fault) for fault in faults])
                self._store.set_setting(f"log_faults/{self.id}", saved)
                self.blobs.disturb(faults)

    def accept(self, events: Sequence[bytes]) -> list[str]:
        """Keep events that arrived at the intake; they are durable when this returns their receipts."""
        receipt = secrets.token_hex(12)
        sha256, knows = hashlib.sha256, self.blobs.knows
        digests, keys, bodies = [], [], {}
        for place, body in enumerate(events):
            digests.append(sha256(body).digest())
            key = key_of(body) or _id_of(body)
            if key is not None and knows(key):
                keys.append(key)
            else:
                keys.append("")
                bodies[place] = body
        self._store.add_arrivals(self.id, self.clock.now_ns(), receipt, keys, digests, bodies)
        return [f"{receipt}{place:08x}" for place in range(len(events))]

    def throttled(self, publisher: str = "") -> bool:
        """Count a request against the sliding minute; True when it is one too many, which is not counted."""
        now = self.clock.now_ns()
        whom = publisher if self.strictness.quota_by == "publisher" else ""
        with self.lock:
            recent = self._recent.setdefault(whom, deque())
            while recent and recent[0] <= now - 60 * NANOSECONDS:
                recent.popleft()
            if len(recent) >= self.strictness.requests_per_minute:
                return True
            recent.append(now)
            return False


def _id_of(body: bytes) -> str | None:
    """The `Id` of an arrival that is laid out otherwise, when it is a JSON object that has one."""
    if b'"Id"' not in body:
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    key = document.get("Id") if isinstance(document, dict) else None
    return key if isinstance(key, str) and len(key) == 36 and key.isascii() else None
