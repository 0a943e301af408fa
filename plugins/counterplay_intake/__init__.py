"""The plugin `intake`: HTTP intakes that take events with a key."""

from __future__ import annotations

from collections.abc import Iterable

from counterplay import Module, hookimpl

COUNTERPLAY_API = "1.0"


@hookimpl
def counterplay_modules() -> Iterable[type[Module]]:
    from counterplay_intake.forward import Forward
    from counterplay_intake.key import IntakeKey

    return (IntakeKey, Forward)
