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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay.budgets import ByteBudget
from counterplay.clock import now
from counterplay.errors import (
    BlockedError,
    CounterplayError,
    GoneError,
    InterruptedWork,
    PermanentError,
    RejectedError,
    RetryableError,
    StateError,
    WorkError,
    as_work_error,
)
from counterplay.events import Event, JsonObject
from counterplay.modules import BulkSink, Context, FeedTrigger, Trigger
from counterplay.runtime.decoding import CUT_OFF
from counterplay.runtime.fetching import Arrival, Fetching
from counterplay.runtime.figures import Figures
from counterplay.runtime.outbox import Batch, Gates, Outbox, Outcome, Segment
from counterplay.runtime.sifting import Plan, Selected, plan_of, select
from counterplay.runtime.subscribers import Subscriber
from counterplay.runtime.units import Opened, Opener
from counterplay.store.feeds import (
    Acknowledged,
    Counts,
    DeadLetter,
    Delivered,
    FeedKey,
    FeedStore,
    Fetched,
    StoredUnit,
)
from counterplay.store.keys import Owned
from counterplay.store.ranges import Positions
from counterplay.store.runs import NewRun, RunStore, run_id

UNIT_ATTEMPTS = 8
"""A unit that the source answers with an error this often is quarantined, so that others go on."""
CUT_ATTEMPTS = 6
"""A unit that is cut off this often is taken as it is, and the ledger names it as partial."""
LONGEST_DELAY = 60.0
BYTES_HELD = 16 * 1024 * 1024
_GROUP = 16
_GROUP_BYTES = 4 * 1024 * 1024
_LINGER = 0.02
_BATCH_WAIT = 0.05
_QUEUED = 500
_BATCHES_WAITING = 3
_SAMPLE = 64_000
_REMEMBERED = 100_000

log = logging.getLogger("counterplay.feeds")


@dataclass
class Shared:
    """What the feeds of a session share."""

    held: ByteBudget = field(default_factory=lambda: ByteBudget(BYTES_HELD))
    gates: Gates = field(default_factory=Gates)


@dataclass(eq=False, slots=True)
class Task:
    """What one playbook has to do with one unit. `left`: records that no sink has reported on yet."""

    work: Work
    taker: Subscriber
    left: int = 1
    ended: bool = False
    failed: bool = False
    selected: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    waits_for: set[int] = field(default_factory=set)
    runs: list[NewRun] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def name(self) -> tuple[int, str]:
        return self.work.stored.id, self.taker.name

    def acknowledgement(self) -> Acknowledged:
        """What became of the unit's events."""
        delivered = 0 if self.taker.starts_runs else self.selected - len(self.dead)
        dead = len(self.dead) + len(self.letters)
        return Acknowledged(*self.name, Counts(delivered=delivered, dead=dead, **self.counts))


@dataclass(eq=False, slots=True)
class Work:
    """A unit on its way. `opened` goes as soon as nobody needs the bytes; `tasks` counts open ones."""

    stored: StoredUnit
    takers: list[Subscriber]
    held: int = 0
    opened: Opened | None = None
    digest: str = ""
    tasks: int = 0
    again: bool = False
    since: float = field(default_factory=time.monotonic)


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
        figures: Figures,
        stop: threading.Event,
        runs_added: Callable[[Sequence[str]], None],
        shared: Shared,
        floor: Callable[[], datetime | None],
        epoch: int = 0,
    ) -> None:
        self.key = key
        self.label = label
        self.feed_id = feed_id
        self.failure: CounterplayError | None = None
        self.trouble: WorkError | None = None
        self._trigger = trigger
        self._context = context
        self._subscribers = list(subscribers)
        self._store = store
        self._runs = runs
        self._figures = figures
        self._stop = stop
        self._runs_added = runs_added
        self._shared = shared
        self._floor = floor
        self._epoch = epoch
        self._plans: dict[str, Plan] = {one.name: plan_of(one) for one in subscribers}
        self._opener = Opener(trigger, {name for plan in self._plans.values() for name in plan.fields})
        self._changed = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._works: dict[int, Work] = {}
        self._parked: dict[tuple[int, str], Task] = {}
        self._ready: list[Task] = []  # done but for their acknowledgement
        self._acknowledged: dict[str, dict[int, None]] = {one.name: {} for one in subscribers}
        self._letters: list[DeadLetter] = []
        self._open: set[Task] = set()  # those whose records are on their way
        self._lags: deque[float] = deque(maxlen=200)
        self._failures = 0
        self._more = True
        self._due_at = 0.0
        self._busy = False
        self._draining = False
        self._first_arrival = 0.0
        self._spooled = not isinstance(trigger, FeedTrigger)
        self._outboxes = {
            one.name: [
                Outbox(one, pipe, shared.gates.of(f"{one.name}/{pipe.name}"), self._reported, stop)
                for pipe in one.sinks
            ]
            for one in subscribers
            if not one.starts_runs
        }
        self._all_outboxes = [box for boxes in self._outboxes.values() for box in boxes]
        self._fetching = Fetching(
            self._fetch,
            name=label,
            parallel=trigger.parallel if isinstance(trigger, FeedTrigger) else 1,
            held=shared.held,
            arrived=self._arrived,
            backlog=lambda: len(self._arrivals),
            stop=stop,
        )
        self._thread = threading.Thread(target=self._run, name=f"{label} mill", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Something may be due: look into the ledger."""
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
                or self._ready
                or self._fetching.queued
                or self._fetching.active
                or len(self._works) > len({unit for unit, _ in self._parked})
            )

    @property
    def load(self) -> int:
        """Units that are queued or on their way."""
        return self._fetching.queued + len(self._works)

    @property
    def lag(self) -> float:
        """Seconds from finding a unit in the ledger to its acknowledgement: mean of the last units."""
        lags = list(self._lags)
        return sum(lags) / len(lags) if lags else 0.0

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
            self._changed.notify_all()

    def _reported(self, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes.append(outcome)
            self._changed.notify_all()

    def _fetch(self, stored: StoredUnit) -> Any:
        if isinstance(self._trigger, FeedTrigger):
            return self._trigger.fetch(self._context, stored.unit)
        body = self._store.spooled(stored.id)
        if body is None:
            raise GoneError("its spooled page is gone from the store")
        return body

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
            self._refill()
            works = [work for work in map(self._opened, arrivals) if work is not None]
            self._fetching.wake()
            if works or outcomes or self._ready or self._letters:
                self._commit(works, outcomes)
            self._cut_batches()
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
                if stopping and not self._outcomes and not sending and not self._ready:
                    return None, []
                if self._outcomes or self._ready or (self._arrivals and self._may_open(stopping)):
                    break
                if not stopping and self._wants_units():
                    break
                if not stopping and self._overdue() <= 0:
                    break
                self._changed.wait(self._pause())
            self._busy = True
            outcomes = list(self._outcomes)
            self._outcomes.clear()
            arrivals: list[Arrival] = []
            size = 0
            if not stopping and not self._clogged():
                while self._arrivals and len(arrivals) < _GROUP and size < _GROUP_BYTES:
                    arrivals.append(self._arrivals.popleft())
                    size += arrivals[-1].held
                self._first_arrival = time.monotonic()
            return arrivals, outcomes

    def _may_open(self, stopping: bool) -> bool:
        """Open what has arrived now, or wait a moment for more to share a transaction with?"""
        if stopping or self._clogged():
            return False
        if len(self._arrivals) >= _GROUP // 2 or not self._fetching.active:
            return True
        return time.monotonic() - self._first_arrival >= _LINGER

    def _clogged(self) -> bool:
        return any(box.sending >= _BATCHES_WAITING + 1 for box in self._all_outboxes)

    def _pause(self) -> float:
        if self._arrivals and not self._clogged():
            return max(0.001, self._first_arrival + _LINGER - time.monotonic())
        due = self._due_at - time.monotonic() if self._fetching.queued <= _GROUP else 0.2
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
        return self._fetching.queued <= _GROUP and (self._more or time.monotonic() >= self._due_at)

    def _refill(self) -> None:
        with self._changed:
            if self._stop.is_set() or not self._wants_units():
                return
            self._more = False
        ready = [one.name for one in self._subscribers if not one.pause.active]
        floor = self._floor()
        units: list[StoredUnit] = []
        if ready:
            without = [*self._works, *self._fetching.identities()]
            with self._changed:
                without += [one.stored.id for one in self._arrivals]
            units = self._store.pending(self.feed_id, ready, _QUEUED, floor=floor, without=without)
            for stored in units:
                takers = [one for one in self._subscribers if one.name in stored.waiting]
                self._works[stored.id] = Work(stored, takers)
            self._fetching.add(units)
        if len(units) == _QUEUED:
            with self._changed:
                self._more = True
            self._due_at = time.monotonic() + 3600.0
            return
        pauses = [one.pause.until for one in self._subscribers if one.pause.active]
        due = self._store.next_due(self.feed_id, [one.name for one in self._subscribers], floor)
        if due is not None:
            # What is due already is either on its way, or became due while we looked.
            soonest = 1.0 if self._works else 0.01
            pauses.append(time.monotonic() + max((due - now()).total_seconds(), soonest))
        self._due_at = min(pauses, default=time.monotonic() + 3600.0) + 0.005

    def _release(self, work: Work, *, again: bool = False) -> None:
        """The unit is off the way. `again`: it may be due, look for it."""
        self._works.pop(work.stored.id, None)
        self._give_back(work)
        if again:
            self.nudge()

    def _give_back(self, work: Work) -> None:
        work.opened = None
        if work.held:
            self._shared.held.change(-work.held)
            work.held = 0
            self._fetching.wake()

    # --- opening ----------------------------------------------------------------------------------

    def _opened(self, arrival: Arrival) -> Work | None:
        """The unit taken apart; None when it was set aside, postponed, or nobody is ready for it."""
        stored = arrival.stored
        work = self._works[stored.id]
        work.held = arrival.held
        if arrival.error is not None or arrival.body is None:
            assert arrival.error is not None
            self._release(work)
            self._not_fetched(stored, arrival.error)
            return None
        self._failures = 0
        if self.trouble is not None:
            self.trouble = None
            self._figures.notice(self.label, None)
        work.takers = [one for one in work.takers if not one.pause.active]
        if not work.takers:
            self._release(work, again=True)
            return None
        meta: JsonObject = {
            "feed": self.key.trigger,
            "connection": self.key.connection,
            "tenant": self.key.tenant,
            "unit": stored.unit.id,
        }
        try:
            opened = self._opener.open(stored, arrival.body, meta)
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self.key.trigger}")
            self._release(work, again=True)
            if self._worth_a_second_fetch(stored):
                self._store.postpone(stored.id, str(failure), now())
            else:
                self._set_aside(stored, "quarantined", str(failure), bytes(arrival.body))
            return None
        if opened.letters and not opened.whole and self._worth_another_fetch(stored, opened):
            delay = timedelta(seconds=2.0**stored.attempts / 2 if stored.attempts else 0.0)
            self._release(work, again=True)
            self._store.postpone(stored.id, "the unit did not decode as a whole", now() + delay)
            return None
        work.opened, work.digest = opened, opened.digest
        return work

    def _worth_a_second_fetch(self, stored: StoredUnit) -> bool:
        """It may be the transfer, or a proxy in between, that broke the unit."""
        return isinstance(self._trigger, FeedTrigger) and stored.attempts == 0 and stored.digest is None

    def _worth_another_fetch(self, stored: StoredUnit, opened: Opened) -> bool:
        """A cut unit misses events that nobody sees, so it is asked for more often than a spoilt one."""
        if not any(letter.reason == CUT_OFF for letter in opened.letters):
            return self._worth_a_second_fetch(stored)
        return isinstance(self._trigger, FeedTrigger) and stored.attempts < CUT_ATTEMPTS

    def _not_fetched(self, stored: StoredUnit, error: Exception) -> None:
        if isinstance(error, InterruptedWork):
            return
        if isinstance(error, StateError):
            raise error
        if isinstance(error, GoneError):
            self._set_aside(stored, "lost", str(error))
            return
        failure = as_work_error(error, f"the trigger {self.key.trigger}")
        if isinstance(failure, BlockedError):
            self._in_trouble(failure)  # a secret cannot be read, say: no fault of this unit
        elif not isinstance(failure, RetryableError):
            self._set_aside(stored, "quarantined", str(failure))
        elif failure.status is None:
            # The network or the whole service: no fault of this unit, and no reason for others to wait.
            # This one comes again only after the others had their turn.
            delay = min(2 * LONGEST_DELAY, 2.0 ** min(self._failures + 2, 9))
            self._store.postpone(stored.id, str(failure), now() + timedelta(seconds=delay), failed=False)
            self._in_trouble(failure)
        elif stored.attempts + 1 >= UNIT_ATTEMPTS:
            self._set_aside(stored, "quarantined", f"{failure} ({UNIT_ATTEMPTS} attempts)")
        else:
            delay = failure.retry_after or min(60.0, 2.0**stored.attempts)
            self._store.postpone(stored.id, str(failure), now() + timedelta(seconds=delay))
        self.nudge()

    def _in_trouble(self, failure: WorkError) -> None:
        """The service as a whole does not answer: pause, and say so."""
        self.trouble = failure
        self._fetching.pause(min(LONGEST_DELAY, 2.0 ** min(self._failures, 9) / 2))
        self._failures += 1
        again = "; trying again" if isinstance(failure, RetryableError) else ""
        self._figures.notice(self.label, f"{failure}{again}")

    def _set_aside(self, stored: StoredUnit, status: str, reason: str, sample: bytes = b"") -> None:
        self._store.set_aside(stored.id, status, reason, sample[:_SAMPLE])
        self._figures.add(status)
        self._figures.notice(f"{self.label} {stored.unit.id}", f"{status}: {reason}")
        self._look_again(stored.id)

    def _look_again(self, owner: int) -> None:
        """What was a duplicate of this unit is none any more: the units that hold it are looked at anew."""
        for task in [one for one in self._parked.values() if owner in one.waits_for]:
            del self._parked[task.name]
            task.failed = True
            self._leave(task)
        for task in self._open:
            task.failed = task.failed or owner in task.waits_for

    # --- the transaction --------------------------------------------------------------------------

    def _commit(self, works: Sequence[Work], outcomes: Sequence[Outcome]) -> None:
        deliveries = self._taken(outcomes)
        ready, self._ready = self._ready, []
        letters, self._letters = self._letters, []
        blocked = {task: self._blocking(task) for task in ready if task.waits_for}
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
            self._done(task)
        for task, owners in blocked.items():
            if owners:
                self._park(task)
        found = list(zip(works, owned, strict=True))
        for work, owns in found:
            self._count(work, owns)
            if owns.vanished:
                self._look_again(work.stored.id)
        self._serve(found)
        self._unpark()
        if added:
            self._runs_added(added)

    def _add_runs(self, connection: Any, task: Task) -> list[str]:
        new = self._runs.add(connection, task.runs)
        suppressed = self._runs.holders(connection, task.runs)
        self._figures.add("runs_suppressed", len(suppressed))
        self._figures.add("runs_known", len(task.runs) - len(new) - len(suppressed))
        for one in task.runs:
            if one.once is not None and one.id in suppressed:
                self._figures.notice(
                    f"{task.taker.name} once_per {one.once.key}",
                    f"{task.taker.name}: the run {suppressed[one.id]} holds {one.once.key!r}; "
                    "further events for it start none until its window ends",
                )
        task.counts["runs"] = len(new)
        task.runs = []
        return new

    def _taken(self, outcomes: Sequence[Outcome]) -> list[Delivered]:
        """What the outcomes of batches put on record; tasks that come to their end by them are ready."""
        deliveries: list[Delivered] = []
        for outcome in outcomes:
            taker, pipe = outcome.outbox.taker, outcome.outbox.pipe
            for start, end, receipts in outcome.accepted:
                self._figures.add("delivered", end - start)
                self._figures.add(f"delivered:{taker.name}", end - start)
                for segment, first, last in _parts(outcome.batch, start, end):
                    task: Task = segment.task
                    task.left -= last - first
                    offset = segment.start - start
                    deliveries.append(
                        Delivered(
                            *task.name,
                            pipe.name,
                            task.work.digest,
                            _range_text(segment.positions[first:last]),
                            [one.remote_id for one in receipts[offset + first : offset + last]],
                        )
                    )
            for index, reason in outcome.dead:
                for segment, first, _ in _parts(outcome.batch, index, index + 1):
                    segment.task.left -= 1
                    self._bury(segment.task, pipe.name, segment.positions[first], reason)
            if outcome.error is not None:
                self._undelivered(outcome)
            elif taker.pause.failures and not taker.pause.active:
                taker.pause.clear()
                self._figures.notice(taker.name, None)
            for segment in outcome.batch.segments:
                self._look(segment.task)
        return deliveries

    def _undelivered(self, outcome: Outcome) -> None:
        """A batch failed: its playbook pauses, and gives up what it has not sent yet."""
        taker = outcome.outbox.taker
        missing: Counter[Task] = Counter()
        for segment in outcome.batch.segments:
            missing[segment.task] += len(segment.positions)
        for start, end in [(a, b) for a, b, _ in outcome.accepted] + [(i, i + 1) for i, _ in outcome.dead]:
            for segment, first, last in _parts(outcome.batch, start, end):
                missing[segment.task] -= last - first
        if isinstance(outcome.error, WorkError):
            self._hold_back(taker, outcome.error)
            for box in self._outboxes[taker.name]:
                missing.update(box.drop())
        for task, count in missing.items():
            if count:
                task.left -= count
                task.failed = True
                self._look(task)

    def _hold_back(self, taker: Subscriber, error: WorkError) -> None:
        """The playbook cannot take events now: it pauses, and its units wait for it."""
        if taker.pause.active:
            return
        passing = isinstance(error, RetryableError)
        after = error.retry_after if isinstance(error, RetryableError) else None
        taker.pause.begin(str(error), blocked=not passing, seconds=after)
        state = "waiting" if passing else "blocked"
        self._figures.notice(taker.name, f"{state}: {error}; its events are held back")
        self.nudge()

    def _bury(self, task: Task, sink: str, position: int, reason: str) -> None:
        """A record cannot be delivered: it is kept."""
        opened = task.work.opened
        assert opened is not None
        raw = bytes(opened.raws[opened.positions.index(position)])
        task.dead.add(position)
        self._letters.append(
            DeadLetter(reason, raw, position, task.taker.name, sink, unit_id=task.work.stored.id)
        )
        self._figures.add("dead_letters")
        self._figures.notice(
            f"{task.taker.name} {task.work.stored.unit.id} {position}",
            f"a record of {task.taker.name} could not be delivered and is kept as a dead letter: {reason}",
        )

    # --- tasks ------------------------------------------------------------------------------------

    def _look(self, task: Task) -> None:
        """Has the task come to its end?"""
        if task.left or task.ended:
            return
        task.ended = True
        self._open.discard(task)
        if task.failed:
            self._leave(task)
        else:
            self._ready.append(task)

    def _done(self, task: Task) -> None:
        """The acknowledgement is on record."""
        known = self._acknowledged[task.taker.name]
        known[task.work.stored.id] = None
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]
        self._lags.append(time.monotonic() - task.work.since)
        self._figures.add("filtered", task.counts["filtered"])
        self._leave(task)

    def _leave(self, task: Task) -> None:
        work = task.work
        work.again = work.again or task.failed
        work.tasks -= 1
        if work.tasks == 0:
            self._release(work, again=work.again)

    def _blocking(self, task: Task) -> set[int]:
        """The owners of its duplicates that are not done, and do not merely wait for others themselves."""
        known = self._acknowledged[task.taker.name]
        return {
            owner
            for owner in task.waits_for
            if owner not in known and (owner, task.taker.name) not in self._parked
        }

    def _park(self, task: Task) -> None:
        """Another unit owns some of its events and is not done: until it is, this one is the spare."""
        self._parked[task.name] = task
        if task.work.tasks == 1:
            self._give_back(task.work)

    def _unpark(self) -> None:
        for name, task in list(self._parked.items()):
            if not self._blocking(task):
                del self._parked[name]
                self._ready.append(task)

    def _count(self, work: Work, owned: Owned) -> None:
        assert work.opened is not None
        if work.stored.status == "listed":
            self._figures.add("units")
            self._figures.add("collected", work.opened.total)
            self._figures.add("bytes", work.opened.size)
            self._figures.add("duplicates", len(owned.duplicates))
            self._figures.add("broken", len(work.opened.letters))
            if letters := work.opened.letters:
                self._figures.notice(
                    f"{self.label} {work.stored.unit.id}",
                    f"{len(letters)} of {work.opened.total} elements cannot be read and are kept as dead "
                    f"letters (the first, at position {letters[0].position}: {letters[0].reason}); "
                    "the rest goes on",
                )
        if owned.altered:
            self._figures.add("altered", len(owned.altered))
            self._figures.notice(
                f"{self.label} {work.stored.unit.id} altered",
                f"{len(owned.altered)} events have an id that is known with another body; "
                "they count as duplicates",
            )

    # --- subscribers ------------------------------------------------------------------------------

    def _serve(self, works: Sequence[tuple[Work, Owned]]) -> None:
        owners = {
            owner for work, owned in works for owner in owned.duplicates.values() if owner != work.stored.id
        }
        standing: dict[str, tuple[set[int], set[int]]] = {}
        for work, owned in works:
            work.tasks = len(work.takers)
            for taker in list(work.takers):
                task = Task(work, taker)
                self._open.add(task)
                if taker.pause.active:
                    task.failed = True
                else:
                    if taker.name not in standing:
                        standing[taker.name] = self._standing(taker.name, owners)
                    self._serve_one(task, owned, *standing[taker.name])
                task.left -= 1
                self._look(task)

    def _standing(self, playbook: str, owners: set[int]) -> tuple[set[int], set[int]]:
        """Those of the units that the playbook waits for, and those that are or will be its own."""
        known = self._acknowledged[playbook]
        theirs = {owner for owner in owners if owner in known}
        unsure = owners - theirs
        waiting = {
            owner
            for owner in unsure
            if owner in self._works and playbook in self._works[owner].stored.waiting
        }
        if unsure - waiting:
            waiting |= self._store.undelivered_owners(unsure - waiting, playbook)
        if unsure - waiting:
            theirs |= self._store.acknowledged_by(unsure - waiting, playbook)
        return waiting, theirs | waiting

    def _serve_one(self, task: Task, owned: Owned, waiting: set[int], theirs: set[int]) -> None:
        """Do for one playbook what the unit's events ask for, as far as it does not take a sink's answer."""
        taker, work = task.taker, task.work
        opened = work.opened
        assert opened is not None
        fresh = _fresh(opened, owned, work.stored.id, theirs)
        task.waits_for = {owner for owner in set(owned.duplicates.values()) if owner in waiting} - {
            work.stored.id
        }
        try:
            chosen = select(taker, self._plans[taker.name], opened, fresh)
        except (InterruptedWork, StateError):
            raise
        except Exception as error:
            self._hold_back(taker, as_work_error(error, f"a transform of {taker.name}"))
            task.failed = True
            return
        if chosen.first_error is not None:
            self._figures.add("condition_errors", chosen.condition_errors)
            self._figures.notice(f"{taker.name} filter", f"filter: {chosen.first_error}")
        task.counts = {
            "duplicates": len(opened.raws) - len(fresh),
            "filtered": chosen.filtered,
            "condition_errors": chosen.condition_errors,
            "dropped": chosen.dropped,
        }
        unreadable = [(opened.event(index), reason) for index, reason in chosen.unreadable]
        if taker.starts_runs:
            task.runs, keyless = self._new_runs(taker, chosen.events or ())
            unreadable += keyless
        else:
            task.selected = len(chosen.indices if chosen.events is None else chosen.events)
            for box in self._outboxes[taker.name]:
                self._hand_over(task, box, opened, chosen)
        for event, reason in unreadable:
            task.letters.append(
                DeadLetter(reason, event.raw, event.position, taker.name, unit_id=work.stored.id)
            )
            self._figures.add("dead_letters")
            self._figures.notice(
                f"{taker.name} {work.stored.unit.id} {event.position}", f"{taker.name}: {reason}"
            )

    def _hand_over(self, task: Task, box: Outbox, opened: Opened, chosen: Selected) -> None:
        """Put the records into the sink's next batches, but for those that it has or refused already."""
        sink, largest = box.pipe.sink, box.pipe.sink.max_record_bytes
        skipped = self._settled_before(task, box)
        positions: list[int] = []
        records: list[Any] = []
        sizes: list[int] = []
        if chosen.events is None:
            assert isinstance(sink, BulkSink)
            encode, raws, places = sink.encode, opened.raws, opened.positions
            source: Any = ((places[index], raws[index], None) for index in chosen.indices)
        else:
            source = ((event.position, event.raw, event) for event in chosen.events)
        for position, raw, event in source:
            if skipped and position in skipped:
                continue
            try:
                if isinstance(sink, BulkSink):
                    record: Any = encode(raw) if event is None else sink.encode(event.raw)
                    size = len(record) + 1
                else:
                    record, size = event, sink.record_size(event)
            except RejectedError as error:
                self._bury(task, box.pipe.name, position, str(error))
                continue
            if largest is not None and size > largest:
                reason = f"the record has {size:,} encoded bytes, the receiver takes {largest:,}"
                self._bury(task, box.pipe.name, position, reason)
                continue
            positions.append(position)
            records.append(record)
            sizes.append(size)
        task.left += len(records)
        box.put(task, positions, records, sizes)

    def _settled_before(self, task: Task, box: Outbox) -> Positions | set[int] | None:
        """Positions that the sink took or refused when the unit was worked on before."""
        stored = task.work.stored
        if stored.digest is None:
            return None
        done = self._store.delivered(stored.id, task.taker.name, box.pipe.name, task.work.digest)
        buried = self._store.buried(stored.id, task.taker.name, box.pipe.name)
        task.dead.update(buried)
        return {*done, *buried}

    def _new_runs(
        self, taker: Subscriber, events: Sequence[Event]
    ) -> tuple[list[NewRun], list[tuple[Event, str]]]:
        """The runs that the events ask for, and the events without a key for that, or for `once_per`."""
        runs: list[NewRun] = []
        keyless: list[tuple[Event, str]] = []
        for event in events:
            try:
                runs.append(self._new_run(taker, event))
            except PermanentError as error:
                keyless.append((event, str(error)))
            except Exception as error:
                keyless.append((event, f"the trigger cannot tell its run key: {error!r}"))
        return runs, keyless

    def _new_run(self, taker: Subscriber, event: Event) -> NewRun:
        updates = taker.playbook.trigger.on == "updates"
        own = self._trigger.delivery_key(event) if updates else self._trigger.run_key(event)
        key = own or f"{event.meta['unit']}#{event.position}"
        meta = dict(event.meta)
        if taker.starter is not None:
            meta["starter"] = taker.starter
        return NewRun(
            id=run_id(self.key.tenant, taker.name, key),
            tenant=self.key.tenant,
            playbook=taker.name,
            run_key=key,
            document=taker.playbook.document,
            event=event.raw,
            meta=meta,
            inputs=taker.inputs,
            connections=taker.renames,
            once=taker.once_key(event),
        )


def _fetched(work: Work) -> Fetched:
    opened = work.opened
    assert opened is not None
    return Fetched(work.stored, opened.size, opened.digest, opened.total, opened.owned_keys(), opened.letters)


def _fresh(opened: Opened, owned: Owned, unit_id: int, theirs: set[int]) -> Sequence[int]:
    """The events, by index, that are no duplicates for a playbook.

    An event that another unit owns is a duplicate only where that unit was or will be the playbook's:
    the owner may be older than its subscription, or lost before it was served.
    """
    if not owned.duplicates:
        return range(len(opened.raws))
    fresh: list[int] = []
    seen: set[str] = set()
    for index, position in enumerate(opened.positions):
        owner = owned.duplicates.get(position)
        if owner is None:
            fresh.append(index)
            continue
        key = opened.keys[index]
        if owner != unit_id and owner not in theirs and key is not None and key not in seen:
            seen.add(key)
            fresh.append(index)
    return fresh


def _parts(batch: Batch, start: int, end: int) -> Iterator[tuple[Segment, int, int]]:
    """The segments of a batch that overlap [start, end), with [first, last) inside each."""
    for segment in batch.segments:
        first = max(0, start - segment.start)
        last = min(len(segment.positions), end - segment.start)
        if first < last:
            yield segment, first, last


def _range_text(positions: Sequence[int]) -> str:
    """As `Positions` writes them, without the set where they are in a row."""
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):
        return f"{first}-{last}" if last > first else str(first)
    return str(Positions(positions))
