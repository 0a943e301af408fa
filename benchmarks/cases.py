"""How long the tests of playbooks take: `python benchmarks/cases.py [N]`.

Runs `playbook test` on the shipped playbooks N times (default 5), one case at a time and in parallel, and
prints the medians of wall time and processor time beside the target (10 s for all, 1 s a case). Processor
time says what the work costs; wall time says so only on a machine that has nothing else to do. Nothing is
asserted: machines differ.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from rich.console import Console
from rich.table import Table


def main(times: int) -> None:
    table = Table(title=f"playbook test, medians of {times} runs", title_justify="left")
    for heading in ("cases at once", "cases", "wall s", "processor s", "median case s", "slowest case s"):
        table.add_column(heading, justify="right")
    for jobs in dict.fromkeys((1, os.cpu_count() or 1)):
        rounds = [_round(jobs) for _ in range(times)]
        cases = [seconds for one in rounds for seconds in one[2]]
        table.add_row(
            str(jobs),
            str(len(rounds[0][2])),
            f"{statistics.median(one[0] for one in rounds):.1f}",
            f"{statistics.median(one[1] for one in rounds):.1f}",
            f"{statistics.median(cases):.2f}",
            f"{max(cases):.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


def _round(jobs: int) -> tuple[float, float, list[float]]:
    """(wall time, processor time, seconds of each case) of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "counterplay", "test", "-j", str(jobs), "--json"],
            cwd=nowhere,
            capture_output=True,
            text=True,
            check=True,
        )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used, [float(case["seconds"]) for case in json.loads(done.stdout)["cases"]]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
