"""How long a person waits before anything happens: `python benchmarks/startup.py [N]`.

Runs each command N times (default 10) in a process of its own, and prints median and slowest wall time
beside the target of the design. The imports of plugins are measured on top of `import counterplay`, in
one process each, so that the start of Python does not count. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from rich.console import Console
from rich.table import Table

_TIME_IMPORT = """
import sys, time
for name in sys.argv[2:]:
    __import__(name)
began = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - began)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of each run that succeeded; `problem` is what the last failed one said."""

    what: str
    target: float | None
    seconds: list[float]
    problem: str = ""


def main() -> None:
    """Measure everything, and print one table."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    playbook = str(Path(sys.executable).with_name("playbook"))
    rows = [
        _command("python -c pass", [sys.executable, "-c", "pass"], None, times),
        _command("playbook --help", [playbook, "--help"], 0.3, times),
        _command("playbook check --all", [playbook, "check", "--all"], 1.0, times),
        _import("counterplay", None, times),
    ]
    rows += [
        _import(point.module, 0.05, times, "counterplay")
        for point in sorted(entry_points(group="counterplay"), key=lambda point: point.name)
    ]
    _print(rows, times)


def _command(what: str, command: list[str], target: float | None, times: int) -> Measured:
    """Wall time of a whole process. The first run only fills caches (byte code, disk)."""
    seconds, problem = [], ""
    for number in range(times + 1):
        began = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return Measured(what, target, [], str(error))
        took = time.perf_counter() - began
        if done.returncode != 0:
            problem = f"exit {done.returncode}: {_last_line(done.stderr or done.stdout)}"
        elif number > 0:
            seconds.append(took)
    return Measured(what, target, seconds, problem)


def _import(module: str, target: float | None, times: int, *before: str) -> Measured:
    """Time of one import, after the imports of `before`."""
    what = f"import {module}" + (f" after {', '.join(before)}" if before else "")
    seconds, problem = [], ""
    for number in range(times + 1):
        command = [sys.executable, "-c", _TIME_IMPORT, module, *before]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            problem = _last_line(done.stderr)
        elif number > 0:
            seconds.append(float(done.stdout))
    return Measured(what, target, seconds, problem)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _print(rows: list[Measured], times: int) -> None:
    table = Table(title=f"Start-up, {times} runs, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    table.add_column("what", no_wrap=True)
    for heading in ("median ms", "slowest ms", "target ms"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        median = statistics.median(row.seconds) if row.seconds else None
        slowest = max(row.seconds, default=None)
        missed = median is not None and row.target is not None and median > row.target
        table.add_row(
            row.what, _ms(median), _ms(slowest), _ms(row.target), row.problem or ("over" if missed else "")
        )
    Console(width=110).print(table)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


if __name__ == "__main__":
    main()
