"""Whose fault is it that a unit does not come: its own, or that of the source as a whole?

A unit is compared with the others of its feed. What fails while others are given is a bad unit; where
several fail and none is given, the source is down, or closed to us, and no unit can answer for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

SEVERAL = 4
"""So many units have to fail, and none be given, before it is the source that fails, and not a unit."""


class Fault(Enum):
    """`OPEN`: nobody can tell yet, for other units are on their way."""

    UNIT = auto()
    OPEN = auto()
    SOURCE = auto()


@dataclass(slots=True)
class _Tried:
    """A unit that failed. `owed`: its first attempt counts as soon as others were given meanwhile."""

    began: datetime
    owed: bool = False
    alone: int = 0


class Blame:
    """What became of the units of one feed lately. Only the feed's mill uses it."""

    def __init__(self) -> None:
        self._given_at: datetime | None = None
        self._failing: dict[int, bool] = {}  # since the last one was given: were they compared with others?
        self._tried: dict[int, _Tried] = {}

    def given(self, unit: int, at: datetime) -> None:
        """The source gave the unit."""
        self._given_at = at if self._given_at is None else max(at, self._given_at)
        self._failing.clear()
        self._tried.pop(unit, None)

    def set_aside(self, unit: int) -> None:
        """Nobody asks for the unit any more; should somebody do so later, it is judged anew."""
        self._failing.pop(unit, None)
        self._tried.pop(unit, None)

    def of(self, unit: int, began: datetime, *, others: bool) -> Fault:
        """An attempt that began then has failed. `others`: are more units on their way?

        It is the unit's fault when the source gave others since the unit was first asked for. But not
        when several fail by now, and among them units that were first asked for after the last one that
        was given: that is how an outage begins for what was on its way.
        """
        tried = self._tried.get(unit)
        first = tried is None
        if tried is None:
            tried = self._tried[unit] = _Tried(began)
        compared = self._given_at is not None and tried.began < self._given_at
        self._failing[unit] = compared
        if compared and (not self.several or all(self._failing.values())):
            return Fault.UNIT
        tried.owed = tried.owed or (first and not self.several)
        tried.alone += 1
        return Fault.SOURCE if self.several or not others else Fault.OPEN

    @property
    def several(self) -> bool:
        """Have several units failed since the last one was given?"""
        return len(self._failing) >= SEVERAL

    def owed(self, unit: int) -> int:
        """Attempts that count against the unit though they were not counted when they failed."""
        tried = self._tried.get(unit)
        return int(tried is not None and tried.owed)

    def alone(self, unit: int) -> int:
        """How often the unit failed with no other to compare it with."""
        tried = self._tried.get(unit)
        return 0 if tried is None else tried.alone
