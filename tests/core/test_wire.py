"""The wire: whom it talks to, what an answer means, when it asks again and when it must not."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from counterplay import (
    BlockedError,
    Connection,
    GoneError,
    InterruptedWork,
    Limit,
    PermanentError,
    RejectedError,
    RetryableError,
    UnknownOutcomeError,
    Verdict,
    WorkError,
)
from counterplay.budgets import Budgets
from counterplay.wire import Wire

API = "https://api.example.net"
URL = f"{API}/users"


class Api(Connection):
    """A connection to one service, whose token changes when it is renewed."""

    name = "api"

    def __init__(self, origin: str = API, ca: str | None = None, renewable: bool = True) -> None:
        super().__init__("contoso", {})
        self.origin, self.ca, self.renewable = origin, ca, renewable
        self.token = 1

    def origins(self) -> tuple[str, ...]:
        return (self.origin,)

    def service(self, origin: str) -> str:
        return "Example"

    def ca_file(self) -> str | None:
        return self.ca

    def authorize(self, request: requests.PreparedRequest) -> None:
        request.headers["Authorization"] = f"Bearer token-{self.token}"

    def renew(self, response: requests.Response) -> bool:
        self.token += 1
        return self.renewable

    def classify(self, response: requests.Response) -> Verdict | None:
        if response.status_code != 418:
            return None
        return Verdict("gone", "Teapot", "short and stout", response.headers.get("request-id", ""))


@pytest.fixture
def remote() -> Iterator[responses.RequestsMock]:
    """The remote services; a request that no test expects fails."""
    with responses.RequestsMock(assert_all_requests_are_fired=True) as mock:
        yield mock


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Makes wires that hardly wait between attempts, and closes them."""
    made: list[Wire] = []

    def make(connection: Connection | None = None, **settings: Any) -> Wire:
        made.append(Wire(connection, **{"attempts": 3, "backoff": 0.001, **settings}))
        return made[-1]

    yield make
    for each in made:
        each.close()


# Whom it talks to


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/users",
        "http://api.example.net/users",
        "https://api.example.net:8443/users",
        "https://api.example.net@evil.example/",
        "https://api.example.net.evil.example/",
        "https://user@api.example.net/",
    ],
)
def test_credentials_go_to_no_other_origin(remote, wire, url: str) -> None:
    """Another host, port or scheme is refused before anything is sent."""
    with pytest.raises(PermanentError, match=r"^refused to send the credentials of 'contoso' to .*; only"):
        wire(Api()).get(url)
    assert len(remote.calls) == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.net@evil.example/users",
        "https://api.example.net.evil.example/users",
        "https:/api.example.net/users",
        "http://api.example.net/users",
        "HTTPS://evil.example/https://api.example.net/users",
    ],
)
def test_a_known_origin_does_not_vouch_for_what_only_looks_like_it(remote, wire, url: str) -> None:
    """Once the service was asked, addresses are not taken apart any more; these are none of its."""
    remote.get(URL, json={})
    known = wire(Api())
    known.get(URL)
    with pytest.raises(PermanentError, match=r"^(refused to send the cred|the request cannot be sent)"):
        known.get(url)
    with pytest.raises(PermanentError, match=r"^refused to send the credentials of 'contoso' to "):
        known.bulk("GET", url)
    assert len(remote.calls) == 1


@pytest.mark.parametrize(
    "behind",
    ["\\@evil.example/users", "?@evil.example/users", "#@evil.example/users", "/@evil.example/users"],
)
def test_what_stands_behind_an_origin_does_not_change_it(remote, wire, behind: str) -> None:
    """The credentials go to the service, whatever else its address names."""
    remote.get(URL, json={})
    known = wire(Api())
    known.get(URL)
    with contextlib.suppress(RetryableError):  # nothing answers there
        known.get(f"{API}{behind}")
    assert {urlsplit(call.request.url).hostname for call in remote.calls} == {"api.example.net"}


def test_a_redirect_is_not_followed(remote, wire) -> None:
    """Not even within the service: its answer is an error that a person sees."""
    remote.get(URL, status=302, headers={"Location": f"{API}/elsewhere"})
    with pytest.raises(PermanentError, match=r"^Example answered 302$"):
        wire(Api()).get(URL, allow_redirects=True)
    assert len(remote.calls) == 1


def test_a_wire_without_a_connection_carries_no_credentials(
    remote, wire, tmp_path: Path, monkeypatch
) -> None:
    """Nor those that lie in the home directory for other programs."""
    (tmp_path / "netrc").write_text("machine api.example.net login ada password hunter2hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    remote.get(URL)
    wire().get(URL)
    assert "Authorization" not in remote.calls[0].request.headers


def test_cookies_are_not_kept(remote, wire) -> None:
    """A service cannot tie one request to another."""
    remote.get(URL, headers={"Set-Cookie": "session=1; Path=/"})
    http = wire(Api())
    for _ in range(2):
        http.get(URL)
    assert "Cookie" not in remote.calls[1].request.headers


def test_all_attempts_of_a_request_carry_one_id(remote, wire) -> None:
    """Both sides can find it in their logs, and see who asked."""
    remote.get(URL, status=500)
    remote.get(URL)
    http = wire(Api())
    http.get(URL)
    http.get(URL)
    first, second, third = (call.request.headers["client-request-id"] for call in remote.calls)
    assert first == second != third
    assert remote.calls[0].request.headers["User-Agent"].startswith("counterplay/")


# What an answer means


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RejectedError),
        (403, BlockedError),
        (404, GoneError),
        (409, PermanentError),
        (413, RejectedError),
    ],
)
def test_a_final_refusal_is_not_asked_for_again(remote, wire, status: int, error: type[WorkError]) -> None:
    """The type says what happens next."""
    remote.get(URL, status=status)
    with pytest.raises(error, match=f"^Example answered {status}$") as caught:
        wire(Api()).get(URL)
    assert type(caught.value) is error
    assert caught.value.status == status
    assert len(remote.calls) == 1


def test_a_passing_fault_is_asked_for_again(remote, wire) -> None:
    """The caller never learns of it."""
    remote.get(URL, status=500)
    remote.get(URL, status=408)
    remote.get(URL, json={"ok": True})
    assert wire(Api()).get(URL).json() == {"ok": True}


def test_a_fault_that_stays_is_given_up(remote, wire) -> None:
    """After so many attempts, the piece of work is for later."""
    remote.get(URL, status=502, body="<html><h1>Bad Gateway</h1></html>", content_type="text/html")
    with pytest.raises(RetryableError, match=r"^Example answered 502$"):
        wire(Api()).get(URL)
    assert len(remote.calls) == 3


def test_html_where_a_page_of_json_should_be_is_no_success_for_its_reader(remote, wire) -> None:
    """An answer of 200 is handed on; what it holds is the reader's to judge."""
    remote.get(URL, body="<html>sign in</html>", content_type="text/html")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        wire(Api()).get(URL).json()


def test_a_connection_knows_better_than_the_status(remote, wire) -> None:
    """Its verdict gives code, text and request id, which the error carries."""
    remote.get(URL, status=418, headers={"request-id": "9f3c"})
    with pytest.raises(
        GoneError, match=r"^Example answered 418 Teapot: short and stout \(request-id 9f3c\)$"
    ) as caught:
        wire(Api()).get(URL)
    error = caught.value
    assert (error.status, error.code, error.request_id) == (418, "Teapot", "9f3c")


def test_a_module_knows_better_than_the_connection(remote, wire) -> None:
    """For one request, as far as it says anything."""
    remote.get(URL, status=418)
    http = wire(Api())
    assert http.request("GET", URL, classify=lambda _: Verdict("ok")).status_code == 418
    with pytest.raises(GoneError, match="Teapot"):
        http.request("GET", URL, classify=lambda _: None)


# Refused credentials


def test_refused_credentials_are_renewed_once(remote, wire) -> None:
    """A token may have been revoked before its time."""
    seen: list[str] = []

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        seen.append(request.headers["Authorization"])
        return 401 if len(seen) == 1 else 200, {}, "{}"

    remote.add_callback("GET", URL, answer)
    assert wire(Api()).get(URL).status_code == 200
    assert seen == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize(("renewable", "calls"), [(True, 2), (False, 1)])
def test_credentials_that_stay_refused_block(remote, wire, renewable: bool, calls: int) -> None:
    """A person has to act; fresh credentials are tried once, when there are any."""
    remote.get(URL, status=401)
    with pytest.raises(BlockedError, match=r"^Example answered 401$"):
        wire(Api(renewable=renewable)).get(URL)
    assert len(remote.calls) == calls


# Rate limits


def test_a_rate_limit_is_waited_out_and_is_no_failure(remote, wire) -> None:
    """However often: attempts are for faults."""
    for _ in range(9):
        remote.get(URL, status=429, headers={"Retry-After": "0"})
    remote.get(URL, json={})
    assert wire(Api(), attempts=2).get(URL).status_code == 200


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_a_service_asks_for_is_respected(remote, wire, status: int, as_date: bool) -> None:
    """Given in seconds or as a date; a deadline that comes first ends the work at once."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    value = date if as_date else "60"
    remote.get(URL, status=status, headers={"Retry-After": value})
    with pytest.raises(RetryableError, match="the deadline passes before the next try") as caught:
        wire(Api(), timeout=20).get(URL)
    assert 30 < (caught.value.retry_after or 0) <= 1800
    assert len(remote.calls) == 1


def test_a_rate_limit_holds_for_all_who_use_the_service(remote, wire) -> None:
    """Nobody asks it meanwhile; another service is not concerned."""
    remote.get(URL, status=429, headers={"Retry-After": "60"})
    remote.get("https://other.example/", json={})
    budgets = Budgets()
    for _ in range(2):
        with pytest.raises(RetryableError, match="the rate limit asks"):
            wire(Api(), budgets=budgets, timeout=20).get(URL)
    wire(Api("https://other.example"), budgets=budgets, timeout=20).get("https://other.example/")
    assert len(remote.calls) == 2


# Requests that must not be repeated


@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_a_post_that_may_have_taken_effect_is_not_repeated(remote, wire, status: int) -> None:
    """Nobody knows how far it came."""
    remote.post(URL, status=status, headers={"Retry-After": "0"})
    with pytest.raises(
        UnknownOutcomeError, match=f"^Example answered {status}, so the request may or may not have"
    ) as caught:
        wire(Api()).post(URL, json={})
    assert caught.value.status == status
    assert len(remote.calls) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_post_that_was_turned_away_is_repeated(remote, wire, status: int) -> None:
    """These two say that the service did not begin."""
    remote.post(URL, status=status, headers={"Retry-After": "0"})
    remote.post(URL, status=201)
    assert wire(Api()).post(URL).status_code == 201


def test_a_post_may_be_declared_repeatable(remote, wire) -> None:
    """The module knows that twice is harmless."""
    remote.post(URL, status=500)
    remote.post(URL, body=requests.exceptions.ReadTimeout("too slow"))
    remote.post(URL, status=201)
    assert wire(Api()).request("POST", URL, repeatable=True).status_code == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_writes_are_repeated_unless_declared_otherwise(remote, wire, method: str) -> None:
    """They set a state, and setting it twice is setting it once."""
    remote.add(method, URL, status=500)
    remote.add(method, URL, status=204)
    assert wire(Api()).request(method, URL).status_code == 204
    remote.replace(method, URL, status=500)
    with pytest.raises(UnknownOutcomeError):
        wire(Api()).request(method, URL, repeatable=False)


@pytest.mark.parametrize("failure", [500, requests.exceptions.ReadTimeout("Read timed out")])
def test_a_write_that_is_given_up_may_have_taken_effect(remote, wire, failure: Any) -> None:
    """All attempts failed for us; one may have reached its aim."""
    answer = {"body": failure} if isinstance(failure, Exception) else {"status": failure}
    remote.patch(URL, **answer)
    with pytest.raises(UnknownOutcomeError, match=r", so the request may or may not have taken effect$"):
        wire(Api()).patch(URL, json={})
    assert len(remote.calls) == 3
    with pytest.raises(RetryableError):
        wire(Api()).request("PATCH", URL, repeatable=True)


def test_a_refusal_after_a_lost_answer_is_no_proof_that_nothing_happened(remote, wire) -> None:
    """The object may be gone because the first attempt deleted it."""
    remote.delete(URL, body=requests.exceptions.ReadTimeout("Read timed out"))
    remote.delete(URL, status=404)
    with pytest.raises(
        UnknownOutcomeError,
        match=r"^Example answered 404; before that, no answer from https://api\.example\.net: "
        r"Read timed out, so the request may have taken effect$",
    ) as caught:
        wire(Api()).delete(URL)
    assert caught.value.status == 404


def test_a_deadline_after_a_lost_answer_leaves_the_outcome_unknown(remote, wire) -> None:
    """There was no time left to find out."""
    remote.put(URL, status=500, headers={"Retry-After": "60"})
    with pytest.raises(UnknownOutcomeError, match=r"the next try; before that, Example answered 500"):
        wire(Api(), timeout=20).put(URL)


def test_a_write_that_was_turned_away_each_time_did_not_happen(remote, wire) -> None:
    """A service that is overloaded did not begin, so there is nothing to find out."""
    remote.patch(URL, status=503)
    with pytest.raises(RetryableError, match=r"^Example answered 503$"):
        wire(Api()).patch(URL)
    assert len(remote.calls) == 3


def test_every_attempt_to_write_is_announced(remote, wire) -> None:
    """Its owner sees the request with body and address each time before it is sent; reads pass."""
    seen: list[tuple[str, str, Any, int]] = []
    remote.get(URL, json={})
    remote.put(URL, status=500)
    remote.put(URL, status=204)

    def note(request: requests.PreparedRequest) -> None:
        seen.append((request.method or "", request.url or "", request.body, len(remote.calls)))

    http = wire(Api(), before_write=note)
    http.get(URL)
    http.put(URL, json={"a": 1})
    assert seen == [("PUT", URL, b'{"a": 1}', 1), ("PUT", URL, b'{"a": 1}', 2)]


def test_whoever_is_told_of_a_write_may_forbid_it(remote, wire) -> None:
    """What it raises reaches the caller, and nothing is sent."""

    def forbid(_: requests.PreparedRequest) -> None:
        raise BlockedError("read-only mode")

    with pytest.raises(BlockedError, match=r"^read-only mode$"):
        wire(Api(), before_write=forbid).post(URL)
    assert len(remote.calls) == 0


# Deadline and stop


def test_nothing_is_sent_after_the_deadline(remote, wire) -> None:
    """An effect that nobody waits for any more must not happen."""
    http = wire(Api(), timeout=0.0)
    with pytest.raises(RetryableError, match=r"^the deadline has passed$"):
        http.post(URL)
    assert len(remote.calls) == 0


def test_a_stop_before_a_request_sends_nothing(remote, wire) -> None:
    """The piece of work is as it was."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedWork):
        wire(Api(), stop=stop).post(URL)
    assert len(remote.calls) == 0


def test_a_first_failure_is_tried_again_soon_and_the_next_ones_later(remote, wire) -> None:
    """Most faults are over at once; a service that is down is left alone for longer and longer."""
    waited: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return False

    for _ in range(4):
        remote.get(URL, status=503)
    remote.get(URL, json={})

    wire(Api(), attempts=5, backoff=1.0, stop=Clock()).get(URL)

    bounds = [(0.15, 0.3), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0)]
    assert all(low <= one <= high for one, (low, high) in zip(waited, bounds, strict=True))


@pytest.mark.parametrize("status", [429, 503])
def test_a_stop_ends_a_wait(remote, wire, status: int) -> None:
    """Ctrl-C does not wait for a service."""
    stop = threading.Event()
    timer = threading.Timer(0.005, stop.set)

    def busy(_: Any) -> tuple[int, dict[str, str], str]:
        timer.start()
        return status, {"Retry-After": "60"}, ""

    remote.add_callback("GET", URL, busy)
    began = time.monotonic()
    with pytest.raises(InterruptedWork):
        wire(Api(), stop=stop).get(URL)
    timer.join()
    assert time.monotonic() - began < 5


# Messages


def test_errors_are_masked(remote, wire) -> None:
    """A service that repeats the secret it was given does not put it into our messages."""

    class Chatty(Api):
        def classify(self, response: requests.Response) -> Verdict:
            return Verdict("blocked", text=response.text)

    def mask(text: str) -> str:
        return text.replace("very-secret", "***")

    remote.get(URL, status=403, body="no access with very-secret")
    with pytest.raises(BlockedError, match=r"^Example answered 403: no access with \*\*\*$"):
        wire(Chatty(), mask=mask).get(URL)
    with pytest.raises(PermanentError, match=r"to https://\*\*\*\.example;"):
        wire(Api(), mask=mask).get("https://very-secret.example/")
    with pytest.raises(PermanentError, match=r"the request cannot be sent: .*\*\*\*"):
        wire(Api(), mask=mask).get("very-secret/users")
    remote.get(URL, body=requests.exceptions.ConnectionError("cannot reach very-secret"))
    with pytest.raises(
        RetryableError, match=r"^no answer from https://api\.example\.net: cannot reach \*\*\*$"
    ):
        wire(Api(), mask=mask).get(URL)


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("", {}),
        ("users", {}),
        ("https://", {}),
        ("https://[::1", {}),
        (f"https://{'a' * 64}..net/", {}),
        (URL, {"X-Note": "two\nlines"}),
        (URL, {"X-Note:": "x"}),
        ("file:///etc/passwd", {}),
    ],
)
def test_a_request_that_cannot_be_sent_is_one_clear_error(wire, url: str, headers: dict[str, str]) -> None:
    """Arguments come from events too: no error of a library reaches the caller."""
    with pytest.raises(PermanentError):
        wire().get(url, headers=headers)


# Broken connections, on a real socket


class Server:
    """Speaks from a script on loopback: one entry for each connection, then the connection ends.

    An entry is the bytes of an answer (b"" hangs up at once), "reset" or "silence".
    """

    def __init__(self, *script: bytes | str, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._script = script
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(5)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.port = self._socket.getsockname()[1]
        self.origin = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes up `accept`, which `close` does not
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        for entry in self._script:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self._answer(connection, entry)

    def _answer(self, connection: socket.socket, entry: bytes | str) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self.requests.append(connection.recv(65_536))
                if entry == "silence":
                    self._end.wait(5)
                elif entry == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                elif isinstance(entry, bytes):
                    connection.sendall(entry)
        except OSError:
            return  # the client went away first, which is what some tests are about


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
CUT_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
CUT_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"
NO_HTTP = b"220 mail.example.net ESMTP\r\n"
BAD_GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("behind", "named"),
    [
        ("", b"/"),
        ("/", b"/"),
        ("/a/b$c?x=1&y=%2F", b"/a/b$c?x=1&y=%2F"),
        ("/a//b/https://other.example/", b"/a//b/https://other.example/"),
        ("?x=1", b"/?x=1"),
        ("?next=/a/b&c=1", b"/?next=/a/b&c=1"),
        ("#a/b", b"/"),
        ("/a?x=1#part", b"/a?x=1"),
        ("#part", b"/"),
    ],
)
def test_a_bulk_request_names_its_address_as_it_is_given(wire, behind: str, named: bytes) -> None:
    """But for the fragment, which is nobody's business; a path is always there."""
    with Server(OK, OK) as server:
        http = wire(Api(server.origin))
        for _ in range(2):
            assert http.bulk("GET", f"{server.origin}{behind}").body == b"{}"
        assert [one.split(b" ")[1] for one in server.requests] == [named, named]


@pytest.mark.parametrize("entry", [b"", "reset", CUT_BODY, CUT_CHUNK, NO_HTTP, BAD_GZIP])
def test_a_connection_that_breaks_is_tried_again(wire, entry: bytes | str) -> None:
    """For a read, wherever in the answer it breaks."""
    with Server(entry, OK) as server:
        assert wire(Api(server.origin)).get(f"{server.origin}/").json() == {}
    assert len(server.requests) == 2


@pytest.mark.parametrize("entry", [b"", "reset", CUT_BODY, CUT_CHUNK, NO_HTTP, BAD_GZIP])
def test_a_write_whose_connection_breaks_has_an_unknown_outcome(wire, entry: bytes | str) -> None:
    """The service may have done it before the line went dead."""
    with (
        Server(entry, OK) as server,
        pytest.raises(
            UnknownOutcomeError, match=rf"^no answer from {server.origin}: .*, so the request may"
        ) as caught,
    ):
        wire(Api(server.origin)).post(f"{server.origin}/", data=b"{}")
    assert "0x" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_connection_that_keeps_breaking_is_given_up(wire) -> None:
    """The message names the service's address and the reason."""
    with (
        Server(b"", b"", b"") as server,
        pytest.raises(RetryableError, match=rf"^no answer from {server.origin}: Remote end closed"),
    ):
        wire(Api(server.origin)).get(f"{server.origin}/")
    assert len(server.requests) == 3


def test_a_write_that_nobody_listened_to_is_tried_again(wire) -> None:
    """A refused connection carried nothing, so the outcome is known: none."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        origin = f"http://127.0.0.1:{unused.getsockname()[1]}"
    announced: list[object] = []
    with pytest.raises(RetryableError, match=rf"^no answer from {origin}: .*Connection refused"):
        wire(Api(origin), before_write=announced.append).post(f"{origin}/")
    assert len(announced) == 3


def test_a_silent_service_does_not_outlast_the_deadline(wire) -> None:
    """The deadline is for the whole request, and cuts the wait for an answer."""
    with Server("silence", "silence") as server:
        began = time.monotonic()
        with pytest.raises(RetryableError):
            wire(Api(server.origin), timeout=0.05).get(f"{server.origin}/")
        assert time.monotonic() - began < 2


def test_a_silent_service_leaves_a_write_unknown(wire) -> None:
    """It took the request, and may still be at it."""
    with Server("silence") as server, pytest.raises(UnknownOutcomeError, match="Read timed out"):
        wire(Api(server.origin)).post(f"{server.origin}/", timeout=0.02)


def test_a_header_that_cannot_be_encoded_is_one_clear_error(wire) -> None:
    """HTTP knows Latin-1 only."""
    with Server() as server, pytest.raises(PermanentError, match="letters outside Latin-1"):
        wire(Api(server.origin)).post(f"{server.origin}/", headers={"X-Note": "10 €"})


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, ssl.SSLContext]]:
    """Makes a certificate authority: its bundle, and a server's context for 127.0.0.1."""

    def make(name: str) -> tuple[str, ssl.SSLContext]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        folder = tmp_path_factory.mktemp(name)
        bundle, private = folder / "ca.pem", folder / "key.pem"
        bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(bundle, private)
        return str(bundle), context

    return make


def test_the_connections_own_authorities_win_over_the_environment(wire, authority, monkeypatch) -> None:
    """REQUESTS_CA_BUNDLE is meant for services that say nothing themselves."""
    own, context = authority("own")
    other, _ = authority("other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", other)
    with Server(OK, tls=context) as server:
        assert wire(Api(server.origin, ca=own)).get(f"{server.origin}/").json() == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_service_that_cannot_prove_who_it_is_blocks(wire, authority, method: str) -> None:
    """No credentials reach it, and a person learns what to look at."""
    _, context = authority("real")
    other, _ = authority("fake")
    with (
        Server(OK, tls=context) as server,
        pytest.raises(
            BlockedError, match=r"certificate verify failed.*; check the host name and .*`ca_file`"
        ),
    ):
        wire(Api(server.origin, ca=other)).request(method, f"{server.origin}/")
    assert server.requests == []


def test_tls_that_breaks_off_is_a_broken_connection(wire, authority) -> None:
    """Not a question of certificates: a read is tried again, a write has an unknown outcome."""
    bundle, context = authority("breaks")
    with Server("reset", OK, tls=context) as server:
        assert wire(Api(server.origin, ca=bundle)).get(f"{server.origin}/").json() == {}
    with Server(b"", tls=context) as server, pytest.raises(UnknownOutcomeError):
        wire(Api(server.origin, ca=bundle)).post(f"{server.origin}/")


def test_an_end_of_tls_in_the_middle_is_a_broken_connection(remote, wire) -> None:
    """The error that OpenSSL gives when the other side leaves without a word."""
    broken = requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    remote.get(URL, body=broken)
    remote.get(URL, json={})
    assert wire(Api()).get(URL).json() == {}
    remote.post(URL, body=broken)
    with pytest.raises(UnknownOutcomeError, match="EOF occurred in violation of protocol"):
        wire(Api()).post(URL)


class Limited(Api):
    """One request a minute for whatever is below `/slow`; one at a time below `/narrow`."""

    def limits(self, request: requests.PreparedRequest) -> tuple[Limit, ...]:
        if "/slow" in str(request.url):
            return (Limit("slow of contoso", 1, 60),)
        return (Limit("narrow of contoso", at_once=1),) if "/narrow" in str(request.url) else ()


def test_a_documented_limit_is_waited_for_and_not_met(
    remote: responses.RequestsMock, wire: Callable[..., Wire]
) -> None:
    """The second request does not leave within the minute; what counts against nothing does."""
    remote.get(f"{API}/slow", json={})
    remote.get(f"{API}/fast", json={})
    http = wire(Limited(), timeout=20)
    http.request("GET", f"{API}/slow")

    with pytest.raises(RetryableError, match="a limit of the service asks for a pause"):
        http.request("GET", f"{API}/slow")

    http.request("GET", f"{API}/fast")
    assert [call.request.path_url for call in remote.calls] == ["/slow", "/fast"]


def test_a_refusal_slows_down_what_counts_against_the_same_limit(
    remote: responses.RequestsMock, wire: Callable[..., Wire]
) -> None:
    """Other requests to the service go on."""
    remote.get(f"{API}/slow", status=429, headers={"Retry-After": "30"})
    remote.get(f"{API}/fast", json={})
    http = wire(Limited(), timeout=20)

    with pytest.raises(RetryableError, match="a limit of the service asks for a pause"):
        http.request("GET", f"{API}/slow")

    assert http.request("GET", f"{API}/fast").status_code == 200


def test_a_request_waits_for_a_slot(remote: responses.RequestsMock, wire: Callable[..., Wire]) -> None:
    """While as many are under way as the service works on at once, and goes as soon as one is done."""
    remote.get(f"{API}/narrow", json={})
    budgets = Budgets()
    assert budgets.slots.enter("narrow of contoso", 1, 0.0)

    with pytest.raises(RetryableError, match="deadline"):
        wire(Limited(), budgets=budgets, timeout=0.05).request("GET", f"{API}/narrow")

    budgets.slots.leave("narrow of contoso")
    assert wire(Limited(), budgets=budgets).request("GET", f"{API}/narrow").status_code == 200
    assert budgets.slots.enter("narrow of contoso", 1, 0.0)
