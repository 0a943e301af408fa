"""A feed at work: list what the source has, keep the low-water marks, and let the pipeline do the rest.

One thread a feed lists; its pipeline fetches, owns, delivers and acknowledges, each unit once for all
its subscribers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from counterplay.clock import now
from counterplay.errors import (
    CounterplayError,
    InterruptedWork,
    RetryableError,
    StateError,
    UnavailableError,
    as_work_error,
)
from counterplay.events import Gap, PushAnswer, PushRequest
from counterplay.modules import Context, FeedTrigger, PollTrigger, PushTrigger, Trigger
from counterplay.runtime import windows
from counterplay.runtime.figures import Figures
from counterplay.runtime.listing import Listing
from counterplay.runtime.pipeline import Pipeline, Shared
from counterplay.runtime.subscribers import Subscriber
from counterplay.store.feeds import FeedKey, FeedStore, Subscription
from counterplay.store.runs import RunStore

UNAVAILABLE_FOR = 24 * 3600.0
"""Seconds until a source that is not offered here (a licence is missing) is asked again."""
_CLAMPED = timedelta(hours=1)  # a look-back that is cut by less is within the margins
_LONGEST_DELAY = 60.0
_PAGES_AHEAD = 8
STAND_BY = 2.0
"""Seconds between two looks whether a feed that another worker holds has become free."""
_LOOK = 0.02
LOOK_AGAIN = 1.0
"""Seconds between two looks for units that somebody beside this process had tried again."""

log = logging.getLogger("counterplay.feeds")


class Feed:
    """One source of events for the playbooks that subscribe to it. Build it, then `run()` it."""

    def __init__(
        self,
        key: FeedKey,
        trigger: Trigger,
        context: Context,
        subscribers: Sequence[Subscriber],
        *,
        store: FeedStore,
        runs: RunStore,
        figures: Figures,
        stop: threading.Event,
        runs_added: Callable[[Sequence[str]], None],
        poll_interval: timedelta,
        once: bool,
        look_back: timedelta | None = None,
        shared: Shared | None = None,
        worker: str | None = None,
    ) -> None:
        """`worker` is this process among several; one of them works on the feed, the others stand by."""
        self.key = key
        self.trigger = trigger
        self.context = replace(context, under_way=self._tell_work)
        self.subscribers = list(subscribers)
        self.wakened = threading.Event()
        self.neighbours: Sequence[Feed] = ()
        """All feeds of the session: those that a request to this one may wake."""
        self.failure: CounterplayError | None = None
        self.done = False
        self._store = store
        self._runs = runs
        self._figures = figures.of_feed(self.label)
        self._stop = stop
        self._runs_added = runs_added
        self._interval = poll_interval.total_seconds()
        self._once = once
        self._shared = shared or Shared()
        self._worker = worker
        self._look_back = {one.name: look_back for one in subscribers}
        self._unavailable_until = 0.0
        self._failures = 0
        self._subscriptions: dict[str, Subscription] = {}
        self._epoch: int | None = None
        self._pipeline: Pipeline | None = None
        self._listing: Listing | None = None
        self._left_half_read = False

    @property
    def label(self) -> str:
        """How people know the feed: `m365.audit_log contoso Audit.Exchange`."""
        arguments = json.loads(self.key.key)
        detail = " ".join(
            item if isinstance(item, str) else json.dumps(item)
            for value in arguments.values()
            for item in (value if isinstance(value, list) else [value])
        )
        return " ".join(filter(None, (self.key.trigger, self.key.connection, detail)))

    @property
    def feed_id(self) -> int:
        return next(iter(self._subscriptions.values())).feed_id

    def join(
        self, subscriber: Subscriber, poll_interval: timedelta, look_back: timedelta | None = None
    ) -> None:
        """Another playbook subscribes, before the feed is opened; the shortest interval wins."""
        self.subscribers.append(subscriber)
        self._look_back[subscriber.name] = look_back
        self._interval = min(self._interval, poll_interval.total_seconds())

    def open(self) -> list[Feed]:
        """Make the subscriptions; a new one begins at its look-back, as far as that can be read.

        Returns the feeds to run: itself, and one for each later generation of a source whose pages
        cannot be read again, with the playbooks that came to it later.
        """
        moment = now()
        edge = None
        if isinstance(self.trigger, FeedTrigger):
            edge = windows.readable_from(moment, self.trigger.retention)
        shared = not isinstance(self.trigger, PollTrigger)
        opened: dict[int, Feed] = {}
        for subscriber in self.subscribers:
            asked = self._look_back[subscriber.name]
            wanted = moment - (asked or self.trigger.look_back)
            since = wanted if edge is None else max(wanted, edge + timedelta(minutes=1))
            subscription = self._store.subscribe(self.key, subscriber.name, since, shared=shared)
            if subscription.new and asked and since - wanted > _CLAMPED:
                self._clamped(subscription, wanted)
            feed = opened.get(subscription.feed_id)
            if feed is None:
                feed = opened[subscription.feed_id] = self._sibling() if opened else self
            if feed is not self:
                feed.subscribers.append(subscriber)
            feed._subscriptions[subscriber.name] = subscription
        self.subscribers = [one for one in self.subscribers if one.name in self._subscriptions]
        for feed in opened.values():
            feed._take_over()
        return list(opened.values())

    def _take_over(self) -> bool:
        """Begin to work on the feed, unless another worker does."""
        epoch = self._store.take_over(self.feed_id, self._worker)
        if epoch is None:
            return False
        if self._worker is not None:  # whoever had it before may have moved the marks
            for name, known in self._subscriptions.items():
                self._subscriptions[name] = self._store.subscribe(self.key, name, known.since)
        self._epoch = epoch
        self._left_half_read = self._store.half_read(self.feed_id)
        self._pipeline = self._made_pipeline(epoch)
        self._listing = self._made_listing()
        return True

    def _clamped(self, subscription: Subscription, wanted: datetime) -> None:
        """The subscriber asked for more than the source can still list."""
        cause = "the look-back reaches further than the source can list"
        self._lost(subscription, Gap(wanted, subscription.since, cause))

    def _lost(self, subscription: Subscription, gap: Gap) -> None:
        """A playbook can never get what lies in a time range: the ledger names it."""
        found = self._store.record_gap(
            subscription.feed_id, subscription.playbook, gap.start, gap.end, gap.cause
        )
        self._figures.add("gaps", found.new)
        self._figures.add("gap_seconds", found.seconds)
        self._figures.notice(
            f"{self.label} clamp", f"{subscription.playbook}: {gap.cause}; recorded as a gap"
        )

    def _sibling(self) -> Feed:
        return Feed(
            self.key,
            self.trigger,
            self.context,
            [],
            store=self._store,
            runs=self._runs,
            figures=self._figures,
            stop=self._stop,
            runs_added=self._runs_added,
            poll_interval=timedelta(seconds=self._interval),
            once=self._once,
            shared=self._shared,
            worker=self._worker,
        )

    def _made_pipeline(self, epoch: int) -> Pipeline:
        return Pipeline(
            self.key,
            self.label,
            self.feed_id,
            self.trigger,
            self.context,
            self.subscribers,
            store=self._store,
            runs=self._runs,
            figures=self._figures,
            stop=self._stop,
            runs_added=self._runs_added,
            shared=self._shared,
            floor=self._floor,
            epoch=epoch,
            once=self._once,
        )

    def _made_listing(self) -> Listing | None:
        if not isinstance(self.trigger, FeedTrigger):
            return None
        return Listing(
            self.trigger,
            self.context,
            self._subscriptions,
            label=self.label,
            store=self._store,
            figures=self._figures,
            stop=self._stop,
            once=self._once,
            found=self.pipeline.nudge,
        )

    @property
    def marks(self) -> dict[str, datetime]:
        """The low-water mark of each playbook; none for a source without windows."""
        return {} if self._listing is None else self._listing.marks

    @property
    def listed_at(self) -> datetime | None:
        """When its windows were last listed without a failure; None before, and for other sources."""
        return None if self._listing is None else self._listing.listed_at

    @property
    def newest(self) -> datetime | None:
        """When the newest unit that it listed became available; None before, and for other sources."""
        return None if self._listing is None else self._listing.newest

    @property
    def held(self) -> bool:
        """Whether this worker is the one who works on the feed."""
        return self._pipeline is not None

    @property
    def in_trouble(self) -> bool:
        """Whether the source as a whole does not answer, or refuses, as far as this worker knows."""
        if self.done:
            return False
        return self._failures > 0 or (self._pipeline is not None and self._pipeline.trouble is not None)

    @property
    def pipeline(self) -> Pipeline:
        """The work on the feed's units. Only an open feed that this worker holds has it."""
        assert self._pipeline is not None, "the feed is not open"
        return self._pipeline

    def run(self) -> None:
        """Follow the source until `stop` is set; with `once`, until all that it listed is accounted for.

        Where another worker holds the feed, stand by until it dies or, with `once`, is done with it.
        """
        try:
            if not self._wait_for_turn():
                self.done = True
                return
        except CounterplayError as error:
            self.failure, self.done = error, True
            return
        self.pipeline.start()
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self.wakened.clear()  # before the round: who wakes the feed during it is not forgotten
                listed = self._guarded(self._list)
                self._check()
                self.pipeline.nudge()
                if self._once and listed and self._drained():
                    break
                if self._listing is not None:
                    self._listing.advance()
                self._rest(began, listed)
        except InterruptedWork:
            pass
        except CounterplayError as error:
            self.failure = error
        except Exception as error:  # whatever it is, a feed must not end in silence
            log.exception("the feed %s stopped at a fault", self.label)
            self.failure = StateError(f"the feed {self.label} stopped: {type(error).__name__}: {error}")
        finally:
            self._end()

    def _wait_for_turn(self) -> bool:
        """Become the one who works on the feed. False: another one did the work, or nobody is to."""
        while self._epoch is None and not self._stop.is_set():
            if self._once and not self._unfinished():
                self._figures.notice(self.label, f"{self.label}: another worker reads this source")
                return False
            if self._take_over():
                break
            self._stop.wait(STAND_BY)
        return self._epoch is not None and not self._stop.is_set()

    def nudge(self) -> None:
        """There may be units that somebody else put into the feed."""
        if self._pipeline is not None and not self.done:
            self._pipeline.nudge()

    def _end(self) -> None:
        self.pipeline.close()
        self.failure = self.failure or self.pipeline.failure
        try:
            if self._listing is not None:
                self._listing.close()
        except CounterplayError as error:
            self.failure = self.failure or error
        self.done = True

    def _check(self) -> None:
        """Raise what ended the pipeline, or what `once` does not wait for."""
        if self.pipeline.failure is not None:
            raise self.pipeline.failure
        trouble = self.pipeline.trouble
        if self._once and trouble is not None and not isinstance(trouble, RetryableError):
            raise trouble
        if self.failure is not None:
            raise self.failure

    def _guarded(self, part: Callable[[], None]) -> bool:
        """Run a part of the round; False when the source failed, which is told and tried again."""
        try:
            part()
        except (InterruptedWork, StateError):
            raise
        except RetryableError as error:
            self._failed(str(error), "; trying again")
            return False
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self.key.trigger}")
            self._failed(str(failure))
            if self._once:
                self.failure = failure
            return False
        if self._failures:
            self._failures = 0
            self._figures.notice(self.label, None)
        return True

    def _failed(self, text: str, what_now: str = "") -> None:
        self._failures += 1
        if self._listing is not None:
            self._listing.failed(text)
        self._figures.add("listing_failures")
        self._figures.notice(self.label, f"{text}{what_now}")

    def _drained(self) -> bool:
        """Wait until everything that is listed is accounted for. False: the process is to stop."""
        looked = time.monotonic()
        while not self._stop.is_set():
            self._check()
            if self.pipeline.idle:
                if not self._unfinished():
                    return True
                if time.monotonic() - looked >= LOOK_AGAIN:
                    looked = time.monotonic()
                    self.pipeline.nudge()
            self._stop.wait(_LOOK)
        return False

    def _rest(self, began: float, listed: bool) -> None:
        """Wait for the next round: the interval counts from the beginning of this one."""
        until = began + self._interval
        if not listed:
            delay = min(_LONGEST_DELAY, 2.0 ** min(self._failures, 9)) * random.uniform(0.5, 1.0)
            until = time.monotonic() + delay
        while not self._stop.is_set() and not self.wakened.is_set():
            self._check()
            left = until - time.monotonic()
            if left <= 0:
                return
            self.wakened.wait(min(left, 0.2))

    def _unfinished(self) -> bool:
        """Is something still waited for? With `once`, a blocked sink is not."""
        names = [one.name for one in self.subscribers if not (self._once and one.pause.blocked)]
        return bool(names and self._store.has_pending(self.feed_id, names, self._floor()))

    def _floor(self) -> datetime | None:
        """Windows that begin before this are accounted for, by every subscriber."""
        return None if self._listing is None else self._listing.floor

    # --- listing -------------------------------------------------------------------------------

    def _list(self) -> None:
        """List what is new. A source that is not offered here is told once, and asked again each day."""
        if time.monotonic() < self._unavailable_until:
            return
        about = f"{self.label}: unavailable"
        try:
            self._list_source()
        except UnavailableError as error:
            self._unavailable_until = time.monotonic() + UNAVAILABLE_FOR
            self._figures.notice(about, f"{self.label}: unavailable: {error}; asked again each day")
            if self._once:
                self.failure = error
            return
        self._figures.notice(about, None)

    def _list_source(self) -> None:
        if self._listing is not None:
            self._listing.round()
        elif isinstance(self.trigger, PollTrigger):
            self._poll(self.trigger)

    def _poll(self, trigger: PollTrigger) -> None:
        """Read on from the cursor to the last page.

        What another process left half read may end where it began to read. So the source is asked once
        more then: whoever runs `--once` gets all that could be seen when it started.
        """
        since = min(one.since for one in self._subscriptions.values())
        more = True
        while more:
            if self._stop.is_set():
                raise InterruptedWork("stopped between two pages")
            cursor = self._store.cursor(self.feed_id)
            try:
                page = trigger.poll(self.context, cursor, since)
            finally:
                self._figures.work(self.label, None)
            if page.gap is not None:
                self._forgotten(page.gap)
            body = b"[" + b",".join(page.events) + b"]" if page.events else None
            key = hashlib.sha256(json.dumps([cursor, page.cursor]).encode() + (body or b"")).hexdigest()[:32]
            stored = self._store.store_page(
                self.feed_id, self._epoch or 0, page.cursor, f"page-{key}", body, more=page.more
            )
            if stored is not None:
                self._figures.add("listed")
                self.pipeline.nudge()
            more = page.more or self._left_half_read
            self._left_half_read = self._left_half_read and page.more
            while self.pipeline.load > _PAGES_AHEAD and not self._stop.is_set():
                self._check()
                self._stop.wait(_LOOK)

    def _tell_work(self, text: str) -> None:
        self._figures.work(self.label, f"{self.label}: {text}")

    def _forgotten(self, gap: Gap) -> None:
        """The source no longer keeps it; what a playbook never asked for is none of its losses."""
        for subscription in self._subscriptions.values():
            if subscription.since < gap.end:
                self._lost(subscription, replace(gap, start=max(gap.start, subscription.since)))

    def receive(self, request: PushRequest) -> PushAnswer:
        """Hand a request to the push trigger; its events are on disk when this returns."""
        assert isinstance(self.trigger, PushTrigger)
        answer = self.trigger.receive(self.context, request)
        if answer.events:
            self.spool(f"push-{uuid.uuid4()}", answer.events)
        for feed in self.neighbours if answer.wakes else ():
            if feed.key.trigger in answer.wakes and feed.key.connection == self.key.connection:
                feed.wakened.set()
        return answer

    def spool(self, unit_key: str, events: Sequence[bytes]) -> None:
        """Keep events that came from outside (a request, a file), and work on them."""
        body = b"[" + b",".join(events) + b"]"
        self._store.store_page(self.feed_id, self._epoch or 0, None, unit_key, body)
        self._figures.add("listed")
        self.nudge()
