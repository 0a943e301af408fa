"""The trigger m365.alerts: polling without gaps, and alerts as they were sent."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from counterplay import BlockedError, Context, Event, Page, PermanentError, RejectedError, RetryableError
from counterplay_m365.triggers.alerts import Alerts

URL = "https://graph.microsoft.com/v1.0/security/alerts_v2"
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 8, 0, 0, 999, tzinfo=UTC)


@pytest.fixture
def clock(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time; its only element may be replaced."""
    moments = [NOW]
    monkeypatch.setattr(context, "now", lambda: moments[0], raising=False)
    return moments


WINDOW = {
    "mark": "2026-03-02T07:00:00Z",
    "revisited": "2026-03-02T07:00:00Z",
    "from": "2026-03-02T06:50:00Z",
    "until": "2026-03-02T07:30:00Z",
    "goal": "2026-03-02T07:30:00Z",
}


def cursor_of(page: Page) -> dict[str, Any]:
    """The page's cursor, without the number that is different each time."""
    return {name: value for name, value in page.cursor.items() if name != "serial"}


def query(call: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(call.request.url).query).items()}


def test_the_first_poll_begins_at_the_look_back(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """It asks up to a frozen moment, which is the mark from then on."""
    wire.get(URL, body=b'{"value": [ {"id":"a"} , {"id": "b"}]}')

    page = Alerts({}).poll(context, None, SINCE)

    assert page.events == (b'{"id":"a"}', b'{"id": "b"}')
    assert cursor_of(page) == {"mark": "2026-03-02T08:00:00Z", "revisited": "2026-03-02T08:00:00Z"}
    assert not page.more
    assert query(wire.calls[-1]) == {
        "$filter": "lastUpdateDateTime ge 2026-03-01T08:00:00Z "
        "and lastUpdateDateTime le 2026-03-02T08:00:00Z",
        "$top": "100",
    }
    assert wire.calls[-1].request.headers["Prefer"] == "include-unknown-enum-members"


def test_later_polls_overlap(context: Context, clock: list[datetime], wire: responses.RequestsMock) -> None:
    """Updates that became visible late are asked for again; the host knows those it has."""
    wire.get(URL, json={"value": []})
    clock[0] = NOW + timedelta(minutes=1)

    cursor = {"mark": "2026-03-02T08:00:00Z", "revisited": "2026-03-02T07:30:00Z"}
    page = Alerts({}).poll(context, cursor, SINCE)

    assert cursor_of(page) == {"mark": "2026-03-02T08:01:00Z", "revisited": "2026-03-02T07:30:00Z"}
    assert query(wire.calls[-1])["$filter"] == (
        "lastUpdateDateTime ge 2026-03-02T07:50:00Z and lastUpdateDateTime le 2026-03-02T08:01:00Z"
    )


def test_what_happened_within_this_second_is_asked_for(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """A run right after a change gets it; the mark is no later than what was asked for."""
    wire.get(URL, json={"value": []})
    clock[0] = NOW + timedelta(milliseconds=257)

    page = Alerts({}).poll(context, None, SINCE)

    assert query(wire.calls[-1])["$filter"].endswith(" le 2026-03-02T08:00:00.257Z")
    assert page.cursor["mark"] == "2026-03-02T08:00:00.257Z"
    clock[0] = NOW + timedelta(minutes=1)
    Alerts({}).poll(context, page.cursor, SINCE)
    assert "ge 2026-03-02T07:50:00.257Z and" in query(wire.calls[-1])["$filter"]


def test_a_clock_that_was_set_back_within_a_second_moves_no_mark_back(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """Times are compared as times: as texts, a fraction comes before the whole second."""
    wire.get(URL, json={"value": []})
    cursor = {"mark": "2026-03-02T08:00:00.257Z", "revisited": "2026-03-02T08:00:00Z"}

    assert Alerts({}).poll(context, cursor, SINCE).cursor["mark"] == "2026-03-02T08:00:00.257Z"


def test_filters_are_left_to_graph(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """Severity, status and source become conditions."""
    wire.get(URL, json={"value": []})

    Alerts(
        {
            "severity": ["high"],
            "status": ["new", "inProgress"],
            "service_source": ["azureAdIdentityProtection"],
        }
    ).poll(context, None, SINCE)

    assert query(wire.calls[-1])["$filter"].split(" and ")[2:] == [
        "severity eq 'high'",
        "(status eq 'new' or status eq 'inProgress')",
        "serviceSource eq 'azureAdIdentityProtection'",
    ]


def test_pages_keep_the_frozen_end_until_all_are_read(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """The cursor between pages holds the link, so that a stop there neither loses nor skips."""
    link = f"{URL}?$skiptoken=a%2Bb&$top=100"
    wire.get(URL, json={"value": [{"id": "a"}], "@odata.nextLink": link})
    first = Alerts({}).poll(context, None, SINCE)
    clock[0] = NOW + timedelta(hours=5)
    wire.remove("GET", URL)
    wire.get(link, json={"value": [{"id": "b"}]})
    wire.get(URL, json={"value": []})

    second = Alerts({}).poll(context, first.cursor, SINCE)

    assert first.more
    assert cursor_of(first) == {
        "mark": "2026-03-01T08:00:00Z",
        "revisited": "2026-03-02T08:00:00Z",
        "from": "2026-03-01T08:00:00Z",
        "until": "2026-03-02T08:00:00Z",
        "goal": "2026-03-02T08:00:00Z",
        "next": link,
        "pages": 1,
    }
    assert wire.calls[-2].request.url == link
    assert query(wire.calls[-1])["$filter"] == (
        "lastUpdateDateTime gt 2026-03-02T08:00:00Z and createdDateTime le 2026-03-02T08:00:00Z"
    )
    assert cursor_of(second) == {"mark": "2026-03-02T08:00:00Z", "revisited": "2026-03-02T08:00:00Z"}
    assert not second.more


def test_an_empty_page_with_a_link_goes_on(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """A page may hold nothing and still have a successor."""
    wire.get(URL, json={"value": [], "@odata.nextLink": f"{URL}?$skiptoken=2"})

    page = Alerts({}).poll(context, None, SINCE)

    assert page.events == ()
    assert page.more


@pytest.mark.parametrize("status", [400, 410])
def test_an_expired_link_begins_the_same_listing_again(
    context: Context, clock: list[datetime], wire: responses.RequestsMock, status: int
) -> None:
    """The frozen window is kept; only its pages are read anew."""
    link = f"{URL}?$skiptoken=2"
    cursor = {**WINDOW, "next": link, "pages": 4}
    wire.get(link, status=status, json={"error": {"code": "BadRequest", "message": "skiptoken"}})
    wire.get(URL, json={"value": [{"id": "a"}], "@odata.nextLink": f"{URL}?$skiptoken=3"})

    page = Alerts({}).poll(context, cursor, SINCE)

    assert query(wire.calls[-1])["$filter"] == (
        "lastUpdateDateTime ge 2026-03-02T06:50:00Z and lastUpdateDateTime le 2026-03-02T07:30:00Z"
    )
    assert cursor_of(page) == {
        **WINDOW,
        "next": f"{URL}?$skiptoken=3",
        "pages": 1,
        "restarts": 1,
    }


def test_a_listing_that_breaks_off_each_time_is_an_error(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """It does not begin again for ever."""
    link = f"{URL}?$skiptoken=2"
    cursor = {**WINDOW, "next": link, "pages": 1, "restarts": 3}
    wire.get(link, status=410, json={"error": {"code": "Gone", "message": "Expired."}})

    with pytest.raises(PermanentError) as caught:
        Alerts({}).poll(context, cursor, SINCE)

    assert str(caught.value) == (
        "the listing of alerts from 2026-03-02T06:50:00Z to 2026-03-02T07:30:00Z broke off 4 times: "
        "Microsoft Graph answered 410 Gone: Expired."
    )


def test_a_link_that_leads_to_itself_is_an_error(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """A loop does not fill the state with copies."""
    link = f"{URL}?$skiptoken=2"
    wire.get(link, json={"value": [], "@odata.nextLink": link})

    with pytest.raises(PermanentError, match=r"the listing of alerts from .* has no end"):
        Alerts({}).poll(context, {**WINDOW, "next": link, "pages": 1}, SINCE)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            {"body": "<html>", "content_type": "text/html"},
            RetryableError,
            "Microsoft Graph, asked for alerts, answered 200 with something that is not JSON (text/html): "
            "Expecting value: line 1 column 1 (char 0)",
        ),
        ({"body": b'{"value": [{"id"'}, RetryableError, None),
        (
            {"json": {"value": None}},
            RetryableError,
            "Microsoft Graph, asked for alerts, answered no list of alerts",
        ),
        (
            {
                "status": 403,
                "json": {
                    "error": {
                        "code": "Forbidden",
                        "message": "No.",
                        "innererror": {"code": "Inner", "request-id": "9f3c"},
                    }
                },
            },
            BlockedError,
            "Microsoft Graph answered 403 Inner: No. (request-id 9f3c); "
            "grant the application permission SecurityAlert.Read.All with admin consent",
        ),
        (
            {"status": 400, "json": {"error": {"code": "BadRequest", "message": '{"error":{}}'}}},
            RejectedError,
            'Microsoft Graph answered 400 BadRequest: {"error":{}}',
        ),
        (
            {"status": 504, "body": "<html>", "content_type": "text/html"},
            RetryableError,
            "Microsoft Graph answered 504: a page instead of JSON (text/html)",
        ),
    ],
)
def test_a_failed_poll_is_no_empty_page(
    context: Context,
    clock: list[datetime],
    wire: responses.RequestsMock,
    answer: dict[str, Any],
    kind: type[Exception],
    message: str | None,
) -> None:
    """Whatever is not a list of alerts is an error with its place."""
    wire.get(URL, **answer)

    with pytest.raises(kind) as caught:
        Alerts({}).poll(context, None, SINCE)

    assert message is None or str(caught.value) == message


def test_alerts_are_the_bytes_that_were_sent(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """Spaces, number forms, escapes, half of a surrogate pair and invalid UTF-8 survive."""
    alerts = (b'{ "id":"a", "n": 1.50e2, "t":"caf\\u00e9 \\ud83d" }', b'{"id":"b","t":"\xff"}')
    wire.get(URL, body=b'{"@odata.context":"x", "value":[\n' + b" ,\n".join(alerts) + b'\n], "z":1}')

    assert Alerts({}).poll(context, None, SINCE).events == alerts


@pytest.mark.parametrize(
    ("raw", "delivery", "run"),
    [
        (b'{"id":"a","lastUpdateDateTime":"t1"}', "a|t1", "a"),
        (b'{"id":"a"}', None, "a"),
        (b'{"id":"a","title":"\\ud83d","lastUpdateDateTime":"t1"}', "a|t1", "a"),
        (b'{"id":""}', None, None),
        (b'{"id":5,"lastUpdateDateTime":"t1"}', None, None),
        (b"[]", None, None),
        (b"nonsense", None, None),
    ],
)
def test_an_update_is_delivered_and_starts_no_second_run(
    raw: bytes, delivery: str | None, run: str | None
) -> None:
    """The delivery key holds the update, the run key does not."""
    trigger = Alerts({})

    assert trigger.delivery_key(Event(raw)) == delivery
    assert trigger.run_key(Event(raw)) == run
