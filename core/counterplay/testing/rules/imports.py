"""What naming a plugin's modules costs and does: both happen before any playbook is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from counterplay.testing.case import Case
from counterplay.testing.rules._rule import Broken, rule

LIMIT = 0.05
"""Seconds of processor time on top of `import counterplay`, where the loop below takes REFERENCE seconds.

Measured beside the import, the loop tells how much slower this machine is, or how busy.
"""
REFERENCE = 0.01
_TRIES = 5
_CODE = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[2])
import importlib, counterplay, pluggy
said = []
def hear(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        if event == "socket.getaddrinfo" or not isinstance(arguments[1], (str, bytes)):
            said.append(f"{event} {arguments[1:] if event != 'socket.getaddrinfo' else arguments[:2]}")
sys.addaudithook(hear)
def loop():
    began = time.process_time()
    sum(n * n for n in range(250_000))
    return time.process_time() - began
before = loop()
began = time.process_time()
plugin = importlib.import_module(sys.argv[1])
list(plugin.counterplay_modules())
seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "loop": (before + loop()) / 2, "network": said}))
"""


@rule(scope="plugin")
def import_is_quick(case: Case) -> None:
    """Naming the modules takes under 50 ms of processor time on top of `import counterplay`."""
    least = min(_until_quick(case))
    if least >= LIMIT:
        raise Broken(
            f"importing {case.module_name} took {least * 1000:.0f} ms at best: "
            "import what is heavy inside the methods that need it"
        )


@rule(scope="plugin")
def import_is_offline(case: Case) -> None:
    """Naming the modules touches no network."""
    said = _imported(case)["network"]
    if said:
        raise Broken(f"importing {case.module_name} reached for the network: {said[0]}")


def _until_quick(case: Case) -> list[float]:
    """Times of fresh interpreters, until one is quick: the machine's other work only ever adds to one."""
    found: list[float] = []
    while len(found) < _TRIES and (not found or found[-1] >= LIMIT):
        said = _imported(case)
        found.append(said["seconds"] / max(1.0, said["loop"] / REFERENCE))
    return found


def _imported(case: Case) -> Any:
    # An installed plugin has its byte code: the first try may have to write it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, case.module_name, json.dumps(sys.path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    if done.returncode != 0:
        raise Broken(f"importing {case.module_name} in a fresh interpreter failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])
