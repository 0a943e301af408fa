"""Microsoft's times: 0 to 9 digits of a fraction, with or without `Z`, always UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d*))?(?:Z|z|\+00:00)?")


def parse(value: object) -> datetime | None:
    """The time as aware UTC, cut to microseconds; None for anything that is not one."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return whole + timedelta(microseconds=int(((match[2] or "") + "000000")[:6]))


def floor(moment: datetime) -> datetime:
    """The whole second that began at or before this moment, UTC."""
    return moment.astimezone(UTC).replace(microsecond=0)


def ceil(moment: datetime) -> datetime:
    """The whole second at or after this moment, UTC."""
    low = floor(moment)
    return low if low == moment else low + timedelta(seconds=1)


def stamp(moment: datetime) -> str:
    """`2026-03-02T08:00:00`: whole seconds without a zone, which every operation of the audit feed takes."""
    return floor(moment).strftime("%Y-%m-%dT%H:%M:%S")


def skew(date: str | None) -> timedelta | None:
    """How far this machine's clock is ahead of one that just wrote this `Date` header; None: not told."""
    from email.utils import parsedate_to_datetime  # costs as much as a dozen modules

    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return datetime.now(UTC) - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))


def span(duration: str) -> timedelta:
    """`90s`, `4h`, `7d` as arguments write it."""
    from counterplay.language.durations import parse_duration

    return parse_duration(duration)
