"""The database: opened, checked and migrated; one worker a SQLite file; errors that say what to do."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from counterplay.clock import now, to_text
from counterplay.errors import BusyError, ContendedError, NoStateError, StateError
from counterplay.events import JsonObject
from counterplay.store.locks import Locks, number
from counterplay.store.turns import Turns

HEAD = "0013"
"""The newest migration. A test holds it to what lies in `migrations/versions`."""


_CACHE = 256
"""KiB of a SQLite file that each of up to eight connections keeps. The system keeps all of it anyway."""


class Database:
    """One connection pool, and the order in which this process writes."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.session = uuid.uuid4().hex[:12]
        """On a PostgreSQL all connections carry it in their name (`session_name`)."""
        self.engine = engine = _engine(url, self.session)
        self.turns = Turns(engine.connect)
        at_once = {} if self.sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._reading = engine.execution_options(write=False, **at_once)
        self._one = engine.execution_options(**at_once)
        self._locks = (
            None
            if self.sqlite
            else Locks(_engine(url, self.session, isolation_level="AUTOCOMMIT", max_overflow=100))
        )

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        return Path(self.url.database) if self.url.database and self.sqlite else None

    @property
    def sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is on disk when the block ends, or nothing of it."""
        with explained(self.url), self.turns.alone(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write_short(self) -> Iterator[sa.Connection]:
        """The same for a few statements, which lock the rows that they go by.

        On SQLite it may share its commit with others that come at the same time; PostgreSQL takes several
        at once, as it does from several workers.
        """
        shared = self.turns.shared if self.sqlite else self.engine.begin
        with explained(self.url), shared() as connection:
            yield connection

    @contextmanager
    def write_one(self) -> Iterator[sa.Connection]:
        """`write_short` for one statement, which PostgreSQL commits without being asked."""
        shared = self.turns.shared if self.sqlite else self._one.connect
        with explained(self.url), shared() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """What was committed: on SQLite when the block begins, on PostgreSQL when each statement does.

        Nothing may be written.
        """
        with explained(self.url), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def alone(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Of all processes on a PostgreSQL, be the only one inside the block of that name.

        False, with `wait=False`: another one is. A SQLite file has one worker, so there is nothing to do. The
        database ends the turn of a process that dies.
        """
        if self._locks is None:
            yield True
            return
        with explained(self.url), self._locks.hold(name, wait=wait) as got:
            yield got

    def close(self) -> None:
        self.turns.close()
        if self._locks is not None:
            self._locks.close()
        self.engine.dispose()


def storable(text: str) -> str:
    """The text with what a database cannot carry (a lone surrogate or a NUL, from an event) as an escape."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def open_database(url: str, *, create: bool = True) -> Database:
    """Open the store, and bring its tables up to date.

    StateError: it is unreadable, corrupt or of a newer version.
    NoStateError, with `create=False`: it is not there.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not create and not path.exists():
            raise NoStateError(path)
        _prepare_file(path)
    database = Database(parsed)
    try:
        with database.write() as connection:
            if not create and not _has_tables(connection):
                raise NoStateError(_place(parsed))
            _migrate(connection, parsed)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def existing_database(url: str) -> Iterator[Database | None]:
    """The store, opened beside a worker; None when nothing was kept there yet. StateError: it is unusable."""
    try:
        database = open_database(url, create=False)
    except NoStateError:
        yield None
        return
    try:
        yield database
    finally:
        database.close()


def _has_tables(connection: sa.Connection) -> bool:
    return sa.inspect(connection).has_table("cp_schema_version")


def session_name(session: str) -> str:
    """What connections call themselves: whoever buries a worker ends those that it still has."""
    return f"counterplay {session}"


def _engine(url: URL, session: str, **server: Any) -> sa.Engine:
    """A pool of connections; `server` are settings of one to a PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        named = {"application_name": session_name(session)}
        return pinged_when_old(sa.create_engine(url, connect_args=named, **server))
    # A write transaction must take its lock when it begins: a read that turns into a write cannot wait.
    # The one that was used last, again and again: what it has read is true until another one writes, and
    # each has a cache of its own.
    engine = sa.create_engine(
        url, pool_size=4, max_overflow=4, pool_use_lifo=True, connect_args={"timeout": 30}
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        begin = "BEGIN IMMEDIATE" if _is_write(connection) else "BEGIN"
        connection.connection.driver_connection.execute(begin)  # type: ignore[union-attr]  # it is open

    return engine


PING_AFTER = 5.0
"""Seconds: a connection to a server that lay idle for longer is asked whether it still lives."""


def pinged_when_old(engine: sa.Engine) -> sa.Engine:
    """What `pool_pre_ping` does, without a round trip for each of many short transactions."""

    @sa.event.listens_for(engine, "checkin")
    def _laid_down(_connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def _taken_up(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get("since")
        if since is None or time.monotonic() - since < PING_AFTER:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError from error  # the pool connects anew

    return engine


def _is_write(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get("write", True))


def _prepare_file(path: Path) -> None:
    """Make the folder, switch the file to WAL, and see that it is a healthy SQLite file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    new = not path.exists()
    with explained(make_url(f"sqlite:///{path}")):
        connection = sqlite3.connect(path, timeout=30)
        try:
            if new:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    if new:
        path.chmod(0o600)


def _migrate(connection: sa.Connection, url: URL) -> None:
    if url.get_backend_name() == "postgresql":  # one of several workers that start at once
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number("migration"))))
    version = None
    if _has_tables(connection):
        version = connection.execute(sa.text("SELECT version_num FROM cp_schema_version")).scalar()
    if version == HEAD:
        return
    if version is not None and version > HEAD:
        raise StateError(
            f"{_place(url)} was written by a newer counterplay (schema {version}, this one knows {HEAD})",
            hint="upgrade counterplay, or use another store",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class WorkerLock:
    """An OS lock beside a SQLite file: one worker at a time, gone with its process however it ends."""

    def __init__(self, path: Path, purpose: str) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._purpose = purpose
        self._file: int | None = None

    def __enter__(self) -> WorkerLock:
        """StateError: another process holds it; the message names that process."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"cannot open {self._path}: {error.strerror}", hint="check its folder's permissions"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(handle, 4096, 0).decode("utf-8", "replace")
            os.close(handle)
            raise BusyError(
                f"another process works on {self._path.with_suffix('')} ({_holder(holder)})",
                hint="wait for it or end it; several workers at once need PostgreSQL (`store:`)",
            ) from None
        about = {"pid": os.getpid(), "purpose": self._purpose, "since": to_text(now())}
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(about).encode(), 0)
        except OSError:
            pass  # the disk is full: the lock holds all the same, only its owner's name is missing
        self._file = handle
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def worker_lock(url: str, purpose: str) -> AbstractContextManager[object]:
    """The right to work on a store: of one process for a SQLite file, of any number for PostgreSQL.

    StateError, on entering it: another process holds the file.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return nullcontext()
    return WorkerLock(Path(parsed.database or ""), purpose)


def holder_of(path: Path) -> JsonObject | None:
    """The process that works on a SQLite file: `pid`, `purpose`, `since`; None when there is none."""
    try:
        with path.with_name(path.name + ".lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                about: JsonObject = json.loads(file.read())
                return about
    except (OSError, ValueError):  # nobody ever worked here, or it has just begun
        pass
    return None


def _holder(text: str) -> str:
    try:
        about = json.loads(text)
        return f"process {about['pid']}, `{about['purpose']}`, since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


_SQLITE_SAYS = (
    (
        "disk is full",
        "the disk is full",
        "free some space and start again; nothing that was recorded is lost",
    ),
    ("malformed", "the file is damaged", "restore it from a backup, or move it away to begin anew"),
    (
        "not a database",
        "this is not a state file of counterplay",
        "restore it from a backup, or move it away to begin anew",
    ),
    ("unable to open", "the file cannot be opened", "check its path and permissions"),
    ("readonly", "the file cannot be written", "check its permissions"),
    ("disk I/O error", "the disk reports an error", "check the disk; nothing that was recorded is lost"),
    ("locked", "another process keeps it locked", "wait for it or end it"),
)


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """What a database error means for people: the file, the fact, the next step (StateError)."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        text = str(cause)
        if url.get_backend_name() != "sqlite":
            _explain_server(url, error)
        for sign, fact, hint in _SQLITE_SAYS:
            if sign in text:
                raise StateError(f"{_place(url)}: {fact}", hint=hint) from error
        if isinstance(cause, (sqlite3.OperationalError, sqlite3.DatabaseError)) and not isinstance(
            cause, sqlite3.IntegrityError
        ):
            raise StateError(f"{_place(url)}: {text}") from error
        raise


_RECONSIDER = ("40001", "40P01")
"""Codes of PostgreSQL: two transactions stood in each other's way, and this one was undone."""


def _explain_server(url: URL, error: BaseException) -> None:
    """Raise what a server's error means; return when it is a fault of ours."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    if getattr(cause, "sqlstate", None) in _RECONSIDER:
        raise ContendedError(f"{_place(url)}: {first}", hint="try again") from error
    if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):
        hint = "see that the server runs, and that `store:` names it rightly; nothing recorded is lost"
        raise StateError(f"{_place(url)}: {first}", hint=hint) from error


def _place(url: URL) -> str:
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
