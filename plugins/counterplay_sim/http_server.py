"""A lean HTTP/1.1 server over TLS: one thread a connection, keep-alive, no more parsing than needed.

`http.server` spends more time on a request's headers than the audit feed spends on its answer, so
requests are split here by hand. A listener knows nothing of Microsoft: it hands each request to a
`Service` and meets faults on the way.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, unquote

from counterplay_sim.clock import NANOSECONDS, Clock
from counterplay_sim.faults import Fault, FaultPlan

if TYPE_CHECKING:
    from counterplay_sim.faults_record import FaultRecord

log = logging.getLogger("counterplay_sim")

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
IDLE_SECONDS = 75.0
REQUEST_SECONDS = 30.0  # from the first byte of a request to its last
_Wire = socket.socket | ssl.SSLSocket
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST


@dataclass(slots=True)
class Request:
    """One request. Header names are lower-case; `target` is the path and query as they were sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    scheme: str = "https"
    head: bytes | None = None
    raw_path: str = field(init=False)
    query_string: str = field(init=False)

    def __post_init__(self) -> None:
        self.raw_path, _, self.query_string = self.target.partition("?")

    @property
    def path(self) -> str:
        """The path, percent-decoded as a whole."""
        return unquote(self.raw_path) if "%" in self.raw_path else self.raw_path

    def query(self) -> dict[str, str]:
        """The query parameters as they were sent; the last one of a name counts."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))


@dataclass(slots=True)
class Answer:
    """One answer. `headers` come on top of Content-Length, Content-Type and Date."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class Service(Protocol):
    """What stands behind a listener."""

    name: str

    def handle(self, request: Request) -> Answer:
        """Answer a request. Whatever this raises becomes `failure(500, ...)`."""

    def failure(self, status: int, text: str) -> Answer:
        """The service's own way to say that a request could not be served at all."""

    # A service may also have these; a listener asks before it uses them:
    #   meet(request, fault) -> Answer       plays a fault by its kind, and keeps what it did
    #   target(request) -> str               what the record of faults calls the thing a request is about
    #   quick(head) -> tuple[bytes, bytes] | None   status line, headers and body for a plain GET


class BadRequestError(Exception):
    """The bytes on the wire are no request that this server takes."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Listener:
    """A port of 127.0.0.1 that one service answers on."""

    def __init__(
        self,
        service: Service,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None,
        faults: FaultPlan,
        clock: Clock,
        record: FaultRecord | None = None,
        patience: float = REQUEST_SECONDS,
    ) -> None:
        self.service = service
        self._record = record
        self._patience = patience
        self._scheme = "http" if tls is None else "https"
        self._quick: Callable[[bytes], tuple[bytes, bytes] | None] | None = getattr(service, "quick", None)
        self._meet: Callable[[Request, Fault], Answer] | None = getattr(service, "meet", None)
        self._target: Callable[[Request], str] = getattr(service, "target", lambda request: request.raw_path)
        self._tls = tls
        self._faults = faults
        self._clock = clock
        self._date = (0, b"")
        self._closing = False
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, _Wire] = {}
        self._socket = socket.create_server(("127.0.0.1", port), backlog=512)
        self._wake, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"sim-{service.name}", daemon=True)

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`"""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @cached_property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor.start()

    def close(self) -> None:
        """Stop taking connections, let what is being answered end, and join every thread."""
        self._closing = True
        self._wake.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        self._socket.close()
        self._woken.close()
        with self._lock:
            still_open = list(self._open.items())
        for _, connection in still_open:
            _end_of_input(connection)
        for thread, _ in still_open:
            thread.join(timeout=5)

    def _accept(self) -> None:
        while not self._closing:
            ready, _, _ = select.select([self._socket, self._woken], [], [])
            if self._woken in ready:
                return
            try:
                plain, _ = self._socket.accept()
            except OSError:  # the peer was gone before it was taken, or no descriptor is left
                time.sleep(0.01)
                continue
            plain.settimeout(IDLE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection: _Wire = plain
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open[thread] = connection
            thread.start()

    def _serve(self, connection: _Wire) -> None:
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.settimeout(self._patience)
                connection.do_handshake()
            self._converse(connection)
        except OSError:  # ssl.SSLError and TimeoutError too: the client went away or fell silent
            pass
        finally:
            connection.close()
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def _converse(self, connection: _Wire) -> None:
        reader = _Reader(connection, self._patience)
        while not self._closing:
            try:
                head = reader.head()
                if head is None:
                    return
                if self._quick is not None and self._undisturbed and head.startswith(b"GET "):
                    found = self._quick(head)
                    if found is not None:
                        connection.sendall(b"".join((found[0], self._date_line(), found[1])))
                        continue
                request = reader.request(head)
            except BadRequestError as error:
                answer = self.service.failure(error.status, str(error))
                connection.sendall(self._head(answer, keep=False) + answer.body)
                _linger(connection)
                return
            request.scheme = self._scheme
            keep = request.headers.get("connection", "").lower() != "close" and not self._closing
            fault = self._faults.pick(self.service.name, request.method, request.target)
            if fault is None:
                answer = self._answer(request)
                if self._record is not None and answer.status < 400:
                    self._record.served(self.service.name, self._target(request))
                body = b"" if request.method == "HEAD" else answer.body
                connection.sendall(self._head(answer, keep) + body)
            elif not self._answer_with_fault(connection, request, fault, keep):
                return
            if not keep:
                return

    @property
    def _undisturbed(self) -> bool:
        return self._faults.idle and (self._record is None or self._record.idle)

    def _answer(self, request: Request) -> Answer:
        try:
            return self.service.handle(request)
        except Exception:
            log.exception("the simulated %s service failed on %s", self.service.name, request.method)
            return self.service.failure(500, "An internal error occurred. Retry the request.")

    def _answer_with_fault(self, connection: _Wire, request: Request, fault: Fault, keep: bool) -> bool:
        """Answer as the fault says; whether the connection is still of use."""
        if fault.delay:
            time.sleep(fault.delay)
        refuses = bool(fault.status or fault.reset == "before")
        answer = self._spoiled(request, fault, refuses=refuses)
        if fault.reset:
            _abort(connection)
            return False
        connection.sendall(self._head(answer, keep, fault.skew))
        for piece in _pieces(answer.body, fault):
            connection.sendall(piece)
        if fault.truncate is not None and fault.truncate < len(answer.body):
            _abort(connection)
            return False
        return True

    def _spoiled(self, request: Request, fault: Fault, *, refuses: bool) -> Answer:
        """What a fault leaves of an answer, kept in the record."""
        try:
            if self._meet is not None and (fault.kind or refuses or fault.truncate is not None):
                return self._meet(request, fault)
        except Exception:
            log.exception("the simulated %s service failed on a fault", self.service.name)
            return self.service.failure(500, "An internal error occurred. Retry the request.")
        if self._record is not None:
            self._record.met(fault, self.service.name, self._target(request))
        if refuses:
            return Answer(fault.status or 500, fault.body.encode(), headers=fault.headers)
        return self._answer(request)

    def _head(self, answer: Answer, keep: bool, skew: float = 0.0) -> bytes:
        lines = [
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
        ]
        if answer.body:
            lines.append(f"Content-Type: {answer.content_type}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
        if not keep:
            lines.append("Connection: close\r\n")
        text = "".join(lines).encode("latin-1", "replace")
        if skew:
            second = self._clock.date_ns() // NANOSECONDS + int(skew)
            return text + f"Date: {formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return text + self._date_line()

    def _date_line(self) -> bytes:
        second = self._clock.date_ns() // NANOSECONDS
        made, line = self._date
        if made != second:
            line = f"Date: {formatdate(second, usegmt=True)}\r\n\r\n".encode()
            self._date = (second, line)
        return line


class _Reader:
    """Takes requests out of a connection, one after the other; a slow one has only so much time."""

    def __init__(self, connection: _Wire, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._buffer = bytearray()
        self._until = 0.0

    def head(self) -> bytes | None:
        """The next request up to its empty line, or None when the client has ended the conversation."""
        buffer = self._buffer
        self._until = time.monotonic() + self._patience if buffer else 0.0
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise BadRequestError(431, "The request's headers are too large.")
            if not self._fill():
                return None
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        return head

    def request(self, head: bytes) -> Request:
        """The request of a head, with its body."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequestError(400, "The request line is malformed.")
        target = words[1]
        if target.startswith(("https://", "http://")):  # the absolute form, which every server has to take
            target = "/" + target.partition("://")[2].partition("/")[2]
        if not target.startswith("/"):
            raise BadRequestError(400, "The request's target is malformed.")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequestError(400, "A header line is malformed.")
            headers[name.strip().lower()] = value.strip()
        if words[2] == "HTTP/1.0":
            headers["connection"] = "close"
        return Request(words[0], target, headers, self._body(headers, words[0]), head=head)

    def _body(self, headers: dict[str, str], method: str) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        length = headers.get("content-length")
        if length is None:
            if method in ("POST", "PUT", "PATCH"):
                raise BadRequestError(411, "A Content-Length is required.")
            return b""
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise BadRequestError(400, "The Content-Length is not a number.")
        return self._take(_within_limit(int(length)))

    def _chunks(self) -> Iterator[bytes]:
        buffer, total = self._buffer, 0
        while True:
            while (end := buffer.find(b"\r\n")) < 0:
                if len(buffer) > MAX_HEAD or not self._fill():
                    raise BadRequestError(400, "A chunk is malformed.")
            try:
                size = int(bytes(buffer[:end]).partition(b";")[0], 16)
            except ValueError:
                raise BadRequestError(400, "A chunk's size is malformed.") from None
            if size < 0:
                raise BadRequestError(400, "A chunk's size is malformed.")
            del buffer[: end + 2]
            total = _within_limit(total + size)
            yield self._take(size + 2)[:-2]
            if size == 0:
                return

    def _take(self, size: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < size:
            if not self._fill():
                raise ConnectionResetError("the client left in the middle of a body")
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    def _fill(self) -> bool:
        """Read on. BadRequestError: the request that has begun takes too long."""
        wait = IDLE_SECONDS
        if self._buffer or self._until:
            self._until = self._until or time.monotonic() + self._patience
            wait = self._until - time.monotonic()
            if wait <= 0:
                raise BadRequestError(408, "The request took too long.")
        self._connection.settimeout(wait)
        try:
            received = self._connection.recv(256 * 1024)
        except TimeoutError:
            if self._until:
                raise BadRequestError(408, "The request took too long.") from None
            raise
        finally:
            self._connection.settimeout(IDLE_SECONDS)
        self._buffer += received
        return bool(received)


def _within_limit(size: int) -> int:
    if size > MAX_BODY:
        raise BadRequestError(413, "The request's body is too large.")
    return size


def _pieces(body: bytes, fault: Fault) -> Iterator[bytes]:
    if fault.truncate is not None:
        body = body[: fault.truncate]
    if not fault.drip:
        yield body
        return
    for start in range(0, len(body), 1024):
        yield body[start : start + 1024]
        time.sleep(fault.drip)


def _linger(connection: _Wire) -> None:
    """Take what a refused client is still sending, for a moment: closing now would reset its answer."""
    until = time.monotonic() + 1.0
    try:
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while (wait := until - time.monotonic()) > 0:
            connection.settimeout(wait)
            if not socket.socket.recv(connection, 256 * 1024):
                return
    except OSError:
        pass


def _abort(connection: _Wire) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _end_of_input(connection: socket.socket) -> None:
    try:
        # Not SSLSocket.shutdown, which would cut off the answer that is being written.
        socket.socket.shutdown(connection, socket.SHUT_RD)
    except OSError:  # it is closed already
        pass
