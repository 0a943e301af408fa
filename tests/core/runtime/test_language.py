"""Whole sessions of every form of the language: what runs, in which order, and what a failure does."""

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from counterplay import PermanentError, RetryableError
from counterplay.clock import now
from counterplay.errors import StateError
from counterplay.runtime.approvals import Approvals, RefusedAnswer
from counterplay.store.approvals import ApprovalStore

EVENT = b'{"id": "e1", "users": ["ada", "bob", "eve"]}'


def say(step: str, what: str = "", **rest: Any) -> dict[str, Any]:
    return {"id": step, "uses": "lab.act", "with": {"what": what or step}, **rest}


def act(bench: Any, *steps: Any, **rest: Any) -> Any:
    return bench.playbook("respond", **{"trigger": {"uses": "lab.source"}, "steps": list(steps)} | rest)


def fails(*names: str, times: int = 10**6, error: type[Exception] = PermanentError) -> Any:
    """What the lab does: these fail so many times, the others echo."""
    left = Counter(dict.fromkeys(names, times))

    def acts(_context: Any, arguments: Any) -> Any:
        if left[arguments["what"]] > 0:
            left[arguments["what"]] -= 1
            raise error("503: not now")
        return {"echo": arguments}

    return acts


def whole(bench: Any) -> Any:
    """The one run that is no part of another."""
    (run,) = [one for one in bench.runs() if one.parent is None]
    return run


def statuses(bench: Any, run: str) -> dict[str, str]:
    return {name: one.status for name, one in bench.steps(run).items()}


def answer(bench: Any, decision: Any, person: str = "soc@desk", **rest: Any) -> Any:
    """Answer the one question that is open."""
    with bench.store() as database:
        approvals = Approvals(ApprovalStore(database))
        (one,) = approvals.store.listed("open")
        return approvals.answer(one.id, decision, person=person, source="command", **rest)


# --- groups, errors, finally -----------------------------------------------------------------------


def test_a_group_runs_in_order_and_its_condition_covers_all_of_it(bench, lab) -> None:
    """Its steps can be named afterwards; a group that is skipped runs none of them."""
    steps = [
        {"id": "yes", "steps": [say("a"), say("b", "{{ steps.a.result.echo.what }}b")]},
        {"id": "no", "when": "event.gone == 1", "steps": [say("c")]},
        say("d", "{{ steps.b.result.echo.what }}d"),
    ]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    assert lab.acted == ["a", "ab", "abd"]
    assert statuses(bench, whole(bench).id) == {
        "yes": "succeeded", "a": "succeeded", "b": "succeeded", "no": "skipped", "d": "succeeded",
    }  # fmt: skip


def test_steps_under_on_error_see_the_error_and_the_run_goes_on(bench, lab) -> None:
    """The failed step stays failed, and what handles it knows why."""
    lab.act = fails("bad")
    handler = [say("mend", "{{ error.step }}: {{ error.message }}")]
    steps = [{"id": "g", "steps": [say("bad"), say("never")], "on_error": handler}, say("after")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    assert lab.acted == ["bad", "g: 503: not now", "after"]
    assert statuses(bench, whole(bench).id)["g"] == "failed"


def test_an_error_in_what_handles_an_error_stops_the_run(bench, lab) -> None:
    """The message is that of the last one."""
    lab.act = fails("bad", "worse")
    step = say("bad", on_error=[say("worse"), say("never")])
    assert bench.run(act(bench, step, say("after")), events=[EVENT]).exit_code == 1
    assert lab.acted == ["bad", "worse"]
    assert whole(bench).error == "step worse: 503: not now"


@pytest.mark.parametrize(
    ("last", "code", "status", "acted"),
    [
        (say("bad"), 1, "failed", ["bad", "failed"]),
        ({"uses": "std.stop", "with": {"reason": "enough"}}, 0, "succeeded", ["succeeded"]),
        ({"uses": "std.stop", "with": {"status": "failed", "reason": "enough"}}, 1, "failed", ["failed"]),
        (say("good"), 0, "succeeded", ["good", "succeeded"]),
    ],
)
def test_finally_runs_however_the_run_ends(
    bench, lab, last: Any, code: int, status: str, acted: list[str]
) -> None:
    """It sees how the run ended; what stands behind a stop does not run."""
    lab.act = fails("bad")
    steps = [last, say("behind", when=f"{status!r} == 'never'")]
    sinks = [{"uses": "lab.store", "with": {"to": "report"}}]
    playbook = act(bench, *steps, **{"finally": [say("tidy", "{{ run.status }}")], "sinks": sinks})
    assert bench.run(playbook, events=[EVENT]).exit_code == code
    assert lab.acted == acted
    assert whole(bench).status == status
    (record,) = [json.loads(raw) for raw in lab.taken["report"]]
    assert (record["status"], record["steps"]["tidy"]["status"]) == (status, "succeeded")


def test_a_failure_in_finally_fails_the_run_and_hides_no_earlier_one(bench, lab) -> None:
    """Both stand in the run's error."""
    lab.act = fails("bad", "tidy")
    assert bench.run(act(bench, say("bad"), **{"finally": [say("tidy")]}), events=[EVENT]).exit_code == 1
    assert whole(bench).error == "step bad: 503: not now; finally: step tidy: 503: not now"


def test_a_sink_may_stand_among_the_steps(bench, lab) -> None:
    """It delivers the run as far as it is; what follows sees the receipts."""
    sink = {"id": "tell", "uses": "lab.store", "with": {"to": "{{ event.id }}"}}
    steps = [say("a"), sink, say("b", "{{ steps.tell.result.receipts[0] }}")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    (record,) = [json.loads(raw) for raw in lab.taken["e1"]]
    assert (record["status"], list(record["steps"]), lab.acted) == ("running", ["a"], ["a", "e1-1"])


def test_a_transform_behind_the_first_run_step_maps_the_event(bench, lab) -> None:
    """Its result is the event as it made it; one that drops the event is skipped."""
    steps = [
        say("a"),
        {"id": "t", "uses": "std.pick", "with": {"keep": ["id"]}},
        say("b", "{{ steps.t.result.id }}"),
    ]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    assert lab.acted == ["a", "e1"]


# --- retries, timeouts, waits ------------------------------------------------------------------------


def test_a_passing_failure_is_tried_again_and_every_attempt_is_on_record(bench, lab) -> None:
    """Two failures, then success; a failure that does not pass is not tried again."""
    lab.act = fails("flaky", times=2, error=RetryableError)
    retry = {"attempts": 5, "backoff": "1ms"}
    assert bench.run(act(bench, say("flaky", retry=retry)), events=[EVENT]).exit_code == 0
    run = whole(bench)
    assert bench.rows("SELECT number, status, error FROM cp_attempt ORDER BY number") == [
        (1, "failed", "503: not now"),
        (2, "failed", "503: not now"),
    ]
    assert (bench.steps(run.id)["flaky"].attempts, lab.acted) == (3, ["flaky"] * 3)


@pytest.mark.parametrize(("error", "attempts"), [(RetryableError, 3), (PermanentError, 1)])
def test_retries_end_and_are_for_passing_failures_only(bench, lab, error: Any, attempts: int) -> None:
    """`attempts` counts all of them, the first one too."""
    lab.act = fails("bad", error=error)
    retry = {"attempts": 3, "backoff": "1ms"}
    assert bench.run(act(bench, say("bad", retry=retry)), events=[EVENT]).exit_code == 1
    assert lab.acted == ["bad"] * attempts


def test_a_group_that_is_tried_again_repeats_nothing_that_succeeded(bench, lab) -> None:
    """It goes on at the step that failed."""
    lab.act = fails("b", times=2, error=RetryableError)
    group = {"id": "g", "steps": [say("a"), say("b"), say("c")], "retry": {"attempts": 3, "backoff": "1ms"}}
    assert bench.run(act(bench, group), events=[EVENT]).exit_code == 0
    assert lab.acted == ["a", "b", "b", "b", "c"]
    assert bench.steps(whole(bench).id)["g"].attempts == 3


def test_a_long_back_off_is_a_parked_row_that_the_next_session_keeps(bench, lab, monkeypatch) -> None:
    """No thread waits, and the attempt before it is not repeated."""
    lab.act = fails("flaky", times=1, error=RetryableError)
    playbook = act(bench, say("flaky", retry={"attempts": 2, "backoff": "2h", "max_backoff": "2h"}))
    assert bench.run(playbook, events=[EVENT]).exit_code == 3
    run = whole(bench)
    assert run.status == "waiting"
    assert bench.run(playbook).exit_code == 3
    assert lab.acted == ["flaky"]
    with bench.store() as database, database.write() as connection:  # two hours pass
        connection.exec_driver_sql("UPDATE cp_run SET wake='2020'")
        connection.exec_driver_sql("UPDATE cp_step SET due='2020-01-01T00:00:00.000000Z'")
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["flaky", "flaky"]


def test_a_step_that_does_not_end_is_given_up_at_its_timeout(bench, lab, acme) -> None:
    """The run goes on without it, and what it wants to send then is refused."""
    said: list[str] = []
    released = threading.Event()

    def hangs(context: Any, arguments: Any) -> Any:
        if arguments["what"] == "hang":
            released.wait(10)
            try:
                context.http.get(f"{acme.base_url}/exports")
            except PermanentError as error:
                said.append(str(error))
        return {}

    lab.act = hangs
    steps = [say("hang", timeout="100ms", on_error="continue"), say("after")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    released.set()
    assert bench.steps(whole(bench).id)["hang"].error == (
        "timed out after 0.1 s: it did not come to an end in its time"
    )
    for _ in range(200):
        if said:
            break
        time.sleep(0.01)
    assert said == ["the step was given up at its timeout, and may send nothing more"]
    assert acme.calls == []


def test_a_timeout_counts_attempts_and_waits_together(bench, lab) -> None:
    """The next attempt would begin after it: the step ends now, with the last failure's reason."""
    lab.act = fails("bad", error=RetryableError)
    step = say("bad", timeout="30s", retry={"attempts": 9, "backoff": "1h", "max_backoff": "1h"})
    assert bench.run(act(bench, step), events=[EVENT]).exit_code == 1
    assert (lab.acted, whole(bench).error) == (["bad"], "step bad: 503: not now")


def test_a_group_ends_at_its_timeout(bench, lab) -> None:
    """A step that has not begun by then does not begin."""
    lab.act = lambda _context, _arguments: time.sleep(0.15) or {}
    group = {"id": "g", "timeout": "100ms", "steps": [say("slow"), say("never")], "on_error": "continue"}
    assert bench.run(act(bench, group, say("after")), events=[EVENT]).exit_code == 0
    assert lab.acted == ["slow", "after"]


def test_a_short_wait_holds_its_place_and_a_long_one_is_a_row(bench, lab) -> None:
    """The long one is over when its time has come, whatever process sees it."""
    playbook = act(
        bench,
        {"uses": "std.wait", "with": {"duration": "20ms"}},
        say("a"),
        {"id": "long", "uses": "std.wait", "with": {"duration": "3h"}},
        say("b"),
    )
    assert bench.run(playbook, events=[EVENT]).exit_code == 3
    assert (whole(bench).status, lab.acted) == ("waiting", ["a"])
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET wake='2020'")
        connection.exec_driver_sql(
            "UPDATE cp_step SET due='2020-01-01T00:00:00.000000Z' WHERE step_id='long'"
        )
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["a", "b"]


# --- branches, loops, calls --------------------------------------------------------------------------


def test_branches_run_side_by_side_and_what_follows_sees_them(bench, lab) -> None:
    """Both are at work at the same time; each sees what stood before."""
    together = threading.Barrier(2, timeout=10)

    def meet(_context: Any, arguments: Any) -> Any:
        if arguments["what"].startswith("b-"):
            together.wait()
        return {"echo": arguments}

    lab.act = meet
    branches = [say("one", "b-{{ steps.first.result.echo.what }}"), {"id": "g", "steps": [say("two", "b-2")]}]
    steps = [
        say("first"),
        {"parallel": branches},
        say("last", "! {{ steps.one.result.echo.what }} {{ steps.two.status }}"),
    ]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    assert sorted(lab.acted) == ["! b-first succeeded", "b-2", "b-first", "first"]


def test_a_branch_that_fails_fails_the_step_after_the_others_ended(bench, lab) -> None:
    """No branch is left half done."""
    lab.act = fails("bad")
    steps = [{"id": "both", "parallel": [say("bad"), say("good")]}, say("never")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 1
    assert sorted(lab.acted) == ["bad", "good"]
    run = whole(bench)
    assert run.error == f"{run.id}/both/0 (respond): step bad: 503: not now"


def test_only_the_branch_that_failed_is_tried_again(bench, lab) -> None:
    """The others have done their part."""
    lab.act = fails("bad", times=1, error=RetryableError)
    step = {"parallel": [say("bad"), say("good")], "retry": {"attempts": 2, "backoff": "1ms"}}
    assert bench.run(act(bench, step), events=[EVENT]).exit_code == 0
    assert Counter(lab.acted) == {"bad": 2, "good": 1}


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_loop_runs_for_each_element_so_many_at_once(bench, lab, at_once: int) -> None:
    """`item` is the element; the result is the list of the elements' results, in order."""
    working: list[int] = []
    most: list[int] = []
    guard = threading.Lock()

    def count(_context: Any, arguments: Any) -> Any:
        with guard:
            working.append(1)
            most.append(len(working))
        time.sleep(0.03)
        with guard:
            working.pop()
        return {"echo": arguments}

    lab.act = count
    loop = say("each", "{{ item }}", for_each="event.users", when="item != 'bob'", max_parallel=at_once)
    last = say("last", "! {{ steps.each.result[2].echo.what }} {{ steps.each.result | length }}")
    assert bench.run(act(bench, loop, last), events=[EVENT]).exit_code == 0
    assert sorted(lab.acted) == ["! eve 3", "ada", "eve"]
    assert max(most) <= at_once


def test_each_element_has_its_own_retries_and_errors(bench, lab) -> None:
    """One that fails is handled for itself; the others are not concerned."""
    lab.act = fails("bob")
    loop = say("each", "{{ item }}", for_each="event.users", on_error=[say("mend", "mend {{ item }}")])
    assert bench.run(act(bench, loop), events=[EVENT]).exit_code == 0
    assert lab.acted == ["ada", "bob", "mend bob", "eve"]


def test_a_loop_in_a_loop_in_a_branch(bench, lab) -> None:
    """Runs inside runs: no slot is held by who waits."""
    inner = {
        "id": "inner",
        "for_each": "event.users",
        "max_parallel": 3,
        "steps": [say("deep", "{{ item }}")],
    }
    outer = {
        "id": "outer",
        "for_each": "[1, 2, 3, 4]",
        "max_parallel": 4,
        "steps": [{"parallel": [inner, say("side")]}],
    }
    assert bench.run(act(bench, outer, say("end")), events=[EVENT]).exit_code == 0
    assert Counter(lab.acted) == {"ada": 4, "bob": 4, "eve": 4, "side": 4, "end": 1}


def test_what_is_no_list_fails_the_step(bench, lab) -> None:
    """With the fact; an empty list is no failure."""
    steps = [say("none", for_each="[]"), say("bad", for_each="event.id")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 1
    assert whole(bench).error == "step bad: for_each gives str, not a list"


def test_a_stop_inside_a_loop_ends_the_whole_run(bench, lab) -> None:
    """What has not begun does not begin."""
    stop = {"uses": "std.stop", "when": "item == 'bob'", "with": {"reason": "it is bob"}}
    loop = {"for_each": "event.users", "steps": [say("a", "{{ item }}"), stop]}
    assert bench.run(act(bench, loop, say("never")), events=[EVENT]).exit_code == 0
    assert lab.acted == ["ada", "bob"]
    assert whole(bench).status == "succeeded"


HALT = {"id": "halt", "uses": "std.stop", "with": {"status": "failed", "reason": "enough"}}


@pytest.mark.parametrize(
    "last", [HALT, {"for_each": "[1, 2]", **HALT}, {"parallel": [HALT, say("beside")]}], ids=str
)
def test_no_crash_lets_a_run_go_on_behind_its_stop(bench, lab, last: Any) -> None:
    """Cut off between the step that stopped it and its outcome: `finally` runs, what is behind does not."""
    lab.act = lambda _context, _arguments: {}
    bench.run(act(bench, say("first")), events=[b'{"id": "other", "users": []}'])
    playbook = act(bench, last, say("behind"), **{"finally": [say("tidy")]})
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER cut BEFORE UPDATE OF outcome ON cp_run "
            "WHEN NEW.outcome IS NOT NULL AND NEW.parent IS NULL "
            "BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
        )
    with pytest.raises(StateError):
        bench.run(playbook, events=[EVENT])
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER cut")

    assert bench.run(playbook).exit_code == 1

    assert [one for one in lab.acted if one != "beside"] == ["first", "tidy"]
    (run,) = [one for one in bench.runs() if one.parent is None and one.status == "failed"]
    assert run.error == "step halt: it stopped the run: enough"


def test_a_playbook_is_called_with_inputs_and_its_result_is_seen(bench, lab) -> None:
    """It is a run of its own with sinks of its own; the snapshot is taken when the step begins."""
    bench.root.mkdir()
    (bench.root / "playbooks").mkdir()
    (bench.root / "playbooks" / "inner.yaml").write_text(
        "name: inner\ndescription: x\ninputs: {who: {type: string}}\ntrigger: {uses: lab.source}\n"
        "steps: [{id: in, uses: lab.act, with: {what: '{{ inputs.who }} {{ event.id }}'}}]\n"
        "sinks: [{uses: lab.store, with: {to: inner}}]\n"
    )
    call = {
        "id": "call",
        "uses": "std.run_playbook",
        "with": {"playbook": "inner", "inputs": {"who": "{{ event.users[0] }}"}},
    }
    steps = [call, say("after", "{{ steps.call.result.steps.in.result.echo.what }}!")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 0
    assert lab.acted == ["ada e1", "ada e1!"]
    (record,) = [json.loads(raw) for raw in lab.taken["inner"]]
    assert record["run"] == f"{whole(bench).id}/call/0"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"playbook": "gone"}, "no playbook is called 'gone'"),
        ({"playbook": "inner"}, "the playbook inner needs the input 'who'"),
        ({"playbook": "inner", "inputs": {"who": 3}}, "the input 'who' of inner: this has to be a text"),
        ({"playbook": "inner", "inputs": {"x": 3}}, "the playbook inner has no input 'x'"),
    ],
)
def test_a_call_that_cannot_be_made_fails_its_step(bench, lab, arguments: Any, reason: str) -> None:
    """With what is wrong."""
    bench.root.mkdir()
    (bench.root / "playbooks").mkdir()
    (bench.root / "playbooks" / "inner.yaml").write_text(
        "name: inner\ndescription: x\ninputs: {who: {type: string}}\ntrigger: {uses: lab.source}\nsteps: []\n"
    )
    call = {"id": "call", "uses": "std.run_playbook", "with": arguments}
    assert bench.run(act(bench, call), events=[EVENT]).exit_code == 1
    assert reason in whole(bench).error


def nested(bench: Any) -> None:
    """`outer` calls `middle` twice in a loop, which calls `inner`, which fails at its step `bad`."""
    (bench.root / "playbooks").mkdir(parents=True)
    head = "description: x\ntrigger: {uses: lab.source}\nsteps:\n"
    (bench.root / "playbooks" / "inner.yaml").write_text(
        f"name: inner\n{head}  - {{id: bad, uses: lab.act, with: {{what: bad}}}}\n"
    )
    (bench.root / "playbooks" / "middle.yaml").write_text(
        f"name: middle\n{head}  - {{id: deeper, uses: std.run_playbook, with: {{playbook: inner}}}}\n"
    )


def test_an_error_deep_inside_names_its_place_once(bench, lab) -> None:
    """Every run and step around it says the same line, and none puts its own place before it."""
    nested(bench)
    lab.act = fails("bad")
    call = {"id": "call", "uses": "std.run_playbook", "with": {"playbook": "middle"}}
    steps = [{"id": "both", "parallel": [{"id": "group", "steps": [call]}, say("good")]}]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 1

    run = whole(bench)

    line = f"{run.id}/both/0/call/0/deeper/0 (inner): step bad: 503: not now"
    errors = {one.id: one.error for one in bench.runs() if one.error}
    assert errors == {
        run.id: line,
        f"{run.id}/both/0": line,
        f"{run.id}/both/0/call/0": line,
        f"{run.id}/both/0/call/0/deeper/0": "step bad: 503: not now",
    }


def test_how_many_failed_is_said_of_the_step_in_which_they_did(bench, lab) -> None:
    """Loops inside each other each count their own."""
    nested(bench)
    lab.act = fails("bad")
    call = {"id": "call", "uses": "std.run_playbook", "with": {"playbook": "middle"}}
    loop = {"id": "loop", "for_each": "[1, 2, 3]", "steps": [{**call, "for_each": "[1, 2]"}]}
    assert bench.run(act(bench, loop), events=[EVENT]).exit_code == 1

    run = whole(bench)

    assert run.error == (
        f"{run.id}/loop/0/call/0/call/0/deeper/0 (inner): step bad: 503: not now "
        "(and 1 more of 2 failed in step call) (and 2 more of 3 failed in step loop)"
    )


# --- approvals ---------------------------------------------------------------------------------------


ASK = {"id": "ask", "uses": "std.approval", "with": {"question": "Block {{ event.users[0] }}?"}}


def test_what_waits_in_other_playbooks_is_told_and_no_matter_of_the_exit_code(bench, lab) -> None:
    """A job that runs one playbook each hour does not fail for a question that another one asks."""
    assert bench.run(act(bench, ASK), events=[EVENT]).exit_code == 3
    another = act(bench, say("a"), trigger={"uses": "lab.source"})

    ended = bench.run(replace(another, name="another"))

    assert (ended.exit_code, ended.figures["runs_waiting"], ended.runs["waiting"]) == (0, 0, [])
    assert ended.notices["runs of other playbooks"] == (
        "1 run of another playbook waits (respond): `playbook runs list`"
    )


@pytest.mark.parametrize(("decision", "approved"), [("approve", True), ("deny", False)])
def test_a_question_waits_as_a_row_and_its_answer_is_seen(bench, lab, decision: str, approved: bool) -> None:
    """Who, from where, when and on which question is on record; editing the playbook touches nothing."""
    steps = [say("a"), ASK, say("b", "{{ steps.ask.result.approved }} by {{ steps.ask.result.by[0] }}")]
    assert bench.run(act(bench, *steps), events=[EVENT]).exit_code == 3
    assert (whole(bench).status, lab.acted) == ("waiting", ["a"])
    edited = act(bench, say("edited"))
    assert bench.run(edited).exit_code == 3
    before = now()
    answer(bench, decision, comment="because")
    assert bench.run(edited).exit_code == 0
    assert lab.acted == ["a", f"{'true' if approved else 'false'} by soc@desk"]
    ((person, source, question, comment, at),) = bench.rows(
        "SELECT person, source, question, comment, at FROM cp_answer"
    )
    assert (person, source, question, comment) == ("soc@desk", "command", "Block ada?", "because")
    assert at >= before.strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    ("on_timeout", "code", "acted"), [("deny", 0, ["is false"]), ("approve", 0, ["is true"]), ("fail", 1, [])]
)
def test_nobody_answers_in_time(bench, lab, on_timeout: str, code: int, acted: list[str]) -> None:
    """The default decides, and the result says that it did."""
    ask = {**ASK, "with": {"question": "?", "timeout": "30ms", "on_timeout": on_timeout}}
    ended = bench.run(act(bench, ask, say("b", "is {{ steps.ask.result.approved }}")), events=[EVENT])
    assert (ended.exit_code, lab.acted) == (code, acted)
    if code == 0:
        assert bench.steps(whole(bench).id)["ask"].result["timed_out"] is True


def test_two_people_are_two_and_neither_is_who_started(bench, lab) -> None:
    """The same person twice, and the starter, are refused; one who denies would decide."""
    from counterplay.people import this_person

    ask = {**ASK, "with": {"question": "?", "people": 2}}
    assert bench.run(act(bench, ask, say("b")), events=[EVENT]).exit_code == 3
    with pytest.raises(RefusedAnswer, match="started the run"):
        answer(bench, "approve", this_person())
    answer(bench, "approve", "one@desk")
    with pytest.raises(RefusedAnswer, match="has answered already"):
        answer(bench, "approve", "one@desk")
    assert bench.run(act(bench, ask)).exit_code == 3
    assert answer(bench, "approve", "two@desk").status == "approved"
    assert bench.run(act(bench, ask)).exit_code == 0
    assert bench.steps(whole(bench).id)["ask"].result["by"] == ["one@desk", "two@desk"]


def test_an_answer_fits_the_form_and_later_steps_see_it(bench, lab) -> None:
    """One that does not fit changes nothing."""
    form = {"type": "object", "required": ["ticket"], "properties": {"ticket": {"type": "string"}}}
    ask = {**ASK, "with": {"question": "?", "form": form}}
    playbook = act(bench, ask, say("b", "{{ steps.ask.result.answers.ticket }}"))
    assert bench.run(playbook, events=[EVENT]).exit_code == 3
    with pytest.raises(RefusedAnswer, match="'ticket' is missing"):
        answer(bench, "approve", form={})
    answer(bench, "approve", form={"ticket": "T-9"})
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["T-9"]


def test_approvals_in_a_loop_wait_side_by_side(bench, lab) -> None:
    """Questions hold nothing; each answer wakes its own."""
    ask = {**ASK, "with": {"question": "{{ item }}?"}}
    loop = {"id": "l", "for_each": "event.users", "max_parallel": 9, "steps": [ask, say("b", "{{ item }}")]}
    playbook = act(bench, loop, say("end"))
    assert bench.run(playbook, events=[EVENT]).exit_code == 3
    with bench.store() as database:
        approvals = Approvals(ApprovalStore(database))
        questions = approvals.store.listed("open")
        assert sorted(one.question for one in questions) == ["ada?", "bob?", "eve?"]
        for one in questions:
            approvals.answer(one.id, "approve", person="soc", source="test")
    assert bench.run(playbook).exit_code == 0
    assert sorted(lab.acted) == ["ada", "bob", "end", "eve"]


def test_a_link_is_good_once_for_one_person_and_by_post_only(bench, lab) -> None:
    """A mail program that opens it decides nothing; only the token's hash is kept."""
    playbook = act(bench, ASK, say("b"))
    assert bench.run(playbook, events=[EVENT]).exit_code == 3
    with bench.store() as database:
        approvals = Approvals(ApprovalStore(database))
        (one,) = approvals.store.listed("open")
        secret = approvals.link(one.id, "ada@contoso.example")
        with pytest.raises(RefusedAnswer, match="by POST only"):
            approvals.by_link("GET", secret, "approve", source="192.0.2.7")
        with pytest.raises(RefusedAnswer, match="never was one"):
            approvals.by_link("POST", secret + "x", "approve", source="192.0.2.7")
        after = approvals.by_link("POST", secret, "approve", source="192.0.2.7", comment="ok")
        assert (after.status, after.answers[0].person, after.answers[0].source) == (
            "approved", "ada@contoso.example", "192.0.2.7",
        )  # fmt: skip
        with pytest.raises(RefusedAnswer, match="was used"):
            approvals.by_link("POST", secret, "deny", source="192.0.2.7")
    assert secret.encode() not in (bench.root / ".counterplay" / "state.db").read_bytes()
    assert bench.run(playbook).exit_code == 0


def test_a_link_that_expired_is_refused(bench, lab) -> None:
    """Its time is that of the question, and a day at most."""
    assert bench.run(act(bench, ASK), events=[EVENT]).exit_code == 3
    with bench.store() as database:
        approvals = Approvals(ApprovalStore(database))
        (one,) = approvals.store.listed("open")
        secret = approvals.link(one.id, "ada")
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE cp_token SET expires='2020'")
        with pytest.raises(RefusedAnswer, match="has expired"):
            approvals.by_link("POST", secret, "approve", source="x")


# --- which events start runs -------------------------------------------------------------------------


def once(bench: Any, key: str = "{{ event.user }}", window: str = "1h", **rest: Any) -> Any:
    return act(bench, say("a", "{{ event.id }}"), once_per={"key": key, "window": window}, **rest)


def test_a_key_starts_one_run_within_its_window(bench, lab, put) -> None:
    """Events of one unit and of later ones; each that is suppressed is counted and names the holder."""
    put("u1", b'[{"id": "1", "user": "ada"}, {"id": "2", "user": "ada"}, {"id": "3", "user": "bob"}]')
    ended = bench.run(once(bench))
    assert (sorted(lab.acted), ended.figures["runs_suppressed"]) == (["1", "3"], 1)
    put("u2", b'[{"id": "4", "user": "ada"}]', minutes_ago=5)
    ended = bench.run(once(bench))
    assert (sorted(lab.acted), ended.figures["runs_suppressed"]) == (["1", "3"], 1)
    ((holder,),) = bench.rows("SELECT run_id FROM cp_once WHERE key = 'ada'")
    account = bench.rows(
        "SELECT sum(events), sum(runs), sum(suppressed), sum(known), sum(delivered + a.duplicates + filtered)"
        " FROM cp_acknowledgement a JOIN cp_unit ON cp_unit.id = unit_id"
    )
    assert account == [(4, 2, 2, 0, 0)]
    assert bench.rows("SELECT key, run_key, run_id FROM cp_suppressed ORDER BY run_key") == [
        ("ada", "2", holder),
        ("ada", "4", holder),
    ]
    assert any(holder in text for text in ended.notices.values())


def test_the_window_opens_once_and_does_not_slide(bench, lab, put) -> None:
    """When it is over the next event starts a run, and opens it again; a failed run counts."""
    lab.act = fails("1")
    put("u1", b'[{"id": "1", "user": "ada"}, {"id": "2", "user": "ada"}]')
    assert bench.run(once(bench)).exit_code == 1
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_once SET opened = '2020-01-01T00:00:00.000000Z'")
    put("u2", b'[{"id": "3", "user": "ada"}, {"id": "4", "user": "ada"}]', minutes_ago=5)
    bench.run(once(bench))
    assert lab.acted == ["1", "3"]


@pytest.mark.parametrize("key", ["{{ event.gone }}", "{{ event.empty }}", "{{ event.user / 0 }}"])
def test_a_key_that_is_empty_or_fails_puts_the_event_aside(bench, lab, put, key: str) -> None:
    """It starts no run and is kept with the reason; the others go on."""
    put("u1", b'[{"id": "1", "user": "ada", "empty": ""}]')
    assert bench.run(once(bench, key)).exit_code == 1
    assert lab.acted == []
    ((reason, body),) = bench.rows("SELECT reason, body FROM cp_dead_letter")
    assert "once_per.key" in reason
    assert json.loads(body)["id"] == "1"


def test_updates_start_runs_where_the_trigger_says_so(bench, lab, put) -> None:
    """A later delivery of the same occurrence; by default it starts none."""
    put("u1", b'[{"id": "1", "run": "k"}, {"id": "2", "run": "k"}, {"id": "2", "run": "k"}]')
    updates = act(bench, say("a", "{{ event.id }}"), trigger={"uses": "lab.source", "on": "updates"})
    assert bench.run(updates).exit_code == 0
    assert sorted(lab.acted) == ["1", "2"]
