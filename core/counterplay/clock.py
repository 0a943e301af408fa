"""Times as they stand on disk: RFC 3339, UTC, microseconds, `Z`. They sort as text."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The time, aware UTC."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """`2026-03-02T08:00:00.000000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> datetime:
    """The reverse. ValueError: not such a time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return moment.astimezone(UTC)
