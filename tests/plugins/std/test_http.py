"""std.http: one HTTP request."""

from typing import Any

import jsonschema
import pytest
import responses
from requests.exceptions import ReadTimeout

from counterplay import (
    BlockedError,
    ConfigError,
    GoneError,
    JsonObject,
    PermanentError,
    RejectedError,
    RetryableError,
    StepContext,
    UnknownOutcomeError,
)
from counterplay_std.http import BODY_LIMIT, Http

URL = "https://api.example.net/tickets"


@pytest.fixture
def remote():
    """The remote service; a request that no test expects fails."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def call(context: StepContext, host):
    """Run the action with these arguments, its result checked against its schema."""
    schema = host.module("std.http").schema

    def run(**arguments: Any) -> JsonObject:
        result = Http({"url": URL, **arguments}).run(context)
        jsonschema.validate(result, {**schema["$defs"]["result"], "$defs": schema["$defs"]})
        return result

    return run


def test_the_answer_is_the_result(remote, call) -> None:
    """Status, headers by lower-case name, text and decoded JSON; a cookie is no result."""
    remote.get(URL, json={"id": 7}, headers={"X-Total": "1", "Set-Cookie": "session=very-secret"})
    assert call() == {
        "status": 200,
        "headers": {"content-type": "application/json", "x-total": "1"},
        "body": '{"id": 7}',
        "json": {"id": 7},
        "truncated": False,
    }


def test_json_is_sent_as_json(remote, call) -> None:
    """Also `null`, and with the content type that the playbook prefers."""
    for body, headers, sent in (({"é": 1}, {}, "application/json"), (None, {"content-type": "a/b"}, "a/b")):
        answer = remote.post(URL, status=201, json={})
        call(method="POST", json=body, headers=headers)
        request = answer.calls[-1].request
        assert request.headers["Content-Type"] == sent
        remote.remove(answer)
        assert request.body == ('{"é":1}'.encode() if body else b"null")


def test_text_is_sent_as_utf_8(remote, call) -> None:
    """A body is text, and is sent as it is."""
    answer = remote.put(URL)
    call(method="PUT", body="naïve")
    assert answer.calls[0].request.body == "naïve".encode()


def test_a_long_body_is_cut_and_marked(remote, call) -> None:
    """Nobody takes a cut document for a whole one: it is not decoded, and `truncated` says why."""
    remote.get(URL, body=b'"' + b"x" * BODY_LIMIT + b'"', content_type="application/json")
    result = call()
    assert (len(result["body"]), result["json"], result["truncated"]) == (BODY_LIMIT, None, True)


def test_bytes_that_are_no_text_do_not_stop_the_step(remote, call) -> None:
    """An unknown or wrong character set is read as UTF-8, with a mark where it does not fit."""
    remote.get(URL, body=b"a\xff", content_type="text/plain; charset=klingon")
    assert call()["body"] == "a\ufffd"


def test_an_expected_status_is_a_result(remote, call) -> None:
    """`expect` makes an answer a result that would otherwise be an error."""
    remote.get(URL, status=404, json={"error": "none"})
    assert call(expect=[200, 404])["status"] == 404


def test_a_success_that_is_not_expected_is_an_error(remote, call) -> None:
    """`expect` names all statuses that mean success."""
    remote.get(URL, status=204)
    with pytest.raises(PermanentError, match=r"api\.example\.net answered 204: the step expects 200, 201"):
        call(expect=[200, 201])


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RejectedError), (401, BlockedError), (403, BlockedError), (404, GoneError), (409, PermanentError)],
)
def test_a_refusal_names_status_and_text(remote, call, status: int, error: type[Exception]) -> None:
    """The first 200 characters of the answer say what the service did not like."""
    remote.get(URL, status=status, body="no  such\nthing " + "x" * 300)
    with pytest.raises(error, match=rf"^api\.example\.net answered {status}: no such thing x+$") as caught:
        call()
    assert len(str(caught.value)) == len(f"api.example.net answered {status}: ") + 200


def test_an_html_page_is_read_for_its_words(remote, call) -> None:
    """Markup and style sheets explain nothing."""
    page = "<html><style>p {color: red}</style><h1>Bad Gateway</h1><p>nginx</p></html>"
    for _ in range(2):
        remote.get(URL, status=502, body=page, content_type="text/html")
    with pytest.raises(RetryableError, match=r"answered 502: Bad Gateway nginx$"):
        call()


def test_redirects_are_not_followed_and_lead_somewhere(remote, call) -> None:
    """The error says where the answer points, so that a person can ask there."""
    remote.get(URL, status=302, headers={"Location": "https://evil.example/"})
    with pytest.raises(PermanentError, match=r"302: redirects are not followed; .* https://evil\.example/"):
        call()


def test_a_write_without_an_answer_is_not_sent_again(remote, call) -> None:
    """Every method but GET and HEAD, because a playbook knows best what twice would do."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = remote.add(method, URL, body=ReadTimeout("read timed out"))
        with pytest.raises(UnknownOutcomeError, match="may or may not have taken effect"):
            call(method=method)
        assert answer.call_count == 1


def test_a_repeatable_write_is_sent_again(remote, call) -> None:
    """`repeatable: true` says that twice is harmless."""
    remote.post(URL, body=ReadTimeout("read timed out"))
    remote.post(URL, json={})
    assert call(method="POST", repeatable=True)["status"] == 200


@pytest.mark.parametrize(
    ("arguments", "effect", "settle"),
    [
        ({}, False, "ask"),
        ({"method": "HEAD"}, False, "ask"),
        ({"method": "POST"}, True, "ask"),
        ({"method": "DELETE", "repeatable": True}, True, "repeat"),
    ],
)
def test_the_arguments_say_whether_it_is_an_effect(arguments: Any, effect: bool, settle: str) -> None:
    """Reads are none; the class, which knows no arguments, counts as one."""
    action = Http({"url": URL, **arguments})
    assert (action.effect, action.settle, action.target()) == (effect, settle, URL)
    assert (Http.effect, Http.settle) == (True, "ask")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost:9/x", "http://[::1]:9/x"])
def test_clear_text_is_allowed_to_this_machine(remote, call, url: str) -> None:
    """Nobody listens on the way to loopback."""
    remote.get(url, json={})
    assert call(url=url)["status"] == 200


def test_clear_text_to_another_host_needs_a_word(remote, call) -> None:
    """`allow_http: true` is that word."""
    remote.get("http://old.example.net/", json={})
    with pytest.raises(PermanentError, match=r"old\.example\.net in clear; write https://, or `allow_http"):
        call(url="http://old.example.net/")
    assert call(url="http://old.example.net/", allow_http=True)["status"] == 200


@pytest.mark.parametrize("url", ["/tickets", "ftp://a/b", "https://", "https://[::1", "file:///etc/passwd"])
def test_what_is_no_web_address_is_refused(remote, call, url: str) -> None:
    """The message shows the address and what one looks like."""
    with pytest.raises(PermanentError, match="is no address for a request; write https://host/path"):
        call(url=url)


def test_a_password_in_the_address_is_refused_and_not_repeated(remote, call) -> None:
    """It would stand in the playbook, in the plan and in the run."""
    with pytest.raises(PermanentError, match="holds a user or a password") as caught:
        call(url="https://ada:hunter2hunter2@api.example.net/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"url": ""},
        {"url": URL, "method": "post"},
        {"url": URL, "json": 1, "body": "x"},
        {"url": URL, "expect": []},
        {"url": URL, "expect": [99]},
        {"url": URL, "headers": {"Authorization": "Bearer x"}},
        {"url": URL, "headers": {"x-API-key": "x"}},
        {"url": URL, "headers": {"COOKIE": "x"}},
        {"url": URL, "headers": {"a b": "x"}},
        {"url": URL, "headers": {"a": 1}},
        {"url": URL, "follow_redirects": True},
    ],
)
def test_the_schema_refuses(accept, arguments: Any) -> None:
    """Typing errors, contradictions, and headers that carry credentials."""
    with pytest.raises(ConfigError):
        accept("std.http", arguments)


def test_the_schema_accepts_any_json(accept) -> None:
    """A body may be any JSON value, null included."""
    for value in (None, 0, "x", [1], {"a": {}}):
        accept("std.http", {"url": URL, "method": "POST", "json": value, "headers": {"Accept": "a/b"}})
