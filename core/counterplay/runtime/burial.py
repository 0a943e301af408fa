"""Dead letters on their way to the store."""

from __future__ import annotations

from counterplay.runtime.board import Task
from counterplay.runtime.figures import Figures
from counterplay.store.feeds import DeadLetter


class Burial:
    """Collects records that cannot be read or delivered, and tells people. `take` them for the store."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._letters: list[DeadLetter] = []

    def __len__(self) -> int:
        return len(self._letters)

    def take(self) -> list[DeadLetter]:
        """Those that are not on record yet."""
        taken, self._letters = self._letters, []
        return taken

    def undeliverable(self, task: Task, sink: str, position: int, reason: str) -> None:
        """A sink refuses the record for good."""
        opened = task.work.opened
        assert opened is not None
        raw = bytes(opened.raws[opened.positions.index(position)])
        task.dead.add(position)
        unit = task.work.stored
        self._letters.append(DeadLetter(reason, raw, position, task.taker.name, sink, unit_id=unit.id))
        self._figures.add("dead_letters")
        self._figures.notice(
            f"{task.taker.name} {unit.unit.id} {position}",
            f"a record of {task.taker.name} could not be delivered and is kept as a dead letter: {reason}",
        )

    def unreadable(self, task: Task, position: int, raw: bytes, reason: str) -> None:
        """The playbook cannot make out what the event asks for: goes on record with the acknowledgement."""
        unit = task.work.stored
        task.letters.append(DeadLetter(reason, raw, position, task.taker.name, unit_id=unit.id))
        self._figures.add("dead_letters")
        self._figures.notice(f"{task.taker.name} {unit.unit.id} {position}", f"{task.taker.name}: {reason}")
