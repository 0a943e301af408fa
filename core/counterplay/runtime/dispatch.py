"""Starts runs: bounded by slots, after their rows are committed, swept so that none is forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from counterplay.engine import Engine, SegmentBody
from counterplay.errors import CounterplayError, StateError
from counterplay.store.runs import RunStore

if TYPE_CHECKING:
    from counterplay.runtime.fleet import Fleet

SLOTS = 8
NEWCOMERS = 8
"""Runs beyond the slots, each the only one of its tenant: nobody waits for the runs of others alone."""
SWEEP = 0.5
SHORT_WAIT = 60.0
"""Seconds: a run that waits in its steps for no longer than that still counts as working."""
TOLD_AFTER = 0.5

log = logging.getLogger("counterplay.runs")


class Dispatcher:
    """Takes runs out of the outbox and hands them to the engine, at most `slots` at once.

    Tenants take turns, and one that has no run at work need not wait for a slot (`NEWCOMERS`).
    """

    def __init__(
        self,
        engine: Engine,
        runs: RunStore,
        stop: threading.Event,
        *,
        slots: int = SLOTS,
        on_failure: Callable[[CounterplayError], None],
        fleet: Fleet | None = None,
    ) -> None:
        """`fleet`: this is one of several workers, which take runs before they begin them."""
        self._fleet = fleet
        self._engine = engine
        self._runs = runs
        self._stop = stop
        self._slots = slots
        self._on_failure = on_failure
        self._active: set[str] = set()
        self._taking = False  # runs are taken, and not among the active ones yet
        self._recovered: set[str] = set()
        self._changed = threading.Condition()
        self._look = False  # there may be something to start; a notice while the thread works is not lost
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
        self._launched = False
        self._ending = threading.Lock()
        self._catch_up: Callable[[], None] = lambda: None

    def launch(self, body: SegmentBody, catch_up: Callable[[], None] = lambda: None) -> None:
        """Start the engine, resume what a dead process left, and begin to dispatch.

        `catch_up` does what a dead process did not do after its runs.
        """
        self._catch_up = catch_up
        self._launched = True
        self._engine.launch(body)
        if self._fleet is None:
            with self._changed:
                self._recovered.update(self._engine.recover())
                self._active.update(self._recovered)
            self._requeue_stranded()
        else:
            self._fleet.on_released = self._forget
        catch_up()
        self._runs.retry_sinks()
        self._thread.start()

    def notify(self) -> None:
        """New rows are in the outbox."""
        with self._changed:
            self._look = True
            self._changed.notify_all()

    def ended(self, segment: str) -> None:
        """A segment gave its slot back."""
        with self._changed:
            self._active.discard(segment)
            self._look = True
            self._changed.notify_all()

    def wait_idle(self, added: Collection[str] = ()) -> None:
        """Return when no run works and none is due, or when the process is asked to stop.

        `added` are runs that this process brought, which other workers may have taken.
        """
        while not self._stop.is_set():
            with self._changed:
                if not self._active and not self._taking and not self._more_to_come(added):
                    return
                self._changed.wait(SWEEP)

    def _more_to_come(self, added: Collection[str]) -> bool:
        if self._runs.due(1) or self._runs.wakes_within(SHORT_WAIT):
            return True
        return self._fleet is not None and bool(self._runs.any_open(added))

    def _forget(self, segments: Sequence[str]) -> None:
        """What a dead worker had begun goes on under other numbers; the engine need not know of it."""
        with self._ending:  # the engine may be on its way out, and then leaves them to nobody
            if segments and self._launched:
                self._engine.delete(segments)
        self._catch_up()
        self.notify()

    @property
    def active(self) -> int:
        return len(self._active)

    def close(self) -> None:
        """Wait until the segments that work have come to their next step, then stop the engine.

        `stop` must be set. A second call does nothing.
        """
        if not self._launched:
            return
        self._launched = False
        while self._active:
            self._release_unreadable()
            with self._changed:
                if self._active:
                    self._changed.wait(SWEEP)
        self.notify()
        if self._thread.is_alive():
            self._thread.join()
        with self._ending:
            self._engine.close()

    def _requeue_stranded(self) -> None:
        """What no segment works on goes on with a new segment: the engine knows the old one as ended."""
        self._runs.renumber(self._active)
        for identity, number in self._runs.with_status("running"):
            segment = f"{identity}/{number}"
            if segment not in self._active and self._engine.status(segment) != "running":
                log.warning("run %s was left without a worker; it goes on with its next step", identity)
                self._runs.park(identity, "queued", None, None)

    def _release_unreadable(self) -> None:
        """A recovered segment that the engine could not even read never reaches the interpreter."""
        with self._changed:
            watched = self._recovered & self._active
        for segment in watched:
            if self._engine.status(segment) == "running" or segment not in self._active:
                continue
            identity, _, number = segment.rpartition("/")
            if (identity, int(number)) in self._runs.with_status("running"):
                log.warning("run %s: the engine cannot resume it; it goes on with its next step", identity)
                self._runs.park(identity, "queued", None, None)
            self.ended(segment)

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._look = False
            try:
                self._release_unreadable()
                self._start_due()
                self._runs.tell(TOLD_AFTER)
            except CounterplayError as error:
                self._on_failure(error)
                return
            except Exception as error:
                self._on_failure(StateError(f"the engine cannot start runs: {type(error).__name__}: {error}"))
                return
            with self._changed:
                if not self._look:
                    self._changed.wait(SWEEP)

    def _start_due(self) -> None:
        with self._changed:
            active = set(self._active)
            self._taking = len(active) < self._slots + NEWCOMERS
        try:
            self._start(active)
        finally:
            with self._changed:
                self._taking = False
                self._changed.notify_all()

    def _start(self, active: set[str]) -> None:
        for identity, number in self._due(active):
            segment = f"{identity}/{number}"
            if segment in active or self._stop.is_set():
                self._give_back(identity)
                continue
            with self._changed:
                self._active.add(segment)
            try:
                self._engine.start(segment)
            except BaseException:
                self.ended(segment)
                self._give_back(identity)
                raise

    def _due(self, active: set[str]) -> list[tuple[str, int]]:
        free = self._slots - len(active)
        newcomers = min(NEWCOMERS, NEWCOMERS + free)
        if free <= 0 and newcomers <= 0:
            return []
        if self._fleet is None:
            held = {segment.rpartition("/")[0] for segment in active}
            return self._runs.due(max(0, free), newcomers, held)
        return self._runs.claim(self._fleet.identity, max(0, free), newcomers)

    def _give_back(self, identity: str) -> None:
        if self._fleet is not None:
            self._runs.give_back(self._fleet.identity, [identity])
