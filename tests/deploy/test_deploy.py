"""The service files: what systemd itself says of the unit, and that the image is built from what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

TOP = Path(__file__).resolve().parents[2]
UNIT = TOP / "deploy" / "counterplay.service"
DOCKERFILE = TOP / "deploy" / "Dockerfile"
EXPOSURE = 20
"""What `systemd-analyze security` may count at most, in tenths: 0 can do nothing, 100 anything."""

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: Debian's package systemd has it"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a command that is there: systemd looks whether it can be executed."""
    text = UNIT.read_text("utf-8")
    installed = tmp_path / "counterplay.service"
    here = Path(sys.executable).with_name("playbook")
    installed.write_text(text.replace("/opt/counterplay/bin/playbook", str(here)), "utf-8")
    return installed


@systemd
def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    """No unknown setting, no value that it would ignore."""
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in said.stderr.splitlines() if "counterplay.service" in line]
    assert (said.returncode, own) == (0, [])


@systemd
def test_the_unit_is_confined(unit: Path) -> None:
    """By systemd's own count of what a unit is exposed to."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_unit_starts_a_command_that_exists() -> None:
    """With options that it knows."""
    from counterplay.cli import playbook

    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    words = command.split()
    assert Path(words[0]).name == "playbook"
    assert CliRunner().invoke(playbook, [*words[1:], "--help"]).exit_code == 0


def test_the_unit_waits_for_what_the_service_says() -> None:
    """Without `Type=notify` nobody would listen; 2 is the exit code of a configuration that is wrong."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE))
    assert settings["Type"] == "notify"
    assert settings["RestartPreventExitStatus"] == "2"
    assert int(settings["WatchdogSec"]) >= 60


def test_the_image_is_built_from_what_is_there() -> None:
    """Every file that it copies, and all that the wheel is made of."""
    text = DOCKERFILE.read_text("utf-8")
    copied = {
        word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]
    }
    assert all((TOP / name).exists() for name in copied)
    assert copied >= {"core", "plugins", "schemas", "playbooks", "pyproject.toml", "README.md", "LICENSE"}


def test_the_image_runs_the_service_as_nobody_special() -> None:
    """Not as root, with a command that exists, and a health check that asks the service."""
    from counterplay.cli import playbook

    text = DOCKERFILE.read_text("utf-8")
    last = text.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "groupadd --system --gid 10001" in last, "the group of what it writes has a name"
    assert "useradd --system --uid 10001 --gid 10001" in last
    assert last.index("USER 10001") < last.index("ENTRYPOINT")
    (words,) = re.findall(r"^CMD (\[.*\])$", last, re.MULTILINE)
    import json

    assert CliRunner().invoke(playbook, [*json.loads(words), "--help"]).exit_code == 0
    assert "/health" in last
