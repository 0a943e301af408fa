"""The trigger m365.audit_log: subscriptions, listings, blobs, and what the feed's errors mean."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from responses import matchers

from counterplay import (
    BlockedError,
    Context,
    Event,
    GoneError,
    PermanentError,
    RetryableError,
    Unit,
    WorkError,
)
from counterplay_m365.triggers.audit_log import CONTENT_TYPES, AuditLog

TENANT = "11111111-2222-4333-8444-555555555555"
FEED = f"https://manage.office.com/api/v1.0/{TENANT}/activity/feed"
LIST, START, CONTENT = (f"{FEED}/subscriptions/{name}" for name in ("list", "start", "content"))
BLOB = f"{FEED}/audit/20260302020621634014687$20260302020621634014687$audit_general$Audit_General$emea0036"
UNIT = Unit("blob-1", {"uri": BLOB, "content_type": "Audit.General", "content_created": "x"})
EIGHT = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def trigger() -> AuditLog:
    """One feed, as the host makes it."""
    return AuditLog({"content_types": ["Audit.General"], "poll_interval": "60s"})


def error(code: str, message: str = "said so") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def item(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "contentType": "Audit.General",
        "contentId": f"id-{number}",
        "contentUri": f"{FEED}/audit/id-{number}",
        "contentCreated": "2026-03-02T08:30:00.000Z",
        "contentExpiration": "2026-03-09T08:30:00.000Z",
        **changes,
    }


def starts(wire: responses.RequestsMock) -> list[str]:
    urls = [call.request.url or "" for call in wire.calls if call.request.method == "POST"]
    return [parse_qs(urlsplit(url).query)["contentType"][0] for url in urls if "/subscriptions/start" in url]


def queries(wire: responses.RequestsMock) -> list[dict[str, str]]:
    urls = [urlsplit(call.request.url or "") for call in wire.calls]
    return [
        {name: values[0] for name, values in parse_qs(url.query).items()}
        for url in urls
        if url.path.endswith("/subscriptions/content")
    ]


def test_only_what_is_missing_is_started(context: Context, wire: responses.RequestsMock) -> None:
    """Enabled ones, one without a status, and a foreign webhook stay as they are."""
    hook = {"status": "enabled", "address": "https://other.example", "authId": None, "expiration": ""}
    wire.get(
        LIST,
        json=[
            {"contentType": "Audit.Exchange", "status": "enabled", "webhook": hook},
            {"contentType": "audit.sharepoint", "webhook": None},
            {"contentType": "Audit.General", "status": "disabled", "webhook": None},
        ],
    )
    wire.post(START, json={"status": "enabled"})

    AuditLog({"content_types": list(CONTENT_TYPES)}).prepare(context)

    assert starts(wire) == ["Audit.AzureActiveDirectory", "Audit.General", "DLP.All"]
    posted = next(call.request for call in wire.calls if "/subscriptions/start" in (call.request.url or ""))
    assert posted.headers["Content-Length"] == "0"
    assert f"PublisherIdentifier={TENANT}" in (posted.url or "")


def test_starting_what_runs_is_a_success(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """AF20024 is a 400 that says that nothing was to be done."""
    wire.get(LIST, json=[])
    wire.post(START, status=400, json=error("AF20024", "The subscription is already enabled."))

    trigger.prepare(context)

    assert starts(wire) == ["Audit.General"]


def test_one_content_type_that_fails_does_not_skip_the_next(
    context: Context, wire: responses.RequestsMock
) -> None:
    """Each missing one is tried, and the first failure is reported."""
    wire.get(LIST, json=[])
    wire.post(
        START,
        status=400,
        json=error("AF20012"),
        match=[matchers.query_param_matcher({"contentType": "Audit.Exchange"}, strict_match=False)],
    )
    wire.post(
        START, json={}, match=[matchers.query_param_matcher({"contentType": "DLP.All"}, strict_match=False)]
    )

    with pytest.raises(BlockedError, match="AF20012"):
        AuditLog({"content_types": ["Audit.Exchange", "DLP.All"]}).prepare(context)

    assert starts(wire) == ["Audit.Exchange", "DLP.All"]


def test_a_foreign_webhook_is_not_taken_away(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """A disabled subscription with a webhook is reported, for a start could strip it."""
    hook = {"status": "disabled", "address": "https://other.example/hook"}
    wire.get(LIST, json=[{"contentType": "Audit.General", "status": "disabled", "webhook": hook}])

    with pytest.raises(BlockedError) as caught:
        trigger.prepare(context)

    assert str(caught.value) == (
        "the subscription to Audit.General is disabled, and a webhook of another product hangs on it "
        "(https://other.example/hook); start it in that product: starting it here could take its webhook away"
    )
    assert starts(wire) == []


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        ({"json": {"status": "enabled"}}, None),
        ({"status": 400, "json": error("AF20023", "Disabled by a tenant admin.")}, "AF20023"),
    ],
)
def test_a_subscription_is_started_once_in_fifteen_minutes(
    context: Context,
    wire: responses.RequestsMock,
    trigger: AuditLog,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any],
    again: str | None,
) -> None:
    """However often it is found off; what the service said to the start is said again meanwhile."""
    clock = [1000.0]
    monkeypatch.setattr("counterplay_m365.triggers.audit_log.time.monotonic", lambda: clock[0])
    wire.get(LIST, json=[{"contentType": "Audit.General", "status": "disabled", "webhook": None}])
    wire.post(START, **answer)
    for minutes, count in ((0, 1), (5, 1), (16, 2)):
        clock[0] = 1000.0 + 60 * minutes
        if again is None:
            trigger.prepare(context)
        else:
            with pytest.raises(BlockedError, match=again):
                trigger.prepare(context)
        assert len(starts(wire)) == count


def test_a_start_that_was_not_answered_does_not_count(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """A fault of the service costs no quarter of an hour."""
    wire.get(LIST, json=[])
    for _ in range(context.http.attempts):
        wire.post(START, status=503)
    with pytest.raises(RetryableError):
        trigger.prepare(context)
    wire.post(START, json={"status": "enabled"})
    trigger.prepare(context)
    assert len(starts(wire)) == context.http.attempts + 1


@pytest.mark.parametrize(
    ("entry", "off"),
    [
        ([{"contentType": "Audit.General", "status": "enabled"}], None),
        ([{"contentType": "audit.general"}], None),
        ([{"contentType": "Audit.General", "status": "disabled"}], "Audit.General (disabled)"),
        ([{"contentType": "DLP.All", "status": "enabled"}], "Audit.General (removed)"),
    ],
)
def test_a_subscription_that_is_off_is_told(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog, entry: list[Any], off: str | None
) -> None:
    """What becomes available meanwhile is lost, so the host has to know; nothing is changed by asking."""
    wire.get(LIST, json=entry)
    assert trigger.interruption(context) == (off and f"the subscription was off: {off}")
    assert starts(wire) == []


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (timedelta(seconds=5), None),
        (timedelta(minutes=-10), "600 s ahead of that of the"),
        (timedelta(minutes=10), "600 s behind that of the"),
    ],
)
def test_a_clock_that_is_wrong_is_told_once(
    context: Context,
    wire: responses.RequestsMock,
    trigger: AuditLog,
    caplog: pytest.LogCaptureFixture,
    ahead: timedelta,
    told: str | None,
) -> None:
    """Windows go by this machine's clock, so more than half a minute is a warning."""
    date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
    wire.get(LIST, json=[{"contentType": "Audit.General", "status": "enabled"}], headers={"Date": date})
    for _ in range(2):
        trigger.interruption(context)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (told is not None)
    if told is not None:
        assert re.sub(r"\b(599|601)\b", "600", lines[0]).startswith(f"this machine's clock is {told}")


def test_a_listing_is_paged_to_its_end(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """`NextPageUri` is followed as it is, with the publisher where it is missing."""
    second = (
        f"https://manage.office.com/api/v1/{TENANT}/activity/feed/subscriptions/content?nextPage=2&endtime=z"
    )
    third = f"{second}3&publisheridentifier={TENANT}"
    wire.get(CONTENT, json=[item(1)], headers={"NextPageUri": second})
    wire.get(f"{second}&PublisherIdentifier={TENANT}", json=[], headers={"nextpageuri": third})
    wire.get(third, json=[item(2), item(3)])

    units = list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))

    assert [unit.id for unit in units] == ["id-1", "id-2", "id-3"]
    assert [call.request.url for call in wire.calls][-2:] == [f"{second}&PublisherIdentifier={TENANT}", third]
    assert queries(wire)[0] == {
        "contentType": "Audit.General",
        "startTime": "2026-03-02T08:00:00",
        "endTime": "2026-03-02T09:00:00",
        "PublisherIdentifier": TENANT,
    }


def test_windows_are_whole_seconds_and_at_most_a_day(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """A longer stretch is listed in parts that tile it, and nothing of it falls between seconds."""
    wire.get(CONTENT, json=[])
    start = EIGHT + timedelta(microseconds=5)

    list(trigger.discover(context, start, start + timedelta(hours=30)))

    assert [(q["startTime"], q["endTime"]) for q in queries(wire)] == [
        ("2026-03-02T08:00:00", "2026-03-03T08:00:00"),
        ("2026-03-03T08:00:00", "2026-03-03T14:00:01"),
    ]


@pytest.mark.parametrize("fraction", ["", ".1", ".123", ".1234567", ".123456789"])
@pytest.mark.parametrize("zone", ["Z", ""])
def test_times_of_any_precision_are_read(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog, fraction: str, zone: str
) -> None:
    """0 to 9 digits of a fraction, with and without a zone, are UTC."""
    wire.get(CONTENT, json=[item(1, contentCreated=f"2026-03-02T08:30:00{fraction}{zone}")])

    (unit,) = trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1))

    micro = int((fraction[1:] + "000000")[:6])
    assert unit.created == datetime(2026, 3, 2, 8, 30, 0, micro, tzinfo=UTC)
    assert unit.expires == datetime(2026, 3, 9, 8, 30, tzinfo=UTC)


def test_content_with_missing_fields_is_still_listed(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """Only the address has to be there; it stands in for a missing id."""
    wire.get(CONTENT, json=[{"contentUri": f"{FEED}/audit/x", "contentCreated": "soon"}])

    (unit,) = trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1))

    assert (unit.id, unit.created, unit.expires) == (f"{FEED}/audit/x", None, None)


def test_content_without_an_address_is_not_dropped_in_silence(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """The window fails, and says what it met; what stands beside it is listed."""
    wire.get(CONTENT, json=[item(1), {"contentId": "a"}, item(2)])
    found: list[Unit] = []

    with pytest.raises(PermanentError) as caught:
        found.extend(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))

    assert [unit.id for unit in found] == ["id-1", "id-2"]
    assert str(caught.value) == (
        "the listing of Audit.General from 2026-03-02T08:00:00 to 2026-03-02T09:00:00 holds content "
        "without an address: {'contentId': 'a'}"
    )


def test_a_page_that_follows_itself_ends_the_listing(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """A loop is an error, not an endless listing."""
    loop = f"{CONTENT}?nextPage=2&PublisherIdentifier={TENANT}"
    wire.get(CONTENT, json=[item(1)], headers={"NextPageUri": loop})

    with pytest.raises(RetryableError) as caught:
        list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))

    assert str(caught.value) == (
        "the listing of Audit.General from 2026-03-02T08:00:00 to 2026-03-02T09:00:00 names a page as its "
        f"own successor: {loop}"
    )


def test_a_listing_without_an_end_is_cut(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the page cap the window fails and is asked for again."""
    monkeypatch.setattr("counterplay_m365.activity.MAX_PAGES", 3)

    def page(request: Any) -> tuple[int, dict[str, str], str]:
        number = len(wire.calls)
        return 200, {"NextPageUri": f"{CONTENT}?nextPage={number}&PublisherIdentifier={TENANT}"}, "[]"

    wire.add_callback("GET", CONTENT, page)

    with pytest.raises(RetryableError, match="does not end after 3 pages"):
        list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))


def test_a_foreign_next_page_is_refused(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """The token does not follow a link to another host."""
    wire.get(CONTENT, json=[], headers={"NextPageUri": "https://evil.example/api"})

    with pytest.raises(PermanentError, match=r"to https://evil\.example"):
        list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))


def test_a_stale_page_makes_the_window_be_listed_again(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """AF20031 on a later page is no reason to give the window up."""
    second = f"{CONTENT}?nextPage=2&PublisherIdentifier={TENANT}"
    wire.get(
        CONTENT,
        json=[item(1)],
        headers={"NextPageUri": second},
        match=[matchers.query_param_matcher({"contentType": "Audit.General"}, strict_match=False)],
    )
    wire.get(second, status=400, json=error("AF20031"))

    with pytest.raises(RetryableError, match="its next page is no longer known"):
        list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))


FAILURES = [
    (
        {"status": 400, "json": error("AF20055", "StartTime:{a}, EndTime:{b}.")},
        PermanentError,
        "Management Activity API answered 400 AF20055: StartTime:{a}, EndTime:{b}; the window is out of "
        "reach: compare this machine's clock with the service's",
    ),
    (
        {"status": 400, "json": error("AF20022", "No subscription.")},
        RetryableError,
        "Management Activity API answered 400 AF20022: No subscription; the subscription is started at the "
        "next reconciliation, at most 15 minutes away",
    ),
    (
        {"status": 400, "json": error("AF20023", "By a tenant admin.")},
        BlockedError,
        "Management Activity API answered 400 AF20023: By a tenant admin; "
        "an administrator disabled the subscription",
    ),
    (
        {"status": 401, "json": {"Message": "Authorization has been denied for this request."}},
        BlockedError,
        "Management Activity API answered 401: Authorization has been denied for this request.",
    ),
    (
        {
            "status": 400,
            "json": error(
                "StartSubscription [CorrId=1][AppId",
                "] failed. Exception: Microsoft."
                "Office.Compliance.Audit.DataServiceException: Tenant 1 does not exist.\r\n   at",
            ),
        },
        BlockedError,
        "Management Activity API answered 400: the tenant records no audit events; turn on unified auditing "
        "(Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true)",
    ),
    (
        {"status": 500, "json": error("AF50000", "Internal.")},
        RetryableError,
        "Management Activity API answered 500 AF50000: Internal.",
    ),
    (
        {"status": 400, "json": error("Something AF50005 went wrong", "x")},
        RetryableError,
        "Management Activity API answered 400 AF50005: x",
    ),
    (
        {"status": 503, "body": "<html>busy</html>", "content_type": "text/html"},
        RetryableError,
        "Management Activity API answered 503: a page instead of JSON (text/html)",
    ),
    (
        {"status": 200, "body": "<html>hello</html>", "content_type": "text/html"},
        RetryableError,
        "Management Activity API, asked for the listing of Audit.General from 2026-03-02T08:00:00 to "
        "2026-03-02T09:00:00, answered 200 with something that is not JSON (text/html): "
        "Expecting value: line 1 column 1 (char 0)",
    ),
    (
        {"status": 200, "json": {"value": []}},
        RetryableError,
        "Management Activity API, asked for the listing of Audit.General from 2026-03-02T08:00:00 to "
        "2026-03-02T09:00:00, answered no list of objects",
    ),
    (
        {"status": 302, "headers": {"Location": "https://evil.example"}},
        PermanentError,
        "Management Activity API answered 302",
    ),
]


@pytest.mark.parametrize(("answer", "kind", "message"), FAILURES)
def test_a_failed_listing_says_what_it_means(
    context: Context,
    wire: responses.RequestsMock,
    trigger: AuditLog,
    answer: dict[str, Any],
    kind: type[WorkError],
    message: str,
) -> None:
    """Each refusal has its kind, its code and its next step; none is an empty listing."""
    wire.get(CONTENT, **answer)

    with pytest.raises(kind) as caught:
        list(trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1)))

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "throttled",
    [
        {"status": 403, "json": error("AF429", "Too many requests. Method=GetContents, PublisherId=1")},
        {"status": 429, "json": error("AF429")},
        {"status": 403, "body": "Too Many Requests, sorry"},
        {"status": 429, "headers": {"Retry-After": "0"}},
    ],
)
def test_a_rate_limit_is_waited_out_whatever_it_looks_like(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog, throttled: dict[str, Any]
) -> None:
    """AF429 comes as 403 too; the listing goes on once the limit has passed."""
    wire.get(CONTENT, **throttled)
    wire.get(CONTENT, json=[item(1)])

    assert [u.id for u in trigger.discover(context, EIGHT, EIGHT + timedelta(hours=1))] == ["id-1"]


def test_a_blob_comes_as_the_bytes_that_were_sent(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """The address keeps its `$`, gets the publisher, and the content type does not matter."""
    body = b'[ {"Id":"1", "Operation":"\xc3\xa9"} ]'
    wire.get(BLOB, body=body, content_type="text/plain")

    assert trigger.fetch(context, UNIT) == body
    assert wire.calls[-1].request.url == f"{BLOB}?PublisherIdentifier={TENANT}"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 400, "json": error("AF20051", "Expired.")}, GoneError),
        ({"status": 404, "json": error("AF20051", "Expired.")}, GoneError),
        ({"status": 400, "json": error("AF20052")}, PermanentError),
        ({"status": 400, "json": error("AF20050")}, PermanentError),
        ({"status": 404}, PermanentError),
        ({"status": 503}, RetryableError),
    ],
)
def test_a_blob_that_cannot_be_had_says_for_how_long(
    context: Context,
    wire: responses.RequestsMock,
    trigger: AuditLog,
    answer: dict[str, Any],
    kind: type[WorkError],
) -> None:
    """Expired content is lost, content that is said not to exist is put aside, faults are tried again."""
    wire.get(BLOB, **answer)

    with pytest.raises(WorkError) as caught:
        trigger.fetch(context, UNIT)

    assert type(caught.value) is kind


def test_content_that_appears_late_is_waited_for(
    context: Context, wire: responses.RequestsMock, trigger: AuditLog
) -> None:
    """AF20050 is asked again before it counts."""
    wire.get(BLOB, status=400, json=error("AF20050"))
    wire.get(BLOB, body=b"[]")

    assert trigger.fetch(context, UNIT) == b"[]"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"Operation":"x","Id":"a-1"}', "a-1"),
        (b'{"Id":""}', None),
        (b'{"Id":null}', None),
        (b'{"Id":7}', None),
        (b"{}", None),
        (b"[]", None),
        (b'{"Id":"a-1","Subject":"cut \\ud83d"}', "a-1"),
        (b"not json", None),
    ],
)
def test_an_event_is_known_by_its_id(trigger: AuditLog, raw: bytes, key: str | None) -> None:
    """`Id` is the key; a missing or empty one is none, so that such events are never taken for repeats."""
    assert trigger.delivery_key(Event(raw)) == key


def test_meta_says_where_an_event_came_from(trigger: AuditLog) -> None:
    """Content type, id and time of the blob are there for expressions."""
    assert trigger.meta(UNIT) == {
        "content_type": "Audit.General",
        "content_id": "blob-1",
        "content_created": "x",
    }


def test_the_reach_keeps_a_margin() -> None:
    """The host asks for nothing that the service would refuse as too old (AF20055)."""
    assert AuditLog.retention == timedelta(days=6, hours=23, minutes=50)
    assert AuditLog.tile == timedelta(hours=1)
    assert AuditLog.settle_time == timedelta(hours=2)


def test_a_provider_counts_against_its_own_quota(
    wire: responses.RequestsMock, entra: Any, connect: Any
) -> None:
    """`publisher_id` replaces the tenant's id in every call."""
    from counterplay.wire import Wire

    other = "77777777-2222-4333-8444-555555555555"
    connection = connect(publisher_id=other)
    wire.get(LIST, json=[])
    wire.post(START, json={})
    AuditLog({"content_types": ["DLP.All"]}).prepare(Context(http=Wire(connection), connection=connection))

    feed = [call.request.url or "" for call in wire.calls if "/activity/feed/" in (call.request.url or "")]
    assert len(feed) == 2
    assert all(f"PublisherIdentifier={other}" in url for url in feed)
