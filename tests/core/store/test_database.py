"""Opening, migrating and guarding the state file, and what its errors say."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import counterplay.store.database as database_module
from counterplay.errors import NoStateError, StateError
from counterplay.store.database import HEAD, Database, WorkerLock, open_database, storable
from counterplay.store.tables import metadata

MIGRATIONS = Path(database_module.__file__).parent / "migrations"


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_head_is_the_newest_migration() -> None:
    """The constant that saves loading Alembic on each start follows the scripts."""
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    """After `upgrade` there is nothing that autogenerate would add, change or drop."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "cp_schema_version"})
        assert compare_metadata(context, metadata) == []


def test_the_file_is_private_and_in_wal_mode(database: Database) -> None:
    """Readers do not wait for the worker, and other users of the machine see nothing."""
    assert database.path is not None
    assert database.path.stat().st_mode & 0o777 == 0o600
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_opening_again_finds_what_was_written(url: str) -> None:
    """A second start does not migrate, and loses nothing."""
    with opened(url) as database, database.write() as connection:
        connection.exec_driver_sql("INSERT INTO cp_snapshot VALUES ('h', '{}')")
    with opened(url) as database, database.read() as connection:
        assert connection.exec_driver_sql("SELECT hash FROM cp_snapshot").scalar() == "h"


def test_a_reader_does_not_create_a_store(url: str) -> None:
    """`runs list` before the first run says what makes one."""
    with pytest.raises(NoStateError, match=r"there is no state at .*state\.db yet; `playbook run NAME`"):
        open_database(url, create=False)
    assert not path_of(url).exists()


def test_a_file_of_a_newer_version_is_left_alone(url: str) -> None:
    """The message names both versions."""
    with opened(url) as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_schema_version SET version_num = '9999'")
    with pytest.raises(
        StateError, match=rf"newer counterplay \(schema 9999, this one knows {HEAD}\); upgrade"
    ):
        open_database(url)


def test_another_file_is_not_taken_for_state(url: str) -> None:
    """Nothing is written to it."""
    path_of(url).write_bytes(b"# Notes\n" * 1000)
    with pytest.raises(StateError, match=r"state\.db: this is not a state file .*move it away"):
        open_database(url)
    assert path_of(url).read_bytes() == b"# Notes\n" * 1000


def test_a_damaged_file_is_named_as_such(url: str) -> None:
    """Pages overwritten in the middle, as a bad disk leaves them."""
    with opened(url):
        pass
    path = path_of(url)
    content = bytearray(path.read_bytes())
    content[100:] = b"\x5a" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"state\.db: the file is damaged; restore it"):
        open_database(url)


def test_damage_that_shows_up_later_is_explained_too(url: str) -> None:
    """The first page is whole, the tables behind it are not."""
    with opened(url) as database, database.write() as connection:
        for number in range(200):
            connection.exec_driver_sql(f"INSERT INTO cp_snapshot VALUES ('h{number}', '{'x' * 500}')")
    path = path_of(url)
    page = 4096
    content = bytearray(path.read_bytes())
    content[-page * 20 :] = b"\x5a" * (page * 20)
    path.write_bytes(content)
    with (
        opened(url) as database,
        pytest.raises(StateError, match="the file is damaged"),
        database.read() as c,
    ):
        c.exec_driver_sql("SELECT sum(length(document)) FROM cp_snapshot").scalar()


def test_a_folder_in_its_place_cannot_be_opened(url: str) -> None:
    """The message says where to look."""
    path_of(url).mkdir()
    with pytest.raises(StateError, match=r"state\.db: the file cannot be opened; check its path"):
        open_database(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where the state folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot make the folder .*file"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'state.db'}")


def test_a_file_that_cannot_be_written_says_so(database: Database) -> None:
    """`query_only` answers as a read-only file does, for root as well."""

    def read_only(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    database.engine.dispose()
    sa.event.listen(database.engine, "connect", read_only)
    with (
        pytest.raises(StateError, match="the file cannot be written; check its permissions"),
        database.write() as connection,
    ):
        connection.exec_driver_sql("INSERT INTO cp_snapshot VALUES ('h', '{}')")


def test_a_full_disk_loses_nothing_that_was_recorded(database: Database) -> None:
    """The transaction that did not fit is gone as a whole; what came before stays."""
    insert = "INSERT INTO cp_snapshot VALUES (?, ?)"
    with database.write() as connection:
        connection.exec_driver_sql(insert, ("before", "{}"))

    def limited(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # not below what the file has already

    database.engine.dispose()
    sa.event.listen(database.engine, "connect", limited)

    def write_too_much() -> None:
        with database.write() as connection:
            connection.exec_driver_sql(insert, ("small", "{}"))
            connection.exec_driver_sql(insert, ("large", "x" * 10_000_000))

    with pytest.raises(StateError, match="the disk is full; free some space") as caught:
        write_too_much()
    assert "state.db" in str(caught.value)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT hash FROM cp_snapshot").scalars().all() == ["before"]


def test_writers_of_one_process_take_turns(database: Database) -> None:
    """Threads that read and then write lose no update."""
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO cp_snapshot VALUES ('n', '0')")

    def count() -> None:
        for _ in range(20):
            with database.write() as connection:
                value = int(connection.exec_driver_sql("SELECT document FROM cp_snapshot").scalar_one())
                connection.exec_driver_sql(f"UPDATE cp_snapshot SET document = '{value + 1}'")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT document FROM cp_snapshot").scalar() == "80"


def test_text_that_utf8_cannot_carry_is_escaped() -> None:
    """A key with half an emoji can be stored; everything else is as it was."""
    assert storable("k\ud83d") == "k\\ud83d"
    assert storable("häßlich \U0001f600") == "häßlich \U0001f600"


HOLDER = """
import sys, time
from pathlib import Path
from counterplay.store.database import WorkerLock
with WorkerLock(Path(sys.argv[1]), "playbook run quickstart"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_worker_is_refused_by_name_until_the_first_dies(tmp_path: Path) -> None:
    """Not even `kill -9` leaves the lock behind."""
    path = tmp_path / "state.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        expected = rf"another process works on .*state\.db \(process {holder.pid}, `playbook run quickstart`"
        with pytest.raises(StateError, match=expected), WorkerLock(path, "playbook run other"):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with WorkerLock(path, "playbook run other"):
        pass


def test_the_lock_is_free_after_the_block_ends(tmp_path: Path) -> None:
    """However it ends."""
    path = tmp_path / "state.db"
    with pytest.raises(ZeroDivisionError), WorkerLock(path, "one"):
        raise ZeroDivisionError
    with WorkerLock(path, "two"), pytest.raises(StateError, match="`two`"), WorkerLock(path, "three"):
        pass


def test_an_unreadable_note_in_the_lock_hides_only_the_name(tmp_path: Path) -> None:
    """A disk that was full when the lock was taken left an empty note."""
    path = tmp_path / "state.db"
    with WorkerLock(path, "one"):
        (tmp_path / "state.db.lock").write_text("")
        with pytest.raises(StateError, match="an unknown process"), WorkerLock(path, "two"):
            pass


def test_a_lock_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """Its folder is a file."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StateError, match=r"cannot open .*file"),
        WorkerLock(tmp_path / "file" / "s.db", "one"),
    ):
        pass
