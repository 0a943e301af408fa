"""What the quick start did to the simulated tenant can be taken back afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from counterplay_sim.oracle import Oracle


def playbook(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as a newcomer types it."""
    return subprocess.run(
        [sys.executable, "-m", "counterplay", *words],
        cwd=home,
        env={**os.environ, "HOME": str(home), "XDG_STATE_HOME": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_finished_tenant_is_renewed_by_the_next_run_and_by_nothing_else(tmp_path: Path) -> None:
    """The undo finds the account that the run blocked; only another run begins a new tenant."""
    state = tmp_path / ".local" / "state" / "counterplay"
    assert playbook(tmp_path, "run", "quickstart", "--json").returncode == 0
    first = Oracle(state).verdict()
    assert first.victim.blocked
    (run,) = [
        one
        for one in json.loads(playbook(tmp_path, "runs", "list", "--json").stdout)
        if one["playbook"].startswith("contain")
    ]

    undone = playbook(tmp_path, "undo", run["id"], "--json")

    report: dict[str, Any] = json.loads(undone.stdout)
    taken_back = {one["uses"] for one in report["effects"] if one["status"] == "taken back"}
    assert {"m365.block_sign_in", "m365.disable_inbox_rules"} <= taken_back, undone.stderr
    after = Oracle(state).verdict()
    assert after.tenant == first.tenant
    assert not after.victim.blocked
    assert playbook(tmp_path, "run", "quickstart", "--json").returncode == 0
    assert Oracle(state).verdict().tenant != first.tenant
