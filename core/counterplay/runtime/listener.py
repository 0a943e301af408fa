"""The HTTP listener of push triggers: a request is answered only after its events are stored."""

from __future__ import annotations

import logging
import threading
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


class Listener:
    """Serves the push feeds of a session. Plain HTTP on loopback: put a TLS proxy in front of it."""

    def __init__(self, address: str, feeds: list[Feed]) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"{address!r} is not HOST:PORT", hint="write --listen 127.0.0.1:8787")
        by_path = {push_path(feed): feed for feed in feeds}
        try:
            self._server = _Server((host, int(port)), _handler(by_path))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address}: {error.strerror or error}", hint="choose another --listen"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="listener", daemon=True)
        self.urls = [f"http://{host}:{self._server.server_address[1]}{path}" for path in by_path]

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


def _handler(feeds: dict[str, Feed]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _TIMEOUT

        def do_POST(self) -> None:
            self._answer(self._taken())

        def _taken(self) -> PushAnswer:
            url = urlsplit(self.path)
            feed = feeds.get(url.path)
            if feed is None:
                return PushAnswer(status=404, body=b'{"error": "no push trigger listens here"}')
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                self.close_connection = True
                return PushAnswer(status=411, body=b'{"error": "send a Content-Length"}')
            if int(length) > MAX_BODY:
                self.close_connection = True
                return PushAnswer(status=413, body=b'{"error": "the body is too large"}')
            request = PushRequest(
                method="POST",
                path=url.path,
                query=dict(parse_qsl(url.query)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(length)),
            )
            try:
                return feed.receive(request)
            except CounterplayError as error:
                log.error("%s: a request could not be stored: %s", feed.label, error)
                return PushAnswer(status=503, body=b'{"error": "not stored, send it again"}')
            except Exception as error:
                log.error("%s: the trigger failed: %s: %s", feed.label, type(error).__name__, error)
                return PushAnswer(status=500, body=b'{"error": "the trigger failed"}')

        def _answer(self, answer: PushAnswer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *arguments: Any) -> None:
            log.debug(format, *arguments)

    return Handler
