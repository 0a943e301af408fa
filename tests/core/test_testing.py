"""The fixtures that plugin authors import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = """
import pytest
import requests

def test_it_serves(simulator):
    answer = requests.post(
        simulator.intake_settings()["url"] + "/plain",
        data=b"{}",
        headers={"X-SEKOIAIO-INTAKE-KEY": simulator.tenant.intake_key},
        verify=simulator.ca_file,
    )
    assert answer.status_code == 200
    assert simulator.oracle().verdict().others == 1

@pytest.mark.simulator(events=25, faults=[{"service": "intake", "status": 503}])
def test_it_takes_options(simulator):
    url = simulator.intake_settings()["url"]
    assert requests.post(url, data=b"", verify=simulator.ca_file).status_code == 503
    assert simulator.oracle().verdict().events.offered < 200
"""


def test_a_third_party_gets_a_simulator_by_one_import(tmp_path: Path) -> None:
    """In a project of its own, whose conftest has that import and nothing more."""
    (tmp_path / "test_mine.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text("from counterplay.testing import pytest_configure, simulator\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--strict-markers",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
    ]

    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "", "HOME": str(tmp_path), "REQUESTS_CA_BUNDLE": ""},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_core_does_without_the_simulator() -> None:
    """Importing the fixtures imports no plugin."""
    code = "import counterplay.testing, sys; print([m for m in sys.modules if m.startswith('counterplay_')])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
