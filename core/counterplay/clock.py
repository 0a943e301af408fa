"""Times as they stand on disk: RFC 3339, UTC, microseconds, `Z`. They sort as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_read: Callable[[], datetime] | None = None


def now() -> datetime:
    """The time, aware UTC."""
    return datetime.now(UTC) if _read is None else _read()


@contextmanager
def read_from(clock: Callable[[], datetime]) -> Iterator[None]:
    """Let `now` be what `clock` says, in the whole process, until the block ends.

    For the tests of playbooks, where four hours pass in a moment.
    """
    global _read
    before, _read = _read, clock
    try:
        yield
    finally:
        _read = before


def to_text(moment: datetime) -> str:
    """`2026-03-02T08:00:00.000000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def from_text(text: str) -> datetime:
    """The reverse. ValueError: not such a time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return moment.astimezone(UTC)
