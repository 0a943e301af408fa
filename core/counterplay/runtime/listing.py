"""The listing of a source by windows: what to list when, how far each subscriber is, and what is a gap."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from counterplay.clock import now
from counterplay.errors import InterruptedWork, StateError
from counterplay.events import Unit
from counterplay.modules import Context, FeedTrigger
from counterplay.runtime import windows
from counterplay.runtime.figures import FeedFigures
from counterplay.runtime.windows import Cursor, Window
from counterplay.store.feeds import FeedStore, Subscription

PREPARE_EVERY = 15 * 60.0
HOT_EVERY = 60.0
"""Windows that may still gain units, but for the newest, are listed again this often."""
KEYS_KEPT = timedelta(days=8)
"""Ids of events are remembered this long after their unit became available, or a day over retention."""
OUTAGE = timedelta(hours=6)
"""After so long without a listing every sweep is due: what came late meanwhile is nowhere else."""
_PARALLEL = 4
_RECORDED_AT_ONCE = 500  # units
_ENOUGH_FAILURES = 4  # of a round: the service is down, and nobody has to prove it window by window
_SWEPT_AT_ONCE = 16  # windows a round, so that a sweep holds nothing up
_SAVED_EVERY = timedelta(minutes=1)
_PURGED_EVERY = 3600.0


class Listing:
    """The windows of one feed. All but `found` runs in the feed's thread, or with its consent."""

    def __init__(
        self,
        trigger: FeedTrigger,
        context: Context,
        subscriptions: Mapping[str, Subscription],
        *,
        label: str,
        store: FeedStore,
        figures: FeedFigures,
        stop: threading.Event,
        once: bool,
        found: Callable[[], None],
    ) -> None:
        self._trigger = trigger
        self._context = context
        self._label = label
        self._store = store
        self._figures = figures
        self._stop = stop
        self._once = once
        self._found = found
        self._feed_id = next(iter(subscriptions.values())).feed_id
        self._since = {name: one.since for name, one in subscriptions.items()}
        self._cursors = {name: Cursor(one.mark, one.listed, one.seen) for name, one in subscriptions.items()}
        self._saved = dict(self._cursors)
        self._closed: set[Window] = set()
        self._hot: dict[Window, float] = {}
        self._sweeps: dict[int, deque[Window]] = {}
        self._prepared = 0.0
        self._purged = 0.0
        self._succeeded: datetime | None = None
        self.newest: datetime | None = None
        """When the newest unit that was listed became available."""
        self._refusal: str | None = None  # of the first round since which none succeeded

    @property
    def marks(self) -> dict[str, datetime]:
        """The low-water mark of each subscriber."""
        return {name: one.mark for name, one in self._cursors.items()}

    @property
    def seen(self) -> datetime:
        """Everything before this was listed at least once, or is a gap, for every subscriber."""
        return min(one.seen for one in self._cursors.values())

    @property
    def listed_at(self) -> datetime | None:
        """When a round of listing last succeeded in this process."""
        return self._succeeded

    @property
    def _has_listed(self) -> bool:
        return any(one.seen > self._since[name] for name, one in self._cursors.items())

    @property
    def floor(self) -> datetime:
        """Windows that begin before this are accounted for, by every subscriber."""
        return min(self.marks.values()) - self._trigger.tile

    def round(self) -> None:
        """List what is new and what is due. Whatever fails, the other windows are listed all the same."""
        moment = now()
        self._give_up_unreadable(moment)
        self._prepare()
        outage = self._has_listed and moment - self.seen > OUTAGE
        self._list_open(moment)
        self._sweep(moment, all_due=outage)
        self._refusal = None
        self._succeeded = now()
        self._purge(moment)

    def failed(self, text: str) -> None:
        """The round failed: the source may no longer be ready, and what it takes away is its doing."""
        self._prepared = 0.0
        self._refusal = self._refusal or text

    def advance(self) -> None:
        """Move the cursors past what is accounted for by now, and keep them."""
        for name, cursor in self._cursors.items():
            waiting = self._store.waiting_windows(self._feed_id, name, self.floor)
            moved = cursor.after_work([datetime.fromisoformat(text) for text in waiting if text])
            self._cursors[name] = moved
            if replace(moved, seen=self._saved[name].seen) != self._saved[name]:
                self._save(name)

    def close(self) -> None:
        """Keep the cursors as they are."""
        self.advance()
        for name, cursor in self._cursors.items():
            if cursor != self._saved[name]:
                self._save(name)

    def _save(self, name: str) -> None:
        cursor = self._cursors[name]
        self._store.advance(self._feed_id, name, cursor.mark, cursor.listed, cursor.seen)
        self._saved[name] = self._cursors[name]

    # --- windows ----------------------------------------------------------------------------------

    def _list_open(self, moment: datetime) -> None:
        """The windows that may still gain units: the newest first, then those that go first."""
        start = min(one.listed for one in self._cursors.values())
        if start > moment:  # the clock was ahead when that was noted; it was set right since
            start = windows.aligned(moment - self._trigger.settle_time, self._trigger.tile)
        due = [one for one in windows.tiles(start, moment, self._trigger.tile) if self._is_due(one, moment)]
        self._list([*due[-1:], *due[:-1]], self._listed)

    def _is_due(self, window: Window, moment: datetime) -> bool:
        if window in self._closed:
            return False
        last = self._hot.get(window)
        return window.end >= moment or last is None or time.monotonic() - last >= HOT_EVERY

    def _listed(self, window: Window, at: datetime) -> None:
        trigger = self._trigger
        if windows.is_closed(window, at, trigger.tile, trigger.settle_time):
            self._closed.add(window)
            self._hot.pop(window, None)
        else:
            self._hot[window] = time.monotonic()

    def _list(self, due: Sequence[Window], listed: Callable[[Window, datetime], None]) -> None:
        """List windows, several at once. Raises the first failure, after the others had their turn."""
        failures: list[Exception] = []
        seen: set[Window] = set()

        def one(window: Window) -> None:
            if self._stop.is_set() or len(failures) >= _ENOUGH_FAILURES:
                return
            at = now()
            try:
                self._list_window(window)
            except Exception as error:
                failures.append(error)
                return
            seen.add(window)
            listed(window, at)

        if len(due) > 1:
            with ThreadPoolExecutor(_PARALLEL, thread_name_prefix=f"{self._label} list") as pool:
                list(pool.map(one, due))
        else:
            for window in due:
                one(window)
        self._move(seen)
        if self._stop.is_set():
            raise InterruptedWork("stopped between two windows")
        if failures:
            raise next((one for one in failures if isinstance(one, StateError)), failures[0])

    def _list_window(self, window: Window) -> None:
        found = iter(self._trigger.discover(self._context, window.start, window.end))
        late = window.end <= min(self.marks.values())
        failure: Exception | None = None
        while failure is None:
            units: list[Unit] = []
            try:  # an hour may hold thousands, and what stands before a failure is there to be fetched
                for one in islice(found, _RECORDED_AT_ONCE):
                    units.append(one)
            except Exception as error:
                failure = error
            if not units:
                break
            self._record(window, units, late=late)
        if failure is not None:
            raise failure
        self._figures.add("listings")

    def _record(self, window: Window, units: Sequence[Unit], *, late: bool) -> None:
        added = self._store.record_listing(self._feed_id, window.start, units, late=late)
        made = [one.created for one in units if one.created is not None]
        self.newest = max(made if self.newest is None else [*made, self.newest], default=None)
        self._figures.add("listed", added)
        if added:
            if late:
                self._figures.add("late", added)
            self._found()

    def _move(self, seen: Iterable[Window]) -> None:
        """Cursors follow what was listed. `seen` is kept now and then: only a gap's cause hangs on it."""
        seen = list(seen)
        for name, cursor in self._cursors.items():
            moved = self._cursors[name] = cursor.after_listing(self._closed, seen)
            if moved.listed != cursor.listed or moved.seen - self._saved[name].seen >= _SAVED_EVERY:
                self._save(name)
        passed = min(one.listed for one in self._cursors.values())
        self._closed = {one for one in self._closed if one.end > passed}
        self._hot = {one: at for one, at in self._hot.items() if one.end > passed}

    def _sweep(self, moment: datetime, *, all_due: bool) -> None:
        """List windows that were closed once more, for units that came late."""
        for place, (back, every) in enumerate(self._trigger.sweeps):
            left = self._sweeps.get(place)
            if left is None:
                if not all_due and not self._store.sweep_due(self._feed_id, place, moment, every):
                    continue
                left = self._sweeps[place] = deque(self._swept_windows(moment, back))
            while left:
                self._drop_unreadable(left)
                part = [left.popleft() for _ in range(min(_SWEPT_AT_ONCE, len(left)))]
                try:
                    self._list(part, lambda _window, _at: None)
                except Exception:
                    left.extendleft(reversed(part))
                    raise
                if not self._once:
                    break
            if not left:
                del self._sweeps[place]
                self._store.swept(self._feed_id, place, moment)

    def _swept_windows(self, moment: datetime, back: timedelta) -> list[Window]:
        edge = windows.readable_from(moment, self._trigger.retention)
        start = max(min(self._since.values()), moment - back, *([edge] if edge else []))
        listed = min(one.listed for one in self._cursors.values())
        return [one for one in windows.tiles(start, moment, self._trigger.tile) if one.end <= listed]

    def _drop_unreadable(self, swept: deque[Window]) -> None:
        """A sweep that was held up may have windows that were listed before and cannot be any more."""
        edge = windows.readable_from(now(), self._trigger.retention)
        while edge is not None and swept and swept[0].start < edge:
            window = swept.popleft()
            if window.end > edge:
                swept.appendleft(Window(edge, window.end))
                return

    # --- readiness and gaps -----------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._prepared and time.monotonic() - self._prepared <= PREPARE_EVERY:
            return
        off = self._trigger.interruption(self._context)
        self._was_off(off)  # noted before it is mended, for afterwards nobody could tell, and once more then
        self._trigger.prepare(self._context)
        self._was_off(off)
        self._prepared = time.monotonic()

    def _was_off(self, cause: str | None) -> None:
        for name, cursor in self._cursors.items():
            if cause is not None and cursor.seen > self._since[name]:
                self._gap(name, cursor.seen, now(), cause)

    def _give_up_unreadable(self, moment: datetime) -> None:
        """What was not listed when the source ceased to list it is a gap; work goes on past it."""
        edge = windows.readable_from(moment, self._trigger.retention)
        if edge is None:
            return
        reach = f"the source lists no more than {_in_words(self._trigger.retention)}"
        for name, cursor in self._cursors.items():
            moved, holes = cursor.after_expiry(edge)
            for hole in holes:
                if hole.seen:
                    cause = f"{reach}; listed, but not once more after that: what came late may be missing"
                elif self._refusal is not None:
                    cause = f"{reach}, and until then it could not be listed: {self._refusal}"
                else:
                    cause = f"{reach}, and nobody collected until then"
                self._gap(name, hole.start, hole.end, cause)
            if moved != cursor:
                self._cursors[name] = moved
                self._save(name)

    def _gap(self, playbook: str, start: datetime, end: datetime, cause: str) -> None:
        found = self._store.record_gap(self._feed_id, playbook, start, end, cause)
        self._figures.add("gaps", found.new)
        self._figures.add("gap_seconds", found.seconds)
        if found.new:
            self._figures.notice(
                f"{self._label} gap",
                f"{playbook}: a gap from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC: {cause}",
            )

    def _purge(self, moment: datetime) -> None:
        if self._purged and time.monotonic() - self._purged < _PURGED_EVERY:
            return
        self._purged = time.monotonic()
        kept = max(KEYS_KEPT, (self._trigger.retention or timedelta(0)) + timedelta(days=1))
        self._store.purge_keys(self._feed_id, moment - kept)


def _in_words(reach: timedelta | None) -> str:
    if reach is None:
        return "a while"
    days, hours = reach / timedelta(days=1), reach / timedelta(hours=1)
    return f"{days:.2g} days" if days >= 2 else f"{hours:.2g} hours"
