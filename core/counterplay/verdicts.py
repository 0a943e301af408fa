"""What an HTTP answer means for the work at hand: the same few words for every service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from requests import Response

LONGEST_WAIT = 86_400.0
Meaning = Literal["ok", "retry", "wait", "blocked", "gone", "rejected", "permanent"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`meaning`, with the service's own code, text and request id as far as it gave them.

    * ok: go on · retry: a passing fault, tried again a few times · wait: a rate limit, waited out
    * blocked: a person has to act · gone: the object does not exist · rejected: this content is
      refused (400, 413) · permanent: never succeeds as it is
    """

    meaning: Meaning
    code: str = ""
    text: str = ""
    request_id: str = ""
    retry_after: float | None = None


def by_status(response: Response) -> Verdict:
    """The general rules of HTTP, for services that say no more than a status."""
    status = response.status_code
    after = retry_after(response)
    if status < 300:
        return Verdict("ok")
    if status == 429:
        return Verdict("wait", retry_after=after)
    if status in (408, 425) or status >= 500:
        return Verdict("retry", retry_after=after)
    if status in (401, 403):
        return Verdict("blocked")
    if status in (404, 410):
        return Verdict("gone")
    if status in (400, 413, 415, 422):
        return Verdict("rejected")
    return Verdict("permanent")


def retry_after(response: Response) -> float | None:
    """The `Retry-After` header in seconds, whether it gives seconds or a date; None without one.

    Never more than a day: whoever asks for longer is asked again then.
    """
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), LONGEST_WAIT)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return min(max(0.0, (then - datetime.now(UTC)).total_seconds()), LONGEST_WAIT)
