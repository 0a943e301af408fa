"""A feed at work: list, fetch, own, deliver, acknowledge; each unit once for all its subscribers.

One thread a feed. What a step of this file has not committed is done again after a crash, and the
ledger tells what was: that is the whole of the recovery.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from counterplay.clock import now
from counterplay.errors import (
    BlockedError,
    CounterplayError,
    GoneError,
    InterruptedWork,
    PermanentError,
    RetryableError,
    StateError,
    UnavailableError,
    WorkError,
    as_work_error,
)
from counterplay.events import Event, JsonObject, PushAnswer, PushRequest, Receipt
from counterplay.modules import Context, FeedTrigger, PollTrigger, PushTrigger, Trigger
from counterplay.runtime import decoding, windows
from counterplay.runtime.delivery import deliver
from counterplay.runtime.figures import Figures
from counterplay.runtime.subscribers import SinkPipe, Subscriber
from counterplay.store.database import storable
from counterplay.store.feeds import Counts, DeadLetter, FeedKey, FeedStore, StoredUnit, Subscription
from counterplay.store.ranges import Positions
from counterplay.store.runs import NewRun, RunStore, run_id

PREPARE_EVERY = 15 * 60.0
UNAVAILABLE_FOR = 24 * 3600.0
"""Seconds until a source that is not offered here (a licence is missing) is asked again."""
UNIT_ATTEMPTS = 8
"""A unit that the source answers with an error this often is quarantined, so that others go on."""
SPARE_DELAY = timedelta(seconds=1)
"""How long a unit that is done but for another's duplicates waits until it looks again."""
_PENDING_AT_ONCE = 64
_LONGEST_DELAY = 60.0
_SAMPLE = 64_000

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
    ) -> None:
        self.key = key
        self.trigger = trigger
        self.context = context
        self.subscribers = list(subscribers)
        self.wakened = threading.Event()
        self.neighbours: Sequence[Feed] = ()
        """All feeds of the session: those that a request to this one may wake."""
        self.failure: CounterplayError | None = None
        self.done = False
        self._store = store
        self._runs = runs
        self._figures = figures
        self._stop = stop
        self._runs_added = runs_added
        self._interval = poll_interval.total_seconds()
        self._once = once
        self._prepared = 0.0
        self._unavailable_until = 0.0
        self._failures = 0
        self._closed: set[windows.Window] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._epoch = 0
        self._served: set[tuple[int, str]] = set()

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

    def join(self, subscriber: Subscriber, poll_interval: timedelta) -> None:
        """Another playbook subscribes, before the feed is opened; the shortest interval wins."""
        self.subscribers.append(subscriber)
        self._interval = min(self._interval, poll_interval.total_seconds())

    def open(self) -> list[Feed]:
        """Make the subscriptions; a new one begins at the trigger's look-back, as far as it can be read.

        Returns the feeds to run: itself, and one for each later generation of a source whose pages
        cannot be read again, with the playbooks that came to it later.
        """
        moment = now()
        since = moment - self.trigger.look_back
        if isinstance(self.trigger, FeedTrigger):
            edge = windows.readable_from(moment, self.trigger.retention)
            since = since if edge is None else max(since, edge + timedelta(minutes=1))
        shared = not isinstance(self.trigger, PollTrigger)
        opened: dict[int, Feed] = {}
        for subscriber in self.subscribers:
            subscription = self._store.subscribe(self.key, subscriber.name, since, shared=shared)
            feed = opened.get(subscription.feed_id)
            if feed is None:
                feed = opened[subscription.feed_id] = self._sibling() if opened else self
            if feed is not self:
                feed.subscribers.append(subscriber)
            feed._subscriptions[subscriber.name] = subscription
        self.subscribers = [one for one in self.subscribers if one.name in self._subscriptions]
        for feed in opened.values():
            feed._epoch = self._store.take_over(feed.feed_id)
        return list(opened.values())

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
        )

    def run(self) -> None:
        """Follow the source until `stop` is set; with `once`, until all that it listed is accounted for."""
        try:
            while not self._stop.is_set():
                self.wakened.clear()  # before the round: who wakes the feed during it is not forgotten
                complete = self._round()
                if self._once and complete:
                    break
                self._rest(complete)
        except InterruptedWork:
            pass
        except CounterplayError as error:
            self.failure = error
        except Exception as error:  # whatever it is, a feed must not end in silence
            log.exception("the feed %s stopped at a fault", self.label)
            self.failure = StateError(f"the feed {self.label} stopped: {type(error).__name__}: {error}")
        finally:
            self.done = True

    def _round(self) -> bool:
        """List what is new, work off what is pending. True: nothing is left to do for now."""
        listed = self._guarded(self._list)
        worked = self._guarded(self._work_off)
        self._advance()
        if listed and worked:
            self._failures = 0
            self._figures.notice(self.label, None)
        if self.failure is not None:
            raise self.failure
        return listed and worked and not self._unfinished()

    def _guarded(self, part: Callable[[], None]) -> bool:
        """Run a part of the round; False when the source failed, which is told and tried again."""
        try:
            part()
        except (InterruptedWork, StateError):
            raise
        except RetryableError as error:
            self._failures += 1
            self._figures.notice(self.label, f"{error}; trying again")
            return False
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self.key.trigger}")
            self._failures += 1
            self._figures.notice(self.label, str(failure))
            if self._once:
                self.failure = failure
            return False
        return True

    def _rest(self, complete: bool) -> None:
        delay = self._interval
        if not complete:
            delay = min(_LONGEST_DELAY, 2.0 ** min(self._failures, 9)) * random.uniform(0.5, 1.0)
            if not self._failures:
                delay = min(delay, self._until_next_due())
        deadline = time.monotonic() + delay
        while not self._stop.is_set() and not self.wakened.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.wakened.wait(min(left, 0.2))

    def _until_next_due(self) -> float:
        pauses = [max(0.0, one.pause.until - time.monotonic()) for one in self._holding()]
        due = self._store.next_due(self.feed_id, [one.name for one in self.subscribers])
        if due is not None:
            pauses.append(max(0.0, (due - now()).total_seconds()))
        return min(pauses, default=0.2) + 0.01

    def _holding(self) -> list[Subscriber]:
        return [one for one in self.subscribers if one.pause.active]

    def _unfinished(self) -> bool:
        """Is something still waited for? With `once`, a blocked sink is not."""
        names = [one.name for one in self.subscribers if not (self._once and one.pause.blocked)]
        return bool(names and self._store.has_pending(self.feed_id, names))

    # --- listing -------------------------------------------------------------------------------

    def _list(self) -> None:
        """List what is new. A source that is not offered here is told once, and asked again each day."""
        if time.monotonic() < self._unavailable_until:
            return
        about = f"{self.label} unavailable"
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
        if isinstance(self.trigger, FeedTrigger):
            if not self._prepared or time.monotonic() - self._prepared > PREPARE_EVERY:
                self.trigger.prepare(self.context)
                self._prepared = time.monotonic()
            self._list_windows(self.trigger)
        elif isinstance(self.trigger, PollTrigger):
            self._poll(self.trigger)

    def _list_windows(self, trigger: FeedTrigger) -> None:
        moment = now().replace(microsecond=0)
        self._give_up_unreadable(trigger, moment)
        marks = [one.mark for one in self._subscriptions.values()]
        for window in windows.tiles(min(marks), moment, trigger.tile):
            if self._stop.is_set():
                raise InterruptedWork("stopped between two windows")
            if window in self._closed:
                continue
            listed_at = now()
            units = list(trigger.discover(self.context, window.start, window.end))
            self._figures.add("listed", self._store.record_listing(self.feed_id, window.start, units))
            if windows.is_closed(window, listed_at, trigger.tile, trigger.settle_time):
                self._closed.add(window)

    def _give_up_unreadable(self, trigger: FeedTrigger, moment: datetime) -> None:
        """What the source no longer lists becomes a recorded gap, and work goes on past it."""
        edge = windows.readable_from(moment, trigger.retention)
        if edge is None:
            return
        for name, subscription in self._subscriptions.items():
            if subscription.mark >= edge:
                continue
            cause = f"the source lists no more than {trigger.retention}, and nobody collected until then"
            self._store.record_gap(self.feed_id, name, subscription.mark, edge, cause)
            self._figures.add("gaps")
            self._figures.notice(
                f"{self.label} gap",
                f"{name}: what was available from {subscription.mark:%Y-%m-%d %H:%M} to "
                f"{edge:%Y-%m-%d %H:%M} UTC can no longer be listed; recorded as a gap",
            )
            self._move_mark(name, edge)

    def _poll(self, trigger: PollTrigger) -> None:
        since = min(one.since for one in self._subscriptions.values())
        more = True
        while more:
            if self._stop.is_set():
                raise InterruptedWork("stopped between two pages")
            cursor = self._store.cursor(self.feed_id)
            page = trigger.poll(self.context, cursor, since)
            body = b"[" + b",".join(page.events) + b"]" if page.events else None
            key = hashlib.sha256(json.dumps([cursor, page.cursor]).encode() + (body or b"")).hexdigest()[:32]
            if (
                self._store.store_page(self.feed_id, self._epoch, page.cursor, f"page-{key}", body)
                is not None
            ):
                self._figures.add("listed")
                self._work_off()
            more = page.more

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
        self._store.store_page(self.feed_id, self._epoch, None, unit_key, body)
        self._figures.add("listed")
        self.wakened.set()

    def _advance(self) -> None:
        if not isinstance(self.trigger, FeedTrigger):
            return
        for name, subscription in self._subscriptions.items():
            waiting = [
                datetime.fromisoformat(text)
                for text in self._store.waiting_windows(self.feed_id, name)
                if text
            ]
            self._move_mark(name, windows.advanced(subscription.mark, self._closed, waiting))

    def _move_mark(self, name: str, mark: datetime) -> None:
        old = self._subscriptions[name]
        if mark > old.mark:
            self._store.advance(self.feed_id, name, mark)
            self._subscriptions[name] = Subscription(old.feed_id, name, old.since, mark, new=False)

    # --- units ---------------------------------------------------------------------------------

    def _work_off(self) -> None:
        while True:
            ready = {one.name: one for one in self.subscribers if not one.pause.active}
            if not ready:
                return
            pending = self._store.pending(self.feed_id, ready, _PENDING_AT_ONCE)
            if not pending:
                return
            for stored in pending:
                if self._stop.is_set():
                    raise InterruptedWork("stopped between two units")
                takers = [
                    one for name, one in ready.items() if name in stored.waiting and not one.pause.active
                ]
                if takers:
                    self._process(stored, takers)

    def _process(self, stored: StoredUnit, takers: Sequence[Subscriber]) -> None:
        body = self._fetch(stored)
        if body is None:
            return
        meta: JsonObject = {
            "feed": self.key.trigger,
            "connection": self.key.connection,
            "tenant": self.key.tenant,
            "unit": stored.unit.id,
        }
        try:
            found = self._elements(body)
            if isinstance(self.trigger, FeedTrigger):
                meta.update(self.trigger.meta(stored.unit))
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self.key.trigger}")
            if self._worth_a_second_fetch(stored):
                self._store.postpone(stored.id, str(failure), now())
            else:
                self._set_aside(stored, "quarantined", str(failure), body)
            return
        if found.broken and not found.whole and self._worth_a_second_fetch(stored):
            self._store.postpone(stored.id, "the unit did not decode as a whole", now())
            return
        digest = hashlib.sha256(body).hexdigest()
        events, unreadable = self._events(found, meta)
        letters = [
            DeadLetter(one.reason, one.raw, position=one.position, unit_id=stored.id)
            for one in (*found.broken, *unreadable)
        ]
        keys = {event.position: event.key for event in events if event.key}
        added: list[str] = []
        with self._store.database.write() as connection:
            duplicates = self._store.claim(
                connection,
                self.feed_id,
                stored.id,
                keys,
                size=len(body),
                digest=digest,
                events=found.total,
                broken=letters,
            )
        if stored.status == "listed":
            self._figures.add("units")
            self._figures.add("collected", found.total)
            self._figures.add("duplicates", len(duplicates))
            self._figures.add("broken", len(letters))
            if letters:
                self._figures.notice(
                    f"{self.label} {stored.unit.id}",
                    f"{len(letters)} of {found.total} elements cannot be read and are kept as dead letters"
                    f" (the first, at position {letters[0].position}: {letters[0].reason}); the rest goes on",
                )
        for taker in takers:
            added += self._serve(taker, stored, digest, events, duplicates)
        if added:
            self._runs_added(added)

    def _worth_a_second_fetch(self, stored: StoredUnit) -> bool:
        """It may be the transfer, or a proxy in between, that broke the unit."""
        return isinstance(self.trigger, FeedTrigger) and stored.attempts == 0 and stored.digest is None

    def _elements(self, body: bytes) -> decoding.Elements:
        parts = self.trigger.split(body) if isinstance(self.trigger, FeedTrigger) else None
        return decoding.elements(body) if parts is None else decoding.of_lines(iter(parts))

    def _events(
        self, found: decoding.Elements, meta: Mapping[str, object]
    ) -> tuple[list[Event], list[decoding.Broken]]:
        events: list[Event] = []
        unreadable: list[decoding.Broken] = []
        for position, raw in found.events:
            event = Event(raw, meta, position=position)
            try:
                key = self.trigger.delivery_key(event)
                event.key = None if key is None else storable(str(key))
            except Exception as error:
                unreadable.append(decoding.Broken(position, raw, f"the event cannot be read: {error!r}"))
                continue
            events.append(event)
        return events, unreadable

    def _fetch(self, stored: StoredUnit) -> bytes | None:
        """The unit's bytes; None when it was set aside or postponed, which is recorded."""
        if not isinstance(self.trigger, FeedTrigger):
            body = self._store.spooled(stored.id)
            if body is None:
                self._set_aside(stored, "lost", "its spooled page is gone from the store")
            return body
        try:
            return self.trigger.fetch(self.context, stored.unit)
        except (InterruptedWork, BlockedError):
            raise
        except GoneError as error:
            self._set_aside(stored, "lost", str(error))
        except RetryableError as error:
            if error.status is not None and stored.attempts + 1 >= UNIT_ATTEMPTS:
                self._set_aside(stored, "quarantined", f"{error} ({UNIT_ATTEMPTS} attempts)")
            elif error.status is None:
                # The network or the whole service: no fault of this unit, and no reason for others to wait.
                # This one comes again only after the next round has begun with them.
                delay = min(2 * _LONGEST_DELAY, 2.0 ** (self._failures + 2))
                self._store.postpone(stored.id, str(error), now() + timedelta(seconds=delay), failed=False)
                raise
            else:
                delay = error.retry_after or min(60.0, 2.0**stored.attempts)
                self._store.postpone(stored.id, str(error), now() + timedelta(seconds=delay))
        except Exception as error:
            failure = as_work_error(error, f"the trigger {self.key.trigger}")
            if isinstance(failure, BlockedError):
                raise failure from error  # a secret cannot be read: no fault of this unit
            self._set_aside(stored, "quarantined", str(failure))
        return None

    def _set_aside(self, stored: StoredUnit, status: str, reason: str, body: bytes = b"") -> None:
        self._store.set_aside(stored.id, status, reason, body[:_SAMPLE])
        self._figures.add(status)
        self._figures.notice(f"{self.label} {stored.unit.id}", f"{status}: {reason}")

    # --- subscribers ---------------------------------------------------------------------------

    def _serve(
        self,
        taker: Subscriber,
        stored: StoredUnit,
        digest: str,
        events: Sequence[Event],
        duplicates: Mapping[int, int],
    ) -> list[str]:
        """Do for one playbook what the unit's events ask for, then acknowledge. Returns runs that began."""
        fresh, waits_for = self._fresh(taker, stored, events, duplicates)
        try:
            sifted = taker.sift(fresh)
        except (InterruptedWork, StateError):
            raise
        except Exception as error:
            self._hold_back(taker, as_work_error(error, f"a transform of {taker.name}"))
            return []
        if sifted.first_error is not None:
            self._figures.add("condition_errors", sifted.condition_errors)
            self._figures.notice(f"{taker.name} filter", f"filter: {sifted.first_error}")
        dead: set[int] = set()
        if not taker.starts_runs:
            try:
                for pipe in taker.sinks:
                    self._deliver(taker, pipe, stored, digest, sifted.events, dead)
            except (InterruptedWork, StateError):
                raise
            except Exception as error:
                self._hold_back(taker, as_work_error(error, f"a sink of {taker.name}"))
                return []
        if taker.pause.failures:
            taker.pause.clear()
            self._figures.notice(taker.name, None)
        runs, keyless = self._new_runs(taker, sifted.events)
        unreadable = [*sifted.unreadable, *keyless]
        with self._store.database.write() as connection:
            added = self._runs.add(connection, runs)
            suppressed = self._runs.holders(connection, runs)
            if not waits_for:
                letters = [
                    DeadLetter(reason, event.raw, event.position, taker.name, unit_id=stored.id)
                    for event, reason in unreadable
                ]
                self._store.bury(connection, letters)
                counts = Counts(
                    delivered=0 if taker.starts_runs else len(sifted.events) - len(dead),
                    duplicates=len(events) - len(fresh),
                    filtered=sifted.filtered,
                    condition_errors=sifted.condition_errors,
                    dropped=sifted.dropped,
                    dead=len(dead) + len(letters),
                    runs=len(added),
                )
                self._store.acknowledge(connection, self.feed_id, stored.id, taker.name, counts)
        self._served.add((stored.id, taker.name))
        if waits_for:
            # Another unit owns some of these events and is not done: until it is, this one is the spare.
            until = now() + SPARE_DELAY
            self._store.postpone(
                stored.id, "waits for the unit that owns its duplicates", until, failed=False
            )
            return added
        self._figures.add("dead_letters", len(unreadable))
        for event, reason in unreadable:
            self._figures.notice(f"{taker.name} {stored.unit.id} {event.position}", f"{taker.name}: {reason}")
        self._figures.add("filtered", sifted.filtered)
        self._figures.add("runs_suppressed", len(suppressed))
        self._figures.add("runs_known", len(runs) - len(added) - len(suppressed))
        for one in runs:
            if one.once is not None and one.id in suppressed:
                self._figures.notice(
                    f"{taker.name} once_per {one.once.key}",
                    f"{taker.name}: the run {suppressed[one.id]} holds {one.once.key!r}; "
                    "further events for it start none until its window ends",
                )
        return added

    def _fresh(
        self, taker: Subscriber, stored: StoredUnit, events: Sequence[Event], duplicates: Mapping[int, int]
    ) -> tuple[list[Event], set[int]]:
        """The events that are no duplicates for this playbook, and the units that it waits for.

        An event that another unit owns is a duplicate only where that unit was or will be the
        playbook's: the owner may be older than its subscription, or lost before it was served. A unit
        whose own events the playbook has already, and that only waits as a spare itself, is not
        waited for: else two could wait for each other.
        """
        owners = {owner for owner in duplicates.values() if owner != stored.id}
        waiting = self._store.undelivered_owners(owners, taker.name)
        theirs = waiting | self._store.acknowledged_by(owners, taker.name) | {stored.id}
        fresh: list[Event] = []
        seen: set[str] = set()
        for event in events:
            owner = duplicates.get(event.position)
            if owner is None:
                fresh.append(event)
            elif owner not in theirs and event.key is not None and event.key not in seen:
                seen.add(event.key)
                fresh.append(event)
        return fresh, {owner for owner in waiting if (owner, taker.name) not in self._served}

    def _new_runs(
        self, taker: Subscriber, events: Sequence[Event]
    ) -> tuple[list[NewRun], list[tuple[Event, str]]]:
        """The runs that the events ask for, and the events without a key for that, or for `once_per`."""
        runs: list[NewRun] = []
        keyless: list[tuple[Event, str]] = []
        for event in events if taker.starts_runs else ():
            try:
                runs.append(self._new_run(taker, event))
            except PermanentError as error:
                keyless.append((event, str(error)))
            except Exception as error:
                keyless.append((event, f"the trigger cannot tell its run key: {error!r}"))
        return runs, keyless

    def _hold_back(self, taker: Subscriber, error: WorkError) -> None:
        """The playbook cannot take events now: it pauses, and its units wait for it."""
        passing = isinstance(error, RetryableError)
        after = error.retry_after if isinstance(error, RetryableError) else None
        taker.pause.begin(str(error), blocked=not passing, seconds=after)
        state = "waiting" if passing else "blocked"
        self._figures.notice(taker.name, f"{state}: {error}; its events are held back")

    def _new_run(self, taker: Subscriber, event: Event) -> NewRun:
        updates = taker.playbook.trigger.on == "updates"
        own = self.trigger.delivery_key(event) if updates else self.trigger.run_key(event)
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

    def _deliver(
        self,
        taker: Subscriber,
        pipe: SinkPipe,
        stored: StoredUnit,
        digest: str,
        events: Sequence[Event],
        dead: set[int],
    ) -> None:
        done = self._store.delivered(stored.id, taker.name, pipe.name, digest)
        buried = self._store.buried(stored.id, taker.name, pipe.name)
        dead.update(event.position for event in events if event.position in buried)
        left = [one for one in events if one.position not in done and one.position not in buried]

        def on_delivered(batch: Sequence[Event], receipts: Sequence[Receipt]) -> None:
            self._store.record_delivery(
                stored.id,
                taker.name,
                pipe.name,
                digest,
                Positions(event.position for event in batch),
                [receipt.remote_id for receipt in receipts],
            )
            self._figures.add("delivered", len(batch))
            self._figures.add(f"delivered:{taker.name}", len(batch))

        def on_dead(event: Event, reason: str) -> None:
            dead.add(event.position)
            letter = DeadLetter(reason, event.raw, event.position, taker.name, pipe.name, unit_id=stored.id)
            with self._store.database.write() as connection:
                self._store.bury(connection, [letter])
            self._figures.add("dead_letters")
            self._figures.notice(
                f"{taker.name} {stored.unit.id} {event.position}",
                f"a record of {taker.name} could not be delivered and is kept as a dead letter: {reason}",
            )

        deliver(pipe.sink, pipe.context, left, on_delivered, on_dead)
