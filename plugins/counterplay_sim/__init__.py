"""The simulated tenant: a pretend Microsoft 365 with an intake, offered as the connection `sim`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from counterplay.hookspecs import ConnectionOffer, Invocation, hookimpl

CONNECTION = "sim"
KINDS = ("m365.tenant", "intake.key")


@hookimpl
def counterplay_connections(state_dir: Path) -> Iterable[ConnectionOffer]:
    """Offer `sim` as a tenant and as an intake; the first use starts it, or finds the one that runs."""
    about = {
        "m365.tenant": "a simulated Microsoft 365 tenant on this machine",
        "intake.key": "the simulated tenant's intake on this machine",
    }
    return [ConnectionOffer(CONNECTION, uses, partial(_open, state_dir, uses), about[uses]) for uses in KINDS]


@hookimpl
def counterplay_invocation_finished(invocation: Invocation) -> list[str]:
    """Say what the tenant itself knows of the run, and end the tenant when everything was done."""
    if CONNECTION not in invocation.connections:
        return []
    from counterplay_sim.attach import used_since
    from counterplay_sim.report import lines

    said: list[str] = []
    for attachment in used_since():
        said += lines(attachment.oracle().verdict())
        if invocation.complete:
            attachment.finish()
    return said


def _open(state_dir: Path, uses: str) -> dict[str, Any]:
    from counterplay_sim.attach import attach

    return attach(state_dir).settings(uses)
