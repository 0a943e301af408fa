"""Which units of a feed are due next: many by their ids, and few with all that belongs to them.

To find what expires first, the store has to look at everything that waits, and a unit with its address is a
kilobyte or two. So it is asked now and then for many ids, and the units are read shortly before their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from counterplay.store.feeds import FeedStore, StoredUnit

_KNOWN = 2000  # ids: a few seconds of work, for that is how long what came later waits behind them
_AT_ONCE = 100


class Ahead:
    """The next units of a feed, in order. Taken by one thread; any may say that there is more."""

    def __init__(
        self, store: FeedStore, feed_id: int, *, known: int = _KNOWN, at_once: int = _AT_ONCE
    ) -> None:
        self._store = store
        self._feed_id = feed_id
        self._ids: deque[int] = deque()
        self._known = known
        self._at_once = at_once
        self._takers: list[str] = []
        self._cut = False  # more is due than `_ids` had room for
        self._stale = False

    def look_again(self) -> None:
        """Something else may be due by now."""
        self._stale = True

    @property
    def more(self) -> bool:
        """Whether a further `take` may find something."""
        return bool(self._ids) or self._cut or self._stale

    def take(
        self,
        playbooks: Sequence[str],
        floor: datetime | None,
        without: Callable[[], Collection[int]],
    ) -> list[StoredUnit]:
        """What these playbooks wait for next. `without`: the ids of units that are on their way."""
        if list(playbooks) != self._takers:
            self._ids.clear()
            self._takers = list(playbooks)
        if not self._ids:
            self._stale = False  # before the look: what is said during it counts
            self._ids.extend(
                self._store.due(self._feed_id, playbooks, self._known, floor=floor, without=without())
            )
            self._cut = len(self._ids) == self._known
        chosen = [self._ids.popleft() for _ in range(min(self._at_once, len(self._ids)))]
        return self._store.load(self._feed_id, playbooks, chosen) if chosen else []
