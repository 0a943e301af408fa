"""An hour of event ids that left memory: sorted fingerprints in pages, so that one id costs one page.

Most events of a unit happened in the last hours, and a few long before. Reading a whole hour back into
memory for one of those would cost a thousand times what the id itself does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from counterplay.store.key_hours import PAGE_BITS
from counterplay.store.statements import upsert
from counterplay.store.tables import key_page

_SHIFT = 64 - PAGE_BITS
_AT_ONCE = 128  # pages that are read in one question, so that an hour is never in memory twice

# Built once: building a statement costs more than running it, and a claim touches many hours.
_OF_HOUR = (
    key_page.c.feed_id == sa.bindparam("of_feed"),
    key_page.c.hour == sa.bindparam("of_hour"),
)
_SOME = sa.select(key_page.c.page, key_page.c.prints, key_page.c.owners).where(
    *_OF_HOUR, key_page.c.page.in_(sa.bindparam("pages", expanding=True))
)
_PART = (*_OF_HOUR, key_page.c.page.between(sa.bindparam("first"), sa.bindparam("last")))
_READ_PART = sa.select(key_page.c.prints, key_page.c.owners).where(*_PART)
_DELETE_PART = sa.delete(key_page).where(*_PART)
_INSERT = key_page.insert()


class Pages:
    """The pages of one hour, as far as a claim touches them. `changed` is for `write`."""

    def __init__(self, connection: sa.Connection, feed_id: int, hour: int) -> None:
        self._connection = connection
        self._feed_id = feed_id
        self._hour = hour
        self._pages: dict[int, tuple[array[int], array[int]]] = {}
        self._changed: set[int] = set()

    def claim(self, prints: Sequence[int], owner: int) -> list[tuple[int, int]]:
        """Enter those that are not there; (index, owner) of those that are."""
        self._read({one >> _SHIFT for one in prints})
        hits: list[tuple[int, int]] = []
        for index, one in enumerate(prints):
            known, owners = self._pages[one >> _SHIFT]
            at = bisect_left(known, one)
            if at < len(known) and known[at] == one:
                hits.append((index, owners[at]))
                continue
            known.insert(at, one)
            owners.insert(at, owner)
            self._changed.add(one >> _SHIFT)
        return hits

    def give(self, one: int, owner: int) -> None:
        """Another unit owns it from now on."""
        known, owners = self._pages[one >> _SHIFT]
        owners[bisect_left(known, one)] = owner
        self._changed.add(one >> _SHIFT)

    def changed(self) -> list[dict[str, object]]:
        """The rows of the pages that are not as they are on disk."""
        return [_row(self._feed_id, self._hour, page, *self._pages[page]) for page in sorted(self._changed)]

    def _read(self, numbers: set[int]) -> None:
        missing = sorted(numbers - set(self._pages))
        if not missing:
            return
        of = {"of_feed": self._feed_id, "of_hour": self._hour, "pages": missing}
        for page, prints, owners in self._connection.execute(_SOME, of):
            self._pages[page] = (array("Q", prints), array("I", owners))
        for page in missing:
            if page not in self._pages:
                self._pages[page] = (array("Q"), array("I"))


def write(connection: sa.Connection, rows: Sequence[dict[str, object]]) -> None:
    """Put pages on disk that are new or changed, of any hours."""
    if rows:
        connection.execute(
            upsert(connection, key_page, ("feed_id", "hour", "page"), ("prints", "owners")), rows
        )


def _row(feed_id: int, hour: int, page: int, prints: array[int], owners: array[int]) -> dict[str, object]:
    return {
        "feed_id": feed_id,
        "hour": hour,
        "page": page,
        "prints": prints.tobytes(),
        "owners": owners.tobytes(),
    }


def seal(
    connection: sa.Connection, feed_id: int, hour: int, parts: Iterable[Iterable[tuple[int, int]]]
) -> None:
    """Write all (fingerprint, owner) of an hour as its pages; those of a page are in one part."""
    for entries in parts:
        ordered = sorted(entries)
        prints = array("Q", [one for one, _ in ordered])
        owners = array("I", [owner for _, owner in ordered])
        rows = []
        start = 0
        while start < len(prints):
            page = prints[start] >> _SHIFT
            end = bisect_left(prints, (page + 1) << _SHIFT, start)
            rows.append(_row(feed_id, hour, page, prints[start:end], owners[start:end]))
            start = end
        if rows:
            connection.execute(_INSERT, rows)


def unseal(connection: sa.Connection, feed_id: int, hour: int) -> Iterator[tuple[array[int], array[int]]]:
    """Take an hour back: its fingerprints and owners page by page, after which no page is on disk."""
    for first in range(0, 1 << PAGE_BITS, _AT_ONCE):
        here = {"of_feed": feed_id, "of_hour": hour, "first": first, "last": first + _AT_ONCE - 1}
        rows = connection.execute(_READ_PART, here).all()
        connection.execute(_DELETE_PART, here)
        for prints, owners in rows:
            yield array("Q", prints), array("I", owners)


def sealed(connection: sa.Connection, feed_id: int) -> set[int]:
    """The hours that have pages."""
    rows = connection.execute(sa.select(key_page.c.hour).where(key_page.c.feed_id == feed_id).distinct())
    return set(rows.scalars())
