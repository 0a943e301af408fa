"""What the service manager hears: systemd's notify protocol on a real socket."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterplay import readiness


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A manager that listens, as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(60)
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_what_is_told_arrives_as_one_datagram(manager: socket.socket) -> None:
    """One assignment a line; a line break inside one cannot forge another."""
    assert readiness.tell("READY=1", "STATUS=two\nREADY=0")
    assert manager.recv(1000) == b"READY=1\nSTATUS=two READY=0"


@pytest.mark.skipif(not hasattr(socket, "SOCK_CLOEXEC"), reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_reached_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`@name`, as containers use it."""
    name = f"counterplay-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert readiness.tell("READY=1")
        assert listening.recv(1000) == b"READY=1"


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, no path, nobody there: the service works all the same."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not readiness.tell("READY=1")
    for address in ("notify", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not readiness.tell("READY=1")


def test_a_sign_of_life_is_for_the_process_that_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG_PID may name another process of the unit."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert not readiness.is_watched()
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert readiness.is_watched()
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert not readiness.is_watched()


def test_the_service_is_ready_when_its_playbooks_are_at_work(desk: Any, manager: socket.socket) -> None:
    """READY, then a sign of life; STOPPING when it is asked to end; what is told is true when it arrives."""
    desk.write("playbooks/watch.yaml", WATCH)
    environment = {**os.environ, "WATCHDOG_USEC": "120000000"}
    with desk.start("up", "--listen", "127.0.0.1:0", env=environment) as process:
        try:
            assert _next(manager) == b"READY=1\nSTATUS=1 playbook at work"
            assert manager.recv(1000) == b"WATCHDOG=1"
            desk.write("playbooks/watch.yaml", WATCH + "steps: 3\n")
            assert _next(manager) == b"STATUS=1 playbook at work; the log says more of watch"
            desk.write("counterplay.yaml", "playbook: {}\n")
            assert _next(manager) == b"STATUS=the configuration as it was runs on: the new one is not valid"
        finally:
            process.send_signal(signal.SIGTERM)
        assert _next(manager) == b"STOPPING=1\nSTATUS=finishing what is in flight"
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


WATCH = """\
name: watch
trigger: {uses: m365.alerts, connection: sim, with: {poll_interval: 60s}}
sinks: [{uses: std.jsonl, with: {path: out.jsonl}}]
"""


def _next(manager: socket.socket) -> bytes:
    """The next word that is no sign of life, of which there is one a second."""
    for _ in range(60):
        said = manager.recv(1000)
        if said != b"WATCHDOG=1":
            return said
    raise AssertionError("nothing but signs of life")


def test_a_service_in_an_empty_folder_says_what_is_missing(desk: Any, manager: socket.socket) -> None:
    """As a unit or a container begins: it is at work, with nothing to do until there is a workspace."""
    (desk.root / "counterplay.yaml").unlink()
    with desk.start("up", "--listen", "127.0.0.1:0") as process:
        try:
            assert _next(manager) == b"READY=1\nSTATUS=0 playbooks at work"
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert err.splitlines()[:2] == [
        "0 playbooks: none",
        "there is no counterplay.yaml here: make a workspace with `playbook init`, then start again",
    ]
