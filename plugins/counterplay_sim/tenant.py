"""One pretend tenant: what its services read and change, kept in memory and written through to the store."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from counterplay_sim.blobs import BlobIndex
from counterplay_sim.clock import NANOSECONDS, Clock, stamp
from counterplay_sim.scenario.build import Scenario
from counterplay_sim.store import Arrival, Change, Store, TenantRow
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
        self.lock = threading.RLock()
        self._store = store
        entries = store.entries(row.id)
        self.blobs = BlobIndex(entries, strictness)
        self._offered = {hashlib.sha256(entry.body).digest() for entry in entries}
        self.users: dict[str, Doc] = store.objects(row.id, "user")
        self.sessions: dict[str, list[Doc]] = store.objects(row.id, "sessions")
        self.rules: dict[str, list[Doc]] = store.objects(row.id, "rules")
        self.alerts: dict[str, Doc] = store.objects(row.id, "alert")
        self.organization: Doc = store.objects(row.id, "organization")[row.id]
        self.subscriptions: dict[str, Doc] = store.objects(row.id, "subscription")
        self._ids = {user["userPrincipalName"].lower(): key for key, user in self.users.items()}
        self._recent: deque[int] = deque()

    def user(self, name: str) -> Doc | None:
        """The user of that object id or user principal name, whatever their case."""
        key = name.lower()
        return self.users.get(self._ids.get(key, key))

    def change_user(self, user: Doc, values: Doc, *, app: str, request: str) -> None:
        """Set properties of a user."""
        before = {name: user.get(name) for name in values}
        with self.lock, self._store.transaction():
            user.update(values)
            self._store.put_objects(self.id, "user", [(user["id"], user)])
            self._journal("update_user", user, user["id"], before, values, app, request)

    def revoke_sessions(self, user: Doc, *, app: str, request: str) -> None:
        """End every session of a user that was issued up to now."""
        now = stamp(self.clock.now())
        before = {
            "sessions": len(self.sessions[user["id"]]),
            "signInSessionsValidFromDateTime": user["signInSessionsValidFromDateTime"],
        }
        with self.lock, self._store.transaction():
            live = [session for session in self.sessions[user["id"]] if session["issued"] > now]
            self.sessions[user["id"]] = live
            user["signInSessionsValidFromDateTime"] = now
            self._store.put_objects(self.id, "user", [(user["id"], user)])
            self._store.put_objects(self.id, "sessions", [(user["id"], live)])
            after = {"sessions": len(live), "signInSessionsValidFromDateTime": now}
            self._journal("revoke_sessions", user, user["id"], before, after, app, request)

    def change_rule(self, user: Doc, rule: Doc, values: Doc, *, app: str, request: str) -> None:
        """Set properties of an inbox rule."""
        before = {name: rule.get(name) for name in values}
        with self.lock, self._store.transaction():
            rule.update(values)
            self._store.put_objects(self.id, "rules", [(user["id"], self.rules[user["id"]])])
            self._journal("update_rule", user, rule["id"], before, values, app, request)

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

    def _journal(
        self, action: str, user: Doc, target: str, before: Doc, after: Doc, app: str, request: str
    ) -> None:
        at = stamp(self.clock.now(), 6)
        self._store.add_change(
            self.id, Change(at, app, action, user["id"], target, before, dict(after), request)
        )
