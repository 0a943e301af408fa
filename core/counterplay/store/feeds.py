"""The ledger of feeds: subscriptions, units, who owns an event, what was delivered and acknowledged.

Functions that take a connection belong into a transaction of their caller; the others make their own.
"""

from __future__ import annotations

from counterplay.store.claims import Claims
from counterplay.store.database import Database
from counterplay.store.deliveries import Deliveries
from counterplay.store.feed_records import (
    Acknowledged,
    Counts,
    DeadLetter,
    Delivered,
    FeedKey,
    Fetched,
    NewGap,
    StoredUnit,
    Subscription,
)
from counterplay.store.pages import Pages
from counterplay.store.subscriptions import Subscriptions
from counterplay.store.units import Units

__all__ = [
    "Acknowledged",
    "Counts",
    "DeadLetter",
    "Delivered",
    "FeedKey",
    "FeedStore",
    "Fetched",
    "NewGap",
    "StoredUnit",
    "Subscription",
]


class FeedStore(Subscriptions, Pages, Units, Claims, Deliveries):
    """The tables of feeds. One instance for a process: the owners of events are kept in memory."""

    def __init__(self, database: Database) -> None:
        Claims.__init__(self, database)
