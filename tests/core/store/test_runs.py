"""Runs, steps and the journal of effects, as a resumed run finds them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from counterplay import audit
from counterplay.clock import now, to_text
from counterplay.store.children import NewChild, cancel, child_id, children_of, spawn
from counterplay.store.database import open_database
from counterplay.store.runs import EffectEnd, Lease, LeaseLost, NewRun, OnceKey, RunStore, StoredStep, run_id
from counterplay.store.statements import insert_or_ignore
from counterplay.store.tables import snapshot

RUN = NewRun(
    id=run_id("tenant-1", "contain", "alert-1"),
    tenant="tenant-1",
    playbook="contain",
    run_key="alert-1",
    document={"name": "contain", "steps": []},
    event=b'{"id": "alert-1"}',
    meta={"unit": "u1"},
    inputs={"approver": "soc@contoso.example"},
    connections={"contoso": "sim"},
)
INTENT = {
    "uses": "acme.close_ticket",
    "tenant": "tenant-1",
    "connection": "acme",
    "target": "T-1",
    "subject": "T-1",
    "arguments": {"ticket_id": "T-1"},
    "before": {"status": "open"},
}


def add(runs: RunStore, *several: NewRun) -> list[str]:
    with runs.database.write() as connection:
        return runs.add(connection, several)


@pytest.fixture
def runs(store: str) -> Iterator[RunStore]:
    """On SQLite, and on PostgreSQL."""
    database = open_database(store)
    yield RunStore(database)
    database.close()


@pytest.fixture
def run(runs: RunStore) -> str:
    (identity,) = add(runs, RUN)
    return identity


def test_the_same_event_starts_one_run(runs: RunStore, run: str) -> None:
    """The identity is tenant, playbook and run key; nothing of the first run is overwritten."""
    changed = replace(RUN, document={"name": "contain", "steps": ["other"]}, event=b"{}")
    assert add(runs, changed, changed) == []
    stored = runs.get(run)
    assert stored is not None
    assert (stored.document, stored.event, stored.status, stored.segment) == (
        RUN.document,
        RUN.event,
        "queued",
        1,
    )
    assert (stored.meta, stored.inputs, stored.connections) == (RUN.meta, RUN.inputs, RUN.connections)


def test_identities_do_not_run_into_each_other() -> None:
    """The parts are kept apart, and a lone surrogate in a key is no obstacle."""
    keys = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "c\ud83d")]
    assert len({run_id(*key) for key in keys}) == len(keys)


def test_a_run_key_that_utf8_cannot_carry_is_stored(runs: RunStore) -> None:
    """It comes from an event, and an event may hold half an emoji."""
    (identity,) = add(runs, replace(RUN, id="r-1", run_key="k\ud83d"))
    assert [one for one, _ in runs.due(5)] == [identity]


def test_thousands_of_runs_of_one_unit_are_added_at_once(runs: RunStore) -> None:
    """More than a statement takes variables; a second time adds none."""
    many = [replace(RUN, id=f"r-{number}", run_key=str(number)) for number in range(2_000)]
    assert len(add(runs, *many)) == 2_000
    assert add(runs, *many) == []


def test_runs_are_due_by_age_and_by_their_wake(runs: RunStore) -> None:
    """Queued ones at once, waiting ones when their time has come, working ones not at all."""
    add(runs, *(replace(RUN, id=f"r-{name}", run_key=name) for name in "abcd"))
    runs.begin("r-a", 1)
    runs.park("r-b", "waiting", now() - timedelta(seconds=1), "sink")
    runs.park("r-c", "blocked", now() + timedelta(hours=1), "sink")
    assert runs.due(9) == [("r-b", 2), ("r-d", 1)]
    assert runs.with_status("waiting", "blocked") == [("r-b", 2), ("r-c", 2)]


def test_the_next_queued_run_is_found_without_sorting_all_that_wait(runs: RunStore) -> None:
    """One commit may bring tens of thousands; to start one of them costs what it costs with ten."""
    add(runs, *(replace(RUN, id=f"r-{number:03}", run_key=str(number)) for number in range(300)))
    with runs.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    plans: list[str] = []

    @sa.event.listens_for(runs.database.engine, "before_cursor_execute")
    def explained(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "cp_run.rank" not in statement:
            return
        how = "EXPLAIN QUERY PLAN " if runs.database.sqlite else "EXPLAIN "
        cursor = connection.connection.driver_connection.cursor()
        cursor.execute(how + statement, parameters)
        plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    assert [identity for identity, _ in runs.due(2)] == ["r-000", "r-001"]
    assert len(plans) == 2  # whose turn it is, and their next runs
    for plan in plans:
        assert "cp_run_turn" in plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan


def test_only_the_current_segment_begins(runs: RunStore, run: str) -> None:
    """A resumed segment of before the park, and one of an ended run, do nothing."""
    assert runs.begin(run, 1)
    assert runs.begin(run, 1)  # the same one after a crash
    runs.park(run, "waiting", now(), "sink")
    assert not runs.begin(run, 1)
    assert runs.begin(run, 2)
    runs.end(run, "succeeded", None)
    assert not runs.begin(run, 2)


def test_an_ended_run_stays_as_it_ended(runs: RunStore, run: str) -> None:
    """A late park or end of a segment that did not know changes nothing."""
    runs.end(run, "failed", "step a: no \ud83d")
    runs.park(run, "queued", None, None)
    runs.end(run, "succeeded", None)
    stored = runs.get(run)
    assert stored is not None
    assert (stored.status, stored.error, stored.segment) == ("failed", "step a: no \\ud83d", 1)


def test_a_new_worker_tries_sinks_at_once_and_leaves_other_waits(runs: RunStore) -> None:
    """What waits for a sink has its outcome; a wait in the steps keeps its time."""
    add(runs, *(replace(RUN, id=f"r-{name}", run_key=name) for name in "ab"))
    later = now() + timedelta(hours=1)
    runs.set_outcome(begun(runs, "r-a"), "succeeded", None)
    runs.park("r-a", "waiting", later, "sink:1: 503")
    runs.park("r-b", "waiting", later, "an approval")
    runs.retry_sinks()
    assert runs.due(9) == [("r-a", 2)]


def running(step_id: str) -> StoredStep:
    """A step in its first attempt."""
    return StoredStep(step_id, "acme.close_ticket", "running", 1, None, None, None, to_text(now()), None)


def test_a_step_is_one_row_and_what_did_not_end_it_is_an_attempt(runs: RunStore, run: str) -> None:
    """The attempt that failed is on record, and the row is that of the last one."""
    first = running("a")
    last = replace(first, status="failed", attempts=2, arguments={"x": 1}, error="no \ud83d")
    with runs.database.write() as connection:
        runs.put_step(connection, run, first)
        runs.put_attempt(connection, run, first, "failed", "503")
        runs.put_step(connection, run, last)
    assert runs.steps(run) == [replace(last, error="no \\ud83d")]
    assert [(one.number, one.status, one.error) for one in runs.attempts(run)] == [(1, "failed", "503")]


def test_a_step_and_its_effect_end_together(runs: RunStore, run: str) -> None:
    """The journal has the state before, each request, the outcome and the read-back."""
    lease = begun(runs, run)
    runs.expect(lease, running("a"))
    calls = [{"method": "POST", "url": f"https://x/'close\"/{number}", "body": None} for number in range(3)]
    runs.intend(lease, "a", INTENT)
    runs.add_call(lease, "a", calls[0])
    runs.intend(lease, "a", {**INTENT, "before": {"status": "closed"}})  # a second attempt
    runs.add_call(lease, "a", calls[1])
    runs.add_call(lease, "a", calls[2])
    (open_effect,) = runs.effects(run)
    assert (open_effect.status, open_effect.before) == ("intended", {"status": "closed"})
    assert open_effect.calls == calls
    runs.end_step(
        lease,
        replace(running("a"), status="succeeded", result={"ok": True}),
        EffectEnd("done", {"ok": True}, verified=True),
    )
    assert audit.verify(runs.database).flaws == ()
    assert [json.loads(one.body)["calls"] for one in audit.entries(runs.database)] == [calls]
    assert [(one.status, one.result) for one in runs.steps(run)] == [("succeeded", {"ok": True})]
    (ended,) = runs.effects(run)
    assert (ended.status, ended.result, ended.verified) == ("done", {"ok": True}, True)
    assert [one.step_id for one in runs.effects_since("2020")] == ["a"]


def test_runs_are_found_by_what_people_type(runs: RunStore, run: str) -> None:
    """The beginning of the id; wildcards mean nothing."""
    assert [one.id for one in runs.find(run[:6])] == [run]
    assert runs.find("r_") == []
    assert [one.id for one in runs.newest(playbook="contain", status="queued", limit=5)] == [run]
    assert runs.newest(playbook="other", status=None, limit=5) == []


# --- children, leases, once_per ----------------------------------------------------------------------


def begun(runs: RunStore, identity: str) -> Lease:
    segment = next(
        one.segment for one in runs.newest(playbook=None, status=None, limit=99) if one.id == identity
    )
    assert runs.begin(identity, segment)
    return Lease(identity, segment)


def test_a_segment_that_lost_its_run_writes_nothing(runs: RunStore, run: str) -> None:
    """A worker that slept while another one took over cannot change a row."""
    lease = begun(runs, run)
    runs.park(run, "queued", None, None)
    with pytest.raises(LeaseLost), runs.leased(lease):
        raise AssertionError("it got in")
    with runs.leased(begun(runs, run)) as connection:
        assert connection is not None


@pytest.mark.parametrize("told", [False, True])
def test_a_segment_that_lost_its_run_journals_no_effect(runs: RunStore, run: str, told: bool) -> None:
    """Neither an intent nor a request, whether the step was on record by then or not; so it sends nothing."""
    lost = begun(runs, run)
    runs.expect(lost, running("a"))
    if told:
        runs.tell(0)
    runs.park(run, "queued", None, None)
    with pytest.raises(LeaseLost):
        runs.intend(lost, "a", INTENT)
    assert runs.effects(run) == []

    holder = begun(runs, run)
    runs.intend(holder, "a", INTENT)
    with pytest.raises(LeaseLost):
        runs.add_call(lost, "a", {"method": "POST", "url": "https://x/close", "body": None})
    with pytest.raises(LeaseLost):
        runs.write_step(lost, replace(running("a"), status="failed"))
    with pytest.raises(LeaseLost):
        runs.end_step(lost, replace(running("a"), status="failed"), EffectEnd("failed"))
    assert [(one.status, one.calls) for one in runs.effects(run)] == [("intended", [])]
    assert list(audit.entries(runs.database)) == []
    assert [one.status for one in runs.steps(run)] == (["running"] if told else [])


def test_how_the_steps_ended_is_written_by_the_segment_that_holds_the_run(runs: RunStore, run: str) -> None:
    """One that lost it would send the other one past the steps that it is in."""
    lost = begun(runs, run)
    runs.park(run, "queued", None, None)
    holder = begun(runs, run)

    with pytest.raises(LeaseLost):
        runs.set_outcome(lost, "failed", "step a: too late")
    stored = runs.get(run)
    assert stored is not None
    assert (stored.outcome, stored.error) == (None, None)

    runs.set_outcome(holder, "succeeded", None)
    stored = runs.get(run)
    assert stored is not None
    assert stored.outcome == "succeeded"


def test_children_begin_by_turns_and_the_last_one_wakes_the_parent(runs: RunStore, run: str) -> None:
    """Two at once of three; the parent is a row meanwhile."""
    lease = begun(runs, run)
    parent = runs.get(run)
    assert parent is not None
    children = [NewChild(place, {"role": "element", "item": place}) for place in range(3)]
    with runs.leased(lease) as connection:
        spawn(connection, parent, "each", children, 2)
        runs.park_in(connection, lease, None, "step each")
    ids = [child_id(run, "each", place) for place in range(3)]
    assert [one for one, _ in runs.due(9)] == ids[:2]
    runs.end(ids[1], "failed", "no")
    assert [one for one, _ in runs.due(9)] == [ids[0], ids[2]]
    runs.end(ids[0], "succeeded", None)
    runs.end(ids[2], "succeeded", None)
    assert runs.due(9) == [(run, 2)]
    assert [one.status for one in children_of(runs, run, "each")] == ["succeeded", "failed", "succeeded"]


def test_cancelling_reaches_everything_inside(runs: RunStore, run: str) -> None:
    """What waits is woken to end, what is held ends, and the parent is woken by the last of them."""
    lease = begun(runs, run)
    parent = runs.get(run)
    assert parent is not None
    with runs.leased(lease) as connection:
        spawn(connection, parent, "each", [NewChild(n, {"role": "element"}) for n in range(3)], 1)
        runs.park_in(connection, lease, None, "step each")
    first = child_id(run, "each", 0)
    inner = begun(runs, first)
    with runs.leased(inner) as connection:
        runs.park_in(connection, inner, None, "an approval")
    with runs.database.write() as connection:
        assert cancel(connection, run, {"by": "soc"}) == 4
    assert runs.due(9) == [(first, 2)]
    assert [one.status for one in children_of(runs, run, "each")] == ["queued", "cancelled", "cancelled"]
    runs.end(first, "cancelled", None)
    assert runs.due(9) == [(run, 2)]


def test_an_insert_says_whether_the_row_was_there(runs: RunStore) -> None:
    """What depends on it: an entry of the audit log, a person's one answer."""
    row = {"hash": "h", "document": "{}"}
    with runs.database.write() as connection:
        counts = [connection.execute(insert_or_ignore(connection, snapshot), row).rowcount for _ in range(2)]
    assert counts == [1, 0]


def test_a_key_is_held_for_its_window(runs: RunStore) -> None:
    """The same run again is known, another one is suppressed, and after the window one begins."""

    def keyed(name: str) -> NewRun:
        return replace(RUN, id=f"r-{name}", run_key=name, once=OnceKey("ada", timedelta(hours=1)))

    assert add(runs, keyed("a"), keyed("b")) == ["r-a"]
    assert add(runs, keyed("a"), keyed("c")) == []
    with runs.database.write() as connection:
        assert runs.holders(connection, [keyed("a"), keyed("b"), keyed("c")]) == {"r-b": "r-a", "r-c": "r-a"}
        connection.exec_driver_sql("UPDATE cp_once SET opened = '2020-01-01T00:00:00.000000Z'")
    assert add(runs, keyed("d")) == ["r-d"]


def test_a_step_that_takes_long_is_told_before_it_ends(runs: RunStore, run: str) -> None:
    """Its row is written by whoever comes first: its end, its effect, or the clock."""
    lease = begun(runs, run)
    step = running("a")
    runs.expect(lease, step)
    runs.tell(60)
    assert runs.steps(run) == []
    runs.tell(0)
    assert [one.step_id for one in runs.steps(run)] == ["a"]
    runs.expect(lease, replace(step, step_id="b"))
    runs.intend(lease, "b", INTENT)
    assert [one.step_id for one in runs.steps(run)] == ["a", "b"]


def test_runs_are_found_by_entity_and_time(runs: RunStore, run: str) -> None:
    """Whom an effect touched, or what the event names."""
    runs.intend(begun(runs, run), "a", INTENT)

    def found(**rest: object) -> list[str]:
        return [one.id for one in runs.newest(playbook=None, status=None, limit=9, **rest)]  # type: ignore[arg-type]

    assert found(entity="t-1") == found(entity="ALERT-1") == [run]
    assert found(entity="bob") == found(since=now() + timedelta(hours=1)) == []
    assert found(until=now() + timedelta(hours=1)) == [run]


def test_however_many_runs_are_asked_for_the_open_ones_are_found(runs: RunStore, run: str) -> None:
    """More than one statement takes."""
    asked = [f"r-{number:024x}" for number in range(70_000)]

    assert runs.any_open([*asked, run]) == [run]
