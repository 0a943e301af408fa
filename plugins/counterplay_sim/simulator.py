"""The simulator: one tenant's state, the services in front of it, and the file that says where they are."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from counterplay.errors import ConfigError, StateError
from counterplay_sim import activity, graph
from counterplay_sim.activity import ActivityService
from counterplay_sim.activity_webhooks import Webhooks
from counterplay_sim.admin import AdminService
from counterplay_sim.clock import Clock
from counterplay_sim.faults import Fault, FaultPlan
from counterplay_sim.faults_log import SKEWED, LogFault
from counterplay_sim.faults_record import FaultRecord
from counterplay_sim.grants import Grants, checked, grant
from counterplay_sim.graph import GraphService
from counterplay_sim.http_server import Listener, Service
from counterplay_sim.intake import IntakeService
from counterplay_sim.login import LoginService
from counterplay_sim.meter import Meter
from counterplay_sim.oracle import Oracle
from counterplay_sim.scenario.build import Plan, build
from counterplay_sim.store import Store
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import Tenant, begin
from counterplay_sim.tls import Certificates, certificates, write_private
from counterplay_sim.tokens import Tokens, signing_key

FOLDER = "sim"
INFO_FILE = "sim.json"
LOCK_FILE = "sim.lock"
SERVICES = ("login", "graph", "activity", "intake", "admin")


class Simulator:
    """Pretend Microsoft 365 tenants with an intake, on loopback. Use it as a context manager.

    `state_dir` is where it keeps its folder `sim`; a tenant that is found there unfinished goes on, so
    `seed`, `events` and `plan` only count for a new one (`plan` says everything, `events` the most used
    part of it). `tenants` is how many there are, each with its own id, app, secret, key and data: the first
    from the seed, the next ones from the seeds after it. `port` is the first of four (login, Graph, audit
    feed, intake), `admin_port` a fifth; 0 takes those of the last time, or free ones. `tls=False` speaks
    plain HTTP, for measurements only: clients refuse it.
    """

    def __init__(
        self,
        state_dir: Path | str,
        *,
        seed: int = 1,
        events: int = 4000,
        plan: Plan | None = None,
        tenants: int = 1,
        faults: Iterable[Fault | Mapping[str, Any]] = (),
        clock: Clock | None = None,
        strictness: Strictness | None = None,
        grants: Grants | None = None,
        port: int = 0,
        admin_port: int = 0,
        tls: bool = True,
        as_left: bool = False,
    ) -> None:
        """`as_left`: tenants that are finished stand as they were left, until `renew`."""
        self.state_dir = Path(state_dir)
        self.folder = self.state_dir / FOLDER
        self.clock = clock or Clock()
        self.strictness = strictness or Strictness()
        self.faults = FaultPlan(faults, seed)
        self._grants = checked(grants or {})
        self._own_clock = clock is None
        self._seed = seed
        self._plan = plan or Plan(events=events)
        if any(fault.kind == SKEWED for fault in self.faults.log):
            self._plan = replace(self._plan, skewed=True)
        self._slots = tenants
        self._tls = tls
        self._as_left = as_left
        self._ports = {name: port + number if port else 0 for number, name in enumerate(SERVICES[:4])} | {
            "admin": admin_port
        }
        self._admin_token = secrets.token_urlsafe(32)
        self._tenants: dict[str, Tenant] = {}
        self._listeners: dict[str, Listener] = {}
        self._webhooks: Webhooks | None = None
        self._lock: int | None = None
        self._store: Store | None = None
        self._meter: Meter | None = None
        self._certificates: Certificates | None = None

    def start(self) -> Simulator:
        """Begin to answer. BlockingIOError: another process serves this state directory."""
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._take_lock()
            self._certificates = certificates(self.folder)
            self._store = Store(self.folder)
            self._wind_up()
            self._meter = Meter(self._store, self.clock)
            self._load(finished_too=self._as_left)
            self._listen(self._store, self._meter, self._certificates)
        except (OSError, sqlite3.Error) as error:
            self.close()
            if isinstance(error, BlockingIOError | ConfigError):
                raise
            raise StateError(
                f"the simulated tenant's state in {self.folder} cannot be used: {error}",
                hint="free the disk or the folder, or delete it: the next start begins a new tenant",
            ) from error
        except BaseException:
            self.close()
            raise
        self._write_info()
        self._meter.start()
        if self._webhooks is not None:
            self._webhooks.start()
        for listener in self._listeners.values():
            listener.start()
        return self

    def close(self) -> None:
        """Stop answering; what was answered is kept."""
        if self._store is not None and self._listeners:
            (self.folder / INFO_FILE).unlink(missing_ok=True)
        if self._webhooks is not None:
            self._webhooks.close()
            self._webhooks = None
        for listener in self._listeners.values():
            listener.close()
        self._listeners = {}
        if self._meter is not None:
            self._meter.close()
            self._meter = None
        if self._store is not None:
            self.clock.on_change(lambda state: None)
            self._store.close()
            self._store = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def tenant(self) -> Tenant:
        """The first tenant."""
        return self.tenants[0]

    @property
    def tenants(self) -> list[Tenant]:
        """The tenants that are served, by slot."""
        return sorted(self._tenants.values(), key=lambda tenant: tenant.row.slot)

    def _slot(self, number: int) -> Tenant:
        for tenant in self.tenants:
            if tenant.row.slot == number:
                return tenant
        raise ConfigError(
            f"the simulator in {self.folder} has {len(self._tenants)} tenants, not {number}",
            hint=f"start it with `playbook sim --tenants {number}`",
        )

    def url(self, service: str) -> str:
        """The base URL of `login`, `graph`, `activity`, `intake` or `admin`."""
        return self._listeners[service].url

    @property
    def ca_file(self) -> str:
        """The certificate authority to trust."""
        assert self._certificates is not None, "the simulator is not started"
        return str(self._certificates.ca_file)

    def m365_settings(self, slot: int = 1) -> dict[str, Any]:
        """The settings of a connection of kind `m365.tenant`, the secret in clear."""
        tenant = self._slot(slot)
        return {
            "tenant_id": tenant.id,
            "client_id": tenant.client_id,
            "client_secret": tenant.client_secret,
            "authority": self.url("login"),
            "instance_discovery": False,
            "graph_url": self.url("graph"),
            "activity_url": self.url("activity"),
            "limits_scale": min(100.0, tenant.strictness.graph.throttle_scale),
            "ca_file": self.ca_file,
        }

    def intake_settings(self, slot: int = 1) -> dict[str, Any]:
        """The settings of a connection of kind `intake.key`, the key in clear."""
        return {
            "url": self.url("intake"),
            "intake_key": self._slot(slot).intake_key,
            "ca_file": self.ca_file,
        }

    def info(self) -> dict[str, Any]:
        """What `sim.json` holds: enough for another process to use this simulator.

        The settings at the top are those of the first tenant; `tenants` has them all.
        """
        settings = [
            {
                "slot": tenant.row.slot,
                "m365.tenant": self.m365_settings(tenant.row.slot),
                "intake.key": self.intake_settings(tenant.row.slot),
            }
            for tenant in self.tenants
        ]
        return {
            "pid": os.getpid(),
            "state_dir": str(self.state_dir.absolute()),
            "urls": {name: self.url(name) for name in SERVICES},
            "ca_file": self.ca_file,
            "admin_token": self._admin_token,
            "m365.tenant": self.m365_settings(),
            "intake.key": self.intake_settings(),
            "tenants": settings,
        }

    def oracle(self) -> Oracle:
        """The oracle of this state, with every request counted so far."""
        if self._meter is not None:
            self._meter.flush()
        return Oracle(
            self.folder, self.clock, lambda: {key: tenant.blobs for key, tenant in self._tenants.items()}
        )

    def finish(self, slot: int | None = None) -> None:
        """Mark a tenant (or all) as done with: the next `renew`, or the next start, begins a new one."""
        assert self._store is not None, "the simulator is not started"
        for tenant in [self._slot(slot)] if slot else self.tenants:
            self._store.finish_tenant(tenant.id, self.clock.now().isoformat())

    def renew(self) -> None:
        """Begin a new tenant in place of each that is finished."""
        assert self._store is not None, "the simulator is not started"
        if any(row.finished for row in self._store.tenants() if row.id in self._tenants):
            self._load()
            self._write_info()

    def disturb(self, rules: Iterable[Fault | Mapping[str, Any]]) -> None:
        """Put more faults in force. ValueError: one makes no sense; then none of them is."""
        made = [rule if isinstance(rule, Fault) else Fault.parse(rule) for rule in rules]
        if any(fault.kind == SKEWED for fault in made):
            raise ValueError(f"{SKEWED} is for a new tenant: give it to `playbook sim` in a faults file")
        for fault in made:
            self.faults.add(fault)
        for tenant in self.tenants:
            tenant.disturb(self._in_the_log())

    def calm(self) -> None:
        """Take every fault out of force, those in the log too."""
        self.faults.clear()
        for tenant in self.tenants:
            tenant.disturb(())

    def tighten(self, switches: Mapping[str, Any]) -> None:
        """Change switches of the strictness. ValueError: there is no such switch, or value."""
        self.strictness = Strictness.parse({**self.strictness.to_dict(), **switches})
        if self._store is not None:
            self._store.set_setting("backfill", str(self.strictness.backfill.total_seconds()))
        for tenant in self.tenants:
            tenant.strictness = self.strictness
            tenant.blobs.disturb(tenant.blobs.faults, self.strictness)

    def _in_the_log(self) -> list[LogFault]:
        return [fault for fault in self.faults.log if fault.kind != SKEWED]

    def _wind_up(self) -> None:
        """Let the clock be what it was when the state was left, and keep what it becomes."""
        assert self._store is not None, "the simulator is not started"
        store = self._store
        saved = store.setting("clock")
        if saved and self._own_clock:
            self.clock.restore(json.loads(saved))
        store.set_setting("clock", json.dumps(self.clock.state()))
        store.set_setting("backfill", str(self.strictness.backfill.total_seconds()))
        self.clock.on_change(lambda state: store.set_setting("clock", json.dumps(state)))

    def _load(self, *, finished_too: bool = False) -> None:
        assert self._store is not None, "the simulator is not started"
        living = {row.slot: row for row in self._store.tenants() if row.finished is None or finished_too}
        known, self._tenants = self._tenants, {}
        for slot in range(1, max([self._slots, *living]) + 1):
            ground = None
            row = living.get(slot)
            if row is None:
                seed, created = self._seed + slot - 1, self._moment_of_creation()
                scenario = build(seed, created, self._plan)
                ground = (scenario.ids, scenario.ordinary)
                row = begin(self._store, scenario, self._plan, seed, created, slot)
            made = known.get(row.id) or Tenant(self._store, row, self.clock, self.strictness, ground)
            faults = [*made.blobs.faults]
            faults += [fault for fault in self._in_the_log() if fault not in faults]
            made.disturb(faults)
            if self._grants and row.id not in known:
                grant(made, self._grants)
            self._tenants[row.id] = made

    def _moment_of_creation(self) -> datetime:
        """Now, but later than the tenant before: with its seed and its moment it would be the same one."""
        assert self._store is not None, "the simulator is not started"
        now = self.clock.now().replace(microsecond=0)
        before = [datetime.fromisoformat(row.created) for row in self._store.tenants()]
        return max([now, *(moment + timedelta(seconds=1) for moment in before)])

    def _listen(self, store: Store, meter: Meter, files: Certificates) -> None:
        key, saved = signing_key(store.setting("signing_key"))
        store.set_setting("signing_key", saved)
        tokens = Tokens(key, self.clock)
        find = self._find
        record = FaultRecord(store, self.clock)
        common = (tokens, find, self.clock, self.strictness, meter)
        self._webhooks = Webhooks(lambda: self.tenants, self.clock, lambda: self.url("activity"))
        services: dict[str, Service] = {
            "login": LoginService(tokens, find, self.clock, self._resources),
            "graph": GraphService(*common, lambda: graph.audiences(self.url("graph"))),
            "activity": ActivityService(
                tokens,
                find,
                self.clock,
                meter,
                lambda: activity.audiences(self.url("activity")),
                record,
                self._webhooks.validate,
            ),
            "intake": IntakeService(lambda: self._tenants.values(), meter),
            "admin": AdminService(self, self._admin_token),
        }
        last = json.loads(store.setting("ports") or "{}")
        context = files.server_context() if self._tls else None
        for name, service in services.items():
            self._listeners[name] = self._listener(service, last.get(name, 0), context, record)
        ports = {name: listener.port for name, listener in self._listeners.items()}
        store.set_setting("ports", json.dumps(ports))

    def _listener(self, service: Service, last: int, context: Any, record: FaultRecord) -> Listener:
        """On the port that was asked for, else on that of the last time, else on a free one."""

        def on(port: int) -> Listener:
            faults = self.faults if service.name != "admin" else FaultPlan()
            return Listener(service, port=port, tls=context, faults=faults, clock=self.clock, record=record)

        wanted = self._ports[service.name]
        if wanted:
            try:
                return on(wanted)
            except OSError as error:
                raise ConfigError(
                    f"port {wanted} for the simulated {service.name} service cannot be used: {error}",
                    hint="choose another --port",
                ) from error
        try:  # addresses that a client has kept from before a crash stay good
            return on(last)
        except OSError:
            return on(0)

    def _find(self, tenant: str) -> Tenant | None:
        found = self._tenants.get(tenant.lower())
        if found is not None or "." not in tenant:
            return found
        return next((one for one in self.tenants if one.domain == tenant.lower()), None)

    def _resources(self) -> Mapping[str, str]:
        machines = dict.fromkeys(graph.machine_audiences(self.url("graph")), "defender")
        return (
            machines
            | dict.fromkeys(graph.audiences(self.url("graph")), "graph")
            | dict.fromkeys(activity.audiences(self.url("activity")), "activity")
        )

    def _write_info(self) -> None:
        write_private(self.folder / INFO_FILE, json.dumps(self.info(), indent=2).encode() + b"\n")

    def _take_lock(self) -> None:
        """The kernel frees this lock when the process dies, however it dies."""
        handle = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        self._lock = handle
