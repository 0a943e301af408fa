"""Retention: what goes with an old run, what stays, and what keeps a run from going."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.store import retention
from counterplay.store.approvals import ApprovalStore
from counterplay.store.children import NewChild, child_id, spawn
from counterplay.store.database import Database, open_database
from counterplay.store.retention import count_old, delete_old, was_deleted
from counterplay.store.runs import Lease, NewRun, OnceKey, RunStore, StoredStep
from counterplay.store.tables import metadata
from counterplay.store.watches import plant

LONG_AGO = "2020-01-02T03:04:05.000000Z"
RUN = NewRun("r-old", "t", "contain", "k", {"name": "contain"}, b"{}", {}, {}, {})
STEP = StoredStep("a", "acme.close", "succeeded", 1, None, None, None, LONG_AGO, LONG_AGO)


@pytest.fixture
def runs(store: str) -> Iterator[RunStore]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield RunStore(database)
    database.close()


def add(runs: RunStore, *several: NewRun) -> list[str]:
    with runs.database.write() as connection:
        return runs.add(connection, several)


def a_full_one(runs: RunStore) -> None:
    """A run with a child, an effect, an attempt, a question with its link, a held-back event."""
    held = replace(RUN, id="r-held", run_key="other", once=OnceKey("ada", timedelta(hours=1)))
    add(runs, replace(RUN, once=OnceKey("ada", timedelta(hours=1))), held)
    assert runs.begin(RUN.id, 1)
    lease = Lease(RUN.id, 1)
    approvals = ApprovalStore(runs.database)
    parent = runs.get(RUN.id)
    assert parent is not None
    with runs.leased(lease) as connection:
        runs.put_attempt(connection, RUN.id, STEP, "failed", "503")
        runs.put_step(connection, RUN.id, STEP)
        spawn(connection, parent, "each", [NewChild(0, {"role": "element"})], 1)
        approvals.ask(
            connection, "a-1", run_id=RUN.id, step_id="a", purpose="approval", playbook="contain",
            question="?", form=None, people=1, starter=None, on_timeout="deny", deadline=None,
        )  # fmt: skip
    approvals.add_token("hash", "a-1", "ada", now())
    child = child_id(RUN.id, "each", 0)
    assert runs.begin(child, 1)
    runs.intend(
        Lease(child, 1),
        "b",
        {
            "uses": "x",
            "tenant": "t",
            "connection": "c",
            "target": "T",
            "subject": "T",
            "arguments": {},
            "before": {},
        },
    )
    runs.end(child, "succeeded", None)


def age(database: Database) -> None:
    """Everything that ended did so years ago."""
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE cp_run SET created = '{LONG_AGO}'")
        connection.exec_driver_sql(f"UPDATE cp_run SET ended = '{LONG_AGO}' WHERE ended IS NOT NULL")


def rows(database: Database) -> dict[str, int]:
    """Rows by table, of those that have any."""
    with database.read() as connection:
        counts = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
    return {name: count for name, count in counts.items() if count}


def test_an_old_run_goes_with_all_that_it_holds(runs: RunStore) -> None:
    """Nothing of it is left but its identity, those of the events it held back, and the audit log."""
    a_full_one(runs)
    runs.end(RUN.id, "succeeded", None)
    age(runs.database)
    entries = audit.verify(runs.database).entries
    assert count_old(runs.database, now()) == 1

    assert delete_old(runs.database, now()) == 1

    assert rows(runs.database) == {"cp_audit": entries, "cp_audit_head": 1, "cp_once": 1, "cp_past_run": 2}
    assert audit.verify(runs.database).flaws == ()
    assert was_deleted(runs.database, "r-ol") is not None
    assert was_deleted(runs.database, "r-new") is None


def test_the_event_of_a_deleted_run_starts_no_second_one(runs: RunStore) -> None:
    """Nor does one that the run's key held back."""
    a_full_one(runs)
    runs.end(RUN.id, "succeeded", None)
    age(runs.database)
    delete_old(runs.database, now())

    assert add(runs, RUN, replace(RUN, id="r-held")) == []
    assert add(runs, replace(RUN, id="r-new")) == ["r-new"]


def test_what_is_younger_or_still_goes_on_stays(runs: RunStore) -> None:
    """A run that waits for years is no old run; one that ended just now is none either."""
    add(runs, *(replace(RUN, id=f"r-{name}", run_key=name) for name in ("young", "waits", "works")))
    runs.park("r-waits", "waiting", None, "an approval")
    runs.begin("r-works", 1)
    age(runs.database)
    runs.end("r-young", "succeeded", None)

    assert delete_old(runs.database, now() - timedelta(days=1)) == 0
    assert rows(runs.database)["cp_run"] == 3


@pytest.mark.parametrize("what", ["child", "watch", "hook"])
def test_a_run_that_something_waits_for_stays_until_it_came(runs: RunStore, what: str) -> None:
    """A part of it that goes on, a later look at its effect, a hook that is still to be told."""
    add(runs, RUN)
    runs.begin(RUN.id, 1)
    parent = runs.get(RUN.id)
    assert parent is not None
    with runs.database.write() as connection:
        if what == "child":
            spawn(connection, parent, "each", [NewChild(0, {"role": "element"})], 1)
        elif what == "watch":
            plant(connection, RUN.id, "a", ["24h"])
    runs.end(RUN.id, "succeeded", None)
    age(runs.database)
    if what == "hook":
        with runs.database.write() as connection:
            connection.exec_driver_sql("UPDATE cp_run SET tell = 'finished'")
    assert delete_old(runs.database, now()) == 0

    with runs.database.write() as connection:
        if what == "child":
            connection.exec_driver_sql(f"UPDATE cp_run SET status = 'succeeded', ended = '{LONG_AGO}'")
        elif what == "watch":
            connection.exec_driver_sql(f"UPDATE cp_watch SET checked = '{to_text(now())}'")
        else:
            connection.exec_driver_sql("UPDATE cp_run SET tell = NULL")
    assert delete_old(runs.database, now()) == 1


def test_more_than_a_batch_goes_and_those_that_stay_do_not_stop_it(
    runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked at once."""
    monkeypatch.setattr(retention, "BATCH", 3)
    add(runs, *(replace(RUN, id=f"r-{number}", run_key=str(number)) for number in range(10)))
    for number in range(10):
        runs.end(f"r-{number}", "succeeded", None)
    with runs.database.write() as connection:
        for number in range(4):
            plant(connection, f"r-{number}", "a", ["24h"])
    age(runs.database)

    assert count_old(runs.database, now()) == delete_old(runs.database, now()) == 6
    assert rows(runs.database)["cp_run"] == 4
