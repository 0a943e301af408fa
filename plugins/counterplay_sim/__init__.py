"""The simulated tenant: a pretend Microsoft 365 with an intake, offered as the connection `sim`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from counterplay.hookspecs import ConnectionOffer, Invocation, Simulation, hookimpl

CONNECTION = "sim"
KINDS = ("m365.tenant", "intake.key")

COUNTERPLAY_API = "1.0"


@hookimpl
def counterplay_connections(state_dir: Path) -> Iterable[ConnectionOffer]:
    """Offer `sim` as a tenant and as an intake; the first use starts it, or finds the one that runs.

    A simulator that runs with several tenants offers `sim-2`, `sim-3` and so on as well.
    """
    about = {
        "m365.tenant": "a simulated Microsoft 365 tenant on this machine",
        "intake.key": "the simulated tenant's intake on this machine",
    }
    return [
        ConnectionOffer(name_of(slot), uses, partial(_open, state_dir, uses, slot), about[uses])
        for slot in range(1, _tenants(state_dir) + 1)
        for uses in KINDS
    ]


@hookimpl
def counterplay_simulation(state_dir: Path, state: dict[str, Any], moment: datetime) -> Simulation:
    """A tenant of its own for each case of `playbook test`."""
    from counterplay_sim.case import CaseTenant

    return CaseTenant(state_dir, state, moment)


@hookimpl
def counterplay_invocation_started() -> None:
    """A finished tenant is renewed for what begins; other commands find it as it was left."""
    from counterplay_sim.attach import begin

    begin()


@hookimpl
def counterplay_invocation_finished(invocation: Invocation) -> list[str]:
    """Say what the tenant itself knows of the run, and end the tenant when everything was done."""
    if not any(name == CONNECTION or name.startswith(f"{CONNECTION}-") for name in invocation.connections):
        return []
    from counterplay_sim.attach import used_since
    from counterplay_sim.report import lines

    said: list[str] = []
    for attachment, slot in used_since():
        said += lines(attachment.oracle().verdict(attachment.tenant(slot)))
        if invocation.complete:
            attachment.finish(slot)
    return said


def _tenants(state_dir: Path) -> int:
    """How many tenants the simulator of a state directory has as far as its file says; nothing is started."""
    named = os.environ.get("COUNTERPLAY_SIM")
    file = Path(named) if named else state_dir / "sim" / "sim.json"
    try:
        return max(1, len(json.loads(file.read_text("utf-8"))["tenants"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def name_of(slot: int) -> str:
    """The connection of a tenant by its number: `sim`, `sim-2`, `sim-3` ..."""
    return CONNECTION if slot == 1 else f"{CONNECTION}-{slot}"


def _open(state_dir: Path, uses: str, slot: int) -> dict[str, Any]:
    from counterplay_sim.attach import attach

    return attach(state_dir).settings(uses, slot)
