"""The only way to the network: a `requests.Session` that knows whose credentials it carries.

Modules get it as `context.http`. It pins hosts (credentials never go to a host that is not the
connection's), follows no redirects, keeps one total deadline, retries by what an answer means,
waits out rate limits, tells its owner of every write before it is sent, and masks secrets in errors.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import LocationParseError

from counterplay.errors import (
    BlockedError,
    GoneError,
    InterruptedWork,
    PermanentError,
    RejectedError,
    RetryableError,
    UnknownOutcomeError,
    WorkError,
)
from counterplay.modules import Connection
from counterplay.verdicts import Verdict, by_status

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
Classify = Callable[[requests.Response], Verdict | None]
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = _READS | {"PUT", "PATCH", "DELETE"}
_ERRORS: dict[str, type[WorkError]] = {
    "blocked": BlockedError,
    "gone": GoneError,
    "rejected": RejectedError,
    "permanent": PermanentError,
}


class Pauses:
    """Rate limits that were reached, shared by everything that uses one connection's service."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, service: str, seconds: float) -> None:
        """Nobody asks the service for that long."""
        with self._lock:
            self._until[service] = max(self._until.get(service, 0.0), time.monotonic() + seconds)

    def left(self, service: str) -> float:
        """Seconds until the service may be asked again."""
        return max(0.0, self._until.get(service, 0.0) - time.monotonic())


class Wire(requests.Session):
    """One session for one connection (or none). Answers of 2xx are returned, all others raise.

    RetryableError, BlockedError, GoneError, RejectedError, PermanentError by what the answer means;
    UnknownOutcomeError when a write failed that may have taken effect; InterruptedWork when
    `stop` was set while it waited.
    """

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        stop: threading.Event | None = None,
        pauses: Pauses | None = None,
        mask: Callable[[str], str] = str,
        before_write: Callable[[requests.PreparedRequest], None] | None = None,
        timeout: float | None = None,
        attempts: int = 4,
        backoff: float = 1.0,
    ) -> None:
        super().__init__()
        self.connection = connection
        self.attempts = attempts
        self.backoff = backoff
        self.landed = 0  #: writes that the service answered as done
        self.doubtful = 0  #: attempts at a write that may have taken effect, without an answer that says so
        self.before_write = before_write
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self._abandoned = False
        self._stop = stop or threading.Event()
        self._pauses = pauses or Pauses()
        self._mask = mask
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.auth = _no_auth  # else `requests` would send what ~/.netrc holds for the host
        self.headers["User-Agent"] = _user_agent()
        if connection is not None and connection.ca_file():
            self.verify = connection.ca_file()

    def abandon(self) -> None:
        """Whoever still works with this session is given up: it sends nothing more."""
        self._abandoned = True

    def request(  # type: ignore[override]  # the arguments that modules use, and one of our own
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | str | Mapping[str, str] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
        reads: bool = False,
        classify: Classify | None = None,
        allow_redirects: bool = False,
    ) -> requests.Response:
        """Send a request until its answer means something final.

        Redirects are never followed: `allow_redirects` is what `requests` itself passes.
        `repeatable` says that doing it twice is harmless; by default only POST is not. A write that
        fails in the end, after an attempt that may have taken effect, raises UnknownOutcomeError, unless
        `repeatable=True` was given. `reads` says that a POST is a query, which changes nothing: it is
        treated as a GET. `classify` says what an answer to this request means, before the
        connection is asked.
        """
        try:
            prepared = self.prepare_request(
                requests.Request(
                    method.upper(), url, params=params, data=data, json=json, headers=dict(headers or {})
                )
            )
        except (requests.exceptions.RequestException, ValueError) as error:
            raise PermanentError(self._mask(f"the request cannot be sent: {error}")) from error
        doubts: list[str] = []
        write = prepared.method not in _READS and not reads
        try:
            return self._until_final(
                prepared,
                write,
                (not write or prepared.method in _REPEATABLE) if repeatable is None else repeatable,
                timeout or READ_TIMEOUT,
                classify,
                doubts,
            )
        except WorkError as error:
            if not doubts or repeatable or not write:
                raise
            raise UnknownOutcomeError(
                f"{error.message}, so the request may or may not have taken effect"
                if error.message == doubts[0]
                else f"{error.message}; before that, {doubts[0]}, so the request may have taken effect",
                status=error.status,
                code=error.code,
                request_id=error.request_id,
            ) from error
        finally:
            if write:
                self.doubtful += len(doubts)

    def _until_final(
        self,
        request: requests.PreparedRequest,
        write: bool,
        repeatable: bool,
        timeout: float,
        classify: Classify | None,
        doubts: list[str],
    ) -> requests.Response:
        """`doubts` gets the failure of each attempt that may have taken effect all the same."""
        origin = self._pinned_origin(request)
        service = f"{self.connection.label}@{origin}" if self.connection else origin
        request.headers["client-request-id"] = str(uuid.uuid4())
        failures, renewed = 0, False
        while True:
            self._sleep(self._pauses.left(service), "a rate limit")
            if self.connection is not None:
                try:
                    self.connection.authorize(request)
                except RetryableError as error:  # nothing was sent yet
                    failures += 1
                    if failures >= self.attempts:
                        raise
                    self._sleep(self._delay(failures, error.retry_after), error.message)
                    continue
            self._sleep(0.0, "")  # signing in took its time, too
            if write and self.before_write is not None:
                self.before_write(request)
            try:
                response = self._send_once(request, timeout, write)
            except requests.exceptions.RequestException as error:
                failures += 1
                self._after_broken_connection(error, origin, repeatable, failures, doubts)
                continue
            except UnicodeError as error:  # from http.client, before the first byte is sent
                raise PermanentError("a header of the request holds letters outside Latin-1") from error
            except LocationParseError as error:  # `requests` lets it through
                raise PermanentError(self._mask(f"the request cannot be sent: {error}")) from error
            verdict = self._verdict(response, classify)
            if verdict.meaning == "ok":
                if write:
                    self.landed += 1
                return response
            if response.status_code == 401 and not renewed and self.connection is not None:
                renewed = True
                if self.connection.renew(response):
                    continue
            if verdict.meaning == "wait":
                failures += 1
                self._pauses.add(service, self._delay(failures, verdict.retry_after))
                continue
            failure = self._failure(response, verdict, origin)
            if verdict.meaning != "retry":
                raise failure
            if response.status_code != 503:
                doubts.append(failure.message)
            failures += 1
            if failures >= self.attempts or (doubts and not repeatable):
                raise failure
            self._sleep(self._delay(failures, verdict.retry_after), failure.message)

    def _send_once(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        settings = self.merge_environment_settings(request.url, {}, False, None, None)
        if isinstance(self.verify, str):
            settings["verify"] = self.verify  # REQUESTS_CA_BUNDLE would win over a session's own bundle
        if self.deadline is not None:
            timeout = min(timeout, max(0.001, self.deadline - time.monotonic()))
        limits = (min(CONNECT_TIMEOUT, timeout), timeout)
        return self.send(request, timeout=limits, allow_redirects=False, **settings)

    def _pinned_origin(self, request: requests.PreparedRequest) -> str:
        parts = urlsplit(request.url or "")
        origin = f"{parts.scheme}://{parts.netloc}"
        if self.connection is not None and origin not in self.connection.origins():
            raise PermanentError(
                f"refused to send the credentials of {self.connection.label!r} to {self._mask(origin)}",
                hint="only the hosts of the connection's own services may see them",
            )
        return origin

    def _verdict(self, response: requests.Response, classify: Classify | None) -> Verdict:
        own = classify(response) if classify is not None else None
        if own is None and self.connection is not None:
            own = self.connection.classify(response)
        return own or by_status(response)

    def _failure(self, response: requests.Response, verdict: Verdict, origin: str) -> WorkError:
        name = self.connection.service(origin) if self.connection is not None else urlsplit(origin).netloc
        text = f"{name} answered {response.status_code}"
        if verdict.code:
            text += f" {verdict.code}"
        if verdict.text:
            text += f": {' '.join(verdict.text.split())[:500]}"
        if verdict.request_id:
            text += f" (request-id {verdict.request_id})"
        about: dict[str, Any] = {
            "status": response.status_code,
            "code": verdict.code or None,
            "request_id": verdict.request_id or None,
        }
        message = self._mask(text)
        if verdict.meaning == "retry":
            return RetryableError(message, retry_after=verdict.retry_after, **about)
        return _ERRORS[verdict.meaning](message, **about)

    def _after_broken_connection(
        self,
        error: requests.exceptions.RequestException,
        origin: str,
        repeatable: bool,
        failures: int,
        doubts: list[str],
    ) -> None:
        text = self._mask(f"no answer from {origin}: {_cause(error)}")
        if isinstance(error, requests.exceptions.SSLError) and not _broke_off(error):
            raise BlockedError(
                text, hint="check the host name and the certificate authorities (`ca_file`)"
            ) from error
        if not isinstance(error, _TRANSPORT):
            raise PermanentError(text) from error
        if not _never_sent(error):
            doubts.append(text)
        if failures >= self.attempts or (doubts and not repeatable):
            raise RetryableError(text) from error
        self._sleep(self._delay(failures, None), text)

    def _delay(self, failures: int, retry_after: float | None) -> float:
        if retry_after is not None:
            return retry_after
        ceiling = min(60.0, self.backoff * 2 ** min(failures, 10))
        return random.uniform(ceiling / 2, ceiling)

    def _sleep(self, seconds: float, why: str) -> None:
        if self._abandoned:
            raise PermanentError("the step was given up at its timeout, and may send nothing more")
        if self._stop.is_set():
            raise InterruptedWork("stopped while waiting for an answer")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise RetryableError("the deadline has passed")
        if seconds <= 0:
            return
        if self.deadline is not None and time.monotonic() + seconds > self.deadline:
            raise RetryableError(f"the deadline passes before {why} is over", retry_after=seconds)
        if self._stop.wait(seconds):
            raise InterruptedWork("stopped while waiting for an answer")


_TRANSPORT = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _never_sent(error: BaseException) -> bool:
    """Whether there was no connection that could have carried the request."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    return "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)


def _broke_off(error: BaseException) -> bool:
    """Whether TLS ended in the middle, which a refused certificate or protocol does not."""
    return "SSLEOFError" in repr(error) or "SSLZeroReturnError" in repr(error)


@cache
def _user_agent() -> str:
    return f"counterplay/{version('counterplay')}"


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of wrapped transport errors, without object addresses."""
    reason: Any = error
    for _ in range(6):
        inner = getattr(reason, "reason", None) or next(
            (arg for arg in getattr(reason, "args", ()) if isinstance(arg, BaseException)), None
        )
        if inner is None or isinstance(inner, str):
            break
        reason = inner
    text = str(reason)
    text = text.split(">: ", 1)[-1].split("): ", 1)[-1]
    return " ".join(text.split()) or type(reason).__name__
