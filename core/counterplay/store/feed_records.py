"""What the ledger of feeds hands in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from counterplay.events import Unit
from counterplay.store.key_claims import UnitKeys


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What makes two subscriptions the same feed. `key` is canonical JSON of the feed-key arguments."""

    trigger: str
    connection: str
    tenant: str
    key: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """A playbook's place in a feed. Everything before `mark` is accounted for.

    `listed` and `seen`: up to where windows were listed for the last time, and at least once.
    """

    feed_id: int
    playbook: str
    since: datetime
    mark: datetime
    listed: datetime
    seen: datetime
    new: bool


@dataclass(frozen=True, slots=True)
class StoredUnit:
    """A unit as the ledger knows it; `waiting` are the playbooks that have not acknowledged it."""

    id: int
    unit: Unit
    status: str
    attempts: int
    digest: str | None
    waiting: frozenset[str]
    duplicates: str | None = None
    listed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a unit's events for one playbook: each is in one of these, but for `condition_errors`.

    `suppressed`: another run holds their `once_per` key; `known`: their run had been started before.
    """

    delivered: int = 0
    duplicates: int = 0
    filtered: int = 0
    condition_errors: int = 0
    dropped: int = 0
    dead: int = 0
    runs: int = 0
    suppressed: int = 0
    known: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be read or delivered."""

    reason: str
    body: bytes
    position: int | None = None
    playbook: str | None = None
    sink: str | None = None
    unit_id: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch found in a unit."""

    unit: StoredUnit
    size: int
    digest: str
    events: int
    keys: UnitKeys
    broken: Sequence[DeadLetter] = ()


@dataclass(frozen=True, slots=True)
class Delivered:
    """Records of a unit that a sink took in one batch: first and last position, the receiver's ids."""

    unit_id: int
    playbook: str
    sink: str
    digest: str
    positions: str
    receipts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A unit that a playbook is done with."""

    unit_id: int
    playbook: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class NewGap:
    """What of a time range was not on record as a gap before: `new` rows, and `seconds` in all."""

    new: int
    seconds: int
