"""How long a person waits before anything happens: `python benchmarks/startup.py [N]`.

Runs each command N times (default 10) in a process of its own, and prints median and slowest wall time
beside the target of the design. A plugin is measured on top of `import counterplay.plugins`, in one
process each, so that the start of Python does not count: its import, and its import together with the
naming of its modules, which the host asks for at every start. Nothing is asserted: machines differ.
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

_TIMED = """
import time
{before}
began = time.perf_counter()
{code}
print(time.perf_counter() - began)
"""
_LOAD = """
from importlib.metadata import EntryPoint
from counterplay.plugins import PluginHost
point = EntryPoint({name!r}, {value!r}, "counterplay")
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
        _inside("import counterplay", "", "import counterplay", None, times),
    ]
    for point in sorted(entry_points(group="counterplay"), key=lambda point: point.name):
        before = _LOAD.format(name=point.name, value=point.value)
        what = f"import {point.module}"
        rows.append(_inside(what, before, what, 0.05, times))
        load = "assert not PluginHost.load([point]).problems"
        rows.append(_inside(f"  and name its modules ({point.name})", before, load, 0.05, times))
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


def _inside(what: str, before: str, code: str, target: float | None, times: int) -> Measured:
    """Time of a piece of code in a fresh interpreter, after another piece that does not count."""
    seconds, problem = [], ""
    for number in range(times + 1):
        command = [sys.executable, "-c", _TIMED.format(before=before, code=code)]
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
