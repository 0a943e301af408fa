"""One pretend tenant: what its services read and change, kept in memory and written through to the store."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from counterplay_sim.blobs import BlobIndex
from counterplay_sim.clock import NANOSECONDS, Clock, stamp
from counterplay_sim.objects import Collection, Objects
from counterplay_sim.scenario.build import Scenario
from counterplay_sim.store import Arrival, Change, Entry, Store, TenantRow
from counterplay_sim.strictness import Strictness

Doc = dict[str, Any]

GRANTS = {
    "graph": [
        "MailboxSettings.ReadWrite",
        "Organization.Read.All",
        "SecurityAlert.Read.All",
        "User.EnableDisableAccount.All",
        "User.Read.All",
        "User.RevokeSessions.All",
    ],
    "activity": ["ActivityFeed.Read", "ActivityFeed.ReadDlp"],
}


def begin(store: Store, scenario: Scenario, seed: int, created: datetime) -> TenantRow:
    """Write a new tenant into the store, in one transaction; finished ones make room for it."""
    doc = {
        "client_id": scenario.client,
        "client_secret": secrets.token_urlsafe(32),
        "intake_key": secrets.token_urlsafe(32),
        "domain": scenario.domain,
        "grants": {service: list(roles) for service, roles in GRANTS.items()},
        "truth": scenario.truth,
    }
    row = TenantRow(scenario.tenant, seed, stamp(created), None, doc)
    with store.transaction():
        for old in store.tenants():
            if old.finished:
                store.drop_tenant(old.id)
        store.add_tenant(row)
        store.add_entries(row.id, scenario.log)
        store.put_objects(row.id, "user", ((person.id, person.doc) for person in scenario.people))
        store.put_objects(row.id, "sessions", ((person.id, person.sessions) for person in scenario.people))
        store.put_objects(row.id, "rules", ((person.id, person.rules) for person in scenario.people))
        store.put_objects(row.id, "alert", ((str(alert["id"]), alert) for alert in scenario.alerts))
        store.put_objects(row.id, "organization", [(row.id, scenario.organization)])
    return row


class Tenant:
    """A tenant's present state. Its services read the members and change them by the methods only."""

    def __init__(self, store: Store, row: TenantRow, clock: Clock, strictness: Strictness) -> None:
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
        entries = store.entries(row.id)
        self.blobs = BlobIndex(entries, strictness)
        self._offered = {hashlib.sha256(entry.body).digest() for entry in entries}
        self.objects = Objects(store, row.id)
        self.subscriptions: dict[str, Doc] = store.objects(row.id, "subscription")
        self._recent: deque[int] = deque()

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
        before = {name: user.get(name) for name in values}
        with self.transaction():
            self.users.put(user["id"], {**user, **values})
            self.journal(
                "update_user",
                user=user["id"],
                target=user["id"],
                before=before,
                after=values,
                app=app,
                request=request,
            )

    def log(self, content_type: str, event: Doc, at: int) -> None:
        """Append an event to the ingestion log; it can be listed from `at` (ns) on."""
        entry = Entry(content_type, at, event["Id"], orjson.dumps(event))
        with self.transaction():
            entry = replace(entry, ingested=self.blobs.append(entry))
            self._store.add_entries(self.id, [entry])
            self._offered.add(hashlib.sha256(entry.body).digest())

    def journal(
        self, action: str, *, user: str, target: str, before: Doc, after: Doc, app: str, request: str
    ) -> None:
        """Append to the write journal: which app changed what of whom (`user` is empty when of nobody)."""
        at = stamp(self.clock.now(), 6)
        self._store.add_change(self.id, Change(at, app, action, user, target, before, dict(after), request))

    def put_subscription(self, subscription: Doc) -> None:
        """Keep the state of a subscription to a content type."""
        with self.lock:
            self.subscriptions[subscription["contentType"]] = subscription
            self._store.put_objects(self.id, "subscription", [(subscription["contentType"], subscription)])

    def accept(self, events: Iterable[bytes]) -> list[str]:
        """Keep events that arrived at the intake; they are durable when this returns their receipts."""
        now = stamp(self.clock.now(), 6)
        arrivals = []
        for body in events:
            digest = hashlib.sha256(body).digest()
            kept = None if digest in self._offered else body
            arrivals.append(Arrival(now, secrets.token_hex(16), digest, len(body), kept))
        self._store.add_arrivals(self.id, arrivals)
        return [arrival.receipt for arrival in arrivals]

    def throttled(self) -> bool:
        """Count a request against the sliding minute; True when it is one too many."""
        now = self.clock.now_ns()
        with self.lock:
            while self._recent and self._recent[0] <= now - 60 * NANOSECONDS:
                self._recent.popleft()
            if len(self._recent) >= self.strictness.requests_per_minute:
                return True
            self._recent.append(now)
            return False
