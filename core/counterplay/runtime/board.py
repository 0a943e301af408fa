"""What of a feed is on its way: units, and what each playbook has to do with them until it is on record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from counterplay.budgets import ByteBudget
from counterplay.clock import now
from counterplay.runtime.figures import FeedFigures
from counterplay.runtime.subscribers import Subscriber
from counterplay.runtime.units import Opened
from counterplay.store.feeds import Acknowledged, Counts, DeadLetter, StoredUnit
from counterplay.store.runs import NewRun

_REMEMBERED = 20_000


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
    """A unit on its way. `opened` goes as soon as nobody needs the bytes; `tasks` counts open ones.

    `fetched` is when its bytes came, `happened` the time of its first event.
    """

    stored: StoredUnit
    takers: list[Subscriber]
    held: int = 0
    opened: Opened | None = None
    digest: str = ""
    tasks: int = 0
    again: bool = False
    fetched: datetime | None = None
    happened: datetime | None = None


class Board:
    """Units on their way and their tasks. Only the feed's mill changes it.

    A task is open until its sinks reported on every record, then ready until that is on record. One
    whose duplicates belong to units that are not done is parked: it is their spare until they are.
    """

    def __init__(
        self,
        subscribers: Sequence[Subscriber],
        held: ByteBudget,
        figures: FeedFigures,
        *,
        room: Callable[[], None],
        due: Callable[[], None],
    ) -> None:
        """`room` is called when bytes were given back, `due` when a unit may have to be looked for again."""
        self.works: dict[int, Work] = {}
        self.ready: list[Task] = []
        self._held = held
        self._figures = figures
        self._room = room
        self._due = due
        self._open: set[Task] = set()
        self._parked: dict[tuple[int, str], Task] = {}
        self._acknowledged: dict[str, dict[int, None]] = {one.name: {} for one in subscribers}
        self._lags: deque[float] = deque(maxlen=200)

    @property
    def resting(self) -> bool:
        """Nothing moves: what is left waits for units that are not here."""
        return not self.ready and len(self.works) <= len({unit for unit, _ in self._parked})

    def waited_for(self, taker: Subscriber) -> bool:
        """Are there units that nobody has looked into yet, and that other playbooks could take?"""
        return any(
            not work.digest and any(one is not taker and not one.pause.active for one in work.takers)
            for work in self.works.values()
        )

    @property
    def lag(self) -> float:
        """Seconds from listing to acknowledgement: mean of the last units."""
        lags = list(self._lags)
        return sum(lags) / len(lags) if lags else 0.0

    def take_up(self, stored: StoredUnit, takers: list[Subscriber]) -> None:
        """The unit is going to be fetched for these playbooks."""
        self.works[stored.id] = Work(stored, takers)

    def release(self, work: Work, *, again: bool = False) -> None:
        """The unit is off the way. `again`: it may be due, look for it."""
        self.works.pop(work.stored.id, None)
        self._give_back(work)
        if again:
            self._due()

    def open(self, work: Work, taker: Subscriber) -> Task:
        """A new task, which counts one for itself in `left` until it was served."""
        task = Task(work, taker)
        self._open.add(task)
        return task

    def look(self, task: Task) -> None:
        """Has the task come to its end?"""
        if task.left or task.ended:
            return
        task.ended = True
        self._open.discard(task)
        if task.failed:
            self._leave(task)
        else:
            self.ready.append(task)

    def done(self, task: Task) -> None:
        """The acknowledgement is on record."""
        known = self._acknowledged[task.taker.name]
        known[task.work.stored.id] = None
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]
        self._measure(task)
        self._figures.add("filtered", task.counts["filtered"])
        self._leave(task)

    def _measure(self, task: Task) -> None:
        work, moment = task.work, now()
        if work.stored.listed is not None:
            self._lags.append(max(0.0, (moment - work.stored.listed).total_seconds()))
        for name, since in (("unit_acknowledged", work.fetched), ("event_acknowledged", work.happened)):
            if since is not None:
                self._figures.took(name, (moment - since).total_seconds(), task.taker.name)

    def acknowledged(self, owners: Iterable[int], playbook: str) -> set[int]:
        """Those of the units that are known to be acknowledged; the store knows of all."""
        known = self._acknowledged[playbook]
        return {owner for owner in owners if owner in known}

    def blocking(self, task: Task) -> set[int]:
        """The owners of its duplicates that are not done, and do not merely wait for others themselves."""
        known = self._acknowledged[task.taker.name]
        return {
            owner
            for owner in task.waits_for
            if owner not in known and (owner, task.taker.name) not in self._parked
        }

    def park(self, task: Task) -> None:
        """Another unit owns some of its events and is not done: until it is, this one is the spare."""
        self._parked[task.name] = task
        if task.work.tasks == 1:
            self._give_back(task.work)

    def unpark(self) -> None:
        """Go on with tasks that wait for nobody any more."""
        for name, task in list(self._parked.items()):
            if not self.blocking(task):
                del self._parked[name]
                self.ready.append(task)

    def look_again(self, owner: int) -> None:
        """What was a duplicate of this unit is none any more: the units that hold it are looked at anew."""
        for task in [one for one in self._parked.values() if owner in one.waits_for]:
            del self._parked[task.name]
            task.failed = True
            self._leave(task)
        for task in self._open:
            task.failed = task.failed or owner in task.waits_for

    def _leave(self, task: Task) -> None:
        work = task.work
        work.again = work.again or task.failed
        work.tasks -= 1
        if work.tasks == 0:
            self.release(work, again=work.again)

    def _give_back(self, work: Work) -> None:
        work.opened = None
        if work.held:
            self._held.change(-work.held)
            work.held = 0
            self._room()
