"""Several workers on one PostgreSQL: who takes what, and what becomes of a dead one's work."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from counterplay.clock import now
from counterplay.errors import ContendedError, StateError
from counterplay.store.database import Database, existing_database, open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.runs import Lease, LeaseLost, NewRun, OnceKey, RunStore
from counterplay.store.workers import WorkerStore, identity_of

RUN = NewRun("r-1", "t", "contain", "k", {"name": "contain"}, b"{}", {}, {}, {})


@pytest.fixture
def database(server_store: str) -> Iterator[Database]:
    opened = open_database(server_store)
    yield opened
    opened.close()


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database)


@pytest.fixture
def workers(database: Database) -> WorkerStore:
    """Two that live."""
    made = WorkerStore(database)
    made.join("w-1", "playbook up", 60)
    made.join("w-2", "playbook up", 60)
    return made


def add(runs: RunStore, *names: str) -> None:
    with runs.database.write() as connection:
        runs.add(connection, [replace(RUN, id=name, run_key=name) for name in names])


def dies(database: Database, worker: str) -> None:
    """Nobody has heard of it for a day."""
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE cp_worker SET beat = beat - 86400 WHERE id = '{worker}'")


def test_a_run_is_taken_by_one_worker(runs: RunStore) -> None:
    """What one has taken is due for nobody else, in its steps or before them."""
    add(runs, "r-a", "r-b", "r-c")
    runs.park("r-c", "waiting", now() - timedelta(seconds=1), "a wait")

    assert runs.claim("w-1", 2) == [("r-c", 2), ("r-a", 1)]
    assert runs.claim("w-2", 9) == [("r-b", 1)]
    assert runs.claim("w-1", 9) == runs.due(9) == []


def test_what_waits_or_ended_belongs_to_nobody(runs: RunStore) -> None:
    """Any worker goes on with a run that was woken."""
    add(runs, "r-a", "r-b")
    runs.claim("w-1", 2)
    for name in ("r-a", "r-b"):
        assert runs.begin(name, 1)
    lease = Lease("r-a", 1)
    with runs.leased(lease) as connection:
        runs.park_in(connection, lease, now(), "an approval")
    runs.end("r-b", "succeeded", None, segment=1)

    assert runs.claim("w-2", 9) == [("r-a", 2)]


def test_a_dead_workers_runs_and_feeds_are_free(
    database: Database, runs: RunStore, workers: WorkerStore
) -> None:
    """Under new numbers, so that it writes nothing any more should it live after all."""
    feeds = FeedStore(database)
    subscription = feeds.subscribe(FeedKey("m365.alerts", "c", "t", "{}"), "contain", now())
    epoch = feeds.take_over(subscription.feed_id, "w-1")
    assert epoch is not None
    add(runs, "r-a", "r-b", "r-c")
    runs.claim("w-1", 2)
    runs.begin("r-a", 1)
    assert feeds.take_over(subscription.feed_id, "w-2") is None
    assert workers.silent() == []
    dies(database, "w-1")

    assert workers.silent() == ["w-1"]
    assert sorted(workers.bury("w-1") or ()) == ["r-a/1", "r-b/1"]

    assert workers.bury("w-1") is None
    assert sorted(runs.claim("w-2", 9)) == [("r-a", 2), ("r-b", 2), ("r-c", 1)]
    assert not workers.beat("w-1")
    assert not runs.begin("r-b", 1)
    with pytest.raises(LeaseLost), runs.leased(Lease("r-a", 1)):
        raise AssertionError("it got in")
    with pytest.raises(LeaseLost):
        runs.end("r-a", "failed", "late", segment=1)
    runs.park("r-a", "queued", None, None, segment=1)
    assert [(one.id, one.segment) for one in runs.find("r-a")] == [("r-a", 2)]
    assert feeds.take_over(subscription.feed_id, "w-2") is not None
    with pytest.raises(StateError, match="taken over by another worker"), database.write() as connection:
        feeds.hold(connection, subscription.feed_id, epoch)


def test_a_worker_that_lives_is_not_buried(database: Database, runs: RunStore, workers: WorkerStore) -> None:
    """A sign of life in the last moment counts."""
    add(runs, "r-a")
    runs.claim("w-1", 1)
    dies(database, "w-1")
    assert workers.beat("w-1")
    assert workers.bury("w-1") is None
    assert runs.claim("w-2", 1) == []


def test_who_leaves_gives_back_what_it_had_taken(
    database: Database, runs: RunStore, workers: WorkerStore
) -> None:
    """And is listed no more."""
    add(runs, "r-a")
    runs.claim("w-1", 1)
    assert [(one.id, one.runs) for one in workers.listed()] == [("w-1", 1), ("w-2", 0)]
    assert workers.leave("w-1") == ["r-a/1"]
    assert [one.id for one in workers.listed()] == ["w-2"]
    assert runs.claim("w-2", 1) == [("r-a", 2)]


def test_what_cannot_be_begun_is_given_back(runs: RunStore) -> None:
    """Only by the one who has it, and under a new number."""
    add(runs, "r-a")
    runs.claim("w-1", 1)
    runs.give_back("w-2", ["r-a"])
    assert runs.claim("w-2", 1) == []
    runs.give_back("w-1", ["r-a"])
    assert runs.claim("w-2", 1) == [("r-a", 2)]


def test_of_two_workers_one_opens_a_once_per_key(runs: RunStore) -> None:
    """The second transaction waits for the first, and finds the key held."""
    import threading

    keyed = [replace(RUN, id=name, run_key=name, once=OnceKey("ada", timedelta(hours=1))) for name in "ab"]
    added: list[str] = []
    second = open_database(runs.database.url.render_as_string(hide_password=False))

    def other() -> None:
        with second.write() as connection:
            added.extend(RunStore(second).add(connection, keyed[1:]))

    thread = threading.Thread(target=other)
    with runs.database.write() as connection:
        added += runs.add(connection, keyed[:1])
        thread.start()
        with runs.database.engine.connect() as look:  # until the other one waits for this transaction
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            while not look.exec_driver_sql(waits).first():
                pass
    thread.join()
    second.close()
    assert added == ["a"]


def test_one_process_at_a_time_has_a_turn(database: Database) -> None:
    """Who does not wait is told; the turn is free afterwards, and others go by other names."""
    second = open_database(database.url.render_as_string(hide_password=False))
    with database.alone("a"), second.alone("a", wait=False) as mine, second.alone("b", wait=False) as other:
        assert (mine, other) == (False, True)
    with second.alone("a", wait=False) as mine:
        assert mine
    second.close()


def test_transactions_in_each_others_way_say_that_they_can_be_made_again(
    database: Database, runs: RunStore
) -> None:
    """PostgreSQL undoes one of two that wait for each other."""
    import threading

    add(runs, "r-a", "r-b")
    second = open_database(database.url.render_as_string(hide_password=False))
    reached, failures = threading.Barrier(2), []

    def locks(store: Database, first: str, then: str) -> None:
        try:
            with store.write() as connection:
                for name in (first, then):
                    connection.exec_driver_sql(f"SELECT 1 FROM cp_run WHERE id = '{name}' FOR UPDATE")
                    if name == first:
                        reached.wait()
        except ContendedError as error:
            failures.append(error)

    thread = threading.Thread(target=locks, args=(second, "r-b", "r-a"))
    thread.start()
    locks(database, "r-a", "r-b")
    thread.join()
    second.close()
    (failure,) = failures
    assert "deadlock" in str(failure)


def test_a_database_without_tables_is_no_state_yet(server_store: str) -> None:
    """A command that only looks makes none."""
    for _ in range(2):
        with existing_database(server_store) as database:
            assert database is None


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    """Where it should be, and what to look at."""
    url = "postgresql+psycopg://soc:secret-4711@127.0.0.1:9/cp"
    with pytest.raises(
        StateError, match=r"soc:\*\*\*@127\.0\.0\.1:9/cp.*see that the server runs"
    ) as refused:
        open_database(url)
    assert "4711" not in str(refused.value)


def test_what_a_stopped_worker_locked_is_free_once_it_is_buried(
    database: Database, runs: RunStore, server_store: str
) -> None:
    """It is stopped, not gone: its connections stand, one in the middle of a write, and would for ever."""
    sleeper = open_database(server_store)
    identity = identity_of(sleeper.session)
    add(runs, "r-a")
    WorkerStore(sleeper).join(identity, "playbook up", 60)
    RunStore(sleeper).claim(identity, 1)
    asleep = (pytest.raises(StateError), pytest.raises(StateError))
    with asleep[0], sleeper.alone("a target"), asleep[1], sleeper.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET error = 'it was about to say' WHERE id = 'r-a'")
        dies(database, identity)

        assert WorkerStore(database).bury(identity) == ["r-a/1"]

        with database.alone("a target", wait=False) as got:
            assert got
        connection.exec_driver_sql("SELECT 1")
    assert not WorkerStore(sleeper).beat(identity)
    assert runs.get("r-a").error is None
    sleeper.close()
