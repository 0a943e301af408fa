"""Locks by name that all processes on a PostgreSQL respect, and that end with who holds them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from counterplay.store.locks import Locks, number

SECONDS = 30  # for what is to happen at once; a test that waits so long has failed


@pytest.fixture
def process(server_store: str) -> Iterator[Callable[[], Locks]]:
    """Makes what a process has of locks, with connections of its own."""
    with ExitStack() as ending:

        def made() -> Locks:
            locks = Locks(sa.create_engine(server_store, isolation_level="AUTOCOMMIT"))
            ending.callback(locks.close)
            return locks

        yield made


@pytest.fixture
def mine(process: Callable[[], Locks]) -> Locks:
    return process()


@pytest.fixture
def theirs(process: Callable[[], Locks]) -> Locks:
    return process()


@pytest.fixture
def server(server_store: str) -> Iterator[sa.Connection]:
    """Somebody who looks at the server."""
    engine = sa.create_engine(server_store, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def holders(server: sa.Connection) -> list[int]:
    """The connections that hold locks by name in this database, one for each lock."""
    query = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    return list(server.execute(sa.text(query)).scalars())


def waiters(server: sa.Connection) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return int(server.execute(sa.text(query)).scalar_one())


def is_free(locks: Locks, name: str) -> bool:
    with locks.hold(name, wait=False) as got:
        return got


def test_one_process_at_a_time_holds_a_name(mine: Locks, theirs: Locks) -> None:
    """Others are told so at once, and may have every other name."""
    with mine.hold("target T-1", wait=False) as got:
        assert got
        assert not is_free(theirs, "target T-1")
        assert is_free(theirs, "target T-2")
    assert is_free(theirs, "target T-1")


def test_threads_of_one_process_exclude_each_other_too(mine: Locks) -> None:
    """To the server both are the same connection, which could take its own lock again."""
    with mine.hold("guards", wait=True) as got:
        assert got
        assert not is_free(mine, "guards")
    assert is_free(mine, "guards")


@pytest.mark.parametrize("who", ["another process", "another thread"])
def test_who_waits_gets_it_when_it_is_free(
    process: Callable[[], Locks], mine: Locks, server: sa.Connection, who: str
) -> None:
    """And nobody else's locks wait with it."""
    other = process() if who == "another process" else mine
    entered, leave = threading.Event(), threading.Event()

    def waits() -> bool:
        with other.hold("guards", wait=True) as got:
            entered.set()
            assert leave.wait(SECONDS)
            return got

    with ThreadPoolExecutor(1) as pool:
        with mine.hold("guards", wait=True):
            waiting: Future[bool] = pool.submit(waits)
            while not waiters(server):
                assert not waiting.done()
            assert is_free(other, "something else")
            assert not entered.is_set()
        assert entered.wait(SECONDS)
        assert not is_free(mine, "guards")
        leave.set()
        assert waiting.result(SECONDS)
    assert holders(server) == []


def test_many_that_are_free_take_one_connection(mine: Locks, server: sa.Connection) -> None:
    """A worker with many slots does not use up the server's connections."""
    with ExitStack() as held:
        for place in range(20):
            assert held.enter_context(mine.hold(f"target {place}", wait=True))
        assert len(holders(server)) == 20
        assert len(set(holders(server))) == 1
    assert holders(server) == []


def test_an_error_inside_lets_go(mine: Locks, theirs: Locks) -> None:
    """It passes through."""
    with pytest.raises(KeyError), mine.hold("guards", wait=True):
        raise KeyError("a fault")
    assert is_free(theirs, "guards")


def test_the_server_ends_those_of_a_process_that_dies(
    mine: Locks, theirs: Locks, server: sa.Connection
) -> None:
    """Its connection is all that holds them; and it works again when it connects anew."""
    with mine.hold("guards", wait=True), mine.hold("target T-1", wait=True):
        (pid,) = set(holders(server))
        server.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        while holders(server):
            pass
        assert is_free(theirs, "guards")
        with pytest.raises(sa.exc.OperationalError):
            is_free(mine, "something else")  # now it knows
    assert is_free(mine, "guards")
    assert is_free(mine, "target T-1")


def test_a_lock_that_broke_is_not_let_go_for_somebody_else(
    mine: Locks, theirs: Locks, server: sa.Connection
) -> None:
    """The block that lost it ends without taking it from whoever has it by then."""
    with ExitStack() as held:
        with mine.hold("guards", wait=True):
            (pid,) = holders(server)
            server.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            while holders(server):
                pass
            with pytest.raises(sa.exc.OperationalError):
                is_free(mine, "something else")
            assert held.enter_context(theirs.hold("guards", wait=True))
        assert not is_free(mine, "guards")
    assert is_free(mine, "guards")


def test_closing_lets_go_of_everything(mine: Locks, theirs: Locks, server: sa.Connection) -> None:
    """Also of what a block still holds; its end then has nothing left to do."""
    with mine.hold("guards", wait=True):
        mine.close()
        while holders(server):
            pass
        assert is_free(theirs, "guards")


@given(st.text(), st.text())
def test_a_name_has_one_number_that_the_server_can_take(one: str, other: str) -> None:
    """64 bits with a sign, the same in every process, and another for another name."""
    assert -(2**63) <= number(one) < 2**63
    assert (number(one) == number(other)) == (one == other)


def test_the_numbers_stay() -> None:
    """Workers of two versions that share a database mean the same lock."""
    assert number("migration") == 5126182426097878529
