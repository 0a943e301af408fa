"""Tenants take turns, and one that has nothing at work is never behind all the others' runs."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.clock import now
from counterplay.store.database import open_database
from counterplay.store.next_runs import _shares
from counterplay.store.runs import NewRun, RunStore

RUN = NewRun("", "", "contain", "", {"name": "contain"}, b"{}", {}, {}, {})


@pytest.fixture
def runs(store: str) -> Iterator[RunStore]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield RunStore(database)
    database.close()


def add(runs: RunStore, tenant: str, number: int) -> list[str]:
    """Runs of a tenant, in one commit after those that are there."""
    made = [replace(RUN, id=f"{tenant}-{at:03d}", tenant=tenant, run_key=str(at)) for at in range(number)]
    with runs.database.write() as connection:
        return runs.add(connection, made)


def names(found: list[tuple[str, int]]) -> list[str]:
    return [identity for identity, _ in found]


def test_a_single_run_is_not_behind_five_hundred(runs: RunStore) -> None:
    """The tenant that waits longest begins; then each has its turn, in the order of its own runs."""
    add(runs, "large", 500)
    add(runs, "small", 1)
    add(runs, "third", 2)

    assert sorted(names(runs.due(3))) == ["large-000", "small-000", "third-000"]
    assert sorted(names(runs.due(8))) == [
        *(f"large-{at:03d}" for at in range(5)),
        "small-000",
        "third-000",
        "third-001",
    ]


def test_what_is_at_work_counts(runs: RunStore) -> None:
    """A slot that is free belongs to whoever has the fewest."""
    large = add(runs, "large", 20)
    add(runs, "small", 3)
    held = large[:7]

    assert names(runs.due(1, held=held)) == ["small-000"]
    assert names(runs.due(2, held=[*held, "small-000"])) == ["small-001", "small-002"]


def test_a_tenant_with_nothing_at_work_needs_no_slot(runs: RunStore) -> None:
    """One run each beyond the slots, as far as newcomers are let in."""
    large = add(runs, "large", 20)
    for tenant in ("second", "third", "fourth"):
        add(runs, tenant, 2)
    held = large[:8]

    assert names(runs.due(0, 2, held)) == ["second-000", "third-000"]
    assert names(runs.due(0, 8, [*held, "second-000", "third-000"])) == ["fourth-000"]
    assert runs.due(0, 8, [*held, "second-000", "third-000", "fourth-000"]) == []


def test_a_tenant_alone_has_all_slots(runs: RunStore) -> None:
    """In the order of its runs, those that were woken before those that are new."""
    alone = add(runs, "alone", 12)
    runs.park(alone[9], "waiting", now() - timedelta(seconds=1), "a wait")

    assert names(runs.due(9)) == [alone[9], *alone[:8]]
    assert names(runs.due(9, held=[alone[9], *alone[:8]])) == [alone[8], *alone[10:]]


def test_what_was_woken_has_its_tenants_turn(runs: RunStore) -> None:
    """Hundreds of runs that wake together hold nobody back either."""
    large = add(runs, "large", 30)
    for identity in large:
        runs.park(identity, "waiting", now() - timedelta(seconds=1), "a wait")
    add(runs, "small", 1)

    assert sorted(names(runs.due(3))) == ["large-000", "large-001", "small-000"]


def test_workers_take_turns_of_tenants_together(runs: RunStore) -> None:
    """What another worker holds is at work, too; nobody takes what is taken."""
    add(runs, "large", 20)
    add(runs, "small", 3)

    taken = sorted(names(runs.claim("w-1", 4)))
    assert taken == ["large-000", "large-001", "small-000", "small-001"]
    assert sorted(names(runs.claim("w-2", 2))) == ["large-002", "small-002"]
    assert names(runs.claim("w-2", 2)) == ["large-003", "large-004"]


@given(
    st.integers(1, 40),
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 9), min_size=1, max_size=6),
)
def test_no_share_is_larger_while_another_is_smaller(number: int, working: dict[str, int]) -> None:
    """Whoever gets a run has, with it, at most one more than anybody else."""
    shares = _shares(number, dict.fromkeys(working, "2026"), working)

    assert sum(shares.values()) == number
    least = min(working[tenant] + shares.get(tenant, 0) for tenant in working)
    assert all(working[tenant] + share <= least + 1 for tenant, share in shares.items() if share)
