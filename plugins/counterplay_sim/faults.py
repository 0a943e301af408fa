"""Faults on the wire: rules that say which request gets what instead of, or around, its answer.

A rule is a JSON object, so that a file, the admin port and a constructor say the same:
`{"service": "activity", "path": "/audit/", "nth": [1, 3], "status": 503, "body": "busy"}`.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. The first five fields choose requests, the rest says what happens to them.

    * `service` (`login`, `graph`, `activity`, `intake`), `method`, `path` (a regular expression that is
      searched in the path): empty means any.
    * `nth`: which of the matching requests, counted from 1; empty means all. `probability`: of those.
    * `times`: the rule is used up after so many; 0 means never.
    * `delay`: seconds to wait first. `status`, `body`, `headers`: answered instead of the real answer.
    * `reset`: `before` drops the connection without doing anything, `after` does the work first.
    * `truncate`: send only so many bytes of the body, then drop the connection.
    * `drip`: seconds to wait between pieces of 1 KiB of the body.
    """

    service: str = ""
    method: str = ""
    path: str = ""
    nth: tuple[int, ...] = ()
    probability: float = 1.0
    times: int = 0
    delay: float = 0.0
    status: int = 0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    reset: str = ""
    truncate: int | None = None
    drip: float = 0.0

    @classmethod
    def parse(cls, rule: Mapping[str, Any]) -> Fault:
        """A rule from JSON. ValueError: it has a member that no rule has, or a value of no use."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(rule) - known)
        if unknown:
            raise ValueError(f"a fault has no {unknown[0]!r}; it may have {', '.join(sorted(known))}")
        values = dict(rule)
        nth = values.get("nth", ())
        values["nth"] = (nth,) if isinstance(nth, int) else tuple(nth)
        values["headers"] = tuple(dict(values.get("headers", ())).items())
        fault = cls(**values)
        if fault.reset not in ("", "before", "after"):
            raise ValueError(f"reset is 'before' or 'after', not {fault.reset!r}")
        try:
            re.compile(fault.path)
        except re.error as error:
            raise ValueError(f"path is no regular expression: {error}") from error
        return fault


class _Rule:
    __slots__ = ("fault", "pattern", "seen", "used")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.path)
        self.seen = 0
        self.used = 0

    def matches(self, service: str, method: str, path: str) -> bool:
        fault = self.fault
        return (
            fault.service in ("", service)
            and fault.method in ("", method)
            and self.pattern.search(path) is not None
        )

    def takes(self, chance: random.Random) -> bool:
        fault = self.fault
        self.seen += 1
        if fault.nth and self.seen not in fault.nth:
            return False
        if fault.times and self.used >= fault.times:
            return False
        if fault.probability < 1.0 and chance.random() >= fault.probability:
            return False
        self.used += 1
        return True


class FaultPlan:
    """The rules in force. The first one that takes a request decides."""

    def __init__(self, rules: Iterable[Fault | Mapping[str, Any]] = (), seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        for rule in rules:
            self.add(rule)

    def add(self, rule: Fault | Mapping[str, Any]) -> None:
        """Put a rule in force, after those that are."""
        made = _Rule(rule if isinstance(rule, Fault) else Fault.parse(rule))
        with self._lock:
            self._rules = [*self._rules, made]

    def clear(self) -> None:
        """Take every rule out of force."""
        with self._lock:
            self._rules = []

    def pick(self, service: str, method: str, path: str) -> Fault | None:
        """The fault that this request meets, if any."""
        if not self._rules:
            return None
        with self._lock:
            for rule in self._rules:
                if rule.matches(service, method, path) and rule.takes(self._chance):
                    return rule.fault
        return None

    def report(self) -> list[dict[str, Any]]:
        """How often each rule matched and was used."""
        return [
            {"service": rule.fault.service, "path": rule.fault.path, "seen": rule.seen, "used": rule.used}
            for rule in self._rules
        ]
