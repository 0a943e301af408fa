"""A wire that writes down what passes, and fails where a rule wants it to."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import requests

from counterplay.modules import Connection
from counterplay.runtime.opening import Opener
from counterplay.runtime.planning_wire import PlanningWire
from counterplay.wire import Wire

FaultKind = Literal["reset", "answer", "kill before", "kill after"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the `at`th request (1 is the first), or to it and all after it when `lasting`.

    `reset` breaks the connection before an answer, and nothing is sent; `answer` gives `status` and `body`
    in the service's place; the two kills end the process by SIGKILL before or after the service got a
    write: reads are not counted then.
    """

    kind: FaultKind
    at: int = 1
    lasting: bool = False
    status: int = 503
    body: bytes = b""
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that left, or would have: `write` unless its module says that it only reads."""

    method: str
    url: str
    body: object
    write: bool


@dataclass
class Watch:
    """What one bench's wires saw. `log` is a file that outlives a killed process: a line for each write."""

    seen: list[Seen] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    fault: Fault | None = None
    log: Path | None = None
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def writes(self) -> list[tuple[str, str]]:
        """(method, URL) of every write so far."""
        return [(one.method, one.url) for one in self.seen if one.write]

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Inside the block, requests are counted from 1 and the fault is in force."""
        self.fault, self._count = fault, 0
        try:
            yield
        finally:
            self.fault = None

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Inside the block, network traffic that is not a wire's own goes to `strays`."""
        with _armed(self):
            yield

    def due(self, write: bool) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            fault = self.fault
            if fault is None or (fault.kind.startswith("kill") and not write):
                return None
            self._count += 1
            met = self._count == fault.at or (fault.lasting and self._count > fault.at)
            return fault if met else None

    def note(self, request: requests.PreparedRequest, write: bool) -> None:
        """Write the request down."""
        with self._lock:
            self.seen.append(Seen(str(request.method), str(request.url), request.body, write))
            if write and self.log is not None:
                with self.log.open("a") as file:
                    body = hashlib.sha256(_bytes(request.body)).hexdigest()[:12]
                    file.write(f"{request.method} {request.url} (body {body})\n")


class WatchedWire(Wire):
    """A wire whose requests are watched. It tries each once, so that a fault is not hidden."""

    def __init__(self, *arguments: Any, watch: Watch, **options: Any) -> None:
        super().__init__(*arguments, attempts=1, backoff=0.0, **options)
        self.watch = watch

    def _settled(self, *arguments: Any, **options: Any) -> requests.Response:
        with _inside_a_wire():
            return super()._settled(*arguments, **options)

    def _send_once(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        return self._watched(
            request, write, lambda: super(WatchedWire, self)._send_once(request, timeout, write)
        )

    def _send_bulk(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        return self._watched(
            request, write, lambda: super(WatchedWire, self)._send_bulk(request, timeout, write)
        )

    def _watched(self, request: requests.PreparedRequest, write: bool, send: Any) -> requests.Response:
        fault = self.watch.due(write)
        if fault is not None and fault.kind == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        self.watch.note(request, write)
        if fault is None:
            response: requests.Response = send()
            return response
        if fault.kind == "reset":
            raise requests.exceptions.ConnectionError("the kit broke the connection")
        if fault.kind == "answer":
            return _answer(request, fault)
        send()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")


class WatchedPlanningWire(PlanningWire, WatchedWire):
    """The wire of a plan, watched: it sends reads only."""


class WatchedOpener(Opener):
    """Opens connections as ever, and hands out watched wires."""

    def __init__(self, workspace: Any, watch: Watch, stop: threading.Event | None = None) -> None:
        super().__init__(workspace, stop)
        self._watch = watch

    def wire(self, connection: Connection | None, timeout: float | None = None) -> Wire:
        return WatchedWire(
            connection,
            stop=self._stop,
            budgets=self.budgets,
            mask=self.secrets.mask,
            timeout=timeout,
            watch=self._watch,
        )

    def planning_wire(self, connection: Connection | None, *, writes: bool) -> PlanningWire:
        return WatchedPlanningWire(
            connection,
            stop=self._stop,
            budgets=self.budgets,
            mask=self.secrets.mask,
            writes=writes,
            watch=self._watch,
        )


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def _answer(request: requests.PreparedRequest, fault: Fault) -> requests.Response:
    response = requests.Response()
    response.status_code = fault.status
    response.url = request.url or ""
    response.request = request
    response.headers["Content-Type"] = fault.content_type
    response._content = fault.body
    response._content_consumed = True  # type: ignore[attr-defined]  # as `requests` sets it after a read
    return response


# --- traffic beside the wire -----------------------------------------------------------------------

_here = threading.local()
_watching: tuple[Watch, int, frozenset[int]] | None = None
_hooked = False


@contextmanager
def _inside_a_wire() -> Iterator[None]:
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1


@contextmanager
def _armed(watch: Watch) -> Iterator[None]:
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_audit)  # cannot be taken off again; it looks at `_watching` first
        _hooked = True
    others = frozenset(thread.ident or 0 for thread in threading.enumerate()) - {threading.get_ident()}
    _watching = (watch, threading.get_ident(), others)
    try:
        yield
    finally:
        _watching = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a connection of the caller, or of a thread that it started: not the bench's own service."""
    if _watching is None or event not in ("socket.connect", "socket.getaddrinfo"):
        return
    watch, _, others = _watching
    if getattr(_here, "depth", 0) or threading.get_ident() in others:
        return
    if "process_request_thread" in threading.current_thread().name:
        return
    where = arguments[1] if event == "socket.connect" else arguments[:2]
    if not isinstance(where, (str, bytes)):  # a Unix socket is no network
        watch.strays.append(f"{event} {where}")
