"""A wire that cannot write: reads go through, a write is written down and answered with nothing."""

from __future__ import annotations

import json
from typing import Any

import requests

from counterplay.errors import PermanentError
from counterplay.events import JsonObject
from counterplay.secrets import MASK
from counterplay.verdicts import Verdict
from counterplay.wire import Classify, Wire

_READS = ("GET", "HEAD", "OPTIONS")


class PlanningWire(Wire):
    """Like the wire of a run up to the point where a write leaves the machine.

    Host pinning, credentials, retries and rate limits are the real ones. `calls` holds the writes in
    order. With `writes=False` a write is refused instead, for modules that say that they have no effect.
    """

    def __init__(self, *arguments: Any, writes: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: list[JsonObject] = []
        self._writes = writes
        self._passing: requests.PreparedRequest | None = None

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """The lowest place that a request passes, whoever made it."""
        if request.method not in _READS and request is not self._passing:
            raise PermanentError(f"a plan sends no {request.method}", hint="use `context.http.request`")
        return super().send(request, **options)

    def _send_once(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        if write:
            return self._written_down(request)
        self._passing = request
        return super()._send_once(request, timeout, write)

    def _send_bulk(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        return self._written_down(request) if write else super()._send_bulk(request, timeout, write)

    def _written_down(self, request: requests.PreparedRequest) -> requests.Response:
        if not self._writes:
            raise PermanentError(
                f"refused to send {request.method} {request.url}: the module says that it changes nothing"
            )
        self.calls.append(described(request))
        return _Nothing(request)

    def _verdict(self, response: requests.Response, classify: Classify | None) -> Verdict:
        if isinstance(response, _Nothing):
            return Verdict("ok")
        return super()._verdict(response, classify)


class _Nothing(requests.Response):
    """The answer to a request that was not sent: success, without content."""

    def __init__(self, request: requests.PreparedRequest) -> None:
        super().__init__()
        self.status_code = 200
        self.url = request.url or ""
        self.request = request
        self._content = b""
        self._content_consumed = True


def described(request: requests.PreparedRequest) -> JsonObject:
    """A request as plans and the journal show it: method, URL, and the body as JSON where it is that."""
    body: Any = request.body
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        try:
            body = _without_passwords(json.loads(body))
        except ValueError:
            pass
    elif body is not None:
        body = f"({type(body).__name__})"
    return {"method": request.method, "url": request.url, "body": body}


def _without_passwords(body: Any) -> Any:
    """A password that a request sets is nobody's to read, not even in a plan or in the journal."""
    if isinstance(body, dict):
        return {
            name: MASK if name == "password" and isinstance(value, str) else _without_passwords(value)
            for name, value in body.items()
        }
    return [_without_passwords(one) for one in body] if isinstance(body, list) else body
