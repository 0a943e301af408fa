"""Effects whose outcome nobody saw: beside the wire, broken off by a fault, or deadly."""

from __future__ import annotations

from typing import Any

import pytest

from counterplay.runtime.walk import DEATHS
from counterplay.store.runs import LeaseLost, RunStore

EVENT = b'{"id": "e1"}'


def press(bench: Any, settle: str) -> Any:
    step = {"id": "press", "uses": "lab.press", "with": {"what": settle}}
    return bench.playbook("respond", trigger={"uses": "lab.source"}, steps=[step])


def stopped(bench: Any, attempts: int = 0) -> str:
    """The store as a process leaves it that ended inside the action, `attempts` times before, too."""
    (run,) = bench.runs()
    with bench.store() as database:
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE cp_effect SET status='intended', result=NULL, ended=NULL")
            connection.exec_driver_sql("UPDATE cp_step SET status='running', result=NULL, ended=NULL")
            connection.exec_driver_sql(
                "UPDATE cp_run SET status='running', outcome=NULL, error=NULL, ended=NULL, segment=segment+1"
            )
        runs = RunStore(database)
        for number in range(attempts):
            (row,) = runs.steps(run.id)
            with database.write() as connection:
                runs.put_attempt(connection, run.id, row, "interrupted", "the process ended")
                connection.exec_driver_sql("UPDATE cp_step SET attempts=?", (number + 2,))
    return str(run.id)


@pytest.mark.parametrize(
    ("settle", "times", "status", "code"),
    [("read", 0, "done", 0), ("repeat", 1, "done", 0), ("ask", 0, "unknown", 1)],
)
def test_an_effect_beside_the_wire_is_settled_as_it_declares(
    bench, lab, settle: str, times: int, status: str, code: int
) -> None:
    """No request is on record, and still nothing is done twice that was not declared harmless."""
    playbook = press(bench, settle)
    bench.run(playbook, events=[EVENT])
    run = stopped(bench)
    before = len(lab.acted)
    assert bench.run(playbook).exit_code == code
    assert [one.status for one in bench.effects(run)] == [status]
    assert len(lab.acted) - before == times
    if settle == "ask":
        assert "no request is on record" in bench.steps(run)["press"].error


@pytest.mark.parametrize("fault", [KeyError("id"), SystemExit(3)])
@pytest.mark.parametrize(("settle", "status"), [("ask", "unknown"), ("repeat", "unknown"), ("read", "done")])
def test_a_fault_of_the_plugin_leaves_its_effect_open_to_question(
    bench, lab, fault: BaseException, settle: str, status: str
) -> None:
    """It may have acted before it broke off, so the journal does not say that nothing happened."""

    def broken(_context: Any, _arguments: Any) -> Any:
        raise fault

    lab.act = broken
    bench.run(press(bench, settle), events=[EVENT])
    (run,) = bench.runs()
    assert [one.status for one in bench.effects(run.id)] == [status]
    assert run.status == ("succeeded" if status == "done" else "failed")


@pytest.mark.parametrize(
    ("uses", "result", "place"),
    [
        ("lab.act", {"count": "seven"}, "result.count"),
        ("lab.press", {"count": "seven"}, "result.count"),
        ("lab.act", ["seven"], "it returned list, not a JSON object"),
    ],
)
def test_a_result_that_breaks_its_schema_fails_the_step(
    bench, lab, uses: str, result: Any, place: str
) -> None:
    """The error names the module, the member and whom to tell; an effect of it is open to question."""
    lab.act = lambda _context, _arguments: result
    step = {"id": "push", "uses": uses, "with": {"what": "ask"}}
    behind = {"uses": "lab.act", "with": {"what": "behind"}}
    playbook = bench.playbook("respond", trigger={"uses": "lab.source"}, steps=[step, behind])

    assert bench.run(playbook, events=[EVENT]).exit_code == 1

    (run,) = bench.runs()
    found = bench.steps(run.id)["push"]
    assert (found.status, found.attempts, found.result) == ("failed", 1, None)
    assert found.error.startswith(f"{uses}: ")
    assert place in found.error
    assert "this is a fault of the plugin: update " in found.error
    assert found.error.endswith(", or report it to its authors")
    assert lab.acted == ["ask"]
    assert [one.status for one in bench.effects(run.id)] == (["unknown"] if uses == "lab.press" else [])


@pytest.mark.parametrize("when", ["after a stop", "after a fault"])
def test_what_is_read_back_is_held_to_the_schema_like_any_result(bench, lab, when: str) -> None:
    """The effect took place, but what the plugin says about it is not passed on to other steps."""
    playbook = press(bench, "read")
    if when == "after a fault":

        def broken(_context: Any, _arguments: Any) -> Any:
            raise KeyError("id")

        lab.act = broken
        lab.read_back = {"count": "seven"}
    assert bench.run(playbook, events=[EVENT]).exit_code == (1 if when == "after a fault" else 0)
    (run,) = bench.runs()
    if when == "after a stop":
        stopped(bench)
        lab.read_back = {"count": "seven"}
        assert bench.run(playbook).exit_code == 1

    found = bench.steps(run.id)["press"]
    assert (found.status, found.result) == ("failed", None)
    assert found.error.startswith("lab.press: what it returned is not what its schema says: result.count")
    assert [one.status for one in bench.effects(run.id)] == ["unknown"]
    assert lab.acted == ["read"]


def test_a_worker_that_lost_its_run_in_the_middle_of_an_effect_sends_nothing_more(bench, lab, acme) -> None:
    """The request is journalled under the lease before it is sent, so it is neither journalled nor sent."""
    lost: list[BaseException] = []

    def slow(context: Any, _arguments: Any) -> Any:
        if len(lab.acted) == 1:  # meanwhile another worker took the run for a dead one's
            with bench.store() as database:
                RunStore(database).park(context.run_id, "queued", None, None)
            try:
                context.http.post(f"{acme.base_url}/tickets/T-1/close")
            except BaseException as error:
                lost.append(error)
                raise
        return {}

    lab.act = slow
    bench.run(press(bench, "repeat"), events=[EVENT])

    assert [type(one) for one in lost] == [LeaseLost]
    assert acme.calls == []
    (run,) = bench.runs()
    assert run.status == "succeeded"  # whoever took it went on
    assert [(one.status, one.calls) for one in bench.effects(run.id)] == [("done", [])]
    assert lab.acted == ["repeat", "repeat"]


def test_a_step_that_ends_the_process_again_and_again_is_given_up(bench, lab) -> None:
    """One plugin does not keep every other run of the workspace from working."""
    playbook = press(bench, "repeat")
    bench.run(playbook, events=[EVENT])
    run = stopped(bench, attempts=DEATHS)
    before = len(lab.acted)
    assert bench.run(playbook).exit_code == 1
    assert lab.acted[before:] == []
    assert [one.status for one in bench.effects(run)] == ["unknown"]
    assert bench.steps(run)["press"].error == (
        f"the process ended in the middle of {DEATHS} attempts, so there is no further one"
    )
