"""The work on a feed's units: fetched ahead, claimed in groups, delivered in batches, acknowledged.

One thread, the mill, does all that is written to the store: a transaction takes the receipts of what was
delivered, the acknowledgements of units that are done, and the claims of the next units. What is not
committed is done again after a crash, and the ledger tells what was: that is the whole of the recovery.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from counterplay._memory import Sieve
from counterplay.budgets import ByteBudget
from counterplay.clock import now
from counterplay.errors import CounterplayError, GoneError, InterruptedWork, StateError, WorkError
from counterplay.modules import Context, FeedTrigger, Trigger
from counterplay.runtime.ahead import Ahead
from counterplay.runtime.board import Board, Task, Work
from counterplay.runtime.burial import Burial
from counterplay.runtime.fetching import Arrival, Fetching
from counterplay.runtime.figures import FeedFigures
from counterplay.runtime.growth import Growth
from counterplay.runtime.outbox import Gates, Outbox, Outcome
from counterplay.runtime.reception import Reception
from counterplay.runtime.serving import Serving
from counterplay.runtime.settling import Settling
from counterplay.runtime.subscribers import Subscriber
from counterplay.runtime.units import Opener, Sliced
from counterplay.store.feeds import FeedKey, FeedStore, Fetched, StoredUnit
from counterplay.store.key_claims import Owned
from counterplay.store.runs import RunStore

BYTES_HELD = 5 * 1024 * 1024
_GROUP = 16
_GROUP_BYTES = 4 * 1024 * 1024
_LINGER = 0.02
_LINGER_LONG = 0.05
_RECORD_SOON = 0.01
_FEW_OUTCOMES = 2
_BATCH_WAIT = 0.05
_FEW = 40  # units that are queued: time to look for more
_BATCHES_WAITING = 3
PATIENCE = 5.0
"""Seconds that the other playbooks of a feed wait for one whose receiver does not answer at all."""
_PATIENCE_AGAIN = 0.2
"""Of that, when it failed the last time, too."""

log = logging.getLogger("counterplay.feeds")


@dataclass
class Shared:
    """What the feeds of a session share."""

    held: ByteBudget = field(default_factory=lambda: ByteBudget(BYTES_HELD))
    gates: Gates = field(default_factory=Gates)
    growth: Growth = field(default_factory=Growth)
    sieve: Sieve = field(default_factory=Sieve)


class Pipeline:
    """Works off what the ledger lists for a feed. `start` it, `nudge` it when there is more to do."""

    def __init__(
        self,
        key: FeedKey,
        label: str,
        feed_id: int,
        trigger: Trigger,
        context: Context,
        subscribers: Sequence[Subscriber],
        *,
        store: FeedStore,
        runs: RunStore,
        figures: FeedFigures,
        stop: threading.Event,
        runs_added: Callable[[Sequence[str]], None],
        shared: Shared,
        floor: Callable[[], datetime | None],
        epoch: int = 0,
        once: bool = False,
    ) -> None:
        self.key = key
        self.label = label
        self.feed_id = feed_id
        self.failure: CounterplayError | None = None
        self._trigger = trigger
        self._context = context
        self._subscribers = list(subscribers)
        self._store = store
        self._runs = runs
        self._figures = figures
        self._stop = stop
        self._runs_added = runs_added
        self._floor = floor
        self._epoch = epoch
        self._sieve = shared.sieve
        self._changed = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._more = True
        self._due_at = 0.0
        self._ahead = Ahead(store, feed_id)
        self._busy = False
        self._draining = False
        self._first_arrival = 0.0
        self._first_outcome = 0.0
        self._spooled = not isinstance(trigger, FeedTrigger)
        outboxes = {
            one.name: [
                Outbox(one, pipe, shared.gates.of(f"{one.name}/{pipe.name}"), self._reported, stop)
                for pipe in one.sinks
            ]
            for one in subscribers
            if not one.starts_runs
        }
        self._all_outboxes = [box for boxes in outboxes.values() for box in boxes]
        self._fetching = Fetching(
            self._fetch,
            look=self._look,
            name=label,
            parallel=trigger.parallel if isinstance(trigger, FeedTrigger) else 1,
            held=shared.held,
            arrived=self._arrived,
            backlog=lambda: len(self._arrivals),
            stop=stop,
            growth=shared.growth,
        )
        self._board = Board(subscribers, shared.held, figures, room=self._fetching.wake, due=self.nudge)
        self._burial = Burial(figures)
        self._settling = Settling(
            outboxes, board=self._board, burial=self._burial, figures=figures, due=self.nudge
        )
        self._serving = Serving(
            key,
            trigger,
            subscribers,
            outboxes,
            store=store,
            board=self._board,
            burial=self._burial,
            figures=figures,
            hold_back=self._settling.hold_back,
        )
        self._opener = Opener(
            trigger, self._serving.fields, whole=self._serving.whole, early=self._serving.early
        )
        self._reception = Reception(
            key,
            label,
            trigger,
            self._opener,
            store=store,
            board=self._board,
            figures=figures,
            pause=self._fetching.pause,
            resume=self._fetching.resume,
            others=self._others_coming,
            due=self.nudge,
            once=once,
        )
        self._thread = threading.Thread(target=self._run, name=f"{label} mill", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Something may be due: look into the ledger."""
        self._ahead.look_again()
        with self._changed:
            self._more = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Nothing is on its way, and nothing that is due was left in the ledger."""
        with self._changed:
            return not (
                self._more
                or self._busy
                or self._arrivals
                or self._outcomes
                or self._fetching.queued
                or self._fetching.active
                or not self._board.resting
            )

    @property
    def trouble(self) -> WorkError | None:
        """What keeps the source as a whole from answering."""
        return self._reception.trouble

    @property
    def load(self) -> int:
        """Units that are queued or on their way."""
        return self._fetching.queued + len(self._board.works)

    @property
    def lag(self) -> float:
        """Seconds from listing to acknowledgement: mean of the last units."""
        return self._board.lag

    def close(self) -> None:
        """Finish what is on its way and record it. `stop` is set, or the pipeline is idle."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        for box in self._all_outboxes:
            box.close()

    # --- in: other threads ------------------------------------------------------------------------

    def _arrived(self, arrival: Arrival) -> None:
        with self._changed:
            if not self._arrivals:
                self._first_arrival = time.monotonic()
            self._arrivals.append(arrival)
            waiting = len(self._arrivals)
            if waiting == 1 or waiting >= _GROUP // 2 or not self._fetching.coming:
                self._changed.notify_all()  # the mill would find nothing to do at the others

    def _reported(self, outcome: Outcome) -> None:
        with self._changed:
            if not self._outcomes:
                self._first_outcome = time.monotonic()
            self._outcomes.append(outcome)
            if len(self._outcomes) == 1 or self._may_record():
                self._changed.notify_all()

    def _others_coming(self) -> bool:
        return bool(self._fetching.active or self._fetching.queued or self._arrivals)

    def _fetch(self, stored: StoredUnit) -> Any:
        if isinstance(self._trigger, FeedTrigger):
            return self._trigger.fetch(self._context, stored.unit)
        body = self._store.spooled(stored.id)
        if body is None:
            raise GoneError("its spooled page is gone from the store")
        return body

    def _look(self, body: bytes) -> Sliced | None:
        return self._opener.sliced(body)

    # --- the mill ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except InterruptedWork:
            pass
        except CounterplayError as error:
            self.failure = error
        except Exception as error:  # whatever it is, a feed must not end in silence
            log.exception("the feed %s stopped at a fault", self.label)
            self.failure = StateError(f"the feed {self.label} stopped: {type(error).__name__}: {error}")
        finally:
            if self.failure is not None:
                for box in self._all_outboxes:  # nobody records what they deliver from here on
                    box.drop()
            self._fetching.close()

    def _turn(self) -> bool:
        arrivals, outcomes = self._gather()
        if arrivals is None:
            return False
        try:
            for box in self._unanswered():
                if not box.taker.pause.active:  # it has two of them
                    self._settling.go_on_without(box)
            self._refill()
            works = [work for work in map(self._reception.opened, arrivals) if work is not None]
            self._fetching.wake()
            if works or outcomes or self._board.ready or self._burial:
                self._commit(works, outcomes)
            self._cut_batches()
            self._sieve.passed(sum(work.opened.size for work in works if work.opened is not None))
        finally:
            with self._changed:
                self._busy = False
        return True

    def _gather(self) -> tuple[list[Arrival] | None, list[Outcome]]:
        """Wait for something to do. None: it is time to end."""
        with self._changed:
            while True:
                stopping = self._stop.is_set() or self._draining
                sending = sum(box.sending for box in self._all_outboxes)
                if stopping and not self._outcomes and not sending and not self._board.ready:
                    return None, []
                if (self._outcomes or self._board.ready) and (stopping or self._may_record()):
                    break
                if self._arrivals and self._may_open(stopping):
                    break
                if not stopping and self._wants_units():
                    break
                if not stopping and (self._overdue() <= 0 or self._unanswered()):
                    break
                self._changed.wait(self._pause())
            self._busy = True
            outcomes = list(self._outcomes)
            self._outcomes.clear()
            arrivals: list[Arrival] = []
            size = 0
            worth_it = len(self._arrivals) >= _GROUP // 3 or self._may_open(stopping)
            if worth_it and not stopping and not self._clogged(outcomes):
                while self._arrivals and len(arrivals) < _GROUP and size < _GROUP_BYTES:
                    arrivals.append(self._arrivals.popleft())
                    size += arrivals[-1].held
                self._first_arrival = time.monotonic()  # of those that are left, too
            return arrivals, outcomes

    def _may_open(self, stopping: bool) -> bool:
        """Open what has arrived now, or wait a moment for more to share a transaction with?"""
        if stopping or self._clogged():
            return False
        if len(self._arrivals) >= _GROUP // 2:
            return True
        if not self._fetching.coming and not any(box.sending for box in self._all_outboxes):
            return True  # nothing would change meanwhile
        return time.monotonic() - self._first_arrival >= self._linger

    @property
    def _linger(self) -> float:
        return _LINGER_LONG if self._fetching.queued else _LINGER

    def _may_record(self) -> bool:
        """Record what was delivered now, or wait a moment for more to share a transaction with?"""
        if len(self._outcomes) >= _FEW_OUTCOMES or any(box.gate.wanted for box in self._all_outboxes):
            return True
        coming = self._arrivals or self._fetching.coming
        if not coming and sum(box.sending for box in self._all_outboxes) <= len(self._outcomes):
            return True
        return time.monotonic() - self._first_outcome >= _RECORD_SOON

    def _clogged(self, reported: Sequence[Outcome] = ()) -> bool:
        """Batches wait for their turn, `reported` ones not any more: more of them would only cost memory."""
        settled = Counter(one.outbox for one in reported)
        return any(_is_full(box, settled[box]) for box in self._all_outboxes)

    def _unanswered(self) -> list[Outbox]:
        """Those that hold up other playbooks by a receiver that does not answer."""
        return [
            box
            for box in self._all_outboxes
            if box.silent >= (PATIENCE * _PATIENCE_AGAIN if box.taker.pause.failures else PATIENCE)
            and _is_full(box)
            and self._board.waited_for(box.taker)
        ]

    def _pause(self) -> float:
        if self._outcomes or self._board.ready:
            return max(0.001, self._first_outcome + _RECORD_SOON - time.monotonic())
        stopping = self._stop.is_set() or self._draining
        if self._arrivals and not stopping and not self._clogged():
            return max(0.001, self._first_arrival + self._linger - time.monotonic())
        due = self._due_at - time.monotonic() if self._fetching.queued <= _FEW else 0.2
        return max(0.001, min(0.2, self._overdue(), due))

    def _overdue(self) -> float:
        """Seconds until the oldest record has waited long enough for its batch to fill up."""
        ages = [box.waiting_since for box in self._all_outboxes if not box.sending]
        oldest = min((one for one in ages if one is not None), default=None)
        return 3600.0 if oldest is None else oldest + _BATCH_WAIT - time.monotonic()

    def _cut_batches(self) -> None:
        with self._changed:
            more_coming = bool(self._arrivals or self._fetching.active)
        for box in self._all_outboxes:
            since = box.waiting_since
            if since is None:
                continue
            old = time.monotonic() - since >= _BATCH_WAIT
            if (old and not box.sending) or (not more_coming and not self._fetching.queued):
                box.cut()

    # --- what to fetch ----------------------------------------------------------------------------

    def _wants_units(self) -> bool:
        return self._fetching.queued <= _FEW and (self._more or time.monotonic() >= self._due_at)

    def _refill(self) -> None:
        with self._changed:
            if self._stop.is_set() or not self._wants_units():
                return
            self._more = False
        ready = [one.name for one in self._subscribers if not one.pause.active]
        floor = self._floor()
        if ready:
            units = self._ahead.take(ready, floor, self._on_their_way)
            for stored in units:
                takers = [one for one in self._subscribers if one.name in stored.waiting]
                self._board.take_up(stored, takers)
            self._fetching.add(units)
            if self._ahead.more:
                with self._changed:
                    self._more = True
                self._due_at = time.monotonic() + 3600.0
                return
        pauses = [one.pause.until for one in self._subscribers if one.pause.active]
        due = self._store.next_due(self.feed_id, [one.name for one in self._subscribers], floor)
        if due is not None:
            # What is due already is either on its way, or became due while we looked.
            soonest = 1.0 if self._board.works else 0.01
            pauses.append(time.monotonic() + max((due - now()).total_seconds(), soonest))
        self._due_at = min(pauses, default=time.monotonic() + 3600.0) + 0.005

    def _on_their_way(self) -> list[int]:
        queued = [*self._board.works, *self._fetching.identities()]
        with self._changed:
            return queued + [one.stored.id for one in self._arrivals]

    # --- the transaction --------------------------------------------------------------------------

    def _commit(self, works: Sequence[Work], outcomes: Sequence[Outcome]) -> None:
        board = self._board
        deliveries = self._settling.settle(outcomes)
        ready, board.ready = board.ready, []
        letters = self._burial.take()
        blocked = {task: board.blocking(task) for task in ready if task.waits_for}
        done = [task for task in ready if not blocked.get(task)]
        added: list[str] = []
        owned: list[Owned] = []
        try:
            with self._store.database.write() as connection:
                self._store.hold(connection, self.feed_id, self._epoch)
                if works:
                    owned = self._store.claim(connection, self.feed_id, [_fetched(one) for one in works])
                for task in ready:
                    if task.runs:
                        added += self._add_runs(connection, task)
                for task in done:
                    letters += task.letters
                acknowledged = [task.acknowledgement() for task in done]
                self._store.record(connection, self.feed_id, deliveries, acknowledged, spooled=self._spooled)
                self._store.bury(connection, letters)
        except BaseException:
            self._store.keys.forget()
            raise
        for outcome in outcomes:
            outcome.outbox.settled(outcome)
        for task in done:
            board.done(task)
        for task, owners in blocked.items():
            if owners:
                board.park(task)
        found = list(zip(works, owned, strict=True))
        for work, owns in found:
            self._count(work, owns)
            if owns.vanished:
                board.look_again(work.stored.id)
        self._serving.serve(found)
        board.unpark()
        if added:
            self._runs_added(added)

    def _add_runs(self, connection: Any, task: Task) -> list[str]:
        new = self._runs.add(connection, task.runs)
        suppressed = self._runs.holders(connection, task.runs)
        known = len(task.runs) - len(new) - len(suppressed)
        self._figures.add("runs_suppressed", len(suppressed))
        self._figures.add("runs_known", known)
        for one in task.runs:
            if one.once is not None and one.id in suppressed:
                self._figures.notice(
                    f"{task.taker.name} once_per {one.once.key}",
                    f"{task.taker.name}: the run {suppressed[one.id]} holds {one.once.key!r}; "
                    "further events for it start none until its window ends",
                )
        task.counts["runs"] = len(new)
        task.counts["suppressed"] = len(suppressed)
        task.counts["known"] = known
        task.runs = []
        return new

    def _measure(self, work: Work) -> None:
        """How long it took until its bytes were here, step by step."""
        stored, created = work.stored, work.stored.unit.created
        for name, start, end in (
            ("event_available", work.happened, created),
            ("unit_listed", created, stored.listed),
            ("unit_fetched", stored.listed, work.fetched),
        ):
            if start is not None and end is not None:
                self._figures.took(name, (end - start).total_seconds())

    def _count(self, work: Work, owned: Owned) -> None:
        assert work.opened is not None
        work.happened = self._opener.first_time(work.opened)
        if work.stored.status == "listed":
            self._measure(work)
            self._figures.add_all(
                {
                    "units": 1,
                    "collected": work.opened.total,
                    "bytes": work.opened.size,
                    "duplicates": len(owned.duplicates),
                    "broken": len(work.opened.letters),
                }
            )
            if letters := work.opened.letters:
                self._figures.notice(
                    f"{self.label} {work.stored.unit.id}",
                    f"{len(letters)} of {work.opened.total} elements cannot be read and are kept as dead "
                    f"letters (the first, at position {letters[0].position}: {letters[0].reason}); "
                    "the rest goes on",
                )
        else:
            self._figures.add("units_again")
            self._figures.add("collected_again", work.opened.total)
        if owned.altered:
            self._figures.add("altered", len(owned.altered))
            self._figures.notice(
                f"{self.label} {work.stored.unit.id} altered",
                f"{len(owned.altered)} events have an id that is known with another body; "
                "they count as duplicates",
            )


def _is_full(box: Outbox, settled: int = 0) -> bool:
    if box.taker.pause.active:
        return False
    sending = box.sending - settled
    return sending > _BATCHES_WAITING or (sending > 1 and not settled and box.gate.shut)


def _fetched(work: Work) -> Fetched:
    opened = work.opened
    assert opened is not None
    return Fetched(work.stored, opened.size, opened.digest, opened.total, opened.owned_keys(), opened.letters)
