"""Bad bytes on the wire: an answer or a closed connection, never a hang or a traceback."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest


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
