"""The sink intake.forward: what is sent, what proves delivery, and what a refusal means."""

import json
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from counterplay import (
    BlockedError,
    ConfigError,
    Context,
    Event,
    PermanentError,
    Receipt,
    RejectedError,
    RetryableError,
    WorkError,
)
from counterplay.wire import Wire
from counterplay_intake.client import send
from counterplay_intake.forward import Forward

URL = "https://intake.example.net/batch"
KEY = "key-of-the-intake"
ONE = [Event(b'{"Id": "1"}')]


def test_events_are_the_bytes_that_their_source_sent(context: Context, wire: responses.RequestsMock) -> None:
    """Spaces, number forms, escapes, other scripts and line breaks arrive unchanged, as strings."""
    raws = [b'{ "n": 1.50e2, "q": "a\\"b\\\\", "t": "caf\\u00e9 \\ud83d" }', '{"ü":\n"\U0001f600"}'.encode()]
    wire.post(URL, json={"event_ids": ["e-1", "e-2"]})

    receipts = Forward({}).deliver(context, [Event(raw) for raw in raws])

    body = json.loads(wire.calls[0].request.body or b"")
    assert body == {"intake_key": KEY, "jsons": [raw.decode() for raw in raws]}
    assert list(receipts) == [Receipt("e-1"), Receipt("e-2")]
    assert wire.calls[0].request.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        b'\xef\xbb\xbf{"event_ids": ["e-1"]}',
        '{"event_ids": ["e-1"]}'.encode("utf-16"),
        b'{"event_ids": ["e-1"], "took": NaN}',
        b'{"event_ids": ["e-1"], "note": "\\ud800"}',
    ],
)
def test_an_answer_that_few_would_write_so_is_one(
    context: Context, wire: responses.RequestsMock, answer: bytes
) -> None:
    """To refuse it would send what the intake has taken again and again."""
    wire.post(URL, body=answer)
    assert list(Forward({}).deliver(context, ONE)) == [Receipt("e-1")]


def test_an_empty_batch_is_a_whole_envelope(context: Context, wire: responses.RequestsMock) -> None:
    """It is how a connection is tried."""
    wire.post(URL, json={"event_ids": []})

    assert send(context, []) == []
    assert json.loads(wire.calls[0].request.body or b"") == {"intake_key": KEY, "jsons": []}


@given(st.lists(st.text(st.characters(codec="utf-8")).map(str.encode) | st.just(b"\xff"), max_size=20))
def test_many_are_encoded_as_each_of_them_is(raws: list[bytes]) -> None:
    """When one of them cannot be sent, all are refused, so that somebody asks for each."""
    sink = Forward({})
    try:
        one_by_one = [sink.encode(raw) for raw in raws]
    except RejectedError:
        with pytest.raises(RejectedError):
            sink.encode_all(raws)
        return
    assert sink.encode_all(raws) == one_by_one == super(Forward, sink).encode_all(raws)


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=20))
def test_sizes_are_those_of_the_encoded_body(texts: list[str]) -> None:
    """What the host adds up is what goes over the wire, quotes and commas included."""
    sink = Forward({})
    records = [Event(text.encode()) for text in texts]
    from counterplay_intake.client import quoted

    body = b",".join(quoted(text) for text in texts) + b","

    assert sum(map(sink.record_size, records)) == len(body)
    assert [json.loads(quoted(text)) for text in texts] == texts


def test_limits_are_those_of_the_intake() -> None:
    """Small batches by default, at most what the intake takes, and no event beyond its limit."""
    assert Forward({}).max_batch_bytes == 524_288
    assert Forward({"batch_bytes": 1_000_000}).max_batch_bytes == 1_000_000
    assert Forward({"batch_bytes": 99_000_000}).max_batch_bytes == 9_437_184
    assert Forward.max_record_bytes == 250_000
    assert Forward.batch_overhead > len(b'{"intake_key":"","jsons":[]}') + 500


def test_the_key_is_in_the_body_only(context: Context, wire: responses.RequestsMock) -> None:
    """Neither address nor headers show it."""
    wire.post(URL, json={"event_ids": ["e-1"]})

    Forward({}).deliver(context, ONE)

    request = wire.calls[0].request
    assert KEY not in (request.url or "")
    assert KEY not in str(request.headers)


def test_a_path_in_the_address_is_kept(make: Any, wire: responses.RequestsMock) -> None:
    """The intake may stand below a path, on any host and port, with http."""
    wire.post("http://localhost:8080/in/batch", json={"event_ids": ["e-1"]})

    Forward({}).deliver(make(url="http://localhost:8080/in/"), ONE)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ({"json": {"event_ids": []}}, RetryableError,
         "the intake intake.example.net took 0 of 1 events: it named no others in `event_ids`"),
        ({"json": {"event_ids": ["a", "b"]}}, RetryableError,
         "the intake intake.example.net took 2 of 1 events: it named no others in `event_ids`"),
        ({"json": {"ok": True}}, RetryableError,
         "the intake intake.example.net answered 200 without `event_ids`"),
        ({"json": ["e-1"]}, RetryableError, "the intake intake.example.net answered 200 without `event_ids`"),
        ({"body": "<html>login</html>", "content_type": "text/html"}, RetryableError,
         "the intake intake.example.net answered 200 with something that is not JSON (text/html)"),
        ({"status": 401}, BlockedError,
         "the intake intake.example.net answered 401: the intake key is refused; check `intake_key`"),
        ({"status": 403, "body": KEY}, BlockedError,
         "the intake intake.example.net answered 403: the intake key is refused; check `intake_key`"),
        ({"status": 404}, BlockedError,
         "the intake intake.example.net answered 404: no intake is at this address; check `url`"),
        ({"status": 302, "headers": {"Location": "https://evil.example"}}, BlockedError,
         "the intake intake.example.net answered 302: no intake is at this address; check `url`"),
        ({"status": 400, "body": KEY}, RejectedError, "the intake intake.example.net answered 400"),
        ({"status": 413}, RejectedError, "the intake intake.example.net answered 413"),
        ({"status": 500, "body": "<html>"}, RetryableError, "the intake intake.example.net answered 500"),
        ({"status": 503, "headers": {"Retry-After": "0"}}, RetryableError,
         "the intake intake.example.net answered 503"),
        ({"status": 418}, PermanentError, "the intake intake.example.net answered 418"),
    ],
)  # fmt: skip
def test_what_does_not_prove_delivery_is_an_error(
    context: Context,
    wire: responses.RequestsMock,
    answer: dict[str, Any],
    kind: type[WorkError],
    message: str,
) -> None:
    """Only a success that names an id for each event counts, and no message shows the key."""
    wire.post(URL, **answer)

    with pytest.raises(WorkError) as caught:
        Forward({}).deliver(context, ONE)

    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_a_rate_limit_is_waited_out(context: Context, wire: responses.RequestsMock) -> None:
    """429 is no error of the batch."""
    wire.post(URL, status=429, headers={"Retry-After": "0"})
    wire.post(URL, json={"event_ids": ["e-1"]})

    assert list(Forward({}).deliver(context, ONE)) == [Receipt("e-1")]


def test_a_longer_rate_limit_says_how_long(make: Any, wire: responses.RequestsMock) -> None:
    """Past the deadline it comes back with the time to wait."""
    context = make()
    context.http = Wire(context.connection, timeout=1, backoff=0)
    wire.post(URL, status=429, headers={"Retry-After": "30"})

    with pytest.raises(RetryableError) as caught:
        Forward({}).deliver(context, ONE)

    assert caught.value.retry_after is not None
    assert 29 < caught.value.retry_after <= 30


def test_a_lost_answer_repeats_this_batch_once(context: Context, wire: responses.RequestsMock) -> None:
    """The same bytes go out again, because delivery is at least once."""
    wire.post(URL, body=responses.ConnectionError("reset"))
    wire.post(URL, json={"event_ids": ["e-1"]})

    Forward({}).deliver(context, ONE)

    first, second = (call.request.body for call in wire.calls)
    assert first == second


def test_an_intake_that_stays_away_is_retryable(context: Context, wire: responses.RequestsMock) -> None:
    """Its place is named."""
    wire.post(URL, body=responses.ConnectionError("reset"))

    with pytest.raises(RetryableError, match=r"no answer from https://intake\.example\.net: reset"):
        Forward({}).deliver(context, ONE)


def test_an_event_that_is_no_text_is_refused_by_itself(context: Context) -> None:
    """It cannot be sent as it is, and is not bent: the host puts it aside."""
    bad = Event(b'{"a":"\xff"}')

    assert Forward({}).record_size(bad) > len(bad.raw)
    with pytest.raises(RejectedError) as caught:
        Forward({}).deliver(context, [*ONE, bad])
    assert str(caught.value) == "an event is not UTF-8 text (byte 6), so it cannot be sent"


def test_another_connection_is_refused() -> None:
    """It says which kind it needs."""
    with pytest.raises(ConfigError, match=r"needs a connection of kind intake\.key"):
        Forward({}).deliver(Context(http=Wire()), ONE)
