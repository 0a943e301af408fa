"""`playbook sim` and `playbook sim report`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from counterplay_sim.cli import sim
from counterplay_sim.testing import Simulator, simulator_process


def test_the_help_names_every_scenario() -> None:
    """What can be asked for is found where people look."""
    from counterplay_sim.scenario.chains import CHAINS

    (option,) = [one for one in sim.params if one.name and one.name.startswith("scenario")]
    said = option.to_info_dict()["help"].replace(" (default)", "")
    assert [name for name in CHAINS if f" {name}," not in said] == []


def test_settings_are_printed_ready_to_paste(tmp_path: Path) -> None:
    """What stands on stdout is YAML for counterplay.yaml; Ctrl-C ends it with 0 and no word on stderr."""
    command = [
        sys.executable,
        "-X",
        "dev",
        "-m",
        "counterplay_sim",
        "--state-dir",
        str(tmp_path),
        "--events",
        "10",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = []
        while not printed or not printed[-1].startswith("# Ctrl-C"):
            printed.append(process.stdout.readline())
        os.kill(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=10)

    connections = yaml.safe_load("".join(printed))["connections"]
    assert connections["sim-tenant"]["uses"] == "m365.tenant"
    assert connections["sim-intake"]["url"].startswith("https://127.0.0.1:")
    assert (process.returncode, rest, errors) == (0, "", "")
    assert not (tmp_path / "sim" / "sim.json").exists()


def test_a_second_process_on_the_same_state_is_refused(tmp_path: Path, simulator: Any) -> None:
    """2, and the message names the state directory."""
    result = CliRunner().invoke(sim, ["--state-dir", str(tmp_path)])

    assert result.exit_code == 2
    assert "another process serves the simulated tenant" in result.stderr


def test_a_faults_file_is_checked(tmp_path: Path) -> None:
    """A misspelt member is refused before anything starts."""
    file = tmp_path / "faults.json"
    file.write_text('[{"servce": "graph"}]')

    result = CliRunner().invoke(sim, ["--state-dir", str(tmp_path / "state"), "--faults", str(file)])

    assert (result.exit_code, "a fault has no 'servce'" in result.stderr) == (2, True)
    assert not (tmp_path / "state").exists()


def test_the_report_is_for_people_and_for_programs(tmp_path: Path) -> None:
    """Text by default, JSON on demand; 1 while events are missing, 0 when all arrived."""
    with Simulator(tmp_path, events=10) as simulator:
        first = CliRunner().invoke(sim, ["report", "--state-dir", str(tmp_path)])
        bodies = simulator.tenant.events()
        simulator.tenant.accept(list(bodies.values()))

    second = CliRunner().invoke(sim, ["--state-dir", str(tmp_path), "report", "--json"])

    assert first.exit_code == 1
    assert f"missing {len(bodies)}" in first.stdout
    assert second.exit_code == 0
    assert json.loads(second.stdout)["events"]["exact"] == len(bodies)


def test_a_report_on_nothing_says_what_to_do(tmp_path: Path) -> None:
    """2, and the next step."""
    result = CliRunner().invoke(sim, ["report", "--state-dir", str(tmp_path)])

    assert result.exit_code == 2
    assert "no simulated tenant has its state in" in result.stderr
    assert "playbook run quickstart" in result.stderr


def test_the_state_lies_in_the_workspace(tmp_path: Path, monkeypatch: Any) -> None:
    """Without --state-dir a counterplay.yaml upwards decides."""
    (tmp_path / "counterplay.yaml").touch()
    (tmp_path / "playbooks").mkdir()
    monkeypatch.chdir(tmp_path / "playbooks")

    result = CliRunner().invoke(sim, ["report"])

    assert f"no simulated tenant has its state in {tmp_path / '.counterplay' / 'sim'}" in result.stderr


def test_a_chosen_port_is_used(tmp_path: Path) -> None:
    """The four services stand in a row."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if port > 65000:
        pytest.skip("the system gave a port with no room above it")
    with simulator_process(tmp_path, "--events", "10", "--port", str(port)) as running:
        urls = running.info["urls"]
    assert [urls[name] for name in ("login", "graph", "activity", "intake")] == [
        f"https://127.0.0.1:{port + number}" for number in range(4)
    ]


@pytest.mark.parametrize(
    ("option", "value", "limits"),
    [
        ("--port", "70000", "0<=x<=65532"),
        ("--admin-port", "-1", "0<=x<=65535"),
        ("--users", "0", "x>=1"),
        ("--events", "-5", "x>=0"),
        ("--rules", "-1", "x>=0"),
        ("--requests-per-minute", "0", "x>=1"),
        ("--tenants", "0", "1<=x<=100"),
        ("--rate", "-1", "x>=0"),
    ],
)
def test_a_number_out_of_its_range_is_refused(tmp_path: Path, option: str, value: str, limits: str) -> None:
    """2, with the range, before anything is made."""
    result = CliRunner().invoke(sim, ["--state-dir", str(tmp_path / "state"), option, value])

    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {value}" in result.stderr
    assert limits in result.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([{"kind": "AF20050"}, {"service": "grpah"}], "fault 2: service is one of"),
        ({"faults": [3]}, "fault 1: a fault is an object, not 3"),
        ({"faults": {"kind": "AF20050"}}, "`faults` is a list of rules"),
        ({"strictness": {"page_size": 0}}, "strictness: page_size is a whole number at least 1, not 0"),
        ({"strictness": []}, "`strictness` is an object of switches"),
    ],
)
def test_a_faults_file_is_refused_with_the_place(tmp_path: Path, content: Any, why: str) -> None:
    """2; the file, the number of the rule or the switch, and what is wrong with it."""
    file = tmp_path / "faults.json"
    file.write_text(json.dumps(content))

    result = CliRunner().invoke(sim, ["--state-dir", str(tmp_path / "state"), "--faults", str(file)])

    assert result.exit_code == 2
    assert why in result.stderr
    assert str(file) in result.stderr
    assert not (tmp_path / "state").exists()
