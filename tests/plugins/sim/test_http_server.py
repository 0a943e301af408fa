"""Bad bytes on the wire: an answer or a closed connection, never a hang or a traceback."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import pytest

from counterplay_sim.clock import Clock
from counterplay_sim.faults import FaultPlan
from counterplay_sim.http_server import Answer, Listener, Request


def _talk(simulator: Any, *pieces: bytes) -> bytes:
    """Send bytes to the intake and read until it ends the conversation."""
    context = ssl.create_default_context(cafile=simulator.ca_file)
    port = int(simulator.url("intake").rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        for piece in pieces:
            secure.sendall(piece)
        received = b""
        while chunk := secure.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"GET here HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /batch HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST /batch HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /batch HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /batch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, 431),
        (b"GET /nothing HTTP/1.0\r\n\r\n", 404),
    ],
)
def test_malformed_requests_are_answered_and_closed(simulator: Any, sent: bytes, status: int) -> None:
    """The answer names the status, in the service's own JSON."""
    received = _talk(simulator, sent)

    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert b'{"error":' in received


def test_requests_on_one_connection_are_answered_in_turn(simulator: Any) -> None:
    """Keep-alive, pipelining, pieces, chunks and 100-continue."""
    key = simulator.tenant.intake_key.encode()
    head = b"POST /plain HTTP/1.1\r\nHost: x\r\nX-SEKOIAIO-INTAKE-KEY: " + key + b"\r\n"
    received = _talk(
        simulator,
        head + b"Content-Length: 2\r\n\r\n{}" + head + b"Expect: 100-continue\r\nContent-",
        b"Length: 2\r\n\r\n{}",
        head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
    )

    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(b"HTTP/1.1 100 Continue") == 1
    assert received.count(b"Connection: close") == 1
    assert simulator.oracle().verdict().others == 3


def test_a_client_that_leaves_does_no_harm(simulator: Any, client: Any, caplog: Any) -> None:
    """Half a handshake, half a request, half a body: the next client is served, nothing is logged."""
    port = int(simulator.url("intake").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port)).close()
    context = ssl.create_default_context(cafile=simulator.ca_file)
    for sent in (b"POST /batch", b"POST /batch HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(sent)

    assert client.send("{}").status_code == 200
    assert caplog.records == []


class _Echo:
    """The smallest service."""

    name = "activity"

    def handle(self, request: Request) -> Answer:
        return Answer(200, request.body)

    def failure(self, status: int, text: str) -> Answer:
        return Answer(status, text.encode())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HT"],
        [b"GET", b" / ", b"HTTP", b"/1.1", b"\r\n", b"A: ", b"b"] + [b"c"] * 40,
        [b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n"] + [b"x"] * 40,
    ],
)
def test_a_slow_sender_is_not_waited_for(pieces: list[bytes]) -> None:
    """A request has so much time from its first byte, however steadily it drips; then 408."""
    listener = Listener(_Echo(), tls=None, faults=FaultPlan(), clock=Clock(), patience=0.1)
    listener.start()
    try:
        with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as slow:
            began = time.monotonic()
            try:
                for piece in pieces:
                    slow.sendall(piece)
                    time.sleep(0.005)
                received = slow.recv(65536)
            except ConnectionError:
                received = b"HTTP/1.1 408 "
            assert received.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - began < 3
    finally:
        listener.close()


def test_what_is_no_tls_is_dropped(simulator: Any, client: Any, caplog: Any) -> None:
    """Plain HTTP, noise, a half handshake: the connection ends, and the next client is served."""
    port = int(simulator.url("graph").rpartition(":")[2])
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\xff" + b"\x00" * 255, b"\xff" * 3000):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(sent)
            try:
                while plain.recv(65536):
                    pass
            except ConnectionError:
                pass

    assert client.graph("GET", "/organization").status_code == 200
    assert caplog.records == []


@pytest.mark.parametrize("service", ["login", "graph", "activity", "intake", "admin"])
@pytest.mark.parametrize("method", ["DELETE", "TRACE", "BREW", "PUT"])
def test_no_method_and_no_body_breaks_a_service(
    simulator: Any, client: Any, caplog: Any, service: str, method: str
) -> None:
    """Each answers in its own JSON, below 500, and nothing is logged."""
    for path in ("/", "/api/v1.0/%ff/activity/feed/%00", "/v1.0/users/..%2f..", "/" + "a/" * 2000):
        answer = client.session.request(method, simulator.url(service) + path, data=b'{"a":' * 500)
        assert 400 <= answer.status_code < 500
        assert isinstance(answer.json(), dict)
    assert caplog.records == []
