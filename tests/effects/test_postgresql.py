"""A workspace whose store is a PostgreSQL: the same commands, several workers, and what a dead one leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from counterplay import audit
from counterplay.evidence import check
from counterplay.store.runs import NewRun, RunStore
from counterplay.store.workers import WorkerStore

PATIENCE = 60.0


@pytest.fixture
def server_bench(bench: Any, server_store: str) -> Any:
    """The workspace, on a database of its own; no state file may appear in it."""
    url = make_url(server_store)
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    configure = bench.configure

    def configured(**settings: Any) -> None:
        configure(store=text, workers={"dead_after": "2s"}, **settings)

    bench.configure = configured
    bench.configure()
    yield bench
    assert not (bench.root / ".counterplay" / "state.db").exists()


def until(test: Callable[[], Any]) -> Any:
    """Wait for something that is to happen."""
    end = time.monotonic() + PATIENCE
    while not (found := test()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def test_a_run_is_asked_about_shown_taken_back_and_proven(
    server_bench: Any, block: Callable[..., Any], tmp_path: Path
) -> None:
    """Run, approve, carry out, undo, audit, evidence, ledger: what works on a file works here."""
    bench = server_bench
    user = bench.user()
    ask = {"id": "ask", "uses": "std.approval", "with": {"question": "Block?"}}
    bench.write(ask, block(user["id"], id="block", when="steps.ask.result.approved"), name="test")
    assert bench.call("approvals", "--json").stdout.strip() == "[]"
    assert bench.call("ledger").exit_code == 0

    assert bench.run().exit_code == 3
    (question,) = json.loads(bench.call("approvals", "--json").stdout)
    assert "is approved" in bench.call("approve", question["id"]).output
    assert "is approved since" in str(bench.call("approve", question["id"]).exception)
    (run,) = json.loads(bench.call("runs", "list", "--json").stdout)
    assert run["status"] == "queued"

    bench.write(block(bench.user(3)["id"]), name="other")
    assert bench.run("other").exit_code == 0  # whoever works next goes on with it
    shown = json.loads(bench.call("runs", "show", run["id"], "--json").stdout)
    assert shown["status"] == "succeeded"
    assert bench.user()["accountEnabled"] is False

    assert bench.call("undo", run["id"]).exit_code == 0
    assert bench.user()["accountEnabled"] is True
    target = tmp_path / "evidence.zip"
    assert bench.call("evidence", run["id"], "--output", str(target)).exit_code == 0
    assert check(target).flaws == ()
    assert bench.call("audit", "verify").exit_code == 0
    assert bench.call("store", "prune").exit_code == 0
    assert json.loads(bench.call("store", "show", "--json").stdout)["rows"]["runs"] == 3


def test_a_plan_is_carried_out_once(server_bench: Any, block: Callable[..., Any]) -> None:
    """`run --plan-file` twice sends it once."""
    bench = server_bench
    bench.write(block(bench.user()["id"]))
    (bench.root / "event.json").write_text("{}")
    plan = bench.root / "plan.json"
    plan.write_text(bench.call("plan", "test", "--event", "event.json", "--json").stdout)
    for _ in range(2):
        assert bench.call("run", "test", "--plan-file", str(plan)).exit_code == 0
    assert len(bench.writes) == 1


class Worker:
    """`playbook up` as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.log = (root / f"worker-{time.monotonic_ns()}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "counterplay", "up", "--listen", "127.0.0.1:0"],
            cwd=root,
            stdout=self.log,
            stderr=self.log,
        )

    @property
    def said(self) -> str:
        return Path(self.log.name).read_text()

    def works(self) -> bool:
        """It takes runs."""
        found = re.search(r"listening on (http://\S+)", self.said)
        assert self.process.poll() is None, self.said
        if found is None:
            return False
        try:
            with urllib.request.urlopen(f"{found[1]}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            with error:
                return False

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


@contextmanager
def workers(bench: Any, count: int) -> Iterator[list[Worker]]:
    """So many at work."""
    made = [Worker(bench.root) for _ in range(count)]
    try:
        until(lambda: all(one.works() for one in made))
        yield made
    finally:
        for one in made:
            one.end()


def contain(bench: Any, users: list[dict[str, Any]]) -> list[str]:
    """A run for each user, in the store: block, wait, block no second time but end the sessions."""
    on = {"connection": "contoso", "with": {"user_id": "{{ event.id }}"}}
    bench.write(
        {"id": "block", "uses": "m365.block_sign_in", **on},
        {"id": "nap", "uses": "std.wait", "with": {"duration": "1s"}},
        {"id": "revoke", "uses": "m365.revoke_sessions", **on},
        name="contain",
    )
    document = bench.playbook("contain").document
    runs = [
        NewRun(f"r-{n}", "t", "contain", str(n), document, json.dumps({"id": one["id"]}).encode(), {}, {}, {})
        for n, one in enumerate(users)
    ]
    with closing(bench.database()) as database, database.write() as connection:
        return RunStore(database).add(connection, runs)


def test_the_runs_of_a_killed_worker_end_on_another_and_no_effect_happens_twice(server_bench: Any) -> None:
    """`kill -9` of one of two, in the middle of its runs."""
    bench = server_bench
    users = bench._plain_users()[:20]
    with closing(bench.database()) as database, workers(bench, 2) as both:
        store = RunStore(database)
        identities = contain(bench, users)

        def held() -> dict[str, int]:
            """Runs that work, by the process that has them."""
            return {one.pid: one.runs for one in WorkerStore(database).listed()}

        until(lambda: len(held()) == 2 and all(held().values()) and bench.writes)
        victim = both[0].process
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        lost = held()[victim.pid]

        until(lambda: all(one.ended for one in map(store.get, identities) if one is not None))

        assert {one.status for one in store.newest(playbook="contain", status=None, limit=50)} == {
            "succeeded"
        }
        assert lost > 0
        assert f"{lost} runs of it go on elsewhere" in both[1].said
        assert [one.pid for one in WorkerStore(database).listed()] == [both[1].process.pid]
        effects = [effect for one in identities for effect in store.effects(one)]
        assert audit.verify(database).flaws == ()
    assert {effect.status for effect in effects} == {"done"}
    assert len(effects) == 2 * len(users)
    blocked = [path for method, path in bench.writes if method == "PATCH"]
    assert len(blocked) == len(set(blocked)) == len(users)
    assert both[1].process.returncode == 0


def test_a_worker_that_was_taken_for_dead_ends_and_changes_nothing(server_bench: Any) -> None:
    """It was stopped (SIGSTOP) for so long that others took over; waking up it is fenced off."""
    bench = server_bench
    users = bench._plain_users()[:20]
    with closing(bench.database()) as database, workers(bench, 2) as both:
        store = RunStore(database)
        identities = contain(bench, users)
        sleeper = both[0].process

        def of_sleeper() -> int:
            return sum(one.runs for one in WorkerStore(database).listed() if one.pid == sleeper.pid)

        until(of_sleeper)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            until(lambda: all(one.ended for one in map(store.get, identities) if one is not None))
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        assert sleeper.wait(PATIENCE) == 1
        assert "was not heard of for 2 s, so others took over its work" in both[0].said
        assert {one.status for one in store.newest(playbook="contain", status=None, limit=50)} == {
            "succeeded"
        }
    blocked = [path for method, path in bench.writes if method == "PATCH"]
    assert len(blocked) == len(set(blocked)) == len(users)


def test_one_worker_reads_a_source_and_the_other_takes_over(server_bench: Any) -> None:
    """No event twice, and none forgotten."""
    bench = server_bench
    bench.write(
        {"id": "look", "uses": "std.wait", "with": {"duration": "10ms"}},
        name="watch",
        trigger={"uses": "m365.alerts", "connection": "contoso", "with": {"poll_interval": "5s"}},
    )
    with closing(bench.database()) as database, workers(bench, 2) as both:

        def reading() -> list[int]:
            return [one.pid for one in WorkerStore(database).listed() if one.feeds]

        (first,) = until(reading)
        until(lambda: RunStore(database).newest(playbook="watch", status="succeeded", limit=9))
        victim = next(one for one in both if one.process.pid == first)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()

        other = next(one for one in both if one is not victim)
        until(lambda: reading() == [other.process.pid])
    bench.call("run", "watch", "--once")
    alerts = {alert["id"] for tenant in bench.simulator._tenants.values() for alert in tenant.alerts.values()}
    assert len(bench.runs()) == len(alerts)
