"""Holds a reader's ledger of gaps against what the tenant knows of its own log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from counterplay_sim.clock import to_ns

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One gap as a reader recorded it: a `unit` (a content id), or a time range of a content type.

    `since` and `until` are ns, [since, until), by when the content became available. An empty
    `content_type` means all of them.
    """

    reason: str
    unit: str = ""
    content_type: str = ""
    since: int = 0
    until: int = 0

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> LedgerEntry:
        """From JSON, times in RFC 3339. ValueError: it names neither a unit nor a range."""
        unit = str(entry.get("unit", ""))
        since, until = (_ns(entry.get(name)) for name in ("since", "until"))
        if not unit and until <= since:
            raise ValueError("a ledger entry names a unit, or a time from `since` to a later `until`")
        return cls(str(entry.get("reason", "")), unit, str(entry.get("content_type", "")), since, until)


@dataclass(frozen=True, slots=True)
class LedgerMatch:
    """`uncovered`: missing events that no entry speaks of, by `Id`. `unfounded`: entries without a cause."""

    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    unfounded: tuple[LedgerEntry, ...]

    @property
    def ok(self) -> bool:
        """The ledger says what is missing, all of it and nothing else."""
        return not self.uncovered and not self.unfounded

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a missing event stood in the log: one of the lines that showed it, or would have."""

    key: str
    content_type: str
    at: int


def match(
    entries: Iterable[LedgerEntry], missing: Iterable[Place], causes: Iterable[tuple[str, int, int]]
) -> LedgerMatch:
    """Hold entries against missing events and against causes of losses (content type, since, until)."""
    entries, missing, causes = list(entries), list(missing), list(causes)
    reach = {id(entry): _reach(entry) for entry in entries}
    covered, founded = set(), set()
    for place in missing:
        for entry in entries:
            content_type, (since, until) = reach[id(entry)]
            if content_type in ("", place.content_type) and since <= place.at < until:
                covered.add(place.key)
                founded.add(id(entry))
    for entry in entries:
        content_type, (since, until) = reach[id(entry)]
        for cause_type, cause_since, cause_until in causes:
            same = not content_type or not cause_type or content_type == cause_type
            if same and since < cause_until and cause_since < until:
                founded.add(id(entry))
    return LedgerMatch(
        covered=tuple(sorted(covered)),
        uncovered=tuple(sorted({place.key for place in missing} - covered)),
        unfounded=tuple(entry for entry in entries if id(entry) not in founded),
    )


def _reach(entry: LedgerEntry) -> tuple[str, Span]:
    """The content type and times that an entry speaks of; an id that is none of ours reaches nothing."""
    if not entry.unit:
        return entry.content_type, (entry.since, entry.until)
    from counterplay_sim.blobs import range_of

    try:
        content_type, first, last = range_of(entry.unit)
    except ValueError:
        return "?", (0, 0)
    return content_type, (first, last + 1)


def _ns(text: object) -> int:
    if not text:
        return 0
    moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
