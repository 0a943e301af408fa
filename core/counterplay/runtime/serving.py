"""What a unit's events ask of one playbook: which of them it gets, into which batches, and which runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from counterplay.errors import (
    InterruptedWork,
    PermanentError,
    RejectedError,
    StateError,
    WorkError,
    as_work_error,
)
from counterplay.events import Event
from counterplay.modules import BulkSink, Trigger
from counterplay.runtime.board import Board, Task, Work
from counterplay.runtime.burial import Burial
from counterplay.runtime.figures import Figures
from counterplay.runtime.outbox import Outbox
from counterplay.runtime.sifting import Plan, Selected, plan_of, select
from counterplay.runtime.subscribers import Subscriber
from counterplay.runtime.units import Opened
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.key_claims import Owned
from counterplay.store.ranges import Positions
from counterplay.store.runs import NewRun, run_id


class Serving:
    """Serves the playbooks of one feed, as far as it does not take a sink's answer."""

    def __init__(
        self,
        key: FeedKey,
        trigger: Trigger,
        subscribers: Sequence[Subscriber],
        outboxes: Mapping[str, Sequence[Outbox]],
        *,
        store: FeedStore,
        board: Board,
        burial: Burial,
        figures: Figures,
        hold_back: Callable[[Subscriber, WorkError], None],
    ) -> None:
        self._key = key
        self._trigger = trigger
        self._outboxes = outboxes
        self._store = store
        self._board = board
        self._burial = burial
        self._figures = figures
        self._hold_back = hold_back
        self._plans: dict[str, Plan] = {one.name: plan_of(one) for one in subscribers}
        as_they_are = [one for one in subscribers if self._plans[one.name].slices and not one.playbook.filter]
        sinks = [box.pipe.sink for one in as_they_are for box in outboxes[one.name]]
        self.early = next((one for one in sinks if isinstance(one, BulkSink) and one.encodes_early), None)
        """A sink that gets all events as they are, and has them encoded as soon as they are here."""

    @property
    def whole(self) -> bool:
        """Some condition looks at all of an event."""
        return any(plan.whole for plan in self._plans.values())

    @property
    def fields(self) -> set[str]:
        """The top-level members of events that conditions look at."""
        return {name for plan in self._plans.values() for name in plan.fields}

    def serve(self, works: Sequence[tuple[Work, Owned]]) -> None:
        """Serve every taker of units whose events were claimed."""
        owners = {
            owner for work, owned in works for owner in owned.duplicates.values() if owner != work.stored.id
        }
        standing: dict[str, tuple[set[int], set[int]]] = {}
        for work, owned in works:
            work.tasks = len(work.takers)
            for taker in list(work.takers):
                task = self._board.open(work, taker)
                if taker.pause.active:
                    task.failed = True
                else:
                    if taker.name not in standing:
                        standing[taker.name] = self._standing(taker.name, owners)
                    self._serve_one(task, owned, *standing[taker.name])
                task.left -= 1
                self._board.look(task)
            if work.opened is not None:
                work.opened.fields = None  # every filter has seen them, and dicts take five times the bytes
                work.opened.records = None  # the batches have them

    def _standing(self, playbook: str, owners: set[int]) -> tuple[set[int], set[int]]:
        """Those of the units that the playbook waits for, and those that are or will be its own."""
        works = self._board.works
        theirs = self._board.acknowledged(owners, playbook)
        unsure = owners - theirs
        waiting = {owner for owner in unsure if owner in works and playbook in works[owner].stored.waiting}
        if unsure - waiting:
            waiting |= self._store.undelivered_owners(unsure - waiting, playbook)
        if unsure - waiting:
            theirs |= self._store.acknowledged_by(unsure - waiting, playbook)
        return waiting, theirs | waiting

    def _serve_one(self, task: Task, owned: Owned, waiting: set[int], theirs: set[int]) -> None:
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
        for index, reason in chosen.unreadable:
            event = opened.event(index)
            self._burial.unreadable(task, event.position, event.raw, reason)
        if taker.starts_runs:
            self._ask_for_runs(task, chosen.events or ())
        else:
            task.selected = len(chosen.indices if chosen.events is None else chosen.events)
            for box in self._outboxes[taker.name]:
                self._hand_over(task, box, opened, chosen)

    def _hand_over(self, task: Task, box: Outbox, opened: Opened, chosen: Selected) -> None:
        """Put the records into the sink's next batches, but for those that it has or refused already."""
        sink, largest = box.pipe.sink, box.pipe.sink.max_record_bytes
        skipped = self._settled_before(task, box)
        if (
            chosen.events is None
            and not skipped
            and self._handed_over_at_once(task, box, opened, chosen.indices)
        ):
            return
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
                self._burial.undeliverable(task, box.pipe.name, position, str(error))
                continue
            if largest is not None and size > largest:
                reason = f"the record has {size:,} encoded bytes, the receiver takes {largest:,}"
                self._burial.undeliverable(task, box.pipe.name, position, reason)
                continue
            positions.append(position)
            records.append(record)
            sizes.append(size)
        task.left += len(records)
        box.put(task, positions, records, sizes)

    def _handed_over_at_once(self, task: Task, box: Outbox, opened: Opened, indices: Sequence[int]) -> bool:
        """The same for slices none of which asks for care, which is to say nearly always."""
        sink = box.pipe.sink
        assert isinstance(sink, BulkSink)
        known = opened.records if sink is self.early else None
        raws: Sequence[Any] = opened.raws if known is None else known
        positions = opened.positions
        if len(indices) < len(raws):
            raws = [raws[index] for index in indices]
            positions = [positions[index] for index in indices]
        try:
            records: Sequence[bytes] = sink.encode_all(raws) if known is None else raws
        except RejectedError:
            return False
        sizes = [len(record) + 1 for record in records]
        if len(records) != len(raws) or max(sizes, default=0) > (sink.max_record_bytes or sys.maxsize):
            return False
        task.left += len(records)
        box.put(task, positions, records, sizes)
        return True

    def _settled_before(self, task: Task, box: Outbox) -> Positions | set[int] | None:
        """Positions that the sink took or refused when the unit was worked on before."""
        stored = task.work.stored
        if stored.digest is None:
            return None
        done = self._store.delivered(stored.id, task.taker.name, box.pipe.name, task.work.digest)
        buried = self._store.buried(stored.id, task.taker.name, box.pipe.name)
        task.dead.update(buried)
        return {*done, *buried}

    def _ask_for_runs(self, task: Task, events: Sequence[Event]) -> None:
        """Note the runs that the events ask for; one without a key for that is kept as a dead letter."""
        for event in events:
            try:
                task.runs.append(self._new_run(task.taker, event))
            except PermanentError as error:
                self._burial.unreadable(task, event.position, event.raw, str(error))
            except Exception as error:
                reason = f"the trigger cannot tell its run key: {error!r}"
                self._burial.unreadable(task, event.position, event.raw, reason)

    def _new_run(self, taker: Subscriber, event: Event) -> NewRun:
        updates = taker.playbook.trigger.on == "updates"
        own = self._trigger.delivery_key(event) if updates else self._trigger.run_key(event)
        key = own or f"{event.meta['unit']}#{event.position}"
        meta = dict(event.meta)
        if taker.starter is not None:
            meta["starter"] = taker.starter
        return NewRun(
            id=run_id(self._key.tenant, taker.name, key),
            tenant=self._key.tenant,
            playbook=taker.name,
            run_key=key,
            document=taker.playbook.document,
            event=event.raw,
            meta=meta,
            inputs=taker.inputs,
            connections=taker.renames,
            once=taker.once_key(event),
        )


def _fresh(opened: Opened, owned: Owned, unit_id: int, theirs: set[int]) -> Sequence[int]:
    """The events, by index, that are no duplicates for a playbook.

    An event that another unit owns is a duplicate only where that unit was or will be the playbook's:
    the owner may be older than its subscription, or lost before it was served.
    """
    duplicates = owned.duplicates
    if not duplicates:
        return range(len(opened.raws))
    if all(owner == unit_id or owner in theirs for owner in duplicates.values()):
        return [index for index, position in enumerate(opened.positions) if position not in duplicates]
    fresh: list[int] = []
    seen: set[str] = set()
    for index, position in enumerate(opened.positions):
        owner = duplicates.get(position)
        if owner is None:
            fresh.append(index)
            continue
        key = opened.keys[index]
        if owner != unit_id and owner not in theirs and key is not None and key not in seen:
            seen.add(key)
            fresh.append(index)
    return fresh
