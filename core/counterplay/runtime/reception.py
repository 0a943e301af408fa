"""Units as they arrive: taken apart, or tried again, or set aside with the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from counterplay.clock import now
from counterplay.errors import (
    BlockedError,
    GoneError,
    InterruptedWork,
    RetryableError,
    StateError,
    WorkError,
    as_work_error,
)
from counterplay.events import JsonObject
from counterplay.modules import FeedTrigger, Trigger
from counterplay.runtime.blame import Blame, Fault
from counterplay.runtime.board import Board, Work
from counterplay.runtime.decoding import CUT_OFF
from counterplay.runtime.fetching import Arrival
from counterplay.runtime.figures import Figures
from counterplay.runtime.units import Opened, Opener
from counterplay.store.feeds import FeedKey, FeedStore, StoredUnit

UNIT_ATTEMPTS = 8
"""A unit that the source answers with an error this often, while it gives others, is quarantined."""
ALONE_ATTEMPTS = 12
"""With no other unit to compare it with, a unit is tried this often, for ten minutes or so, before a session
that is to end gives it up. One that follows its source goes on until others come, or the unit expires."""
CUT_ATTEMPTS = 6
"""A unit that is cut off this often is taken as it is, and the ledger names it as partial."""
LONGEST_DELAY = 60.0
_SAMPLE = 64_000


class Reception:
    """Opens the units of one feed. `trouble` is what keeps the source as a whole from answering."""

    def __init__(
        self,
        key: FeedKey,
        label: str,
        trigger: Trigger,
        opener: Opener,
        *,
        store: FeedStore,
        board: Board,
        figures: Figures,
        pause: Callable[[float], None],
        resume: Callable[[], None],
        others: Callable[[], bool],
        due: Callable[[], None],
        once: bool,
    ) -> None:
        """`pause` holds all fetches back for so many seconds and lets one through then, `resume` ends that.

        `others`: are more units on their way here? `once`: the session is to end when all is accounted for.
        """
        self.trouble: WorkError | None = None
        self._key = key
        self._label = label
        self._trigger = trigger
        self._opener = opener
        self._store = store
        self._board = board
        self._figures = figures
        self._pause = pause
        self._resume = resume
        self._others = others
        self._due = due
        self._once = once
        self._blame = Blame()
        self._pauses = 0  # one after the other, without a unit in between
        self._paused_at: datetime | None = None
        self._told = ""
        self._aside: set[int] = set()  # units that were set aside by this process

    def opened(self, arrival: Arrival) -> Work | None:
        """The unit taken apart; None when it was set aside, postponed, or nobody is ready for it."""
        try:
            return self._received(arrival)
        finally:
            if self.trouble is not None:
                self._pause(0.0)  # whatever became of this one, the next may be tried when it is time

    def _received(self, arrival: Arrival) -> Work | None:
        stored = arrival.stored
        work = self._board.works[stored.id]
        work.held, work.fetched = arrival.held, arrival.at
        if arrival.error is not None or arrival.body is None:
            assert arrival.error is not None
            self._board.release(work)
            self._not_fetched(arrival, arrival.error)
            return None
        self._answered(arrival)
        work.takers = [one for one in work.takers if not one.pause.active]
        if not work.takers:
            self._board.release(work, again=True)
            return None
        meta: JsonObject = {
            "feed": self._key.trigger,
            "connection": self._key.connection,
            "tenant": self._key.tenant,
            "unit": stored.unit.id,
        }
        try:
            opened = self._opener.open(stored, arrival.body, meta, arrival.sliced)
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self._key.trigger}")
            self._board.release(work, again=True)
            if self._worth_a_second_fetch(stored):
                self._store.postpone(stored.id, str(failure), now())
            else:
                self._set_aside(stored, "quarantined", str(failure), bytes(arrival.body))
            return None
        if opened.letters and not opened.whole and self._worth_another_fetch(stored, opened):
            delay = timedelta(seconds=2.0**stored.attempts / 2 if stored.attempts else 0.0)
            self._board.release(work, again=True)
            self._store.postpone(stored.id, "the unit did not decode as a whole", now() + delay)
            return None
        work.opened, work.digest = opened, opened.digest
        return work

    def _answered(self, arrival: Arrival) -> None:
        stored = arrival.stored
        self._blame.given(stored.id, arrival.at)
        if stored.id in self._aside:  # it was to be tried again, and came
            self._aside.discard(stored.id)
            self._figures.notice(f"{self._label} {stored.unit.id}", None)
        self._over()

    def _worth_a_second_fetch(self, stored: StoredUnit) -> bool:
        """It may be the transfer, or a proxy in between, that broke the unit."""
        return isinstance(self._trigger, FeedTrigger) and stored.attempts == 0 and stored.digest is None

    def _worth_another_fetch(self, stored: StoredUnit, opened: Opened) -> bool:
        """A cut unit misses events that nobody sees, so it is asked for more often than a spoilt one."""
        if not any(letter.reason == CUT_OFF for letter in opened.letters):
            return self._worth_a_second_fetch(stored)
        return isinstance(self._trigger, FeedTrigger) and stored.attempts < CUT_ATTEMPTS

    def _not_fetched(self, arrival: Arrival, error: Exception) -> None:
        stored = arrival.stored
        if isinstance(error, InterruptedWork):
            return
        if isinstance(error, StateError):
            raise error
        if isinstance(error, GoneError):
            self._set_aside(stored, "lost", str(error))
            return
        failure = as_work_error(error, f"the trigger {self._key.trigger}")
        if not isinstance(failure, (BlockedError, RetryableError)):
            self._set_aside(stored, "quarantined", str(failure))
        elif failure.status is None and isinstance(failure, RetryableError):
            # The network or the whole service: no fault of this unit, and no reason for others to wait.
            self._in_trouble(arrival, failure)
        else:
            self._not_given(arrival, failure)
        self._due()

    def _not_given(self, arrival: Arrival, failure: BlockedError | RetryableError) -> None:
        """The source answers with an error or refuses: is it about this unit alone, or about all of them?

        An attempt counts against the unit when others were given since it was first asked for. A source
        that gives none is in an outage, or blocked (a permission, a secret that cannot be read), and its
        units wait for the end of that. A unit without others to compare it with waits as well; a session
        that is to end gives it up after `ALONE_ATTEMPTS`. Several that are left over and fail may be bad, or
        what an outage caught on its way: their attempts count, and are made with the pauses of an outage.
        """
        stored = arrival.stored
        fault = self._blame.of(stored.id, arrival.began, others=self._others())
        if fault is Fault.UNIT and stored.attempts + 1 + self._blame.owed(stored.id) >= UNIT_ATTEMPTS:
            reason = f"{failure} ({UNIT_ATTEMPTS} attempts, others were given)"
            self._set_aside(stored, "quarantined", reason)
            self._over()
        elif self._once and self._blame.alone(stored.id) >= ALONE_ATTEMPTS:
            reason = f"{failure} ({ALONE_ATTEMPTS} attempts, and no other unit came)"
            self._set_aside(stored, "quarantined", reason)
            self._over()
        elif fault is Fault.SOURCE:
            self._in_trouble(arrival, failure)
        elif fault is Fault.UNIT and self._blame.several and isinstance(failure, RetryableError):
            self._in_trouble(arrival, failure, counts=True)
        else:
            asked = failure.retry_after if isinstance(failure, RetryableError) else None
            delay = timedelta(seconds=asked or min(LONGEST_DELAY, 2.0**stored.attempts))
            self._store.postpone(stored.id, str(failure), now() + delay, failed=fault is Fault.UNIT)

    def _in_trouble(
        self, arrival: Arrival, failure: BlockedError | RetryableError, *, counts: bool = False
    ) -> None:
        """The source as a whole does not answer: its units wait, one tries it now and then, and people know.

        Requests that were under way when the pause began say nothing new, so they do not lengthen it.
        """
        asked = (failure.retry_after if isinstance(failure, RetryableError) else None) or 0.0
        if self._paused_at is None or arrival.began >= self._paused_at:
            self._pauses += 1
            self._paused_at = now()
            self._pause(max(asked, min(LONGEST_DELAY, 2.0 ** min(self._pauses, 9) / 4)))
        again = min(LONGEST_DELAY, 2.0 ** min(self._pauses + 1, 9))  # only after the others had their turn
        until = now() + timedelta(seconds=max(asked, again))
        self._store.postpone(arrival.stored.id, str(failure), until, failed=counts)
        if self.trouble is None or _kind(self.trouble) != _kind(failure):
            waits = "; trying again, its units wait until it answers"
            self._told = f"{failure}{waits if isinstance(failure, RetryableError) else ''}"
        self.trouble = failure
        self._figures.notice(self._label, self._told)

    def _over(self) -> None:
        """The source is not in trouble, or not any more."""
        self._pauses, self._paused_at = 0, None
        if self.trouble is not None:
            self.trouble = None
            self._resume()
            self._figures.notice(self._label, None)

    def _set_aside(self, stored: StoredUnit, status: str, reason: str, sample: bytes = b"") -> None:
        self._blame.set_aside(stored.id)
        self._store.set_aside(stored.id, status, reason, sample[:_SAMPLE])
        self._figures.add(status)
        self._aside.add(stored.id)
        self._figures.notice(f"{self._label} {stored.unit.id}", f"{status}: {reason}")
        self._board.look_again(stored.id)


def _kind(failure: WorkError) -> tuple[type[WorkError], int | None, str | None]:
    return type(failure), failure.status, failure.code
