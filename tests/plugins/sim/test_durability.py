"""`kill -9` of the simulator in the middle of posts and writes: what was answered is kept."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from counterplay_sim.testing import Oracle, simulator_process


@pytest.mark.parametrize("after", [1, 7, 25])
def test_a_kill_in_the_middle_of_posts_keeps_what_was_acknowledged(
    tmp_path: Path, connect: Any, after: int
) -> None:
    """Each acknowledged batch is there, whole and once; at most the one in flight is there as well."""
    with simulator_process(tmp_path, "--events", "20") as running:
        client = connect(running)
        acknowledged = 0
        timer: threading.Timer | None = None
        try:
            for number in range(10_000):
                if number == after:
                    timer = threading.Timer(0.004, os.kill, (running.process.pid, signal.SIGKILL))
                    timer.start()
                events = [f'{{"batch":{number},"place":{place}}}' for place in range(5)]
                acknowledged += client.send(*events).status_code == 200
        except requests.ConnectionError:
            pass
        assert timer is not None
        timer.join()
        running.process.wait()

    kept = Oracle(tmp_path).verdict().others
    assert kept % 5 == 0
    assert acknowledged * 5 <= kept <= acknowledged * 5 + 5


def test_a_kill_in_the_middle_of_writes_keeps_state_journal_and_log_together(
    tmp_path: Path, connect: Any
) -> None:
    """A change that was answered is in all three; one that was not is in all or in none."""
    with simulator_process(tmp_path, "--events", "20") as running:
        client = connect(running)
        victim = running.admin("GET", "/truth")["victim"]
        client.graph("GET", f"/users/{victim}")
        timer = threading.Timer(0.08, os.kill, (running.process.pid, signal.SIGKILL))
        answered = 0
        try:
            for number in range(10_000):
                if number == 3:
                    timer.start()
                change = {"accountEnabled": number % 2 == 1}
                answered += client.graph("PATCH", f"/users/{victim}", change).status_code == 204
        except requests.ConnectionError:
            pass
        timer.join()
        running.process.wait()
    with simulator_process(tmp_path) as running:
        client = connect(running)
        verdict = running.oracle().verdict()
        changes = [after["accountEnabled"] for _, _, after in verdict.effects[verdict.victim.upn].changes]
        user = client.graph("GET", f"/users/{victim}", **{"$select": "id,accountEnabled"}).json()
        before = verdict.events.offered
        running.admin("POST", "/clock", {"advance": 3600})
        written = running.oracle().verdict().events.offered - before

    assert answered <= len(changes) <= answered + 1
    assert user["accountEnabled"] == changes[-1] == (len(changes) % 2 == 0)
    assert written >= len(changes)
