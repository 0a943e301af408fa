"""Sizes: what stays in its row, and what becomes an artifact."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from counterplay.clock import now, to_text
from counterplay.errors import StateError
from counterplay.store.artifacts import INLINE_EVENT, INLINE_RESULT
from counterplay.store.children import NewChild, child_id, spawn
from counterplay.store.database import open_database
from counterplay.store.retention import delete_old
from counterplay.store.runs import NewRun, RunStore, StoredStep
from counterplay.store.tables import artifact, artifact_use

RUN = NewRun("r-1", "t", "contain", "k", {"name": "contain"}, b"{}", {}, {}, {})
STEP = StoredStep("a", "acme.read", "succeeded", 1, None, None, None, to_text(now()), to_text(now()))


@pytest.fixture
def runs(store: str) -> Iterator[RunStore]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield RunStore(database)
    database.close()


def rows(runs: RunStore, query: str) -> list[tuple[object, ...]]:
    with runs.database.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def of_size(size: int) -> dict[str, str]:
    """A result whose JSON text has so many characters."""
    return {"x": "y" * (size - len('{"x": ""}'))}


def test_a_step_result_up_to_256_kb_is_inline_and_a_larger_one_an_artifact(runs: RunStore) -> None:
    """Both read back equal; equal ones of several steps are kept once."""
    small, large = of_size(INLINE_RESULT), of_size(INLINE_RESULT + 1)
    with runs.database.write() as connection:
        runs.add(connection, [RUN])
        runs.put_step(connection, RUN.id, replace(STEP, result=small))
        runs.put_step(connection, RUN.id, replace(STEP, step_id="b", result=large))
        runs.put_step(connection, RUN.id, replace(STEP, step_id="c", result=large))

    assert [one.result for one in runs.steps(RUN.id)] == [small, large, large]
    assert rows(runs, "SELECT count(*) FROM cp_artifact") == [(1,)]
    assert rows(runs, "SELECT max(length(result)) FROM cp_step WHERE step_id <> 'a'")[0][0] < 100  # type: ignore[operator]


def test_an_event_in_a_run_up_to_1_mb_is_inline_and_a_larger_one_an_artifact(runs: RunStore) -> None:
    """A part of the run refers to the same one; it goes with the run."""
    small = json.dumps(of_size(INLINE_EVENT)).encode()
    large = json.dumps(of_size(INLINE_EVENT + 1)).encode()
    with runs.database.write() as connection:
        runs.add(connection, [replace(RUN, event=small), replace(RUN, id="r-2", run_key="2", event=large)])
    parent = runs.get("r-2")
    assert parent is not None
    with runs.database.write() as connection:
        spawn(connection, parent, "each", [NewChild(0, {"role": "element"})], 1)

    stored = {one.id: one.event for one in runs.newest(playbook=None, status=None, limit=9)}
    assert stored == {"r-1": small, "r-2": large, child_id("r-2", "each", 0): large}
    assert rows(runs, "SELECT count(*) FROM cp_artifact") == [(1,)]
    for identity in (child_id("r-2", "each", 0), "r-2"):
        runs.end(identity, "succeeded", None)
    with runs.database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET created = '2020', ended = '2020' WHERE id LIKE 'r-2%%'")
    assert delete_old(runs.database, now()) == 1
    assert rows(runs, "SELECT count(*) FROM cp_artifact") == [(0,)]


def test_what_an_action_returns_cannot_pass_for_a_reference(runs: RunStore) -> None:
    """It is a text inside JSON."""
    said = "artifact:" + "0" * 64
    with runs.database.write() as connection:
        runs.add(connection, [replace(RUN, event=json.dumps(said).encode())])
        runs.put_step(connection, RUN.id, replace(STEP, result=said))
    assert [one.result for one in runs.steps(RUN.id)] == [said]


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_a_large_value_that_is_damaged_or_missing_is_told(runs: RunStore, what: str) -> None:
    """It is not taken for what it was."""
    with runs.database.write() as connection:
        runs.add(connection, [RUN])
        runs.put_step(connection, RUN.id, replace(STEP, result=of_size(INLINE_RESULT + 1)))
        if what == "missing":
            connection.execute(sa.delete(artifact_use))
            connection.execute(sa.delete(artifact))
        else:
            connection.execute(sa.update(artifact).values(body=b"x"))
    with pytest.raises(StateError, match=f"is {what}; restore the store from a backup"):
        runs.steps(RUN.id)
