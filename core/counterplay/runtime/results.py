"""How one attempt of an action ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from counterplay.events import JsonObject

Asks = Literal["guard", "plan"]
"""Why an effect waits for a person: a guard asks, or it is not as the approved plan says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: succeeded, failed, or paused until a person agrees to what `error` says.

    `effect` is the journal's word for it, None when there was no effect.
    """

    status: str
    result: JsonObject | None = None
    error: str | None = None
    effect: str | None = None
    verified: bool | None = None
    settled: str | None = None
    after: JsonObject | None = None
    """The state of an effect's target afterwards, for evidence; secrets masked."""
    passing: bool = False
    """The failure may go away by itself, and trying again does no harm."""
    retry_after: float | None = None
    delivery: JsonObject | None = None
    """What a sink was given and confirmed, for the audit log: `sha256` of the record, `receipts`."""
    arguments: JsonObject | None = None
    """What the action was given, secrets masked."""
    asks: Asks | None = None
    """Of a pause: what about it a person has to agree to."""
