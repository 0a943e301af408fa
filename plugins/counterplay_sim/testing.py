"""For tests: the simulator in this process or as one of its own, and the clock that they set."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterplay_sim.attach import ask, close_all
from counterplay_sim.clock import ManualClock
from counterplay_sim.faults import Fault
from counterplay_sim.oracle import Oracle, Verdict
from counterplay_sim.oracle_ledger import LedgerEntry
from counterplay_sim.scenario.build import Plan
from counterplay_sim.simulator import FOLDER, INFO_FILE, Simulator
from counterplay_sim.strictness import Strictness

__all__ = [
    "Fault",
    "LedgerEntry",
    "ManualClock",
    "Oracle",
    "Plan",
    "Simulator",
    "SimulatorProcess",
    "Strictness",
    "Verdict",
    "close_all",
    "simulator_process",
]


@dataclass
class SimulatorProcess:
    """A simulator that runs as a process of its own."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    info: dict[str, Any]

    @property
    def info_file(self) -> Path:
        """The `sim.json` that COUNTERPLAY_SIM may name."""
        return self.state_dir / FOLDER / INFO_FILE

    def m365_settings(self) -> dict[str, Any]:
        """The settings of a connection of kind `m365.tenant`."""
        return dict(self.info["m365.tenant"])

    def intake_settings(self) -> dict[str, Any]:
        """The settings of a connection of kind `intake.key`."""
        return dict(self.info["intake.key"])

    def oracle(self) -> Oracle:
        """The oracle, read beside the running process."""
        return Oracle(self.state_dir)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the admin port, such as `("POST", "/faults", {...})`."""
        return ask(self.info, method, path, body)


@contextmanager
def simulator_process(state_dir: Path, *arguments: str, timeout: float = 30.0) -> Iterator[SimulatorProcess]:
    """`playbook sim --state-dir ...` until the block ends. TimeoutError: it never came up."""
    command = [sys.executable, "-m", "counterplay_sim", "--state-dir", str(state_dir), *arguments]
    file = state_dir / FOLDER / INFO_FILE
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield SimulatorProcess(process, state_dir, _wait(process, file, timeout))
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(process: subprocess.Popen[bytes], file: Path, timeout: float) -> dict[str, Any]:
    until = time.monotonic() + timeout
    while time.monotonic() < until and process.poll() is None:
        try:
            info: dict[str, Any] = json.loads(file.read_text("utf-8"))
            if info["pid"] == process.pid:
                return info
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise TimeoutError(f"the simulator did not come up in {file.parent} (exit code {process.poll()})")
