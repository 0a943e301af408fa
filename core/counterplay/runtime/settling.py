"""What became of batches, put back together by unit and playbook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from counterplay.errors import RetryableError, WorkError
from counterplay.runtime.board import Board, Task
from counterplay.runtime.burial import Burial
from counterplay.runtime.figures import Figures
from counterplay.runtime.outbox import Batch, Outbox, Outcome, Segment
from counterplay.runtime.subscribers import Subscriber
from counterplay.store.feeds import Delivered
from counterplay.store.ranges import Positions


class Settling:
    """Turns outcomes into receipts by unit; a playbook whose sink failed is held back."""

    def __init__(
        self,
        outboxes: Mapping[str, Sequence[Outbox]],
        *,
        board: Board,
        burial: Burial,
        figures: Figures,
        due: Callable[[], None],
    ) -> None:
        self._outboxes = outboxes
        self._board = board
        self._burial = burial
        self._figures = figures
        self._due = due

    def settle(self, outcomes: Sequence[Outcome]) -> list[Delivered]:
        """What goes on record. Tasks that come to their end by it are ready afterwards."""
        deliveries: list[Delivered] = []
        for outcome in outcomes:
            deliveries += self._accepted(outcome)
            for index, reason in outcome.dead:
                for segment, first, _ in _parts(outcome.batch, index, index + 1):
                    segment.task.left -= 1
                    self._burial.undeliverable(
                        segment.task, outcome.outbox.pipe.name, segment.positions[first], reason
                    )
            taker = outcome.outbox.taker
            if outcome.error is not None:
                self._undelivered(outcome)
            elif taker.pause.failures and (taker.pause.unanswered or not taker.pause.active):
                taker.pause.clear()
                self._figures.notice(taker.name, None)
            for segment in outcome.batch.segments:
                self._board.look(segment.task)
        return deliveries

    def hold_back(self, taker: Subscriber, error: WorkError) -> None:
        """The playbook cannot take events now: it pauses, and its units wait for it."""
        if taker.pause.active and not taker.pause.unanswered:
            return
        passing = isinstance(error, RetryableError)
        after = error.retry_after if isinstance(error, RetryableError) else None
        taker.pause.begin(str(error), blocked=not passing, seconds=after)
        self._held_back(taker, error)

    def go_on_without(self, box: Outbox) -> None:
        """The receiver says nothing, and other playbooks wait: this one pauses, and gives up what is not
        being sent yet.
        """
        error = RetryableError(f"the sink {box.pipe.name} has not answered for {box.silent:.0f} s")
        box.taker.pause.begin(str(error), blocked=False, unanswered=True)
        self._held_back(box.taker, error)
        self._fail(self._dropped(box.taker))

    def _held_back(self, taker: Subscriber, error: WorkError) -> None:
        passing = isinstance(error, RetryableError)
        state = "waiting" if passing else "blocked"
        self._figures.notice(taker.name, f"{state}: {error}; its events are held back")
        self._due()

    def _accepted(self, outcome: Outcome) -> Iterator[Delivered]:
        taker, pipe = outcome.outbox.taker, outcome.outbox.pipe
        for start, end, receipts in outcome.accepted:
            self._figures.add("delivered", end - start)
            self._figures.add(f"delivered:{taker.name}", end - start)
            for segment, first, last in _parts(outcome.batch, start, end):
                task: Task = segment.task
                task.left -= last - first
                offset = segment.start - start
                yield Delivered(
                    *task.name,
                    pipe.name,
                    task.work.digest,
                    _range_text(segment.positions[first:last]),
                    [one.remote_id for one in receipts[offset + first : offset + last]],
                )

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
            self.hold_back(taker, outcome.error)
            missing.update(self._dropped(taker))
        self._fail(missing)

    def _dropped(self, taker: Subscriber) -> Counter[Task]:
        """What the playbook has not begun to send is given up: how many records of which task."""
        dropped: Counter[Task] = Counter()
        for box in self._outboxes[taker.name]:
            dropped.update(box.drop())
        return dropped

    def _fail(self, missing: Mapping[Task, int]) -> None:
        for task, count in missing.items():
            if count:
                task.left -= count
                task.failed = True
                self._board.look(task)


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
