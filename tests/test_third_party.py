"""A third party's distribution, installed with pip beside the wheel, each of its modules in a playbook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.acme_service import AcmeService

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "fixtures" / "acme_plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with counterplay's wheel and the plugin's, both installed by pip.

    Their dependencies come from the environment that runs the tests, so that no index is asked.
    """
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (Path(own) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--no-cache-dir"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *offline]
    subprocess.run([*install, str(ROOT), str(PLUGIN)], check=True, cwd=folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, acme: AcmeService) -> Path:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "counterplay.yaml").write_text(
        "connections:\n"
        f"  acme: {{uses: acme.account, base_url: '{acme.base_url}', api_key: '${{env:ACME_KEY}}'}}\n"
    )
    return tmp_path


@pytest.fixture
def acme() -> Any:
    with AcmeService() as service:
        service.seed(datetime.now(UTC))
        yield service


def command(environment: Path, workspace: Path, acme: AcmeService, *words: str) -> list[str]:
    (workspace / "home").mkdir(exist_ok=True)
    os.environ.pop("PYTHONPATH", None)
    return [str(environment / "bin" / "playbook"), *words]


def run(environment: Path, workspace: Path, acme: AcmeService, *words: str) -> Any:
    """The JSON that the command prints; it has to succeed."""
    done = subprocess.run(
        command(environment, workspace, acme, *words, "--json"),
        cwd=workspace,
        env={**os.environ, "HOME": str(workspace / "home"), "ACME_KEY": acme.api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def write(workspace: Path, name: str, text: str) -> None:
    (workspace / "playbooks" / f"{name}.yaml").write_text(f"name: {name}\ndescription: A test.\n{text}")


def test_its_modules_are_named_with_their_distribution(
    environment: Path, workspace: Path, acme: AcmeService
) -> None:
    """The plugin is found by its entry point, with all of its modules."""
    found = [one for one in run(environment, workspace, acme, "plugins") if one["name"] == "acme"]
    assert [(one["distribution"], one["problem"]) for one in found] == [("counterplay-acme", None)]
    assert sorted(found[0]["modules"]) == [
        "acme.account",
        "acme.archive",
        "acme.changes",
        "acme.close_ticket",
        "acme.exports",
        "acme.hook",
        "acme.open_ticket",
        "acme.tag",
    ]
    location = subprocess.run(
        [environment / "bin" / "python", "-c", "import counterplay; print(counterplay.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=workspace,
    ).stdout
    assert str(environment) in location, "the wheel is what runs, not the checkout"


def test_its_connection_is_checked(environment: Path, workspace: Path, acme: AcmeService) -> None:
    """`connections check` runs the plugin's own check."""
    assert all(one["ok"] for one in run(environment, workspace, acme, "connections", "check", "acme"))


def test_its_feed_passes_its_transform_into_its_sink(
    environment: Path, workspace: Path, acme: AcmeService
) -> None:
    """Feed trigger, transform and sink: each export's events arrive once, tagged; a second run adds none."""
    write(
        workspace,
        "collect",
        "trigger: {uses: acme.exports, connection: acme}\n"
        "steps:\n  - {uses: acme.tag, with: {member: checked, value: seen}}\n"
        "sinks:\n  - {uses: acme.archive}\n",
    )
    first = run(environment, workspace, acme, "run", "collect", "--once")
    second = run(environment, workspace, acme, "run", "collect", "--once")
    assert sorted(record["id"] for record in acme.archived) == [
        f"E{n}-{m}" for n in (1, 2, 3, 4) for m in (0, 1)
    ]
    assert all(record["checked"] == "seen" for record in acme.archived)
    assert (first["figures"]["delivered"], second["figures"].get("delivered", 0)) == (8, 0)


def test_its_changes_start_runs_of_its_actions(environment: Path, workspace: Path, acme: AcmeService) -> None:
    """Poll trigger and both actions: a run closes the ticket and opens it, each effect journalled."""
    write(
        workspace,
        "tickets",
        "trigger: {uses: acme.changes, connection: acme}\n"
        "filter: event.seq == 4\n"
        "steps:\n"
        '  - {id: close, uses: acme.close_ticket, with: {ticket_id: "{{ event.ticket }}"}}\n'
        '  - {id: open, uses: acme.open_ticket, with: {ticket_id: "{{ event.ticket }}"}}\n'
        "sinks:\n  - {uses: acme.archive}\n",
    )
    summary = run(environment, workspace, acme, "run", "tickets", "--once")
    assert summary["figures"]["runs_succeeded"] == 1
    assert [call for call in acme.calls if call.startswith("POST tickets")] == [
        "POST tickets/T-1/close",
        "POST tickets/T-1/open",
    ]
    (identity,) = (one["id"] for one in run(environment, workspace, acme, "runs", "list"))
    shown = run(environment, workspace, acme, "runs", "show", identity)
    assert [(one["uses"], one["status"], one["verified"]) for one in shown["effects"]] == [
        ("acme.close_ticket", "done", True),
        ("acme.open_ticket", "done", True),
    ]
    assert [record["status"] for record in acme.archived] == ["succeeded"]


def test_its_hook_is_answered_after_the_event_is_stored(
    environment: Path, workspace: Path, acme: AcmeService
) -> None:
    """Push trigger: a signed request is taken and delivered, a forged one refused."""
    write(
        workspace,
        "hooked",
        "trigger: {uses: acme.hook, connection: acme}\nsinks:\n  - {uses: acme.archive}\n",
    )
    process = subprocess.Popen(
        command(environment, workspace, acme, "run", "hooked", "--listen", "127.0.0.1:0"),
        cwd=workspace,
        env={**os.environ, "HOME": str(workspace / "home"), "ACME_KEY": acme.api_key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(one for one in process.stderr if not one.startswith(("acme (", "  ")))
    assert line.startswith("push trigger: POST http://127.0.0.1:"), line
    url = line.split()[-1]
    body = b'{"id": "H-1"}'
    assert _post(url, body, {"x-acme-signature": "forged"}) in (401, 403)
    assert _post(url, body, {"x-acme-signature": acme.sign(body)}) == 202
    until = time.monotonic() + 20
    while not acme.archived and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [record["id"] for record in acme.archived] == ["H-1"]


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_new_plugin_works_by_the_documented_commands(environment: Path, tmp_path: Path) -> None:
    """From `plugins new` over its tests, the conformance kit and its wheel to a run of a playbook."""
    (tmp_path / "home").mkdir()
    shell = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as `--no-build-isolation`
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def sh(text: str, folder: Path, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env={**shell, **more},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    sh("playbook plugins new weather", tmp_path)
    folder = tmp_path / "counterplay-weather"
    readme = (folder / "README.md").read_text()
    said = sh(_block(readme, "try"), folder)
    assert " passed" in said
    assert "weather" in said
    assert "failed" not in said
    assert list((folder / "dist").glob("*.whl"))
    (folder / "counterplay.yaml").write_text(_block(readme, "connection"))
    service = subprocess.Popen(
        [str(environment / "bin" / "python"), "tests/service.py"],
        cwd=folder,
        env=shell,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert service.stdout is not None
    try:
        exports = service.stdout.readline()
        said = sh(exports + _block(readme, "run"), folder)
    finally:
        service.terminate()
        service.communicate(timeout=10)
    assert "weather (counterplay-weather 0.1.0, API 1.0)" in said, "what it may do is told before it is used"
    assert "runs         3 started: 3 succeeded" in said
    sh("playbook plugins lock", folder)
    assert "pinned" in sh("playbook plugins lock && playbook plugins check", folder)
    sh("echo '# more' >> src/counterplay_weather/tag.py", folder)
    refused = sh(f"{exports}\n! playbook run weather-example --once", folder)
    assert "the plugin weather has other files than counterplay.lock was made with" in refused


def _block(text: str, mark: str) -> str:
    """The code block behind a mark."""
    return text.split(f"<!-- {mark} -->", 1)[1].split("```", 2)[1].split("\n", 1)[1]
