"""The simulator's durable state: one SQLite file, written through on every change.

WAL mode without a sync on each commit: what was committed survives the death of the process, which is
what a killed quick start needs; a power cut may cost a pretend tenant its last second.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 2
FILE = "sim.db"

_SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tenant (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, slot INTEGER NOT NULL,
    seed INTEGER NOT NULL, created TEXT NOT NULL, finished TEXT, doc TEXT NOT NULL);
CREATE TABLE entry (
    tenant TEXT NOT NULL, content_type TEXT NOT NULL, ingested INTEGER NOT NULL, event TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX entry_by_tenant ON entry (tenant);
CREATE TABLE object (
    tenant TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, id));
CREATE TABLE journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at TEXT NOT NULL, app TEXT NOT NULL,
    action TEXT NOT NULL, user TEXT NOT NULL, target TEXT NOT NULL, before TEXT NOT NULL,
    after TEXT NOT NULL, request TEXT NOT NULL);
CREATE TABLE arrival (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at INTEGER NOT NULL,
    receipt TEXT NOT NULL, keys BLOB NOT NULL, digests BLOB NOT NULL);
CREATE INDEX arrival_by_tenant ON arrival (tenant);
CREATE TABLE arrival_body (arrival INTEGER NOT NULL, tenant TEXT NOT NULL, place INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (arrival, place));
CREATE TABLE mishap (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at INTEGER NOT NULL, fault TEXT NOT NULL,
    service TEXT NOT NULL, target TEXT NOT NULL, content_type TEXT NOT NULL, since INTEGER NOT NULL,
    until INTEGER NOT NULL, events TEXT NOT NULL, recovered INTEGER);
CREATE INDEX mishap_by_tenant ON mishap (tenant);
CREATE TABLE request_count (
    tenant TEXT NOT NULL, service TEXT NOT NULL, operation TEXT NOT NULL, second INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (tenant, service, operation, second));
"""
_OF_A_TENANT = ("entry", "object", "journal", "arrival", "arrival_body", "mishap", "request_count")
_KEY_SIZE, _DIGEST_SIZE = 36, 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ingestion log: when the service took the event in (ns), and the event's bytes."""

    content_type: str
    ingested: int
    event: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant as it was begun. `slot` tells the tenants of one simulator apart, from 1.

    `doc` holds its settings, what its scenario was invented from, and the scenario's ground truth.
    """

    id: str
    slot: int
    seed: int
    created: str
    finished: str | None
    doc: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the write journal: which app changed what of whom, from what to what."""

    at: str
    app: str
    action: str
    user: str
    target: str
    before: dict[str, Any]
    after: dict[str, Any]
    request: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event that the intake accepted, at a time in ns.

    `key` is the `Id` of the tenant's audit event that it is; else it is empty, and `body` holds it.
    """

    at: int
    key: str
    sha256: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Mishap:
    """One time that a fault was met (`at`, ns), and when the same target was served again, if it was.

    `fault` is the fault's kind. `events` are those that it kept from the reader, by `Id`; `content_type`,
    `since` and `until` (ns) say where in the log they lie.
    """

    at: int
    fault: str
    service: str
    target: str
    content_type: str = ""
    since: int = 0
    until: int = 0
    events: tuple[str, ...] = ()
    recovered: int | None = None
    number: int = 0


class Store:
    """Reads and writes the state file. One process writes, any number may read beside it."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._lock = threading.RLock()
        file = folder / FILE
        if read_only:
            self._db = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA busy_timeout = 10000")
            if not read_only:
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError(f"the state file has version {version}, this program reads {VERSION}")
        if 0 < version < VERSION:  # a pretend tenant of an older program cannot go on: begin anew
            tables = self._rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'", ()
            )
            self._db.executescript("".join(f"DROP TABLE {name};" for (name,) in tables))
        if version < VERSION:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    def close(self) -> None:
        """Close the file; the store is of no use afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside becomes visible at once, or not at all."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def setting(self, key: str) -> str | None:
        """A value of the simulator as a whole."""
        rows = self._rows("SELECT value FROM setting WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_setting(self, key: str, value: str) -> None:
        """Keep a value of the simulator as a whole."""
        self._write("INSERT OR REPLACE INTO setting VALUES (?, ?)", [(key, value)])

    def tenants(self) -> list[TenantRow]:
        """All tenants, oldest first."""
        rows = self._rows("SELECT id, slot, seed, created, finished, doc FROM tenant ORDER BY number", ())
        return [
            TenantRow(key, slot, seed, created, finished, json.loads(doc))
            for key, slot, seed, created, finished, doc in rows
        ]

    def add_tenant(self, row: TenantRow) -> None:
        """Begin a tenant."""
        self._write(
            "INSERT INTO tenant (id, slot, seed, created, finished, doc) VALUES (?, ?, ?, ?, ?, ?)",
            [(row.id, row.slot, row.seed, row.created, row.finished, json.dumps(row.doc))],
        )

    def change_tenant(self, tenant: str, doc: dict[str, Any]) -> None:
        """Keep other settings of a tenant."""
        self._write("UPDATE tenant SET doc = ? WHERE id = ?", [(json.dumps(doc), tenant)])

    def finish_tenant(self, tenant: str, at: str) -> None:
        """Mark a tenant as done with; it stays readable until another one begins."""
        self._write("UPDATE tenant SET finished = ? WHERE id = ?", [(at, tenant)])

    def drop_tenant(self, tenant: str) -> None:
        """Forget a tenant and everything of it."""
        with self.transaction():
            for table in _OF_A_TENANT:
                self._write(f"DELETE FROM {table} WHERE tenant = ?", [(tenant,)])
            self._write("DELETE FROM tenant WHERE id = ?", [(tenant,)])

    def entries(self, tenant: str) -> list[Entry]:
        """The ingestion log, in order of time."""
        rows = self._rows(
            "SELECT content_type, ingested, event, body FROM entry WHERE tenant = ? ORDER BY ingested, rowid",
            (tenant,),
        )
        return [Entry(*row) for row in rows]

    def add_entries(self, tenant: str, entries: Iterable[Entry]) -> None:
        """Append to the ingestion log."""
        self._write(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?)",
            ((tenant, e.content_type, e.ingested, e.event, e.body) for e in entries),
        )

    def objects(self, tenant: str, kind: str) -> dict[str, Any]:
        """All JSON documents of a kind, by id, in the order in which they were first put."""
        rows = self._rows(
            "SELECT id, doc FROM object WHERE tenant = ? AND kind = ? ORDER BY rowid", (tenant, kind)
        )
        return {key: json.loads(doc) for key, doc in rows}

    def raw_objects(self, tenant: str, kind: str) -> list[tuple[str, bytes]]:
        """The same, undecoded."""
        rows = self._rows(
            "SELECT id, CAST(doc AS BLOB) FROM object WHERE tenant = ? AND kind = ? ORDER BY rowid",
            (tenant, kind),
        )
        return [(key, doc) for key, doc in rows]

    def delete_objects(self, tenant: str, kind: str, ids: Iterable[str]) -> None:
        """Forget JSON documents by id."""
        self._write(
            "DELETE FROM object WHERE tenant = ? AND kind = ? AND id = ?",
            ((tenant, kind, key) for key in ids),
        )

    def put_objects(self, tenant: str, kind: str, objects: Iterable[tuple[str, Any]]) -> None:
        """Write JSON documents, each in place of the one with its id."""
        self._write(
            "INSERT INTO object VALUES (?, ?, ?, ?)"
            " ON CONFLICT (tenant, kind, id) DO UPDATE SET doc = excluded.doc",
            ((tenant, kind, key, json.dumps(doc)) for key, doc in objects),
        )

    def add_change(self, tenant: str, change: Change) -> None:
        """Append to the write journal."""
        self._write(
            "INSERT INTO journal (tenant, at, app, action, user, target, before, after, request)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    tenant,
                    change.at,
                    change.app,
                    change.action,
                    change.user,
                    change.target,
                    json.dumps(change.before),
                    json.dumps(change.after),
                    change.request,
                )
            ],
        )

    def changes(self, tenant: str) -> list[Change]:
        """The write journal, in order."""
        rows = self._rows(
            "SELECT at, app, action, user, target, before, after, request FROM journal"
            " WHERE tenant = ? ORDER BY number",
            (tenant,),
        )
        return [
            Change(at, app, action, user, target, json.loads(before), json.loads(after), request)
            for at, app, action, user, target, before, after, request in rows
        ]

    def add_arrivals(
        self,
        tenant: str,
        at: int,
        receipt: str,
        keys: list[str],
        digests: list[bytes],
        bodies: dict[int, bytes],
    ) -> None:
        """Keep what the intake accepted in one request; committed when this returns.

        `keys` are the `Id`s of the tenant's own events; anything else has an empty one, and its body in
        `bodies` by its place.
        """
        packed = "".join(key.ljust(_KEY_SIZE)[:_KEY_SIZE] for key in keys).encode("ascii")
        with self.transaction():
            row = self._db.execute(
                "INSERT INTO arrival (tenant, at, receipt, keys, digests) VALUES (?, ?, ?, ?, ?)",
                (tenant, at, receipt, packed, b"".join(digests)),
            ).lastrowid
            self._write(
                "INSERT INTO arrival_body VALUES (?, ?, ?, ?)",
                ((row, tenant, place, body) for place, body in bodies.items()),
            )

    def arrivals(self, tenant: str) -> Iterator[Arrival]:
        """What the intake accepted, in order."""
        bodies: dict[int, dict[int, bytes]] = {}
        for number, place, body in self._rows(
            "SELECT arrival, place, body FROM arrival_body WHERE tenant = ?", (tenant,)
        ):
            bodies.setdefault(number, {})[place] = body
        for number, at, packed, digests in self._rows(
            "SELECT number, at, keys, digests FROM arrival WHERE tenant = ? ORDER BY number", (tenant,)
        ):
            own = bodies.get(number, {})
            keys = packed.decode("ascii")
            for place in range(len(keys) // _KEY_SIZE):
                key = keys[place * _KEY_SIZE : (place + 1) * _KEY_SIZE].strip()
                digest = digests[place * _DIGEST_SIZE : (place + 1) * _DIGEST_SIZE]
                yield Arrival(at, key, digest, own.get(place))

    def add_mishap(self, tenant: str, mishap: Mishap) -> int:
        """Keep that a fault was met; gives its number for `recovered`."""
        with self._lock:
            done = self._db.execute(
                "INSERT INTO mishap (tenant, at, fault, service, target, content_type, since, until, events)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    tenant,
                    mishap.at,
                    mishap.fault,
                    mishap.service,
                    mishap.target,
                    mishap.content_type,
                    mishap.since,
                    mishap.until,
                    json.dumps(mishap.events),
                ),
            )
        return int(done.lastrowid or 0)

    def recovered(self, numbers: Iterable[int], at: int) -> None:
        """Keep when the target of these mishaps was served again."""
        self._write("UPDATE mishap SET recovered = ? WHERE number = ?", ((at, number) for number in numbers))

    def mishaps(self, tenant: str) -> list[Mishap]:
        """Every fault that was met, in order. Those of no tenant (a refused token) count for all."""
        rows = self._rows(
            "SELECT at, fault, service, target, content_type, since, until, events, recovered, number"
            " FROM mishap WHERE tenant IN (?, '') ORDER BY number",
            (tenant,),
        )
        return [
            Mishap(
                at, fault, service, target, kind, since, until, tuple(json.loads(events)), recovered, number
            )
            for at, fault, service, target, kind, since, until, events, recovered, number in rows
        ]

    def add_requests(self, counts: Iterable[tuple[str, str, str, int, int]]) -> None:
        """Add to the request counts: (tenant, service, operation, second, count)."""
        self._write(
            "INSERT INTO request_count VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (tenant, service, operation, second) DO UPDATE SET count = count + excluded.count",
            counts,
        )

    def requests(self, tenant: str) -> list[tuple[str, str, int, int]]:
        """(service, operation, second, count), in order of time."""
        return self._rows(
            "SELECT service, operation, second, count FROM request_count WHERE tenant = ? ORDER BY second",
            (tenant,),
        )

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.transaction():
            self._db.executemany(statement, rows)
