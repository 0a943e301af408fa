"""`kill -9` at the moment of answering an approval: the answer is whole or absent, the question survives."""

import json
import os
import random
import signal
import subprocess
import time
from typing import Any

import sqlalchemy as sa

from counterplay.store.database import existing_database

SEED = int(os.environ.get("COUNTERPLAY_SEED", random.SystemRandom().randrange(10**6)))
QUESTIONS = 8
PLAYBOOK = """
name: ask
description: Ask before anything is done.
trigger: {uses: std.manual}
steps:
  - {id: ask, uses: std.approval, with: {question: "Block {{ event.id }}?"}}
"""


def state(store: str, approval: str) -> tuple[Any, ...]:
    """The question, its answers, whether it is in the audit log, and where its run stands."""
    with existing_database(store) as database:
        assert database is not None
        with database.read() as connection:

            def one(query: str) -> Any:
                return connection.execute(sa.text(query), {"of": approval}).scalar_one()

            return (
                one("SELECT status FROM cp_approval WHERE id = :of"),
                one("SELECT count(*) FROM cp_answer WHERE approval_id = :of"),
                one("SELECT count(*) FROM cp_audit WHERE kind = 'approval' AND body LIKE '%' || :of || '%'"),
                one("SELECT r.status FROM cp_run r JOIN cp_approval a ON a.run_id = r.id WHERE a.id = :of"),
            )


ABSENT = ("open", 0, 0, "waiting")
WHOLE = ("approved", 1, 2, "queued")


def killed(desk: Any, approval: str, after: float) -> None:
    """`playbook approve`, killed after so many seconds, unless it is done by then."""
    process = desk.start("approve", approval)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_an_answer_that_is_killed_is_whole_or_absent(desk: Any, store: str) -> None:
    """Answer, decision, audit log and the run's waking are one; what is absent can be answered again.

    On PostgreSQL a process may be killed while it holds locks, and the next one is not kept from answering.
    """
    if store.startswith("postgresql"):
        desk.write("counterplay.yaml", f"store: {store.replace('+psycopg', '')}\n")
    else:
        store = f"sqlite:///{desk.root / '.counterplay' / 'state.db'}"
    desk.write("playbooks/ask.yaml", PLAYBOOK)
    desk.write("event.json", json.dumps([{"id": str(number)} for number in range(QUESTIONS)]))
    assert desk.playbook("run", "ask", "--event", "event.json").code == 3
    first, *others = [one["id"] for one in desk.playbook("approvals", "--json").data]
    assert len(others) == QUESTIONS - 1
    began = time.monotonic()
    killed(desk, first, 60)
    takes = time.monotonic() - began
    assert state(store, first) == WHOLE

    chance = random.Random(SEED)
    for approval in others:
        killed(desk, approval, takes * chance.uniform(0.5, 1.0))
        found = state(store, approval)
        assert found in (ABSENT, WHOLE), f"COUNTERPLAY_SEED={SEED}"
        if found == ABSENT:
            assert desk.playbook("approve", approval).code == 0
    assert desk.playbook("run", "ask", "--once").code == 0
    assert desk.playbook("audit", "verify").code == 0
    assert {one["status"] for one in desk.playbook("runs", "list", "--json").data} == {"succeeded"}
