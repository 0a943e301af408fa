"""The oracle: what the tenant offered, what arrived, who was changed, as the state itself says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from counterplay_sim.clock import Clock, to_ns
from counterplay_sim.store import FILE, Arrival, Change, Store, TenantRow

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventsVerdict:
    """The audit events, by their `Id`. Every list is sorted.

    `offered` counts distinct events that could be listed, `listed_twice` those that the log holds more
    than once, `arrived` arrivals. `missing` never came, `duplicated` came more than once, `altered` came
    with other bytes than were offered.
    """

    offered: int
    listed_twice: int
    arrived: int
    exact: int
    missing: tuple[str, ...]
    duplicated: tuple[str, ...]
    altered: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every event arrived exactly once, byte for byte."""
        return not (self.missing or self.duplicated or self.altered)


@dataclass(frozen=True, slots=True)
class UserEffects:
    """What was done to one user, in order: `(action, target, after)`, and how the user stands now."""

    upn: str
    changes: tuple[tuple[str, str, Doc], ...]
    enabled: bool
    sessions: int

    @property
    def blocked(self) -> bool:
        return not self.enabled


@dataclass(frozen=True, slots=True)
class VictimState:
    """How the compromised user stands. Rules are named by what they are called."""

    upn: str
    blocked: bool
    sessions: int
    malicious_rules_on: tuple[str, ...]

    @property
    def contained(self) -> bool:
        return self.blocked and not self.sessions and not self.malicious_rules_on


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle says of one tenant.

    `outcomes` are arrivals that are run records (`run` and `playbook`), `others` whatever else came.
    `effects` are keyed by user principal name; `requests` by `service operation`. `harmless_rules_off`
    names each disabled rule of anybody's that is not malicious: `(user principal name, rule)`.
    """

    tenant: str
    finished: bool
    events: EventsVerdict
    alerts_offered: int
    alerts_arrived: int
    alerts_duplicated: tuple[str, ...]
    outcomes: int
    others: int
    effects: dict[str, UserEffects]
    victim: VictimState
    harmless_rules_off: tuple[tuple[str, str], ...] = ()
    requests: dict[str, int] = field(default_factory=dict)
    most_in_a_minute: dict[str, int] = field(default_factory=dict)

    @property
    def touched(self) -> tuple[str, ...]:
        """The users that anything was done to."""
        return tuple(sorted(self.effects))

    def to_dict(self) -> Doc:
        """The verdict as JSON takes it."""
        return {**asdict(self), "touched": list(self.touched), "contained": self.victim.contained}


class Oracle:
    """Reads a simulator's state, also while another process serves it."""

    def __init__(self, state: Path | str, clock: Clock | None = None) -> None:
        """`state` is the simulator's folder (`<state_dir>/sim`) or the state directory above it.

        What a response wrote into the audit log counts as offered once `clock` says that it is listed.
        """
        folder = Path(state)
        self._clock = clock or Clock()
        self._folder = folder if (folder / FILE).exists() else folder / "sim"

    @property
    def exists(self) -> bool:
        """Whether there is a tenant to speak of."""
        if not (self._folder / FILE).exists():
            return False
        store = Store(self._folder, read_only=True)
        try:
            return bool(store.tenants())
        finally:
            store.close()

    def verdict(self, tenant: str | None = None) -> Verdict:
        """The verdict on a tenant, by default the newest. LookupError: there is none."""
        if not (self._folder / FILE).exists():
            raise LookupError(f"no simulated tenant has its state in {self._folder}")
        store = Store(self._folder, read_only=True)
        try:
            rows = [row for row in store.tenants() if tenant in (None, row.id)]
            if not rows:
                raise LookupError(f"no simulated tenant {tenant or ''} has its state in {self._folder}")
            return _verdict(store, rows[-1], self._clock.now_ns())
        finally:
            store.close()


def _verdict(store: Store, row: TenantRow, now: int) -> Verdict:
    horizon = to_ns(datetime.fromisoformat(row.finished)) if row.finished else now
    offered: dict[str, bytes] = {}
    listed: Counter[str] = Counter()
    for entry in store.entries(row.id):
        if entry.ingested > horizon:  # written by a response, and not listed yet
            continue
        offered[entry.event] = hashlib.sha256(entry.body).digest()
        listed[entry.event] += 1
    alerts = store.objects(row.id, "alert")
    sorted_out = _Arrivals(offered, alerts)
    for arrival in store.arrivals(row.id):
        sorted_out.take(arrival)
    events = EventsVerdict(
        offered=len(offered),
        listed_twice=sum(1 for times in listed.values() if times > 1),
        arrived=sum(sorted_out.events.values()),
        exact=sum(
            1 for key, times in sorted_out.events.items() if times == 1 and key not in sorted_out.altered
        ),
        missing=tuple(sorted(set(offered) - set(sorted_out.events))),
        duplicated=tuple(sorted(key for key, times in sorted_out.events.items() if times > 1)),
        altered=tuple(sorted(sorted_out.altered)),
    )
    requests = store.requests(row.id)
    return Verdict(
        tenant=row.id,
        finished=row.finished is not None,
        events=events,
        alerts_offered=len(alerts),
        alerts_arrived=len(sorted_out.alerts),
        alerts_duplicated=tuple(sorted(key for key, times in sorted_out.alerts.items() if times > 1)),
        outcomes=sorted_out.outcomes,
        others=sorted_out.others,
        effects=_effects(store, row, store.changes(row.id)),
        victim=_victim(store, row),
        harmless_rules_off=_harmless_off(store, row),
        requests=_totals(requests),
        most_in_a_minute=_most(requests),
    )


class _Arrivals:
    """Tells arrivals apart: audit events by `Id`, alerts by `id`, outcomes of runs, anything else."""

    def __init__(self, offered: dict[str, bytes], alerts: dict[str, Any]) -> None:
        self._offered = offered
        self._by_digest = {digest: key for key, digest in offered.items()}
        self._alerts = alerts
        self.events: Counter[str] = Counter()
        self.altered: set[str] = set()
        self.alerts: Counter[str] = Counter()
        self.outcomes = 0
        self.others = 0

    def take(self, arrival: Arrival) -> None:
        key = self._by_digest.get(arrival.sha256)
        if key is not None:
            self.events[key] += 1
            return
        try:
            document = json.loads(arrival.body or b"")
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self.others += 1
            return
        event, alert = document.get("Id"), document.get("id")
        if isinstance(event, str) and event in self._offered:
            self.events[event] += 1
            self.altered.add(event)
        elif isinstance(alert, str) and alert in self._alerts:
            self.alerts[alert] += 1
        elif "run" in document and "playbook" in document:
            self.outcomes += 1
        else:
            self.others += 1


def _effects(store: Store, row: TenantRow, changes: Iterable[Change]) -> dict[str, UserEffects]:
    users = store.objects(row.id, "user")
    sessions = store.objects(row.id, "sessions")
    by_user: dict[str, list[tuple[str, str, Doc]]] = {}
    for change in changes:
        by_user.setdefault(change.user, []).append((change.action, change.target, change.after))
    return {
        users[key]["userPrincipalName"]: UserEffects(
            upn=users[key]["userPrincipalName"],
            changes=tuple(done),
            enabled=users[key]["accountEnabled"],
            sessions=len(sessions[key]),
        )
        for key, done in by_user.items()
        if key in users
    }


def _victim(store: Store, row: TenantRow) -> VictimState:
    truth = row.doc["truth"]
    user = store.objects(row.id, "user")[truth["victim"]]
    rules = store.objects(row.id, "rules")[truth["victim"]]
    malicious = set(truth["malicious_rules"])
    return VictimState(
        upn=user["userPrincipalName"],
        blocked=not user["accountEnabled"],
        sessions=len(store.objects(row.id, "sessions")[truth["victim"]]),
        malicious_rules_on=tuple(r["displayName"] for r in rules if r["id"] in malicious and r["isEnabled"]),
    )


def _harmless_off(store: Store, row: TenantRow) -> tuple[tuple[str, str], ...]:
    users = store.objects(row.id, "user")
    malicious = set(row.doc["truth"]["malicious_rules"])
    return tuple(
        (users[user]["userPrincipalName"], rule["displayName"])
        for user, rules in store.objects(row.id, "rules").items()
        for rule in rules
        if rule["id"] not in malicious and not rule["isEnabled"]
    )


def _totals(requests: Iterable[tuple[str, str, int, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for service, operation, _, count in requests:
        totals[f"{service} {operation}"] += count
    return dict(sorted(totals.items()))


def _most(requests: Iterable[tuple[str, str, int, int]]) -> dict[str, int]:
    """The most requests that a service got within any sixty seconds."""
    by_service: dict[str, Counter[int]] = {}
    for service, _, second, count in requests:
        by_service.setdefault(service, Counter())[second] += count
    most = {}
    for service, seconds in sorted(by_service.items()):
        window: deque[tuple[int, int]] = deque()
        inside = best = 0
        for second, count in sorted(seconds.items()):
            window.append((second, count))
            inside += count
            while window[0][0] <= second - 60:
                inside -= window.popleft()[1]
            best = max(best, inside)
        most[service] = best
    return most
