"""The command as a process: what it imports, how it ends, what other people's plugins do to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLLOW = ("run", "alerts-to-intake", "--connection", "contoso=sim", "--connection", "siem=sim")
HEAVY = (
    "jinja2", "sqlalchemy", "alembic", "dbos", "msal", "rich", "requests", "jsonschema", "cryptography",
    "counterplay_std", "counterplay_m365", "counterplay_intake", "counterplay_sim",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["xyzzy"]])
def test_help_imports_no_plugin_and_no_heavy_library(arguments: list[str]) -> None:
    """So that it answers at once however much is installed."""
    code = (
        "import sys\nfrom counterplay.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert done.stderr.splitlines()[-1] == "[]"


def wait_for(file: Path, process: Any) -> None:
    """Until the file is there: the process has come that far."""
    until = time.monotonic() + 20
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for_arrivals(desk: Any, process: Any) -> None:
    """Until the simulated intake has taken the alerts."""
    from counterplay_sim.testing import Oracle

    until = time.monotonic() + 20
    wait_for(desk.root / ".counterplay" / "sim" / "sim.json", process)
    oracle = Oracle(desk.root / ".counterplay")
    while not oracle.verdict().alerts_arrived:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


SEARCH = """
name: search
description: It searches the past.
trigger:
  uses: m365.audit_search
  connection: sim
  with: {start: "2026-03-01T00:00:00Z", end: "2026-03-02T00:00:00Z"}
sinks: [{uses: std.jsonl, with: {path: out.jsonl}}]
"""


def test_a_run_that_waits_for_a_search_says_so(desk: Any) -> None:
    """Its window and since when, long before there is anything to count."""
    desk.write("playbooks/search.yaml", SEARCH)
    process = desk.start("run", "search", "--once")

    said = process.stderr.readline()

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    window = "from 2026-03-01T00:00:00Z to 2026-03-02T00:00:00Z"
    assert re.fullmatch(rf"m365\.audit_search sim .*: searches the audit log {window} since 2\S+Z\n", said), (
        said
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_goes_on_at_the_next_start(desk: Any, number: int) -> None:
    """No traceback, a summary of what was done; nothing arrives twice afterwards."""
    process = desk.start(*FOLLOW)
    wait_for_arrivals(desk, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    again = desk.playbook(*FOLLOW, "--once")

    assert process.returncode == 130
    assert out.startswith("alerts-to-intake: interrupted in ")
    assert err == "\nfinishing what is in flight; once more to end at once\n"
    assert again.code == 0
    assert "  6 of 6 alerts arrived.\n" in again.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_for_stdin_just_ends_it(desk: Any, number: int) -> None:
    """Nothing has begun: exit code 130, and no more than the end of the terminal's line."""
    desk.write("playbooks/greet.yaml", "name: greet\ndescription: x\ntrigger: {uses: std.manual}\n"
               "sinks: [{uses: std.jsonl, with: {path: out.jsonl}}]\n")  # fmt: skip
    started = desk.root / "started"
    code = (
        "import io, pathlib, sys\n"
        "class Stdin(io.RawIOBase):\n"
        "    def readinto(self, buffer):\n"
        f"        pathlib.Path({str(started)!r}).touch()\n"
        "        import time; time.sleep(30); return 0\n"
        "    def readable(self): return True\n"
        "sys.stdin = io.TextIOWrapper(io.BufferedReader(Stdin()))\n"
        "from counterplay.cli import main\nmain(['run', 'greet', '--event', '-'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=desk.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(started, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (130, "", "\n")
    assert not (desk.root / ".counterplay").exists()


def test_a_second_signal_ends_at_once(desk: Any) -> None:
    """Even while a request is in flight whose answer never comes; no lock is left behind."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        desk.write(
            "counterplay.yaml",
            "connections:\n"
            f"  siem: {{uses: intake.key, url: 'http://127.0.0.1:{port}', intake_key: key-4711}}\n",
        )
        desk.write("playbooks/send.yaml", "name: send\ndescription: x\ntrigger: {uses: std.manual}\n"
                   "sinks: [{uses: intake.forward, connection: siem}]\n")  # fmt: skip
        desk.write("event.json", "{}")
        process = desk.start("run", "send", "--event", "event.json")
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "\n"
            assert process.stderr.readline().startswith("finishing what is in flight")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert "Traceback" not in err
    desk.write("counterplay.yaml", "")
    assert desk.playbook("runs", "--json").data == []


def test_a_pipe_that_closes_early_is_no_traceback(desk: Any) -> None:
    """`playbook modules --json | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "counterplay", "modules", "--json"],
            cwd=desk.root, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30,
        )  # fmt: skip
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path with a distribution `foreign` that brings the command `foreign`."""
    info = tmp_path / "site" / "foreign-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[counterplay.commands]\nforeign = foreign_plugin:command\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    sys.modules.pop("foreign_plugin", None)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "raise RuntimeError('no such\\nlibrary')",
            "the command 'foreign' of foreign cannot be loaded: RuntimeError: no such library; "
            "fix or uninstall foreign",
        ),
        (
            "raise SystemExit(7)",
            "the command 'foreign' of foreign cannot be loaded: SystemExit: 7; fix or uninstall foreign",
        ),
        (
            "command = 5",
            "the entry point 'foreign_plugin:command' of foreign is not a click command; "
            "fix or uninstall foreign",
        ),
    ],
)
def test_a_plugins_command_that_cannot_be_loaded_spoils_nothing_else(
    desk: Any, foreign: Path, code: str, reason: str
) -> None:
    """It is listed without being imported, tells in one line why it fails, and the rest works."""
    (foreign / "foreign_plugin.py").write_text(code)

    listed = desk.playbook("--help")
    said = desk.playbook("foreign")

    assert re.search(r"\n  foreign +\(from the plugin foreign_plugin\)\n", listed.out)
    assert (said.code, said.out, said.err) == (1, "", f"error: {reason}\n")
    assert desk.playbook("list").code == 0


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("@click.command()\ndef command():\n    'Ring the bell.\\n\\nTwice.'\n", "Ring the bell. (foreign)"),
        ("@command(help='Ring.')\n@option(help='no')\ndef command():\n    'Other.'\n", "Ring. (foreign)"),
        ("@click.group('x', short_help='Rings.', help='Other.')\ndef command(): ...\n", "Rings. (foreign)"),
        ("@click.command(help=TEXT)\ndef command(): ...\n", "(from the plugin foreign_plugin)"),
        ("command = made()\n", "(from the plugin foreign_plugin)"),
        ("this is no Python\n", "(from the plugin foreign_plugin)"),
    ],
)
def test_the_help_of_a_plugins_command_is_read_without_importing_it(
    desk: Any, foreign: Path, code: str, line: str
) -> None:
    """From its docstring, or what its decorator says; what is not written out is not guessed."""
    (foreign / "foreign_plugin.py").write_text(code)

    shown = desk.playbook("--help").out

    assert re.search(rf"\n  foreign +{re.escape(line)}\n", shown), shown
    assert "foreign_plugin" not in sys.modules


def test_a_command_of_a_plugin_outside_the_lock_is_not_imported(desk: Any, foreign: Path) -> None:
    """Its code would run in a workspace that agreed to other plugins."""
    (foreign / "foreign_plugin.py").write_text("raise SystemExit(7)")
    desk.playbook("plugins", "lock")

    said = desk.playbook("foreign")

    assert (said.code, said.err) == (
        2,
        "error: the command 'foreign' cannot be used: foreign has no plugin, and so no place in"
        " counterplay.lock; look at `playbook plugins check`\n",
    )
    assert desk.playbook("sim", "--help").code == 0
    lock = json.loads((desk.root / "counterplay.lock").read_text())
    lock["plugins"]["sim"]["sha256"] = "0" * 64
    desk.write("counterplay.lock", json.dumps(lock))
    assert "the plugin sim has other files than counterplay.lock was made with" in desk.playbook("sim").err


def test_a_fault_in_a_command_is_one_line_unless_debug_is_asked_for(desk: Any, foreign: Path) -> None:
    """What nobody foresaw names the error; `--debug`, wherever it stands, shows where."""
    (foreign / "foreign_plugin.py").write_text(
        "import click\n\n@click.command()\ndef command():\n    raise ZeroDivisionError('by\\nzero')\n"
    )

    said = desk.playbook("foreign")
    debug = desk.playbook("foreign", "--debug")

    line = (
        "error: ZeroDivisionError: by zero; this is a fault of counterplay or of a plugin; "
        "`--debug` shows where"
    )
    assert (said.code, said.err) == (1, line + "\n")
    assert debug.code == 1
    assert "foreign_plugin.py" in debug.err
    assert debug.err.splitlines()[-1] == line


def test_json_of_a_run_is_the_only_thing_on_stdout(desk: Any) -> None:
    """Also from a process of its own, where logs and progress go to stderr."""
    process = desk.start(*FOLLOW, "--once", "--json")
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0
    assert json.loads(out)["figures"]["delivered"] == 6
    assert err == ""
