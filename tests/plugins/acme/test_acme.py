"""The example plugin: each of its modules against the service, through the public API only."""

import json
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from counterplay import (
    BlockedError,
    Event,
    GoneError,
    PermanentError,
    PushRequest,
    RejectedError,
    RetryableError,
    Unit,
    UnknownOutcomeError,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_every_module_has_a_closed_and_described_schema(host) -> None:
    """The plugin loads without a problem, and each module keeps the rules of the catalogue."""
    assert [info.problem for info in host.plugins.values()] == [None]
    assert {info.kind for info in host.modules.values()} == {
        "action",
        "connection",
        "sink",
        "transform",
        "trigger",
    }
    for info in host.modules.values():
        jsonschema.Draft202012Validator.check_schema(info.schema)
        assert info.schema["additionalProperties"] is False
        assert all(prop["description"] for prop in info.schema["properties"].values())
        assert info.summary.endswith(".")
        assert (info.kind == "action") == ("result" in info.schema.get("$defs", {}))
    assert host.module("acme.close_ticket").permissions[0]["any"] == ["tickets:write"]


def test_the_connection_proves_that_it_works(context) -> None:
    """One line says as whom."""
    (result,) = context.connection.check(context)
    assert (result.ok, result.detail) == (True, "account acme-test")


def test_a_wrong_key_is_explained_in_acmes_words(context, service) -> None:
    """The refusal carries Acme's code, text and request id, never the key."""
    service.api_key = "another-key-0123456789"
    (result,) = context.connection.check(context)
    assert not result.ok
    assert result.detail == "Acme answered 401 bad_key: this API key is not known (request-id r1)"
    with pytest.raises(BlockedError):
        context.http.get(f"{context.connection.base_url}/whoami")


def test_the_key_goes_to_no_other_host(context) -> None:
    """A link in an answer cannot lead it astray."""
    with pytest.raises(PermanentError, match=r"refused .* 'acme' to https://evil\.example"):
        context.http.get("https://evil.example/")


@pytest.mark.parametrize("page", [b"<html>Bad Gateway</html>", b'{"code": 1}', b"[]"])
def test_a_page_of_a_proxy_means_what_its_status_means(context, service, page: bytes) -> None:
    """An answer that is not Acme's own is judged by the rules of HTTP."""
    service.failures.extend([(502, page)] * 2)
    with pytest.raises(RetryableError, match=r"^Acme answered 502$"):
        context.http.get(f"{context.connection.base_url}/whoami")
    assert not service.calls


def test_exports_are_listed_by_window_page_by_page(context, service, make) -> None:
    """Exactly the files that became ready in [start, end)."""
    service.seed(NOW, hours=6)
    found = list(make("acme.exports").discover(context, NOW - timedelta(hours=5), NOW))
    assert [unit.id for unit in found] == ["E5", "E4", "E3", "E2", "E1"]
    assert found[0].created == NOW - timedelta(hours=5)
    assert found[0].expires == NOW - timedelta(hours=5) + timedelta(days=30)
    assert service.calls == ["GET exports"] * 3


def test_an_export_is_split_into_the_bytes_of_its_lines(context, service, make) -> None:
    """Empty lines are no events; the rest is as Acme wrote it."""
    service.exports["E/1"] = (NOW, b'{"id": "a", "n": 1.0}\r\n\n{"id":"b"}')
    trigger = make("acme.exports")
    unit = Unit("E/1")
    events = [Event(raw) for raw in trigger.split(trigger.fetch(context, unit))]
    assert [event.raw for event in events] == [b'{"id": "a", "n": 1.0}', b'{"id":"b"}']
    assert [trigger.delivery_key(event) for event in events] == ["a", "b"]
    assert trigger.meta(unit) == {"export": "E/1"}
    assert trigger.delivery_key(Event(b"{}")) is None


def test_an_export_that_is_gone_is_lost(context, make) -> None:
    """The host records it as such."""
    with pytest.raises(GoneError, match="Acme answered 404 not_found: there is no exports/E9"):
        make("acme.exports").fetch(context, Unit("E9"))


def test_changes_are_polled_from_a_time_and_then_from_a_number(context, service, make) -> None:
    """The cursor never passes a change that no page held."""
    service.seed(NOW, hours=3)
    trigger = make("acme.changes")
    first = trigger.poll(context, None, NOW - timedelta(hours=2))
    assert [json.loads(raw)["seq"] for raw in first.events] == [2, 3]
    assert (first.cursor, first.more) == ({"after": 3}, False)
    assert trigger.poll(context, first.cursor, NOW).events == ()
    service.add_change(NOW, ticket="T-2")
    (raw,) = trigger.poll(context, first.cursor, NOW).events
    assert trigger.delivery_key(Event(raw)) == "4"


def test_a_long_log_comes_in_pages(context, service, make) -> None:
    """`more` asks the host to poll again at once."""
    for _ in range(501):
        service.add_change(NOW)
    page = make("acme.changes").poll(context, {"after": 0}, NOW)
    assert (len(page.events), page.cursor, page.more) == (500, {"after": 500}, True)


def test_an_answer_of_another_shape_is_no_empty_page(context, service, make) -> None:
    """An answer that lacks a member fails; it is never taken for `nothing new`."""
    service.failures.append((200, b"{}"))
    with pytest.raises(RetryableError, match=r"not what its documentation says: .*changes"):
        make("acme.changes").poll(context, {"after": 0}, NOW)


def push(service, body: bytes, method: str = "POST", signature: str | None = None) -> PushRequest:
    """A web hook as Acme sends it."""
    headers = {"x-acme-signature": service.sign(body) if signature is None else signature}
    return PushRequest(method, "/hooks/acme", {}, headers, body)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b' {"id": "a"} ', (b'{"id": "a"}',)),
        (b'[{"id": "a"}, {"id":1.0}]', (b'{"id": "a"}', b'{"id":1.0}')),
        (b"[]", ()),
    ],
)
def test_a_signed_hook_becomes_events(context, service, make, body: bytes, events: tuple[bytes, ...]) -> None:
    """One object or an array of them, as the bytes that were sent."""
    answer = make("acme.hook").receive(context, push(service, body))
    assert (answer.status, answer.events) == (202, events)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é"])
def test_a_hook_with_a_wrong_signature_is_refused(context, service, make, signature: str) -> None:
    """Nobody else can start a playbook."""
    answer = make("acme.hook").receive(context, push(service, b"{}", signature=signature))
    assert (answer.status, answer.events) == (401, ())


@pytest.mark.parametrize("body", [b"", b"7", b"[1]", b'{"id":', b'[{"id":1},[]]'])
def test_a_hook_that_is_no_event_is_refused(context, service, make, body: bytes) -> None:
    """Acme learns what was wrong."""
    answer = make("acme.hook").receive(context, push(service, body))
    assert (answer.status, answer.events) == (400, ())
    assert "neither an object nor an array" in json.loads(answer.body)["error"]


def test_a_hook_is_a_post(context, service, make) -> None:
    """A person who opens the address in a browser is told so."""
    assert make("acme.hook").receive(context, push(service, b"", method="GET")).status == 405


def test_a_tag_is_added_in_place_of_an_older_one(context, make) -> None:
    """The rest of the event and its key stay."""
    events = [Event(b'{"id":"a","tag":"x"}', key="a"), Event(b"{}", key="b")]
    tagged = make("acme.tag", member="tag", value="y").apply(context, events)
    assert [(event.raw, event.key) for event in tagged] == [
        (b'{"id":"a","tag":"y"}', "a"),
        (b'{"tag":"y"}', "b"),
    ]


@pytest.mark.parametrize(
    ("uses", "other", "before", "after"),
    [
        ("acme.close_ticket", "acme.open_ticket", "open", "closed"),
        ("acme.open_ticket", "acme.close_ticket", "closed", "open"),
    ],
)
def test_an_effect_can_be_verified_and_taken_back(
    context, service, make, uses: str, other: str, before: str, after: str
) -> None:
    """Capture, run, verify, and the inverse leads back to where it began."""
    service.tickets["T/1"] = before
    action = make(uses, ticket_id="T/1")
    captured = action.capture(context)
    result = action.run(context)
    assert (captured, result) == ({"status": before}, {"ticket_id": "T/1", "status": after})
    assert action.target() == "T/1"
    assert action.verify(context, captured, result) is True
    inverse = action.inverse(captured, result)
    assert (inverse.uses, inverse.arguments) == (other, {"ticket_id": "T/1"})
    make(inverse.uses, **inverse.arguments).run(context)
    assert service.tickets["T/1"] == before
    assert action.verify(context, captured, result) is False


def test_nothing_is_taken_back_that_was_not_done(context, service, make) -> None:
    """A ticket that was closed before stays closed when the run is undone."""
    service.tickets["T-1"] = "closed"
    action = make("acme.close_ticket", ticket_id="T-1")
    captured = action.capture(context)
    assert action.inverse(captured, action.run(context)) is None


def test_an_answer_that_never_came_is_settled_by_reading(context, service, make) -> None:
    """The request is not sent twice; the target says whether it took effect."""
    service.tickets["T-1"] = "open"
    action = make("acme.close_ticket", ticket_id="T-1")
    assert action.settled(context, {"status": "open"}) is None
    service.failures.append((0, b""))
    with pytest.raises(UnknownOutcomeError):
        action.run(context)
    assert service.calls.count("POST tickets/T-1/close") == 1
    assert action.settled(context, {"status": "open"}) == {"ticket_id": "T-1", "status": "closed"}


def test_the_archive_takes_records_and_names_each(context, service, make) -> None:
    """Receipts are Acme's identifiers, in the order of the records."""
    sink = make("acme.archive")
    receipts = sink.deliver(context, [Event(b'{"n": 1}'), Event(b'{"n": 2}')])
    assert [receipt.remote_id for receipt in receipts] == ["A0", "A1"]
    assert service.archived == [{"n": 1}, {"n": 2}]


def test_the_archive_rejects_content(context, service, make) -> None:
    """The host halves the batch until the record at fault stands alone."""
    with pytest.raises(RejectedError, match="Acme answered 400 bad_record: a record holds poison"):
        make("acme.archive").deliver(context, [Event(b"{}"), Event(b'{"poison":1}')])
    assert service.archived == []


def test_a_delivery_without_an_answer_is_repeated(context, service, make) -> None:
    """A sink promises at least once, so it may send the batch again."""
    service.failures.append((0, b""))
    make("acme.archive").deliver(context, [Event(b'{"n":1}')])
    assert service.archived == [{"n": 1}, {"n": 1}]


def test_fewer_identifiers_than_records_is_no_success(context, service, make) -> None:
    """Anything but one receipt for each record means that the batch is not delivered."""
    service.failures.append((200, b'{"ids": ["A1"]}'))
    with pytest.raises(RetryableError, match="archived 1 of 2"):
        make("acme.archive").deliver(context, [Event(b"{}"), Event(b"{}")])
