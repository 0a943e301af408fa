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
from counterplay.store.tables import key_page

_SHIFT = 64 - PAGE_BITS
_AT_ONCE = 128  # pages that are read in one question, so that an hour is never in memory twice


class Pages:
    """The pages of one hour, as far as a claim touches them. `write` puts what changed on disk."""

    def __init__(self, connection: sa.Connection, feed_id: int, hour: int) -> None:
        self._connection = connection
        self._feed_id = feed_id
        self._hour = hour
        self._pages: dict[int, tuple[array[int], array[int]]] = {}
        self._changed: set[int] = set()
        self._new: set[int] = set()

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

    def write(self) -> None:
        """Put the pages that changed on disk."""
        old = sorted(self._changed - self._new)
        if old:
            self._connection.execute(
                sa.delete(key_page).where(*_of(self._feed_id, self._hour), key_page.c.page.in_(old))
            )
        rows = [_row(self._feed_id, self._hour, page, *self._pages[page]) for page in sorted(self._changed)]
        if rows:
            self._connection.execute(key_page.insert(), rows)
        self._changed.clear()

    def _read(self, numbers: set[int]) -> None:
        missing = sorted(numbers - set(self._pages))
        if not missing:
            return
        rows = self._connection.execute(
            sa.select(key_page.c.page, key_page.c.prints, key_page.c.owners).where(
                *_of(self._feed_id, self._hour), key_page.c.page.in_(missing)
            )
        )
        for page, prints, owners in rows:
            self._pages[page] = (array("Q", prints), array("I", owners))
        for page in missing:
            if page not in self._pages:
                self._pages[page] = (array("Q"), array("I"))
                self._new.add(page)


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
        pages: dict[int, tuple[array[int], array[int]]] = {}
        for one, owner in sorted(entries):
            prints, owners = pages.setdefault(one >> _SHIFT, (array("Q"), array("I")))
            prints.append(one)
            owners.append(owner)
        rows = [_row(feed_id, hour, number, *page) for number, page in pages.items()]
        if rows:
            connection.execute(key_page.insert(), rows)


def unseal(connection: sa.Connection, feed_id: int, hour: int) -> Iterator[tuple[array[int], array[int]]]:
    """Take an hour back: its fingerprints and owners page by page, after which no page is on disk."""
    for first in range(0, 1 << PAGE_BITS, _AT_ONCE):
        here = (*_of(feed_id, hour), key_page.c.page.between(first, first + _AT_ONCE - 1))
        rows = connection.execute(sa.select(key_page.c.prints, key_page.c.owners).where(*here)).all()
        connection.execute(sa.delete(key_page).where(*here))
        for prints, owners in rows:
            yield array("Q", prints), array("I", owners)


def sealed(connection: sa.Connection, feed_id: int) -> set[int]:
    """The hours that have pages."""
    rows = connection.execute(sa.select(key_page.c.hour).where(key_page.c.feed_id == feed_id).distinct())
    return set(rows.scalars())


def _of(feed_id: int, hour: int) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return key_page.c.feed_id == feed_id, key_page.c.hour == hour
