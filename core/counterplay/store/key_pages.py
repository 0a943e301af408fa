"""An hour of event ids that left memory: its fingerprints in pages, so that one id costs one page.

Most events of a unit happened in the last hours, and a few long before. Reading a whole hour back into
memory for one of those would cost a thousand times what the id itself does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import sqlalchemy as sa

from counterplay.store import key_hours
from counterplay.store.key_hours import PAGE_BITS, Bucket, pages_of
from counterplay.store.statements import upsert
from counterplay.store.tables import key_page

_AT_ONCE = 128  # pages that are read or written at once, so that an hour is never in memory twice

# Built once: building a statement costs more than running it, and a claim touches many hours.
_OF_HOUR = (
    key_page.c.feed_id == sa.bindparam("of_feed"),
    key_page.c.hour == sa.bindparam("of_hour"),
)
_SOME = sa.select(key_page.c.page, key_page.c.entries).where(
    *_OF_HOUR, key_page.c.page.in_(sa.bindparam("pages", expanding=True))
)
_PART = (*_OF_HOUR, key_page.c.page.between(sa.bindparam("first"), sa.bindparam("last")))
_READ_PART = sa.select(key_page.c.entries).where(*_PART)
_DELETE_PART = sa.delete(key_page).where(*_PART)
_INSERT = key_page.insert()


class Pages:
    """The pages of one hour, as far as a claim touches them. `changed` is for `write`."""

    def __init__(self, connection: sa.Connection, feed_id: int, hour: int) -> None:
        self._connection = connection
        self._feed_id = feed_id
        self._hour = hour
        self._pages: dict[int, Bucket] = {}
        self._changed: set[int] = set()

    def claim(self, prints: Sequence[bytes], tags: Sequence[bytes]) -> list[tuple[int, int]]:
        """Enter those that are not there, each with the tag of its unit; (index, owner) of those that are."""
        pages = pages_of(prints)
        self._read(set(pages))
        hits = key_hours.claim(self._pages, pages, prints, tags)
        known = {index for index, _ in hits}
        self._changed.update(page for index, page in enumerate(pages) if index not in known)
        return hits

    def give(self, one: bytes, owner: int) -> None:
        """Another unit owns it from now on."""
        (page,) = pages_of((one,))
        key_hours.give(self._pages[page], one, owner)
        self._changed.add(page)

    def changed(self) -> list[dict[str, object]]:
        """The rows of the pages that are not as they are on disk."""
        return [
            _row(self._feed_id, self._hour, page, bytes(self._pages[page])) for page in sorted(self._changed)
        ]

    def _read(self, numbers: set[int]) -> None:
        missing = sorted(numbers - set(self._pages))
        if not missing:
            return
        self._pages.update((page, Bucket()) for page in missing)
        of = {"of_feed": self._feed_id, "of_hour": self._hour, "pages": missing}
        for page, entries in self._connection.execute(_SOME, of):
            self._pages[page] = Bucket(entries)


def write(connection: sa.Connection, rows: Sequence[dict[str, object]]) -> None:
    """Put pages on disk that are new or changed, of any hours."""
    if rows:
        connection.execute(upsert(connection, key_page, ("feed_id", "hour", "page"), ("entries",)), rows)


def seal(connection: sa.Connection, feed_id: int, hour: int, pages: Iterable[tuple[int, bytes]]) -> None:
    """Write the pages of an hour that has none yet."""
    rows = (_row(feed_id, hour, page, entries) for page, entries in pages)
    while some := list(islice(rows, _AT_ONCE)):
        connection.execute(_INSERT, some)


def unseal(connection: sa.Connection, feed_id: int, hour: int) -> Iterator[bytes]:
    """Take an hour back: the entries of its pages, after which no page is on disk."""
    for first in range(0, 1 << PAGE_BITS, _AT_ONCE):
        here = {"of_feed": feed_id, "of_hour": hour, "first": first, "last": first + _AT_ONCE - 1}
        found = connection.execute(_READ_PART, here).scalars().all()
        connection.execute(_DELETE_PART, here)
        yield from found


def sealed(connection: sa.Connection, feed_id: int) -> set[int]:
    """The hours that have pages."""
    rows = connection.execute(sa.select(key_page.c.hour).where(key_page.c.feed_id == feed_id).distinct())
    return set(rows.scalars())


def _row(feed_id: int, hour: int, page: int, entries: bytes) -> dict[str, object]:
    return {"feed_id": feed_id, "hour": hour, "page": page, "entries": entries}
