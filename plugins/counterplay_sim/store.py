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

VERSION = 1
FILE = "sim.db"

_SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tenant (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, seed INTEGER NOT NULL,
    created TEXT NOT NULL, finished TEXT, doc TEXT NOT NULL);
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
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at TEXT NOT NULL, receipt TEXT NOT NULL,
    sha256 BLOB NOT NULL, size INTEGER NOT NULL, body BLOB);
CREATE INDEX arrival_by_tenant ON arrival (tenant);
CREATE TABLE request_count (
    tenant TEXT NOT NULL, service TEXT NOT NULL, operation TEXT NOT NULL, second INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (tenant, service, operation, second));
"""
_OF_A_TENANT = ("entry", "object", "journal", "arrival", "request_count")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ingestion log: when the service took the event in (ns), and the event's bytes."""

    content_type: str
    ingested: int
    event: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant as it was begun. `doc` holds its settings and the scenario's ground truth."""

    id: str
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
    """One event that the intake accepted. `body` is None when it equals an offered event byte for byte."""

    at: str
    receipt: str
    sha256: bytes
    size: int
    body: bytes | None


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
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"the state file has version {version}, this program reads {VERSION}")
        if version == 0:
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
        rows = self._rows("SELECT id, seed, created, finished, doc FROM tenant ORDER BY number", ())
        return [
            TenantRow(key, seed, created, finished, json.loads(doc))
            for key, seed, created, finished, doc in rows
        ]

    def add_tenant(self, row: TenantRow) -> None:
        """Begin a tenant."""
        self._write(
            "INSERT INTO tenant (id, seed, created, finished, doc) VALUES (?, ?, ?, ?, ?)",
            [(row.id, row.seed, row.created, row.finished, json.dumps(row.doc))],
        )

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

    def add_arrivals(self, tenant: str, arrivals: Iterable[Arrival]) -> None:
        """Keep what the intake accepted; committed when this returns."""
        self._write(
            "INSERT INTO arrival (tenant, at, receipt, sha256, size, body) VALUES (?, ?, ?, ?, ?, ?)",
            ((tenant, a.at, a.receipt, a.sha256, a.size, a.body) for a in arrivals),
        )

    def arrivals(self, tenant: str) -> Iterator[Arrival]:
        """What the intake accepted, in order."""
        for row in self._rows(
            "SELECT at, receipt, sha256, size, body FROM arrival WHERE tenant = ? ORDER BY number", (tenant,)
        ):
            yield Arrival(*row)

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
