"""The trigger m365.hunting: a query over each span of time once, rows that come late included."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import responses

from counterplay import Context, Event, Gap, PermanentError, RejectedError
from counterplay_m365.triggers import hunting
from counterplay_m365.triggers.hunting import Hunting

URL = "https://graph.microsoft.com/v1.0/security/runHuntingQuery"
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
QUERY = {"query": "AlertInfo | take 5", "overlap": "30m"}


@pytest.fixture
def clock(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    moments = [NOW]
    monkeypatch.setattr(context, "now", lambda: moments[0], raising=False)
    return moments


def sent(wire: responses.RequestsMock) -> list[dict[str, str]]:
    calls = [call.request for call in wire.calls if str(call.request.url) == URL]
    return [json.loads(request.body) for request in calls]  # type: ignore[arg-type]  # bytes here


def test_each_run_asks_for_what_happened_since_the_last(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """The time span goes with the query; rows are bytes as they were sent, repeats are left out."""
    wire.post(URL, body=b'{"schema":[], "results":[ {"A": 1.50, "B":"x"} ]}')
    wire.post(URL, body=b'{"schema":[], "results":[{"A": 1.50, "B":"x"},{"A":2,"B":"y"}]}')
    trigger = Hunting(QUERY)
    first = trigger.poll(context, None, SINCE)
    clock[0] = NOW + timedelta(hours=1)
    second = trigger.poll(context, first.cursor, SINCE)

    assert first.events == (b'{"A": 1.50, "B":"x"}',)
    assert second.events == (b'{"A":2,"B":"y"}',)
    assert sent(wire) == [
        {"Query": "AlertInfo | take 5", "Timespan": "2026-03-01T08:00:00Z/2026-03-02T08:00:00Z"},
        {"Query": "AlertInfo | take 5", "Timespan": "2026-03-02T07:30:00Z/2026-03-02T09:00:00Z"},
    ]


def test_rows_of_this_second_are_asked_for(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """They can be seen already; the mark stays before them, so that the rest of the second comes too."""
    wire.post(URL, json={"results": []})
    clock[0] = NOW + timedelta(milliseconds=700)
    page = Hunting(QUERY).poll(context, None, SINCE)

    assert sent(wire)[0]["Timespan"] == "2026-03-01T08:00:00Z/2026-03-02T08:00:01Z"
    assert page.cursor["mark"] == "2026-03-02T08:00:00Z"


def test_the_key_columns_make_a_row_the_same() -> None:
    """By default the whole row, in whatever order; else the columns that the author names."""
    rows = [b'{"Timestamp":"t","ReportId":1,"Seen":"a"}', b'{"Seen":"b","ReportId":1,"Timestamp":"t"}']
    by_row = [Hunting(QUERY).delivery_key(Event(one)) for one in rows]
    by_key = [Hunting({**QUERY, "key": ["Timestamp", "ReportId"]}).delivery_key(Event(one)) for one in rows]

    assert by_row[0] != by_row[1]
    assert by_key[0] == by_key[1]
    assert by_row[0] == Hunting(QUERY).delivery_key(Event(b'{"Seen":"a","Timestamp":"t","ReportId":1}'))


def test_a_result_that_was_cut_is_asked_for_in_halves(
    context: Context, clock: list[datetime], wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service cuts at a number of rows without a word, so a full result is taken for a cut one."""
    monkeypatch.setattr(hunting, "MOST_ROWS", 2)
    wire.post(URL, json={"results": [{"A": 1}, {"A": 2}]})
    wire.post(URL, json={"results": [{"A": 1}]})
    wire.post(URL, json={"results": [{"A": 2}]})
    trigger = Hunting(QUERY)
    cut = trigger.poll(context, None, SINCE)
    first = trigger.poll(context, cut.cursor, SINCE)
    second = trigger.poll(context, first.cursor, SINCE)

    assert (cut.events, cut.more) == ((), True)
    assert (first.events, first.more) == ((b'{"A": 1}',), True)
    assert (second.events, second.more) == ((b'{"A": 2}',), False)
    spans = [one["Timespan"].split("/") for one in sent(wire)]
    assert spans[1] == ["2026-03-01T07:30:00Z", "2026-03-01T20:00:00Z"]
    assert spans[2] == ["2026-03-01T19:30:00Z", "2026-03-02T08:00:00Z"]


def test_a_query_that_can_never_be_read_whole_is_an_error(
    context: Context, clock: list[datetime], wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are not left out in silence."""
    monkeypatch.setattr(hunting, "MOST_ROWS", 1)
    wire.post(URL, json={"results": [{"A": 1}]})

    with pytest.raises(PermanentError, match="gives more than 1 rows"):
        Hunting({**QUERY, "overlap": "1s"}).poll(context, {"mark": "2026-03-02T07:59:58Z"}, SINCE)


def test_a_query_that_does_not_parse_is_refused_with_the_parsers_words(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """What the author has to mend stands in the error."""
    wire.post(URL, status=400, json={"error": {"code": "BadRequest", "message": "Syntax error: |."}})

    with pytest.raises(RejectedError, match=r"400 BadRequest: Syntax error: \|"):
        Hunting(QUERY).poll(context, None, SINCE)


def test_rows_that_are_older_than_the_tables_keep_are_a_gap(
    context: Context, clock: list[datetime], wire: responses.RequestsMock
) -> None:
    """From where the last query ended to the oldest row that there can be."""
    wire.post(URL, json={"results": []})
    stopped = NOW - timedelta(days=40)

    page = Hunting(QUERY).poll(context, {"mark": stopped.strftime("%Y-%m-%dT%H:%M:%SZ")}, SINCE)

    assert page.gap == Gap(stopped, NOW - timedelta(days=30), "the service keeps it for 30 days")
