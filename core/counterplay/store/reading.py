"""The store for who may read it and not write it: an auditor's account, a copy on a read-only disk.

SQLite keeps what was committed last in a log beside the file (WAL), with an index of it that every reader
writes to. Without the right to write either, it can still read

* a file with log and index beside it, as a worker leaves them while it works;
* a file alone, as a worker leaves it when it ends, as long as nobody begins to write it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from counterplay.errors import NoStateError, StateError
from counterplay.store.database import HEAD, Database, explained, open_database

_COPY = "copy it with all files of its name into a folder that can be written, and look there"


@contextmanager
def readable_database(url: str) -> Iterator[Database]:
    """The store, opened beside a worker, and without writing anything where that is not allowed.

    StateError: it is unusable, cannot be read without writing, or was changed while it was read so.
    NoStateError: it is not there.
    """
    path = _read_only(url)
    if path is None:
        database = open_database(url, create=False)
        try:
            yield database
        finally:
            database.close()
        return
    alone = _is_alone(path)
    before = _state(path)
    database = Database(_reading(path, alone=alone))
    try:
        with explained(make_url(url)):
            _check_version(database, path)
            yield database
    finally:
        database.close()
    if alone and (not _is_alone(path) or _state(path) != before):
        raise StateError(f"{path}: somebody wrote it while it was read", hint="try again")


def _read_only(url: str) -> Path | None:
    """The SQLite file, if it or its folder cannot be written."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    path = Path(parsed.database)
    if not path.is_file() or (_writable(path) and _writable(path.parent)):
        return None
    return path


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _is_alone(path: Path) -> bool:
    """Whether the file holds all that was committed. StateError: it does not, and the rest cannot be read."""
    log, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    try:
        logged = log.stat().st_size > 0
    except FileNotFoundError:
        return True
    except OSError as error:
        raise StateError(f"{log}: {error.strerror}", hint="check its permissions") from error
    if logged and not (os.access(log, os.R_OK) and os.access(index, os.R_OK)):
        raise StateError(
            f"{path} can only be read, and the last of what was written to it stands in {log.name}, "
            f"which takes {index.name} to be read",
            hint=_COPY,
        )
    return not logged


def _reading(path: Path, *, alone: bool) -> URL:
    """`immutable` reads the file and nothing beside it, and takes no lock."""
    query = {"mode": "ro", "uri": "true", **({"immutable": "1"} if alone else {})}
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _check_version(database: Database, path: Path) -> None:
    """StateError: the tables are not those of this version, and nothing can bring them up to date."""
    with database.read() as connection:
        if not sa.inspect(connection).has_table("cp_schema_version"):
            raise NoStateError(path)
        version = connection.execute(sa.text("SELECT version_num FROM cp_schema_version")).scalar()
    if version != HEAD:
        raise StateError(
            f"{path} is of another version (schema {version}, this one knows {HEAD}), and can only be read",
            hint="use that version of counterplay, or bring a copy that can be written up to date",
        )
