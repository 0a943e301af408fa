"""Faults: rules that say which request meets what, and which events of the log are not as they should be.

A rule is a JSON object, so that a file, the admin port and a constructor say the same: either a fault of
the catalogue by its `kind`, or an answer spelt out:
`{"kind": "AF20050", "content_type": "Audit.Exchange", "per_target": 2}`,
`{"service": "activity", "path": "/audit/", "nth": [1, 3], "status": 503, "body": "busy"}`.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl

from counterplay_sim import fault_checks as check
from counterplay_sim import faults_log
from counterplay_sim.faults_log import LogFault
from counterplay_sim.scenario.noise import CONTENT_TYPES

_BLOB = "/audit/"
_LISTING = "/subscriptions/content$"
_FEED = "/activity/feed/"

#: Kinds that the audit feed itself knows how to play, and the requests that they are about.
FEED_KINDS: dict[str, str] = {
    "AF20050": _BLOB,
    "AF20051": _BLOB,
    "blob_404": _BLOB,
    "AF50000": _BLOB,
    "AF50005": _BLOB,
    "html_503": _BLOB,
    "timeout_408": _BLOB,
    "unauthorized": _FEED,
    "AF10001": _FEED,
    "AF429": _FEED,
    "auditing_off": _FEED,
    "truncated_json": _BLOB,
    "invalid_element": _BLOB,
    "empty_blob": _BLOB,
    "huge_blob": _BLOB,
    "wrong_content_type": _BLOB,
    "repeat_last": _BLOB,
    "fraction_digits": _LISTING,
    "foreign_content_uri": _LISTING,
    "foreign_next_page": _LISTING,
    "self_next_page": _LISTING,
    "subscription_disabled": _LISTING,
    "subscription_removed": _LISTING,
    "webhook_nulled": "/subscriptions/list$",
    "start_lag": "/subscriptions/start$",
}
_LOGIN_DOWN = {
    "error": "server_error",
    "error_description": "AADSTS90033: A transient error has occurred. Please try again.",
    "error_codes": [90033],
}
#: Kinds that are a short way to spell a rule out.
WIRE_KINDS: dict[str, dict[str, Any]] = {
    "token_500": {"service": "login", "path": "token$", "status": 500, "body": json.dumps(_LOGIN_DOWN)},
    "connection_reset": {"service": "activity", "path": _BLOB, "reset": "before"},
    "slow_drip": {"service": "activity", "path": _BLOB, "drip": 0.05},
    "clock_skew": {"skew": 600.0},
}
KINDS = (*FEED_KINDS, *WIRE_KINDS, *faults_log.KINDS)


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule. The first group of fields chooses requests, the rest says what happens to them.

    * `service` (`login`, `graph`, `activity`, `intake`), `method`, `path` (a regular expression that is
      searched in the path): empty means any. `content_type` and `blob` (a regular expression for content
      ids) choose among requests of the audit feed.
    * `nth`: which of the matching requests, counted from 1; empty means all. `probability`: of those.
    * `times`: the rule is used up after so many; 0 means never. `per_target`: the same for each path.
    * `kind`: a fault of the catalogue (`docs/simulator.md` has them all); it brings its own defaults.
    * `delay`: seconds to wait first. `status`, `body`, `headers`: answered instead of the real answer.
    * `reset`: `before` drops the connection without doing anything, `after` does the work first.
    * `truncate`: send only so many bytes of the body, then drop the connection.
    * `drip`: seconds to wait between pieces of 1 KiB of the body.
    * `skew`: seconds by which the `Date` header is wrong.
    * `minutes`, `megabytes`, `digits`, `element`, `host`: what some kinds take.
    """

    service: str = ""
    method: str = ""
    path: str = ""
    content_type: str = ""
    blob: str = ""
    nth: tuple[int, ...] = ()
    probability: float = 1.0
    times: int = 0
    per_target: int = 0
    kind: str = ""
    delay: float = 0.0
    status: int = 0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    reset: str = ""
    truncate: int | None = None
    drip: float = 0.0
    skew: float = 0.0
    minutes: float = 0.0
    megabytes: float = 100.0
    digits: tuple[int, ...] = (0, 3, 7)
    element: str = "syntax"
    host: str = "feed.evil.example"

    @classmethod
    def parse(cls, rule: Mapping[str, Any]) -> Fault:
        """A rule from JSON. ValueError: it has a member that no rule has, or a value of no use."""
        if not isinstance(rule, Mapping):
            raise ValueError(f"a fault is an object, not {rule!r}")
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(rule) - known)
        if unknown:
            raise ValueError(f"a fault has no {unknown[0]!r}; it may have {', '.join(sorted(known))}")
        values = dict(rule)
        kind = values.get("kind", "")
        check.choice("a fault's kind", kind, sorted(KINDS))
        for name in ("nth", "digits"):
            if name in values:
                given = values[name]
                values[name] = tuple(given) if isinstance(given, list | tuple) else (given,)
        if not isinstance(values.get("headers", {}), Mapping):
            raise ValueError(f"headers is an object of texts, not {values['headers']!r}")
        values["headers"] = tuple(values.get("headers", {}).items())
        return cls(**{**_defaults(kind), **values})

    def __post_init__(self) -> None:
        """ValueError: a member has a value that would make the rule meet nothing, or break the wire."""
        self._check_whom()
        for name in ("kind", "body", "host"):
            check.text(name, getattr(self, name))
        check.choice("kind", self.kind, KINDS)
        check.choice("element", self.element, ELEMENTS, empty=False)
        if self.reset not in ("", "before", "after"):
            raise ValueError(f"reset is 'before' or 'after', not {self.reset!r}")
        if self.status != 0 or isinstance(self.status, bool):
            check.whole("status", self.status, 100, 599)
        if self.truncate is not None:
            check.whole("truncate", self.truncate)
        for name in ("delay", "drip", "minutes", "megabytes"):
            check.number(name, getattr(self, name), 0)
        check.number("skew", self.skew)
        if not isinstance(self.digits, tuple) or not self.digits:
            raise ValueError(f"digits are numbers from 0 to 9, not {self.digits!r}")
        for digit in self.digits:
            check.whole("digits", digit, 0, 9)
        check.headers(self.headers)
        does = (self.kind, self.status, self.delay, self.reset, self.drip, self.skew)
        if not any(does) and self.truncate is None:
            raise ValueError(
                "the rule does nothing: give a kind, or status, delay, reset, truncate, drip, skew"
            )

    def _check_whom(self) -> None:
        check.choice("service", self.service, check.SERVICES)
        check.choice("method", self.method, check.METHODS)
        check.pattern("path", self.path)
        check.pattern("blob", self.blob)
        check.text("content_type", self.content_type)
        if self.content_type.lower() not in ("", *(one.lower() for one in CONTENT_TYPES)):
            check.choice("content_type", self.content_type, CONTENT_TYPES)
        if not isinstance(self.nth, tuple):
            raise ValueError(f"nth is a number or a list of numbers from 1, not {self.nth!r}")
        for place in self.nth:
            check.whole("nth", place, 1)
        check.number("probability", self.probability, 0, 1)
        for name in ("times", "per_target"):
            check.whole(name, getattr(self, name))

    @property
    def log_fault(self) -> LogFault | None:
        """What it does to the log, when it is a fault of that sort."""
        if self.kind not in faults_log.KINDS:
            return None
        return LogFault(self.kind, self.content_type, self.probability, self.nth, self.minutes)

    @property
    def name(self) -> str:
        """How reports call it."""
        if self.kind:
            return self.kind
        what = (
            f"status {self.status}" if self.status else "",
            f"reset {self.reset}" if self.reset else "",
            "truncate" if self.truncate is not None else "",
            "drip" if self.drip else "",
            "delay" if self.delay else "",
            "skew" if self.skew else "",
        )
        return next(filter(None, what), "nothing")


#: What `invalid_element` puts into an array: see `docs/simulator.md`.
ELEMENTS = ("syntax", "utf8", "surrogate", "number", "replace")


def _defaults(kind: str) -> dict[str, Any]:
    if kind in FEED_KINDS:
        return {"service": "activity", "path": FEED_KINDS[kind]}
    return dict(WIRE_KINDS.get(kind, {}))


class _Rule:
    __slots__ = ("blob", "fault", "pattern", "seen", "targets", "used")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.path)
        self.blob = re.compile(fault.blob)
        self.targets: Counter[str] = Counter()
        self.seen = 0
        self.used = 0

    def matches(self, service: str, method: str, path: str, query: str) -> bool:
        fault = self.fault
        if fault.service not in ("", service) or fault.method not in ("", method):
            return False
        if self.pattern.search(path) is None:
            return False
        blob = path.partition("/activity/feed/audit/")[2]
        if fault.blob and not (blob and self.blob.search(blob)):
            return False
        return not fault.content_type or fault.content_type.lower() == content_type_of(path, query)

    def takes(self, chance: random.Random, path: str) -> bool:
        fault = self.fault
        self.seen += 1
        if fault.nth and self.seen not in fault.nth:
            return False
        if fault.times and self.used >= fault.times:
            return False
        if fault.per_target and self.targets[path] >= fault.per_target:
            return False
        if fault.probability < 1.0 and chance.random() >= fault.probability:
            return False
        self.targets[path] += 1
        self.used += 1
        return True


def content_type_of(path: str, query: str) -> str:
    """The content type that a request of the audit feed is about, in lower case; empty when about none."""
    parts = path.partition("/activity/feed/audit/")[2].replace("%24", "$").split("$")
    if len(parts) > 2:
        return parts[2].replace("_", ".")
    named = {name.lower(): value for name, value in parse_qsl(query)}
    return named.get("contenttype", "").lower()


class FaultPlan:
    """The rules in force. The first one that takes a request decides."""

    def __init__(self, rules: Iterable[Fault | Mapping[str, Any]] = (), seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self.log: list[LogFault] = []  #: those that lie in the log; a tenant takes them over
        for rule in rules:
            self.add(rule)

    def add(self, rule: Fault | Mapping[str, Any]) -> None:
        """Put a rule in force, after those that are."""
        fault = rule if isinstance(rule, Fault) else Fault.parse(rule)
        if isinstance(rule, Fault) and fault.kind:  # built by hand: the kind's own defaults count too
            given = {name: value for name, value in _defaults(fault.kind).items() if not getattr(fault, name)}
            fault = replace(fault, **given)
        with self._lock:
            in_log = fault.log_fault
            if in_log is not None:
                self.log = [*self.log, in_log]
            else:
                self._rules = [*self._rules, _Rule(fault)]

    def clear(self) -> None:
        """Take every rule out of force."""
        with self._lock:
            self._rules = []
            self.log = []

    @property
    def idle(self) -> bool:
        """Whether no request can meet anything; a plan of another class has its own ideas."""
        return not self._rules and type(self) is FaultPlan

    def pick(self, service: str, method: str, target: str) -> Fault | None:
        """The fault that this request meets, if any. `target` is its path, with its query."""
        if not self._rules:
            return None
        path, _, query = target.partition("?")
        with self._lock:
            for rule in self._rules:
                if rule.matches(service, method, path, query) and rule.takes(self._chance, path):
                    return rule.fault
        return None

    def report(self) -> list[dict[str, Any]]:
        """How often each rule matched and was used."""
        return [
            {
                "kind": rule.fault.kind,
                "service": rule.fault.service,
                "path": rule.fault.path,
                "seen": rule.seen,
                "used": rule.used,
            }
            for rule in self._rules
        ] + [{"kind": fault.kind, "content_type": fault.content_type} for fault in self.log]
