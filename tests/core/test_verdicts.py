"""What an HTTP answer means by its status, and how long it asks to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from requests import Response

from counterplay.verdicts import LONGEST_WAIT, by_status, retry_after


def answer(status: int = 429, **headers: str) -> Response:
    """An answer with a status and headers."""
    response = Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


@pytest.mark.parametrize(
    ("meaning", "statuses"),
    [
        ("ok", (200, 201, 204, 299)),
        ("wait", (429,)),
        ("retry", (408, 425, 500, 502, 503, 504, 599)),
        ("blocked", (401, 403)),
        ("gone", (404, 410)),
        ("rejected", (400, 413, 415, 422)),
        ("permanent", (301, 302, 304, 405, 409, 418)),
    ],
)
def test_a_status_has_one_meaning(meaning: str, statuses: tuple[int, ...]) -> None:
    """The general rules, for services that say no more than a status."""
    assert {by_status(answer(status)).meaning for status in statuses} == {meaning}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Mon, 02 Mar 2020 12:00:00 GMT", 0.0),
        ("9" * 400, LONGEST_WAIT),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
    ],
)
def test_retry_after_is_read_whatever_it_holds(value: str, seconds: float | None) -> None:
    """Seconds or a date, never in the past and never for ever; what cannot be read counts as absent."""
    assert retry_after(answer(Retry_After=value)) == seconds


def test_retry_after_may_be_a_date() -> None:
    """A date counts from now, whatever its zone is called."""
    then = datetime.now(UTC) + timedelta(seconds=60)
    for value in (format_datetime(then, usegmt=True), format_datetime(then.replace(tzinfo=None))):
        assert 57 < (retry_after(answer(Retry_After=value)) or 0) <= 60
