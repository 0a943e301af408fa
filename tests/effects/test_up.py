"""`playbook up`: what runs, what a change of a file does, what is served."""

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from counterplay.cli.loading import load_playbook
from counterplay.errors import StateError
from counterplay.runtime.service import Service
from counterplay.store.database import WorkerLock

PATIENCE = 20.0


class Running:
    """A service in a thread of this process."""

    def __init__(self, bench: Any) -> None:
        self.stop = threading.Event()
        self.told: list[str] = []
        self.code: int | BaseException | None = None
        self.service = Service(
            lambda: bench.workspace,
            load_playbook,
            "127.0.0.1:0",
            self.stop,
            self.told.append,
            look_every=0.02,
        )
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self.code = self.service.run()
        except BaseException as error:
            self.code = error

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """(status, text) of an answer."""
        request = urllib.request.Request(self.service.url + path, data=body)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/health")[1])
        return found

    def until(self, test: Callable[[], bool]) -> None:
        """Wait for something that is to happen."""
        end = time.monotonic() + PATIENCE
        while not test():
            assert time.monotonic() < end, (self.told, self.code)
            assert self.thread.is_alive(), (self.told, self.code)
            time.sleep(0.02)


@contextmanager
def running(bench: Any, made: Running | None = None) -> Iterator[Running]:
    """The service, at work."""
    made = made or Running(bench)
    made.thread.start()
    try:
        made.until(lambda: bool(made.service.url) and made.ask("/health")[0] == 200)
        yield made
    finally:
        made.stop.set()
        made.thread.join(PATIENCE)


def alerts(bench: Any, *steps: Any, name: str = "watch", **rest: Any) -> None:
    """A playbook on the tenant's alerts."""
    trigger = {"uses": "m365.alerts", "connection": "contoso", "with": {"poll_interval": "5s"}}
    bench.write(*steps, name=name, trigger=trigger, **rest)


LOOK = {
    "id": "look",
    "uses": "m365.get_user",
    "connection": "contoso",
    "with": {"user_id": "{{ event.evidence | m365_users | first }}"},
    "on_error": "continue",
}


def questions(told: list[str]) -> list[str]:
    """The lines of the log that ask somebody something; each names its run."""
    return [line for line in told if "asks: Go on? `playbook approve a-" in line]


def test_a_length_that_is_no_number_is_answered(bench: Any) -> None:
    """Not with a connection that just ends."""
    with running(bench) as service:
        address = service.service.url.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=10) as sender:
            sender.sendall(b"POST /approvals HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n")
            answer = sender.makefile("rb").readline()

    assert answer.startswith(b"HTTP/1.1 411 ")


def test_what_people_have_to_look_at_stands_in_the_log_once(bench: Any) -> None:
    """A question that a run asks is told when it comes up, not at every look."""
    alerts(bench, {"id": "ask", "uses": "std.approval", "with": {"question": "Go on?"}})

    with running(bench) as service:
        service.until(lambda: len(questions(service.told)) >= 2)

    asked = questions(service.told)
    assert len(set(asked)) == len(asked)


def test_a_search_that_takes_long_stands_in_the_log_and_under_health(bench: Any) -> None:
    """Its window and since when; it is nothing that is not well."""
    span = {"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T00:00:00Z"}
    trigger = {"uses": "m365.audit_search", "connection": "contoso", "with": span}
    bench.write(LOOK, name="search", trigger=trigger)

    with running(bench) as service:
        service.until(lambda: bool(service.health()["under_way"]))
        health = service.health()
        (line,) = health["under_way"]
        service.until(lambda: line in service.told)

    assert (health["status"], health["notices"]) == ("ok", [])
    window = "from 2026-03-01T00:00:00Z to 2026-03-02T00:00:00Z"
    assert re.fullmatch(rf"m365\.audit_search contoso .*: searches the audit log {window} since 2\S+Z", line)


def test_it_runs_the_enabled_playbooks_and_ends_gracefully(bench: Any) -> None:
    """Those on the tenant's events run; what is disabled or started by hand is out, by name."""
    alerts(bench, LOOK)
    alerts(bench, LOOK, name="disabled")
    bench.write(LOOK, name="by-hand")
    bench.configure(playbooks={"disabled": {"enabled": False}})

    with running(bench) as service:
        service.until(lambda: "counterplay_runs_succeeded_total 0\n" not in service.ask("/metrics")[1])
        health = service.health()

    assert health["playbooks"] == ["watch"]
    assert health["out"] == {"by-hand": "it is started by hand only (`playbook run`)"}
    assert (health["status"], health["invalid"]) == ("ok", [])
    assert service.code == 0
    assert {run.playbook for run in bench.runs()} == {"watch"}


def test_its_figures_tell_what_waits_and_stay_readable_over_a_reload(bench: Any) -> None:
    """Runs by status, questions and effects by outcome, in names that Prometheus reads."""
    alerts(bench, {"id": "decide", "uses": "std.approval", "with": {"question": "Go on?"}})
    with running(bench) as service:
        service.until(lambda: 'runs{status="waiting"} 0' not in service.ask("/metrics")[1])
        status, text = service.ask("/metrics")
        alerts(bench, LOOK, name="second")
        service.until(lambda: "counterplay_reloads_total 1\n" in service.ask("/metrics")[1])

    assert status == 200
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(found["counterplay_approvals_waiting"]) == int(found['counterplay_runs{status="waiting"}']) > 0
    assert found['counterplay_effects_total{outcome="done"}'] == "0"
    assert found["counterplay_up"] == "1"
    assert all(re.fullmatch(r'counterplay_[a-z_]+(\{(\w+="[^"]*",?)+\})?', name) for name in found)


def test_a_change_takes_effect_and_a_bad_one_leaves_the_last_good_version(bench: Any) -> None:
    """Both are said; a bad edit of one playbook does not keep the others from changing."""
    alerts(bench, LOOK)
    with running(bench) as service:
        alerts(bench, LOOK, name="second")
        service.until(lambda: service.health()["playbooks"] == ["second", "watch"])

        file = bench.root / "playbooks" / "watch.yaml"
        good = file.read_text()
        file.write_text(good.replace("m365.get_user", "m365.get_usr"))
        service.until(lambda: "watch" in service.health()["out"])
        health = service.health()
        assert health["playbooks"] == ["second", "watch"]
        assert "its last good version runs on" in health["out"]["watch"]
        assert "no module is called 'm365.get_usr'" in health["out"]["watch"]
        assert (health["status"], health["invalid"], health["configuration"]) == ("degraded", ["watch"], None)
        status, text = service.ask("/metrics")
        assert status == 200
        service.until(lambda: service.ask("/health")[0] == 200)  # not while a session gives way to the next
        assert "\ncounterplay_playbooks_invalid 1\n" in text
        assert "\ncounterplay_configuration_invalid 0\n" in text

        file.write_text(good)
        service.until(lambda: service.health()["out"] == {})
        assert (service.health()["status"], service.health()["invalid"]) == ("ok", [])
        assert "\ncounterplay_playbooks_invalid 0\n" in service.ask("/metrics")[1]

    assert any("m365.get_usr" in line for line in service.told)


def test_an_edit_while_the_playbooks_are_read_is_not_overlooked(bench: Any) -> None:
    """What was read before it runs on, and the next look sees that it is not what is there now."""
    alerts(bench, LOOK)
    file = bench.root / "playbooks" / "watch.yaml"
    made = Running(bench)

    def load(*about: Any) -> object:
        found = load_playbook(*about)
        if about[1] == "zweit" and "m365.get_user" in file.read_text():
            file.write_text(file.read_text().replace("m365.get_user", "m365.get_usr"))
        return found

    made.service._load = load
    with running(bench, made) as service:
        alerts(bench, LOOK, name="zweit")
        service.until(lambda: "watch" in service.health()["out"])


def test_a_playbook_that_was_never_valid_and_one_that_is_not_there_are_told(bench: Any) -> None:
    """The others run; who looks at /health or the metrics sees that not all do that should."""
    alerts(bench, LOOK)
    alerts(bench, {**LOOK, "uses": "m365.get_usr"}, name="wrong")
    bench.configure(playbooks={"gone": {"enabled": True}})

    with running(bench) as service:
        health = service.health()
        text = service.ask("/metrics")[1]

    assert (health["status"], health["playbooks"], health["invalid"]) == (
        "degraded",
        ["watch"],
        ["gone", "wrong"],
    )
    assert "\ncounterplay_playbooks_invalid 2\n" in text


def test_a_bad_configuration_leaves_everything_as_it_was(bench: Any) -> None:
    """Until it is right again."""
    alerts(bench, LOOK)
    with running(bench) as service:
        file = bench.root / "counterplay.yaml"
        good = file.read_text()
        file.write_text(good + "\nguardrails: {protected_user: []}\n")
        service.until(lambda: service.health()["configuration"] is not None)
        assert service.health()["status"] == "degraded"
        assert service.health()["playbooks"] == ["watch"]
        assert "\ncounterplay_configuration_invalid 1\n" in service.ask("/metrics")[1]

        file.write_text(good + "\nguardrails: {read_only: true}\n")
        service.until(lambda: service.health()["reloads"] == 1 and service.health()["status"] == "ok")

    assert any("the configuration as it was runs on" in line for line in service.told)


def test_it_is_the_one_worker_and_carries_out_what_commands_ask_for(
    bench: Any, block: Callable[..., Any]
) -> None:
    """An undo beside it is a row that the service takes up."""
    bench.write(block(bench.user()["id"]))
    assert bench.run().exit_code == 0
    identity = bench.runs()[0].id
    alerts(bench, LOOK)

    with running(bench):
        with (
            pytest.raises(StateError, match="`playbook up`"),
            WorkerLock(bench.root / ".counterplay" / "state.db", "a second one"),
        ):
            raise AssertionError("the lock was free")
        result = bench.call("undo", identity)

    assert result.exit_code == 0, result.output
    assert bench.user()["accountEnabled"] is True


def test_it_serves_only_what_it_should(bench: Any) -> None:
    """Unknown paths and other methods are refused; an approval needs a good token."""
    alerts(bench, LOOK)
    with running(bench) as service:
        assert service.ask("/nothing")[0] == 404
        assert service.ask("/health", b"{}")[0] == 405
        assert service.ask("/approvals")[0] == 405
        assert service.ask("/approvals", b"decision=perhaps&token=x")[0] == 400
        status, text = service.ask("/approvals", b"decision=approve&token=nothing")

    assert status == 409
    assert "this link was used, has expired, or never was one" in text


def test_an_input_that_is_missing_keeps_one_playbook_out(bench: Any) -> None:
    """The message says where to write it; with it, the playbook runs."""
    alerts(bench, LOOK, inputs={"approver": {"type": "string"}})
    alerts(bench, LOOK, name="other")
    with running(bench) as service:
        assert "the input 'approver' is missing" in service.health()["out"]["watch"]
        assert service.health()["playbooks"] == ["other"]

        bench.configure(playbooks={"watch": {"inputs": {"approver": "soc@contoso.example"}}})
        service.until(lambda: service.health()["playbooks"] == ["other", "watch"])


def test_it_deletes_runs_that_are_older_than_they_are_kept(bench: Any, block: Callable[..., Any]) -> None:
    """As soon as it starts, and each hour from then on."""
    bench.write(block(bench.user()["id"]))
    assert bench.run().exit_code == 0
    database = bench.database()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE cp_run SET created = '2020-01-01', ended = '2020-01-02'")
    database.close()
    alerts(bench, LOOK)

    with running(bench) as service:
        service.until(lambda: all(run.playbook != "test" for run in bench.runs()))
