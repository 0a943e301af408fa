"""Which simulator the connection `sim` means: one that runs already, else one in this process."""

from __future__ import annotations

import atexit
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterplay.errors import ConfigError, StateError

if TYPE_CHECKING:
    from counterplay_sim.oracle import Oracle
    from counterplay_sim.simulator import Simulator

VARIABLE = "COUNTERPLAY_SIM"
_PATIENCE = 10.0  # seconds for another process to come up

_lock = threading.Lock()
_beginning = False
_open: dict[Path, Attachment] = {}


class Attachment:
    """A simulator as this process uses it: its own, or another process's through the admin port."""

    def __init__(self, state_dir: Path, info: dict[str, Any], own: Simulator | None) -> None:
        self.state_dir = state_dir
        self._info = info
        self._own = own
        self.used: set[int] = set()

    def settings(self, uses: str, slot: int = 1) -> dict[str, Any]:
        """The settings of a connection of kind `uses`; at the beginning of a run for an unfinished tenant.

        ConfigError: the simulator has no tenant of that number.
        """
        self.used.add(slot)
        if not _beginning:  # the tenant as it was left: to be looked at, or to take back what was done
            self._info = self._own.info() if self._own is not None else self._info
        elif self._own is not None:
            self._own.renew()
            self._info = self._own.info()
        else:
            self._info = self._ask("/renew")
        for tenant in self._info["tenants"]:
            if tenant["slot"] == slot:
                settings: dict[str, Any] = tenant[uses]
                return settings
        raise ConfigError(
            f"the simulator of {self.state_dir} has {len(self._info['tenants'])} tenants, not {slot}",
            hint=f"start it with `playbook sim --tenants {slot}`",
        )

    def tenant(self, slot: int = 1) -> str:
        """The id of a tenant that was used."""
        found = next(one for one in self._info["tenants"] if one["slot"] == slot)
        return str(found["m365.tenant"]["tenant_id"])

    def oracle(self) -> Oracle:
        """The oracle of this simulator's state."""
        from counterplay_sim.oracle import Oracle

        return self._own.oracle() if self._own is not None else Oracle(self.state_dir)

    def finish(self, slot: int = 1) -> None:
        """Mark a tenant as done with; one that somebody else's simulator serves stays for its next use."""
        if self._own is not None:
            self._own.finish(slot)

    def close(self) -> None:
        """Stop the simulator if it is this process's own."""
        if self._own is not None:
            self._own.close()

    def _ask(self, path: str) -> Any:
        try:
            return ask(self._info, "POST", path)
        except (OSError, ValueError) as error:
            raise StateError(
                f"the simulator of {self.state_dir} (process {self._info['pid']}) does not answer: {error}",
                hint="start it again with `playbook sim`",
            ) from error


def begin() -> None:
    """This process begins to run playbooks: a finished tenant gives way to a new one when it is next used."""
    global _beginning
    _beginning = True


def attach(state_dir: Path) -> Attachment:
    """The simulator for a state directory, started in this process if none serves it yet.

    ConfigError: COUNTERPLAY_SIM names a simulator that does not answer. StateError: the state is of no use.
    """
    with _lock:
        key = state_dir.absolute()
        if key not in _open:
            named = os.environ.get(VARIABLE)
            _open[key] = _named(Path(named)) if named else _local(key)
        return _open[key]


def used_since() -> list[tuple[Attachment, int]]:
    """The simulators and tenants that this process has used since it was last asked."""
    with _lock:
        used = [(attachment, slot) for attachment in _open.values() for slot in sorted(attachment.used)]
        for attachment, _ in used:
            attachment.used.clear()
        return used


def close_all() -> None:
    """Forget every simulator, and stop those of this process."""
    global _beginning
    with _lock:
        _beginning = False
        for attachment in _open.values():
            attachment.close()
        _open.clear()


atexit.register(close_all)


def ask(info: dict[str, Any], method: str, path: str, body: Any = None) -> Any:
    """One request to the admin port of a running simulator. OSError: it does not answer, or refuses."""
    request = urllib.request.Request(
        info["urls"]["admin"] + path,
        method=method,
        data=json.dumps(body).encode() if method != "GET" else None,
        headers={"Authorization": f"Bearer {info['admin_token']}"},
    )
    context = ssl.create_default_context(cafile=info["ca_file"])
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(request, timeout=30) as answer:
        return json.loads(answer.read())


def _named(file: Path) -> Attachment:
    try:
        info = ask(json.loads(file.read_text("utf-8")), "GET", "/info")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{VARIABLE} names {file}, but no simulator answers there: {error}",
            hint="start one with `playbook sim`, or unset the variable",
        ) from error
    return Attachment(Path(info["state_dir"]), info, None)


def _local(state_dir: Path) -> Attachment:
    from counterplay_sim.simulator import FOLDER, INFO_FILE, Simulator

    until = time.monotonic() + _PATIENCE
    while True:
        try:
            own = Simulator(state_dir, as_left=not _beginning).start()
            return Attachment(state_dir, own.info(), own)
        except BlockingIOError:  # another process holds the lock; it may just be starting, or ending
            pass
        try:
            info = json.loads((state_dir / FOLDER / INFO_FILE).read_text("utf-8"))
            return Attachment(state_dir, ask(info, "GET", "/info"), None)
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > until:
                raise StateError(
                    f"another process holds the simulated tenant in {state_dir / FOLDER} and does not answer:"
                    f" {error}",
                    hint="end that process, or use another state directory",
                ) from error
        time.sleep(0.05)
