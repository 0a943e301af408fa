"""The oracle: what the tenant offered, what arrived, who was changed, as the state itself says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from counterplay_sim.activity_subscriptions import spans
from counterplay_sim.blobs import BlobIndex, Line, Span
from counterplay_sim.clock import NANOSECONDS, Clock, to_ns
from counterplay_sim.oracle_chains import Attacks, ChainState
from counterplay_sim.oracle_ledger import LedgerEntry, LedgerMatch, Place, match
from counterplay_sim.scenario.background import Background, Ids
from counterplay_sim.scenario.build import Plan, ordinary
from counterplay_sim.scenario.noise import CONTENT_TYPES
from counterplay_sim.store import FILE, Arrival, Change, Mishap, Store, TenantRow
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import log_of

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventsVerdict:
    """The audit events, by their `Id`. Every list is sorted.

    `offered` counts distinct events that could be listed, `listed_twice` those that the log holds more
    than once, `arrived` arrivals. `missing` never came, `duplicated` came more than once, `altered` came
    with other bytes than were offered. `lost_to_faults` are the missing ones that a fault kept from the
    reader to the end, with its kind. `withheld` could never be listed, because nothing was subscribed when
    they became available; they are not `offered`. Delays are seconds from the first moment at which an
    event could be listed (the tenant's creation for older ones) to its arrival.
    """

    offered: int
    listed_twice: int
    arrived: int
    exact: int
    missing: tuple[str, ...]
    duplicated: tuple[str, ...]
    altered: tuple[str, ...]
    lost_to_faults: dict[str, str] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    delay_p50: float | None = None
    delay_p95: float | None = None
    delay_max: float | None = None

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Missing events that no deliberate fault kept from the reader."""
        return tuple(key for key in self.missing if key not in self.lost_to_faults)

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
class Recovery:
    """How one fault went: how often it was met, how often what it hit was served later, how long it took.

    `longest` is in seconds.
    """

    fault: str
    met: int
    recovered: int
    longest: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle says of one tenant.

    `outcomes` are arrivals that are run records (`run` and `playbook`), `others` whatever else came.
    `effects` are keyed by user principal name; `requests` by `service operation`. `harmless_rules_off`
    names each disabled rule of anybody's that is not malicious: `(user principal name, rule)`. `chains`
    are the attacks, the first of them also `victim`; `collateral` names each thing that was changed without
    being an attacker's or an account that one of them had; `recoveries` are the faults that were met.
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
    chains: tuple[ChainState, ...] = ()
    collateral: tuple[str, ...] = ()
    recoveries: tuple[Recovery, ...] = ()

    @property
    def touched(self) -> tuple[str, ...]:
        """The users that anything was done to."""
        return tuple(sorted(self.effects))

    def to_dict(self) -> Doc:
        """The verdict as JSON takes it."""
        return {**asdict(self), "touched": list(self.touched), "contained": self.victim.contained}


class Oracle:
    """Reads a simulator's state, also while another process serves it."""

    def __init__(
        self,
        state: Path | str,
        clock: Clock | None = None,
        logs: Callable[[], Mapping[str, BlobIndex]] = dict,
    ) -> None:
        """`state` is the simulator's folder (`<state_dir>/sim`) or the state directory above it.

        An event counts as offered once `clock` (by default that of the state) says that it is listed.
        `logs` gives the logs that are in memory already, by tenant.
        """
        folder = Path(state)
        self._clock = clock
        self._logs = logs
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

    def verdict(self, tenant: str | None = None, content_types: Collection[str] = CONTENT_TYPES) -> Verdict:
        """The verdict on a tenant, by default the newest of the first. LookupError: there is none.

        Only audit events of the content types count: a reader of some owes nothing of the others.
        """
        with self._reading(tenant) as (store, row, log, now):
            return _verdict(store, row, log, now, content_types)

    def delays(self, since: datetime, tenant: str | None = None) -> list[float]:
        """Sorted seconds from listable to arrived, of the events that could first be listed from then on."""
        with self._reading(tenant) as (store, row, log, now):
            truth, start = _Truth(store, row, log, now), to_ns(since)
            found: dict[str, float] = {}
            for arrival in store.arrivals(row.id):
                key = arrival.key or truth.by_digest.get(arrival.sha256, "")
                if truth.first.get(key, 0) >= start:
                    found.setdefault(key, (arrival.at - truth.first[key]) / NANOSECONDS)
        return sorted(found.values())

    def tenants(self) -> list[str]:
        """The ids of all tenants, by their number; finished ones as well, until another takes their place."""
        if not (self._folder / FILE).exists():
            return []
        with closing(Store(self._folder, read_only=True)) as store:
            return [row.id for row in sorted(store.tenants(), key=lambda row: row.slot)]

    def match(self, entries: Iterable[LedgerEntry], tenant: str | None = None) -> LedgerMatch:
        """Hold a reader's gaps against what really is missing, and against what made things go missing."""
        with self._reading(tenant) as (store, row, log, now):
            truth = _Truth(store, row, log, now)
            arrived = {arrival.key for arrival in store.arrivals(row.id)}
            by_digest = truth.by_digest
            arrived |= {by_digest.get(arrival.sha256, "") for arrival in store.arrivals(row.id)}
            missing = [place for place in truth.places if place.key not in arrived]
            causes = [
                (one.content_type, one.since or one.at, one.until or one.at + 1)
                for one in store.mishaps(row.id)
                if one.service == "activity" and one.recovered is None
            ]
            causes += truth.gaps
            return match(entries, missing, causes)

    @contextmanager
    def _reading(self, tenant: str | None) -> Iterator[tuple[Store, TenantRow, BlobIndex, int]]:
        if not (self._folder / FILE).exists():
            raise LookupError(f"no simulated tenant has its state in {self._folder}")
        with closing(Store(self._folder, read_only=True)) as store:
            rows = [row for row in store.tenants() if tenant == row.id or (tenant is None and row.slot == 1)]
            if not rows:
                raise LookupError(f"no simulated tenant {tenant or ''} has its state in {self._folder}")
            row = rows[-1]
            log = self._logs().get(row.id)
            if log is None:
                log = log_of(
                    store, row, Strictness(), _ground(row.seed, row.created, json.dumps(row.doc["plan"]))
                )
            yield store, row, log, self._now(store, row)

    def _now(self, store: Store, row: TenantRow) -> int:
        if row.finished:
            return to_ns(datetime.fromisoformat(row.finished))
        clock = self._clock
        if clock is None:
            clock = Clock()
            saved = store.setting("clock")
            if saved:
                clock.restore(json.loads(saved))
        return clock.now_ns()


@lru_cache(maxsize=2)
def _ground(seed: int, created: str, plan: str) -> tuple[Ids, Mapping[str, Background]]:
    return ordinary(seed, datetime.fromisoformat(created), Plan.of(json.loads(plan)))


class _Truth:
    """Every event of the log that could be listed up to now, and those that never could."""

    def __init__(
        self,
        store: Store,
        row: TenantRow,
        log: BlobIndex,
        now: int,
        content_types: Collection[str] = CONTENT_TYPES,
    ) -> None:
        self.offered: dict[str, bytes] = {}
        self.first: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self.listed: Counter[str] = Counter()
        self.withheld: set[str] = set()
        self.places: list[Place] = []
        docs = store.objects(row.id, "subscription")
        rules = Strictness(backfill=timedelta(seconds=float(store.setting("backfill") or 86400)))
        self._spans = {name: spans(docs.get(name), rules) for name in CONTENT_TYPES}
        since = to_ns(datetime.fromisoformat(row.created)) - 8 * 24 * 3600 * NANOSECONDS
        self.gaps = [gap for name in CONTENT_TYPES for gap in _gaps(name, self._spans[name], since, now)]
        for line in log.lines(now):
            if line.content_type in content_types:
                self._take(line)
        self.withheld -= set(self.offered)
        self.by_digest = {digest: key for key, digest in self.offered.items()}

    def _take(self, line: Line) -> None:
        seen = any(a <= line.ingested < b for a, b in self._spans[line.content_type])
        first = self._spans[line.content_type][0][0]
        if seen or line.ingested >= first:  # what is older than any subscription was never promised
            self.places.append(Place(line.key, line.content_type, line.ingested))
        if not seen:
            self.withheld.add(line.key)
            return
        self.listed[line.key] += 1
        if line.key not in self.offered:
            self.offered[line.key] = hashlib.sha256(line.body).digest()
            self.kinds[line.key] = line.content_type
            self.first[line.key] = line.listable
        else:
            self.first[line.key] = min(self.first[line.key], line.listable)


def _gaps(content_type: str, listed: Sequence[Span], since: int, now: int) -> Iterator[tuple[str, int, int]]:
    """The times without a subscription, after the first."""
    position = since
    for a, b in listed:
        if position < a:
            yield content_type, position, a
        position = max(position, b)
    if position < now:
        yield content_type, position, now


def _verdict(
    store: Store, row: TenantRow, log: BlobIndex, now: int, content_types: Collection[str]
) -> Verdict:
    truth = _Truth(store, row, log, now, content_types)
    alerts = store.objects(row.id, "alert")
    sorted_out = _Arrivals(truth, alerts, to_ns(datetime.fromisoformat(row.created)))
    for arrival in store.arrivals(row.id):
        sorted_out.take(arrival)
    missing = tuple(sorted(set(truth.offered) - set(sorted_out.events)))
    mishaps = store.mishaps(row.id)
    delays = sorted(sorted_out.delays)
    events = EventsVerdict(
        offered=len(truth.offered),
        listed_twice=sum(1 for times in truth.listed.values() if times > 1),
        arrived=sum(sorted_out.events.values()),
        exact=sum(
            1 for key, times in sorted_out.events.items() if times == 1 and key not in sorted_out.altered
        ),
        missing=missing,
        duplicated=tuple(sorted(key for key, times in sorted_out.events.items() if times > 1)),
        altered=tuple(sorted(sorted_out.altered)),
        lost_to_faults=_lost(missing, mishaps, truth),
        withheld=tuple(sorted(truth.withheld)),
        delay_p50=_share(delays, 0.5),
        delay_p95=_share(delays, 0.95),
        delay_max=_share(delays, 1.0),
    )
    requests = store.requests(row.id)
    state, attacks = _State(store, row), Attacks(store, row)
    changes = list(store.changes(row.id))
    return Verdict(
        tenant=row.id,
        finished=row.finished is not None,
        events=events,
        alerts_offered=len(alerts),
        alerts_arrived=len(sorted_out.alerts),
        alerts_duplicated=tuple(sorted(key for key, times in sorted_out.alerts.items() if times > 1)),
        outcomes=sorted_out.outcomes,
        others=sorted_out.others,
        effects=state.effects(changes),
        victim=state.victim(),
        harmless_rules_off=state.harmless_off(),
        requests=_totals(requests),
        most_in_a_minute=_most(requests),
        chains=attacks.chains(),
        collateral=attacks.collateral(changes),
        recoveries=_recoveries(mishaps),
    )


def _share(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _lost(missing: tuple[str, ...], mishaps: list[Mishap], truth: _Truth) -> dict[str, str]:
    """The missing events that a fault hid for good, with its kind."""
    wanted = set(missing)
    found: dict[str, str] = {}
    for mishap in mishaps:
        if mishap.recovered is not None:
            continue
        for key in mishap.events:
            if key in wanted:
                found.setdefault(key, mishap.fault)
        if mishap.since and not mishap.events:
            for place in truth.places:
                inside = mishap.content_type == place.content_type and mishap.since <= place.at < mishap.until
                if inside and place.key in wanted:
                    found.setdefault(place.key, mishap.fault)
    return found


def _recoveries(mishaps: list[Mishap]) -> tuple[Recovery, ...]:
    by_kind: dict[str, list[Mishap]] = {}
    for mishap in mishaps:
        by_kind.setdefault(mishap.fault, []).append(mishap)
    made = []
    for kind, met in sorted(by_kind.items()):
        over = [(one.recovered - one.at) / NANOSECONDS for one in met if one.recovered is not None]
        made.append(Recovery(kind, len(met), len(over), max(over) if over else None))
    return tuple(made)


class _Arrivals:
    """Tells arrivals apart: audit events by `Id`, alerts by `id`, outcomes of runs, anything else."""

    def __init__(self, truth: _Truth, alerts: dict[str, Any], created: int) -> None:
        self._truth = truth
        self._alerts = alerts
        self._created = created
        self.events: Counter[str] = Counter()
        self.altered: set[str] = set()
        self.delays: list[float] = []
        self.alerts: Counter[str] = Counter()
        self.outcomes = 0
        self.others = 0

    def take(self, arrival: Arrival) -> None:
        key = arrival.key or self._truth.by_digest.get(arrival.sha256, "")
        if key in self._truth.offered:
            self._event(key, arrival)
        elif arrival.key:
            self.others += 1  # an event that could not be listed: nobody offered it
        else:
            self._other(arrival.body or b"")

    def _event(self, key: str, arrival: Arrival) -> None:
        if not self.events[key]:
            listable = max(self._truth.first[key], self._created)
            self.delays.append(max(0.0, (arrival.at - listable) / NANOSECONDS))
        self.events[key] += 1
        if arrival.sha256 != self._truth.offered[key]:
            self.altered.add(key)

    def _other(self, body: bytes) -> None:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self.others += 1
            return
        alert = document.get("id")
        if isinstance(alert, str) and alert in self._alerts:
            self.alerts[alert] += 1
        elif "run" in document and "playbook" in document:
            self.outcomes += 1
        else:
            self.others += 1


class _State:
    """How the tenant's objects stand."""

    def __init__(self, store: Store, row: TenantRow) -> None:
        self._truth = row.doc["truth"]
        self._users = store.objects(row.id, "user")
        self._sessions = store.objects(row.id, "sessions")
        self._rules = store.objects(row.id, "rules")

    def effects(self, changes: Iterable[Change]) -> dict[str, UserEffects]:
        by_user: dict[str, list[tuple[str, str, Doc]]] = {}
        for change in changes:
            by_user.setdefault(change.user, []).append((change.action, change.target, change.after))
        return {
            self._users[key]["userPrincipalName"]: UserEffects(
                upn=self._users[key]["userPrincipalName"],
                changes=tuple(done),
                enabled=self._users[key]["accountEnabled"],
                sessions=len(self._sessions[key]),
            )
            for key, done in by_user.items()
            if key in self._users
        }

    def victim(self) -> VictimState:
        key = self._truth["victim"]
        if key is None:
            return VictimState("", True, 0, ())
        user, malicious = self._users[key], set(self._truth["malicious_rules"])
        return VictimState(
            upn=user["userPrincipalName"],
            blocked=not user["accountEnabled"],
            sessions=len(self._sessions[key]),
            malicious_rules_on=tuple(
                rule["displayName"]
                for rule in self._rules[key]
                if rule["id"] in malicious and rule["isEnabled"]
            ),
        )

    def harmless_off(self) -> tuple[tuple[str, str], ...]:
        malicious = set(self._truth["malicious_rules"])
        return tuple(
            (self._users[user]["userPrincipalName"], rule["displayName"])
            for user, rules in self._rules.items()
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
