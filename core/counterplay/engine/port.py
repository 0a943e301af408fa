"""What the runtime asks of a durable engine, and no more.

The engine executes *segments*: the part of a run between two long waits, named `<run>/<number>`. A
segment calls its recorder for each piece of work; what the recorder returned once, it returns again
when the segment is resumed after a crash, without doing the work. A long wait ends the segment; the
runtime keeps the continuation in a row of its own and starts the next segment when it is due, so the
port needs neither signals nor timers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol


class EngineInterrupt(Exception):
    """The engine takes the segment away (cancelled, owned by another worker): let it pass, change nothing."""


class ReplayedFailure(Exception):
    """A recorded piece of work raised before a crash, and the engine gives the error again.

    What the work itself left behind says how far it came; the run goes on with a new segment.
    """


SegmentStatus = Literal["running", "ended", "failed", "cancelled"]

#: `recorder(name, work)`: do the work once, remember its JSON result under that name and place.
Recorder = Callable[[str, Callable[[], Any]], Any]

#: `body(segment, recorder)`: the one generic interpreter that runs every playbook.
SegmentBody = Callable[[str, Recorder], None]


class Engine(Protocol):
    """A durable engine. Only a worker launches one; everything else reads our own tables."""

    def launch(self, body: SegmentBody) -> None:
        """Get ready to execute segments. Called once in a process."""

    def start(self, segment: str) -> None:
        """Execute a segment in the background. A second start of the same segment does nothing."""

    def recover(self) -> list[str]:
        """Resume the segments that dead workers left; returns their names. For a lone worker."""

    def cancel(self, segment: str) -> None:
        """Let the segment end at its next recorded step."""

    def status(self, segment: str) -> SegmentStatus | None:
        """How a segment stands; None when it was never started."""

    def steps(self, segment: str) -> list[str]:
        """Names of the steps that the segment has recorded, in order."""

    def delete(self, segments: Sequence[str]) -> None:
        """Forget segments that ended."""

    def close(self) -> None:
        """Stop the engine's threads. Segments that still work go on after the next launch."""
