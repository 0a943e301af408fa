"""The HTTP listener of push triggers: a request is answered only after its events are stored."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from counterplay.errors import ConfigError, CounterplayError
from counterplay.events import PushAnswer, PushRequest
from counterplay.runtime.feeds import Feed

MAX_BODY = 8_000_000
_TIMEOUT = 30

log = logging.getLogger("counterplay.listener")


def push_path(feed: Feed) -> str:
    """Where a feed's sender posts to: `/push/<trigger>/<connection>`."""
    return f"/push/{feed.key.trigger}/{feed.key.connection or '-'}"


Page = Callable[[PushRequest], PushAnswer]


class Listener:
    """Serves push feeds, and pages of its owner's. Plain HTTP on loopback: put a TLS proxy in front of it.

    `pages` answer by (method, path). The feeds may be exchanged while it listens: without any, a sender
    is told to come back soon.
    """

    def __init__(
        self, address: str, feeds: Sequence[Feed] = (), pages: Mapping[tuple[str, str], Page] | None = None
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise ConfigError(f"{address!r} is not HOST:PORT", hint="write --listen 127.0.0.1:8787")
        self._feeds: dict[str, Feed] | None = None
        self._pages = dict(pages or {})
        try:
            self._server = _Server((host, int(port)), _handler(self))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address}: {error.strerror or error}", hint="choose another --listen"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="listener", daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self.urls = self.serve(feeds)

    def serve(self, feeds: Sequence[Feed]) -> list[str]:
        """Take requests for these feeds from now on; returns their addresses."""
        self._feeds = {push_path(feed): feed for feed in feeds}
        return [self.url + path for path in self._feeds]

    def rest(self) -> None:
        """No feeds for a moment: senders are told to come back."""
        self._feeds = None

    def answer(self, request: PushRequest) -> PushAnswer:
        """What a request gets."""
        page = self._pages.get((request.method, request.path))
        if page is not None:
            return page(request)
        if any(path == request.path for _, path in self._pages):
            return PushAnswer(status=405, body=b'{"error": "not with this method"}')
        feeds = self._feeds
        if feeds is None:
            return PushAnswer(status=503, body=b'{"error": "starting, send it again"}')
        feed = feeds.get(request.path)
        if feed is None:
            return PushAnswer(status=404, body=b'{"error": "no push trigger listens here"}')
        if request.method != "POST":
            return PushAnswer(status=405, body=b'{"error": "a push trigger takes POST"}')
        try:
            return feed.receive(request)
        except CounterplayError as error:
            log.error("%s: a request could not be stored: %s", feed.label, error)
            return PushAnswer(status=503, body=b'{"error": "not stored, send it again"}')
        except Exception as error:
            log.error("%s: the trigger failed: %s: %s", feed.label, type(error).__name__, error)
            return PushAnswer(status=500, body=b'{"error": "the trigger failed"}')

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection from %s ended early", client_address)


def _handler(listener: Listener) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _TIMEOUT

        def do_GET(self) -> None:
            self._answer(self._taken("GET"))

        def do_POST(self) -> None:
            self._answer(self._taken("POST"))

        def _taken(self, method: str) -> PushAnswer:
            url = urlsplit(self.path)
            length = self.headers.get("Content-Length", "" if method == "POST" else "0")
            if not (length.isascii() and length.isdigit()):  # `²` is a digit, and no number
                self.close_connection = True
                return PushAnswer(status=411, body=b'{"error": "send a Content-Length"}')
            if int(length) > MAX_BODY:
                self.close_connection = True
                return PushAnswer(status=413, body=b'{"error": "the body is too large"}')
            request = PushRequest(
                method=method,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(length)),
            )
            try:
                return listener.answer(request)
            except Exception as error:
                log.error("%s %s failed: %s: %s", method, url.path, type(error).__name__, error)
                return PushAnswer(status=500, body=b'{"error": "this failed"}')

        def _answer(self, answer: PushAnswer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: Any) -> None:
            log.debug(format, *arguments)

    return Handler
