"""Writers of one process queue, and short writes share their commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from counterplay.errors import StateError
from counterplay.store.database import Database, open_database
from counterplay.store.tables import snapshot


@pytest.fixture
def database(store: str) -> Iterator[Database]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield database
    database.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    """One SQLite file, where short writes share their commits."""
    database = open_database(f"sqlite:///{tmp_path}/state.db")
    yield database
    database.close()


def put(connection: sa.Connection, name: str) -> None:
    connection.execute(snapshot.insert().values(hash=name, document="{}"))


def kept(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(sa.select(snapshot.c.hash)).scalars())


def together(*bodies: object) -> list[BaseException | None]:
    """Run the bodies in threads that all begin at once; what each of them raised."""
    raised: list[BaseException | None] = [None] * len(bodies)
    gate = threading.Barrier(len(bodies))

    def work(place: int, body: object) -> None:
        gate.wait()
        try:
            body()  # type: ignore[operator]
        except BaseException as error:
            raised[place] = error

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_every_write_is_there_when_it_returns_and_none_that_failed(database: Database) -> None:
    """Short and long writes of many threads: each sees its own row committed, and a failure is its own."""
    seen: list[bool] = []

    def short(name: str) -> None:
        with database.write_short() as connection:
            put(connection, name)
        seen.append(name in kept(database))

    def failing(name: str) -> None:
        with database.write_short() as connection:
            put(connection, name)
            raise LookupError(name)

    def alone(name: str) -> None:
        with database.write() as connection:
            put(connection, name)
        seen.append(name in kept(database))

    def worker(thread: int) -> None:
        for number in range(12):
            kind = (short, failing, alone)[(thread + number) % 3]
            try:
                kind(f"{kind.__name__}-{thread}-{number}")
            except LookupError:
                continue

    assert together(*(lambda thread=thread: worker(thread) for thread in range(6))) == [None] * 6
    names = kept(database)
    assert len(names) == 48
    assert not any(name.startswith("failing") for name in names)
    assert seen == [True] * 48


def test_a_refused_statement_takes_back_its_own_writer_only(file: Database) -> None:
    """Two threads insert the same key while a third one holds the turn: one of them fails, whole."""
    began, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with file.write_short() as connection:
            put(connection, "first")
            began.set()
            go_on.wait()

    def same(own: str) -> None:
        began.wait()
        with file.write_short() as connection:
            put(connection, own)
            put(connection, "same")

    def release() -> None:
        began.wait()
        while file.turns.waiting < 2:
            pass
        go_on.set()

    raised = together(first, lambda: same("a"), lambda: same("b"), release)
    assert [type(error) for error in raised if error is not None] == [sa.exc.IntegrityError]
    names = kept(file)
    assert {"first", "same"} < names
    assert len(names) == 3


def test_writes_that_wait_for_each_other_share_one_commit(
    file: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five come while one writes, and the last one commits for all six."""
    commits: list[int] = []
    sa.event.listen(file.engine, "commit", lambda connection: commits.append(1))
    began, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("counterplay.store.turns.LONGEST", 60.0)

    def first() -> None:
        with file.write_short() as connection:
            put(connection, "first")
            began.set()
            go_on.wait()

    def later(name: str) -> None:
        began.wait()
        with file.write_short() as connection:
            put(connection, name)

    def release() -> None:
        began.wait()
        while file.turns.waiting < 5:
            pass
        go_on.set()

    names = "abcde"
    assert together(first, *(lambda name=name: later(name) for name in names), release) == [None] * 7
    assert kept(file) == {"first", *names}
    assert len(commits) == 1


def test_a_commit_that_fails_is_everybody_s_failure(file: Database) -> None:
    """Nobody hears that a write is done when the transaction it was part of did not come to the disk."""
    began, go_on = threading.Event(), threading.Event()

    @sa.event.listens_for(file.engine, "commit")
    def refuse(connection: sa.Connection) -> None:
        raise StateError("the disk is full")

    def first() -> None:
        with file.write_short() as connection:
            put(connection, "first")
            began.set()
            go_on.wait()

    def second() -> None:
        began.wait()
        with file.write_short() as connection:
            put(connection, "second")

    def release() -> None:
        began.wait()
        while file.turns.waiting < 1:
            pass
        go_on.set()

    raised = together(first, second, release)
    assert [str(error) for error in raised] == ["the disk is full", "the disk is full", "None"]
    sa.event.remove(file.engine, "commit", refuse)
    assert kept(file) == set()
    with file.write_short() as connection:  # and the next one starts afresh
        put(connection, "third")
    assert kept(file) == {"third"}


def test_a_write_inside_a_write_is_refused(file: Database) -> None:
    """It would wait for itself for ever."""
    with file.write(), pytest.raises(RuntimeError, match="inside another"), file.write_short():
        raise AssertionError("it got in")
