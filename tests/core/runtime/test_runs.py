"""Whole sessions of playbooks that act: runs, steps, effects and outcome records."""

import base64
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterplay import BlockedError, ConfigError, PermanentError, RetryableError, hookimpl
from counterplay.clock import now, to_text
from counterplay.hookspecs import EffectVerdict, RunRecord
from counterplay.runtime import outcomes
from counterplay.store.runs import Lease, RunStore, StoredStep

TICKET = b'{"id": "e1", "ticket": "T-1"}'
KEY = "acme-key-0123456789"


def act(bench: Any, *steps: Any, name: str = "respond", **rest: Any) -> Any:
    """A playbook whose runs do the steps."""
    return bench.playbook(name, **{"trigger": {"uses": "lab.source"}, "steps": list(steps)} | rest)


def say(step: str, what: str = "x", **rest: Any) -> dict[str, Any]:
    return {"id": step, "uses": "lab.act", "with": {"what": what}, **rest}


def report(to: str = "report") -> list[dict[str, Any]]:
    return [{"uses": "lab.store", "with": {"to": to}}]


@pytest.fixture
def desk(bench: Any, acme: Any) -> Any:
    """The bench with a connection to a running Acme."""
    bench.config = {
        "connections": {"acme": {"uses": "acme.account", "base_url": acme.base_url, "api_key": KEY}}
    }
    return bench


CLOSE = {
    "id": "close",
    "uses": "acme.close_ticket",
    "connection": "acme",
    "with": {"ticket_id": "{{ event.ticket }}"},
}


def test_an_event_starts_one_run_whatever_session_sees_it(bench, lab, put) -> None:
    """Neither a second occurrence nor an edited playbook starts it again."""
    put("u1", b'[{"id": "e1", "run": "k"}, {"id": "e2", "run": "k"}]')
    assert bench.run(act(bench, say("a"))).exit_code == 0
    put("u2", b'[{"id": "e3", "run": "k"}]', minutes_ago=5)
    ended = bench.run(act(bench, say("other", "y")))
    assert (ended.exit_code, ended.figures["runs_known"]) == (0, 1)
    assert lab.acted == ["x"]
    assert [one.status for one in bench.runs()] == ["succeeded"]


def test_steps_see_results_and_are_skipped_by_conditions(bench, lab, put) -> None:
    """A skipped step has a status and no result; its successors go on."""
    put("u1", b'[{"id": "e1", "n": 3}]')
    steps = [
        say("one", "{{ event.id }}"),
        say("two", "never", when="event.n > 5"),
        say("three", "{{ steps.one.result.echo.what }}!", when='steps.two.status == "skipped"'),
    ]
    assert bench.run(act(bench, *steps)).exit_code == 0
    assert lab.acted == ["e1", "e1!"]
    (run,) = bench.runs()
    assert {name: one.status for name, one in bench.steps(run.id).items()} == {
        "one": "succeeded",
        "two": "skipped",
        "three": "succeeded",
    }


def test_a_failed_step_stops_the_run_unless_it_may_fail(bench, lab, put) -> None:
    """`on_error: continue` goes on; the default stops; the outcome record is delivered either way."""

    def fails(_context: Any, arguments: Any) -> Any:
        if "no" in arguments["what"]:
            raise PermanentError("409: it will not")
        return {"ok": True}

    put("u1", b'[{"id": "e1"}]')
    lab.act = fails
    steps = [say("may", "no", on_error="continue"), say("must", "no, no"), say("never", "yes")]
    ended = bench.run(act(bench, *steps, sinks=report()))
    assert (ended.exit_code, ended.figures["runs_failed"]) == (1, 1)
    assert lab.acted == ["no", "no, no"]
    (record,) = [json.loads(raw) for raw in lab.taken["report"]]
    assert (record["status"], record["error"]) == ("failed", "step must: 409: it will not")
    assert record["event"] == {"id": "e1"}
    assert {name: one["status"] for name, one in record["steps"].items()} == {
        "may": "failed",
        "must": "failed",
    }
    (run,) = bench.runs()
    assert (run.status, run.error) == ("failed", "step must: 409: it will not")


def test_an_effect_is_journalled_with_before_calls_and_outcome(desk, acme, lab) -> None:
    """The state before, each request as it was sent, the result and its read-back."""
    ended = desk.run(act(desk, CLOSE, sinks=report()), events=[TICKET])
    assert (ended.exit_code, ended.changed) == (0, {"T-1": ["acme.close_ticket"]})
    (run,) = desk.runs()
    (effect,) = desk.effects(run.id)
    assert (effect.before, effect.status, effect.verified) == ({"status": "open"}, "done", True)
    assert effect.result == {"ticket_id": "T-1", "status": "closed"}
    assert [(call["method"], call["url"]) for call in effect.calls] == [
        ("POST", f"{acme.base_url}/tickets/T-1/close")
    ]
    assert lab.ended == [{"status": "done", "error": None}]
    (record,) = [json.loads(raw) for raw in lab.taken["report"]]
    assert record["effects"][0]["target"] == "T-1"


def test_a_guard_refuses_an_effect_before_anything_is_sent(desk, acme, lab) -> None:
    """The reason stands in the step; the journal says refused."""
    lab.guard = lambda intent: EffectVerdict(intent.target == "T-1", "it is protected")
    ended = desk.run(act(desk, CLOSE), events=[TICKET])
    assert ended.exit_code == 1
    assert acme.tickets == {"T-1": "open"}
    (run,) = desk.runs()
    assert desk.steps(run.id)["close"].error == "refused: it is protected"
    assert [one.status for one in desk.effects(run.id)] == ["refused"]


def test_a_guard_that_fails_has_not_agreed(desk, acme, lab) -> None:
    """An exception counts as a refusal."""

    def broken(_intent: Any) -> Any:
        raise OSError("the list is gone")

    lab.guard = broken
    assert desk.run(act(desk, CLOSE), events=[TICKET]).exit_code == 1
    assert acme.tickets == {"T-1": "open"}
    (run,) = desk.runs()
    assert desk.steps(run.id)["close"].error == "refused: a guard failed: OSError: the list is gone"


def test_a_listener_that_fails_does_not_undo_what_happened(desk, acme) -> None:
    """The effect is done, whatever a plugin makes of the news."""
    acme.tickets["T-listener"] = "open"
    assert desk.run(act(desk, CLOSE), events=[b'{"ticket": "T-listener"}']).exit_code == 0
    (run,) = desk.runs()
    assert [one.status for one in desk.effects(run.id)] == ["done"]


def test_an_answer_that_was_lost_is_read_back(desk, acme) -> None:
    """The service hung up after it closed the ticket: the effect is done, and sent once."""
    acme.failures.extend([(200, b'{"id": "T-1", "status": "open"}'), (0, b"")])
    ended = desk.run(act(desk, CLOSE), events=[TICKET])
    assert ended.exit_code == 0
    (run,) = desk.runs()
    (effect,) = desk.effects(run.id)
    assert (effect.status, effect.settled) == ("done", "the answer was lost; read back")
    assert acme.calls.count("POST tickets/T-1/close") == 1


def test_a_secret_is_masked_wherever_a_step_shows_it(desk, acme, lab) -> None:
    """In arguments, results and errors of the rows, and in the outcome record."""

    def leak(_context: Any, arguments: Any) -> Any:
        return {"echo": f"the key is {KEY}"}

    lab.act = leak
    steps = [CLOSE, say("leak", f"{KEY}"), say("error", "{{ steps.leak.result.echo }}")]
    assert desk.run(act(desk, *steps, sinks=report()), events=[TICKET]).exit_code == 0
    assert KEY not in json.dumps(desk.rows("SELECT arguments, result, error FROM cp_step"))
    assert desk.rows("SELECT result FROM cp_step WHERE step_id = 'leak'") == [('{"echo": "the key is ***"}',)]
    assert KEY.encode() not in b"".join(lab.taken["report"])


# --- what a crash leaves ---------------------------------------------------------------------------


def crashed(bench: Any, step: str, intent: dict[str, Any], calls: list[Any]) -> str:
    """The store as a killed worker leaves it: a run that works, an intent, perhaps a request, no outcome."""
    (run,) = bench.runs()
    with bench.store() as database:
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM cp_step")
            connection.exec_driver_sql("DELETE FROM cp_effect")
            connection.exec_driver_sql(
                "UPDATE cp_run SET status='running', outcome=NULL, error=NULL, ended=NULL, segment=segment+1"
            )
        runs = RunStore(database)
        begun = StoredStep(step, intent["uses"], "running", 1, None, None, None, to_text(now()), None)
        with database.write() as connection:
            runs.put_step(connection, run.id, begun)
        lease = Lease(run.id, run.segment + 1)
        runs.intend(lease, step, {"tenant": "acme", "connection": "acme", "subject": None, **intent})
        for call in calls:
            runs.add_call(lease, step, call)
    return str(run.id)


SENT = {"method": "POST", "url": "http://127.0.0.1/x", "body": None}
CLOSING = {"uses": "acme.close_ticket", "target": "T-1", "arguments": {}, "before": {"status": "open"}}


@pytest.mark.parametrize(
    ("ticket", "calls", "closings", "settled"),
    [
        ("closed", [SENT], 0, "read back after a stop"),  # it took effect
        ("open", [SENT], 1, None),  # it did not
        ("open", [], 1, None),  # nothing had been sent
    ],
)
def test_an_intent_without_outcome_is_read_back(
    desk, acme, ticket: str, calls: list[Any], closings: int, settled: str | None
) -> None:
    """An action that can look at its target is repeated only where it did not take effect."""
    playbook = act(desk, CLOSE)
    desk.run(playbook, events=[TICKET])
    run = crashed(desk, "close", CLOSING, calls)
    acme.tickets["T-1"] = ticket
    acme.calls.clear()
    assert desk.run(playbook).exit_code == 0
    (effect,) = desk.effects(run)
    assert (effect.status, effect.settled, acme.tickets["T-1"]) == ("done", settled, "closed")
    assert acme.calls.count("POST tickets/T-1/close") == closings
    assert desk.steps(run)["close"].attempts == 2


def test_an_intent_that_cannot_be_read_back_does_not_stay_open(desk, acme) -> None:
    """The journal says unknown, and the step why."""
    playbook = act(desk, CLOSE)
    desk.run(playbook, events=[TICKET])
    run = crashed(desk, "close", CLOSING, [SENT])
    acme.failures.append((404, b'{"code": "gone", "message": "no such ticket"}'))
    assert desk.run(playbook).exit_code == 1
    assert [one.status for one in desk.effects(run)] == ["unknown"]
    assert "reading back failed: Acme answered 404 gone" in desk.steps(run)["close"].error


@pytest.mark.parametrize(("repeatable", "sent", "status"), [(True, 1, "done"), (False, 0, "unknown")])
def test_an_intent_of_a_request_is_repeated_or_asked_about(
    desk, acme, repeatable: bool, sent: int, status: str
) -> None:
    """`repeatable` says that twice is harmless; else a person has to look."""
    url = f"{acme.base_url}/tickets/T-1/close"
    arguments = {"url": url, "method": "POST", "repeatable": repeatable, "headers": {"X-Acme-Key-Is": "none"}}
    playbook = act(desk, {"id": "post", "uses": "std.http", "with": {**arguments, "expect": [200, 401]}})
    assert desk.run(playbook, events=[TICKET]).exit_code == 0
    intent = {"uses": "std.http", "target": url, "arguments": arguments, "before": {}}
    run = crashed(desk, "post", intent, [SENT])
    acme.calls.clear()
    assert desk.run(playbook).exit_code == (0 if repeatable else 1)
    assert [one.status for one in desk.effects(run)] == [status]
    assert len(acme.calls) == sent
    if not repeatable:
        assert "may or may not have taken effect" in desk.steps(run)["post"].error


def test_finished_steps_are_not_repeated_after_a_crash(bench, lab, put) -> None:
    """A run that was left `running` goes on behind its last finished step."""
    put("u1", b'[{"id": "e1"}]')
    playbook = act(bench, say("one"), say("two", "{{ steps.one.result.echo.what }}2"))
    assert bench.run(playbook).exit_code == 0
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET status='running', outcome=NULL, ended=NULL")
        connection.exec_driver_sql("UPDATE cp_step SET status='running', ended=NULL WHERE step_id='two'")
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["x", "x2", "x2"]
    assert [one.status for one in bench.runs()] == ["succeeded"]


def test_a_segment_that_failed_before_its_row_said_so_is_replaced(bench, lab, put) -> None:
    """The engine would not start it a second time; the session must not wait for it."""
    put("u1", b'[{"id": "e1"}]')
    playbook = act(bench, say("one"))
    assert bench.run(playbook).exit_code == 0
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("DELETE FROM cp_step")
        connection.exec_driver_sql("UPDATE cp_run SET status='queued', outcome=NULL, ended=NULL")
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["x", "x"]


def test_a_run_that_cannot_be_executed_fails_and_stops_no_other(bench, lab, put) -> None:
    """Its event is no JSON any more; the next one is done, and the session ends."""
    put("u1", b'[{"id": "e1"}, {"id": "e2"}]')
    playbook = act(bench, say("one", "{{ event.id }}"))
    assert bench.run(playbook).exit_code == 0
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("DELETE FROM cp_step")
        connection.exec_driver_sql("UPDATE cp_run SET status='queued', outcome=NULL, ended=NULL")
        connection.exec_driver_sql("UPDATE cp_run SET event=CAST('{' AS BLOB) WHERE run_key='e1'")
    lab.acted.clear()
    assert bench.run(playbook).exit_code == 1
    assert lab.acted == ["e2"]
    assert sorted(one.status for one in bench.runs()) == ["failed", "succeeded"]
    assert "it cannot be executed: JSONDecodeError" in next(one.error for one in bench.runs() if one.error)


class Harmful:
    """What unpickling it would do: make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_a_segment_that_the_engine_cannot_read_hangs_nothing(bench, lab, put, tmp_path: Path) -> None:
    """Somebody made its row claim to be pickled: no code runs, and the run goes on by our own rows."""
    put("u1", b'[{"id": "e1"}]')
    playbook = act(bench, say("one"), say("two"))
    assert bench.run(playbook).exit_code == 0
    payload = base64.b64encode(pickle.dumps(Harmful(tmp_path / "harm"))).decode()
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET status='running', outcome=NULL, ended=NULL")
        connection.exec_driver_sql("DELETE FROM cp_step WHERE step_id='two'")
        connection.exec_driver_sql(
            "UPDATE workflow_status SET status='PENDING', executor_id='worker-dead', owner_xid=NULL, "
            "serialization='py_pickle', inputs=?",
            (payload,),
        )
        connection.exec_driver_sql("UPDATE workflow_input SET inputs=?", (payload,))
    assert bench.run(playbook).exit_code == 0
    assert lab.acted == ["x", "x", "x"]
    assert [(one.status, one.segment) for one in bench.runs()] == [("succeeded", 2)]
    assert not (tmp_path / "harm").exists()


# --- sinks of runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"), [(RetryableError("503", retry_after=1), "waiting"), (BlockedError("401"), "blocked")]
)
def test_a_run_waits_for_its_sink_as_a_row_and_the_next_session_ends_it(
    bench, lab, put, error: Exception, status: str
) -> None:
    """Exit code 3, no thread held; its steps are not repeated, nor does an edit of the playbook touch it."""
    put("u1", b'[{"id": "e1"}]')
    lab.refusals["report"].append(error)
    ended = bench.run(act(bench, say("one"), sinks=report()))
    assert (ended.exit_code, ended.figures["runs_waiting"]) == (3, 1)
    (run,) = bench.runs()
    assert (run.status, run.outcome) == (status, "succeeded")
    edited = act(bench, say("one", "edited"), say("two", "added"), sinks=report("elsewhere"))
    assert bench.run(edited).exit_code == 0
    assert lab.acted == ["x"]
    (record,) = [json.loads(raw) for raw in lab.taken["report"]]
    assert (record["status"], lab.taken["elsewhere"]) == ("succeeded", [])
    assert [one.status for one in bench.runs()] == ["succeeded"]


def test_a_sink_that_comes_back_within_its_patience_parks_nothing(bench, lab, put, monkeypatch) -> None:
    """A short outage is waited out inside the segment."""
    monkeypatch.setattr(outcomes, "PATIENCE", 5.0)
    put("u1", b'[{"id": "e1"}]')
    lab.refusals["report"].extend([RetryableError("503", retry_after=0.01)] * 3)
    assert bench.run(act(bench, say("one"), sinks=report())).exit_code == 0
    assert len(lab.taken["report"]) == 1
    assert [one.segment for one in bench.runs()] == [1]


def test_an_outcome_record_that_is_refused_is_a_dead_letter(bench, lab, put) -> None:
    """The run ends, and the exit code says that something is left."""
    put("u1", b'[{"id": "e1"}]')
    lab.refuses = lambda _raw: True
    ended = bench.run(act(bench, say("one"), sinks=report()))
    assert (ended.exit_code, ended.figures["dead_letters"]) == (1, 1)
    ((reason, run),) = bench.rows("SELECT reason, run_id FROM cp_dead_letter")
    assert (reason, run) == ("413: too much", bench.runs()[0].id)


def test_many_runs_of_one_playbook_begin_at_once(bench, lab, put) -> None:
    """They share what was parsed of it; each ends once."""
    put("u1", json.dumps([{"id": f"e{number}"} for number in range(24)]).encode())
    assert bench.run(act(bench, say("one", "{{ event.id }}"))).exit_code == 0
    assert sorted(lab.acted) == sorted(f"e{number}" for number in range(24))
    assert {one.status for one in bench.runs()} == {"succeeded"}


def test_half_an_emoji_goes_through_a_run(bench, lab, put) -> None:
    """As key, as argument, as result, in the error and in the outcome record."""

    def fails(_context: Any, arguments: Any) -> Any:
        raise PermanentError(f"no {arguments['what']}")

    lab.act = fails
    put("u1", b'[{"id": "k\\ud83d"}]')
    assert bench.run(act(bench, say("one", "{{ event.id }}"), sinks=report())).exit_code == 1
    (run,) = bench.runs()
    assert run.status == "failed"
    assert "no k\\ud83d" in bench.steps(run.id)["one"].error
    (record,) = [json.loads(raw) for raw in lab.taken["report"]]
    assert record["event"] == {"id": "k\ud83d"}


def test_a_wrong_connection_leaves_no_run_at_work(bench, lab, put) -> None:
    """What an earlier session left is not resumed behind an error message; the next one resumes it."""
    put("u1", b'[{"id": "e1"}]')
    good = act(bench, say("one"))
    assert bench.run(good).exit_code == 0
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql("DELETE FROM cp_step")
        connection.exec_driver_sql("UPDATE cp_run SET status='queued', outcome=NULL, ended=NULL")
    bad = act(bench, {**CLOSE, "connection": "nowhere"}, name="bad")
    with pytest.raises(ConfigError, match="no connection 'nowhere'"):
        bench.run(bad)
    assert bench.run(good).exit_code == 0
    assert [one.status for one in bench.runs()] == ["succeeded"]


class Listener:
    """A plugin that wants to know when runs start and end."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    @hookimpl
    def counterplay_run_started(self, run: RunRecord) -> None:
        self.told.append(("started", run.id))

    @hookimpl
    def counterplay_run_finished(self, run: RunRecord) -> None:
        self.told.append((run.status, run.id))
        if run.status == "failed":
            raise RuntimeError("a listener's own fault")


@pytest.fixture
def listener(bench: Any) -> Iterator[Listener]:
    made = Listener()
    bench.host._manager.register(made)
    yield made
    bench.host._manager.unregister(made)


def test_a_hook_is_told_once_of_a_run_that_nothing_interrupted(bench: Any, listener: Listener) -> None:
    """Its start and its end, and not those of its elements; a listener's fault is not told again."""
    playbook = bench.playbook(
        "told",
        trigger={"uses": "std.manual"},
        steps=[{"id": "each", "for_each": "[1, 2]", "uses": "std.wait", "with": {"duration": "1ms"}}],
    )
    failing = bench.playbook(
        "fails",
        trigger={"uses": "std.manual"},
        steps=[{"id": "halt", "uses": "std.stop", "with": {"status": "failed", "reason": "x"}}],
    )
    bench.run(playbook, events=[b"{}"])
    bench.run(failing, events=[b"{}"])

    (failed, succeeded) = [one.id for one in bench.runs() if one.parent is None]
    assert listener.told == [
        ("started", succeeded),
        ("succeeded", succeeded),
        ("started", failed),
        ("failed", failed),
    ]
    assert bench.rows("SELECT count(*) FROM cp_run WHERE tell IS NOT NULL") == [(0,)]


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("status = 'queued', ended = NULL, outcome = NULL, tell = 'started'", ["started", "succeeded"]),
        ("status = 'queued', ended = NULL, outcome = NULL", ["succeeded"]),
        ("tell = 'finished'", ["succeeded"]),
    ],
)
def test_a_hook_that_a_crash_kept_from_being_told_is_told_at_the_next_start(
    bench: Any, listener: Listener, left: str, told: list[str]
) -> None:
    """Under the same id: at least once, and not again once that is on record."""
    playbook = bench.playbook(
        "told",
        trigger={"uses": "std.manual"},
        steps=[{"id": "nap", "uses": "std.wait", "with": {"duration": "1ms"}}],
    )
    bench.run(playbook, events=[b"{}"])
    (identity,) = [one.id for one in bench.runs()]
    listener.told.clear()
    with bench.store() as database, database.write() as connection:
        connection.exec_driver_sql(f"UPDATE cp_run SET segment = segment + 1, {left}")

    bench.run(playbook, events=[])

    assert listener.told == [(what, identity) for what in told]
    listener.told.clear()
    bench.run(playbook, events=[])
    assert listener.told == []
