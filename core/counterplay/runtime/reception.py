"""Units as they arrive: taken apart, or tried again, or set aside with the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

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
from counterplay.runtime.board import Board, Work
from counterplay.runtime.decoding import CUT_OFF
from counterplay.runtime.fetching import Arrival
from counterplay.runtime.figures import Figures
from counterplay.runtime.units import Opened, Opener
from counterplay.store.feeds import FeedKey, FeedStore, StoredUnit

UNIT_ATTEMPTS = 8
"""A unit that the source answers with an error this often is quarantined, so that others go on."""
CUT_ATTEMPTS = 6
"""A unit that is cut off this often is taken as it is, and the ledger names it as partial."""
LONGEST_DELAY = 60.0
REFUSALS = 4
"""So many units in a row have to be refused before it is the source that is blocked, and not a unit."""
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
        others: Callable[[], bool],
        due: Callable[[], None],
    ) -> None:
        """`pause` holds all fetches back for so many seconds; `others`: are more units on their way here?"""
        self.trouble: WorkError | None = None
        self._key = key
        self._label = label
        self._trigger = trigger
        self._opener = opener
        self._store = store
        self._board = board
        self._figures = figures
        self._pause = pause
        self._others = others
        self._due = due
        self._failures = 0  # in a row, over all units
        self._given = 0  # units that the source gave
        self._aside: set[int] = set()  # units that were set aside by this process
        self._refused: dict[int, int] = {}  # units that it refuses: how many others it had given before

    def opened(self, arrival: Arrival) -> Work | None:
        """The unit taken apart; None when it was set aside, postponed, or nobody is ready for it."""
        stored = arrival.stored
        work = self._board.works[stored.id]
        work.held, work.fetched = arrival.held, arrival.at
        if arrival.error is not None or arrival.body is None:
            assert arrival.error is not None
            self._board.release(work)
            self._not_fetched(stored, arrival.error)
            return None
        self._answered(stored)
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
            opened = self._opener.open(stored, arrival.body, meta)
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

    def _answered(self, stored: StoredUnit) -> None:
        self._failures = 0
        self._given += 1
        self._refused.pop(stored.id, None)
        if stored.id in self._aside:  # it was to be tried again, and came
            self._aside.discard(stored.id)
            self._figures.notice(f"{self._label} {stored.unit.id}", None)
        if self.trouble is not None:
            self.trouble = None
            self._figures.notice(self._label, None)

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
        failure = as_work_error(error, f"the trigger {self._key.trigger}")
        if isinstance(failure, BlockedError):
            self._not_allowed(stored, failure)
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
            delay = failure.retry_after or min(LONGEST_DELAY, 2.0**stored.attempts)
            self._store.postpone(stored.id, str(failure), now() + timedelta(seconds=delay))
        self._due()

    def _not_allowed(self, stored: StoredUnit, failure: BlockedError) -> None:
        """Refused: this unit alone, or the source as a whole (a permission, a secret that cannot be read)?

        It is the unit's fault when the source gave others meanwhile; such a unit is quarantined in the end.
        """
        before = self._refused.setdefault(stored.id, self._given)
        alone = self._given > before
        if alone and stored.attempts + 1 >= UNIT_ATTEMPTS:
            del self._refused[stored.id]
            self._set_aside(stored, "quarantined", f"{failure} ({UNIT_ATTEMPTS} attempts, others were given)")
            return
        delay = min(LONGEST_DELAY, 2.0**stored.attempts)
        self._store.postpone(stored.id, str(failure), now() + timedelta(seconds=delay), failed=alone)
        if not alone and (self._failures + 1 >= REFUSALS or not self._others()):
            self._in_trouble(failure)
        else:
            self._failures += 1

    def _in_trouble(self, failure: WorkError) -> None:
        """The service as a whole does not answer: pause, and say so."""
        self.trouble = failure
        self._pause(min(LONGEST_DELAY, 2.0 ** min(self._failures, 9) / 2))
        self._failures += 1
        again = "; trying again" if isinstance(failure, RetryableError) else ""
        self._figures.notice(self._label, f"{failure}{again}")

    def _set_aside(self, stored: StoredUnit, status: str, reason: str, sample: bytes = b"") -> None:
        self._store.set_aside(stored.id, status, reason, sample[:_SAMPLE])
        self._figures.add(status)
        self._aside.add(stored.id)
        self._figures.notice(f"{self._label} {stored.unit.id}", f"{status}: {reason}")
        self._board.look_again(stored.id)
