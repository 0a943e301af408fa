"""The only way to the network: a `requests.Session` that knows whose credentials it carries.

Modules get it as `context.http`. It pins hosts (credentials never go to a host that is not the
connection's), follows no redirects, keeps one total deadline, retries by what an answer means,
waits out rate limits, tells its owner of every write before it is sent, and masks secrets in errors.
"""

from __future__ import annotations

import mmap
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import LocationParseError
from urllib3.util.ssl_ import create_urllib3_context

from counterplay.budgets import Budget, Budgets, Limit
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
SPILL_BYTES = 16 * 1024 * 1024
"""A body that is larger than this goes through a temporary file."""
_CHUNK = 1024 * 1024
_POOL = 64
_NO_SLOTS = nullcontext()
Classify = Callable[[requests.Response], Verdict | None]
_Send = Callable[[requests.PreparedRequest, float, bool], requests.Response]
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = _READS | {"PUT", "PATCH", "DELETE"}
_ERRORS: dict[str, type[WorkError]] = {
    "blocked": BlockedError,
    "gone": GoneError,
    "rejected": RejectedError,
    "permanent": PermanentError,
}


@dataclass(frozen=True, slots=True)
class Bulk:
    """An answer to `Wire.bulk`: its status, headers and bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes | mmap.mmap


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
        budgets: Budgets | None = None,
        mask: Callable[[str], str] = str,
        before_write: Callable[[requests.PreparedRequest], None] | None = None,
        timeout: float | None = None,
        attempts: int = 5,
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
        self._budgets = budgets or Budgets()
        self._settings: dict[str, Any] = {}
        self._pinned: set[str] = set()  # origins of the connection, as far as they were asked for
        self._adapter: _BulkAdapter | None = None
        self._adapter_lock = threading.Lock()
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
        write = prepared.method not in _READS and not reads
        return self._settled(
            prepared, write, repeatable, timeout or READ_TIMEOUT, classify, self._send_once, True
        )

    def bulk(
        self,
        method: str,
        url: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
        classify: Classify | None = None,
    ) -> Bulk:
        """The same as `request` for large bodies in large numbers, at half the cost.

        The address is sent as it is given. An answer over 16 MB comes as the memory map of a temporary
        file. Such requests wait for the others when the service's budget gets short. Safe for threads.
        """
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method.upper(), url, data
        prepared.headers = CaseInsensitiveDict(headers or {})
        prepared.headers["User-Agent"] = _user_agent()
        prepared.hooks = {"response": []}
        if data is not None:
            prepared.headers["Content-Length"] = str(len(data))
        write = prepared.method not in _READS
        response = self._settled(
            prepared, write, repeatable, timeout or READ_TIMEOUT, classify, self._send_bulk, False
        )
        return Bulk(response.status_code, response.headers, response.content)

    def _settled(
        self,
        prepared: requests.PreparedRequest,
        write: bool,
        repeatable: bool | None,
        timeout: float,
        classify: Classify | None,
        send: _Send,
        urgent: bool,
    ) -> requests.Response:
        doubts: list[str] = []
        try:
            return self._until_final(
                prepared,
                write,
                (not write or prepared.method in _REPEATABLE) if repeatable is None else repeatable,
                timeout,
                classify,
                doubts,
                send,
                urgent,
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
        send: _Send,
        urgent: bool,
    ) -> requests.Response:
        """`doubts` gets the failure of each attempt that may have taken effect all the same."""
        origin = self._pinned_origin(request)
        budget = self._budget(origin)
        limits = self.connection.limits(request) if self.connection is not None else ()
        request.headers["client-request-id"] = str(uuid.uuid4())
        failures, refusals, renewed = 0, 0, False
        while True:
            self._sleep(0.0, "")
            self._wait_for(limits)
            while (wait := budget.take(urgent=urgent)) > 0.0:
                self._sleep(wait, "the rate limit asks for a pause")
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
                with self._slots(limits) if limits else _NO_SLOTS:
                    response = send(request, timeout, write)
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
                refusals += 1  # of everybody who uses the service: no fault of this request
                pause = self._delay(refusals, verdict.retry_after)
                for refusing in [self._budgets.of_limit(one) for one in limits if one.units] or [budget]:
                    refusing.refused(pause)
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

    def _wait_for(self, limits: Sequence[Limit]) -> None:
        """Wait until the documented limits of the service let this request begin."""
        for limit in limits:
            if limit.units:
                budget = self._budgets.of_limit(limit)
                while (wait := budget.take(cost=limit.cost, share=limit.share)) > 0.0:
                    self._sleep(wait, "a limit of the service asks for a pause")

    @contextmanager
    def _slots(self, limits: Sequence[Limit]) -> Iterator[None]:
        """Hold the slots of limits on what is under way at once."""
        held: list[str] = []
        try:
            for limit in limits:
                if limit.at_once:
                    while not self._budgets.slots.enter(limit.name, limit.at_once, 0.2):
                        self._sleep(0.0, "")
                    held.append(limit.name)
            yield
        finally:
            for name in held:
                self._budgets.slots.leave(name)

    def _send_once(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        origin = _beginning(request.url or "")
        settings = self._settings.get(origin)
        if settings is None:  # to read the environment costs a fifth of a request
            settings = self.merge_environment_settings(request.url, {}, False, None, None)
            if isinstance(self.verify, str):
                settings["verify"] = self.verify  # REQUESTS_CA_BUNDLE would win over a session's own bundle
            self._settings[origin] = settings
        if self.deadline is not None:
            timeout = min(timeout, max(0.001, self.deadline - time.monotonic()))
        limits = (min(CONNECT_TIMEOUT, timeout), timeout)
        return self.send(request, timeout=limits, allow_redirects=False, **settings)

    def _send_bulk(self, request: requests.PreparedRequest, timeout: float, write: bool) -> requests.Response:
        if self._adapter is None:
            with self._adapter_lock:
                if self._adapter is None:
                    environment = self.merge_environment_settings(request.url, {}, False, None, None)
                    verify: Any = self.verify if isinstance(self.verify, str) else environment["verify"]
                    self._adapter = _BulkAdapter(verify, environment["proxies"])
        if self.deadline is not None:
            timeout = min(timeout, max(0.001, self.deadline - time.monotonic()))
        return self._adapter.exchange(request, (min(CONNECT_TIMEOUT, timeout), timeout))

    def close(self) -> None:
        """Close every connection."""
        if self._adapter is not None:
            self._adapter.close()
        super().close()

    def _budget(self, origin: str) -> Budget:
        if self.connection is None:
            return self._budgets.of(origin)
        service = f"{self.connection.label}@{origin}"
        return self._budgets.of(service, self.connection.requests_per_minute(origin))

    def _pinned_origin(self, request: requests.PreparedRequest) -> str:
        url = request.url or ""
        begins = _beginning(url)
        if begins in self._pinned:  # what follows is a path, so that is all there is to its origin
            return begins
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self.connection is not None and origin not in self.connection.origins():
            raise PermanentError(
                f"refused to send the credentials of {self.connection.label!r} to {self._mask(origin)}",
                hint="only the hosts of the connection's own services may see them",
            )
        if self.connection is not None and origin == begins:
            self._pinned.add(origin)
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
        # most faults are over at once; one that is not is left alone for longer and longer
        ceiling = min(60.0, self.backoff * (0.3 if failures < 2 else 2 ** min(failures - 1, 10)))
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
            raise RetryableError(f"{why}; the deadline passes before the next try", retry_after=seconds)
        if self._stop.wait(seconds):
            raise InterruptedWork("stopped while waiting for an answer")


class _BulkAdapter(HTTPAdapter):
    """urllib3's pools behind the interface of `requests`, without what costs and is not needed here."""

    def __init__(self, verify: bool | str, proxies: Mapping[str, str]) -> None:
        super().__init__(pool_connections=4, pool_maxsize=_POOL)
        self._verify = verify
        self._proxies = dict(proxies)
        self._pools: dict[str, Any] = {}
        self._making = threading.Lock()

    def exchange(self, request: requests.PreparedRequest, timeout: tuple[float, float]) -> requests.Response:
        """Send the request and read its answer to the end."""
        response = self.send(
            request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
        )
        raw = response.raw
        try:
            unknown = raw.chunked or response.headers.get("Content-Encoding")  # how large it will be
            if unknown or int(response.headers.get("Content-Length") or 0) > SPILL_BYTES:
                body = _spilled(raw)
            else:
                body = raw.read(decode_content=True)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError) as error:
            raise requests.exceptions.ConnectionError(error, request=request) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.exceptions.ChunkedEncodingError(error, request=request) from error
        response._content = body  # type: ignore[assignment]  # what reads it takes any bytes
        return response

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        known = self._pools.get(_beginning(request.url or ""))
        if known is not None:
            return known
        parts = urlsplit(request.url or "")
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in self._pools:
            with self._making:
                if key not in self._pools:
                    self._pools[key] = self._made(request, verify, proxies, cert)
        return self._pools[key]

    def _made(self, request: requests.PreparedRequest, verify: Any, proxies: Any, cert: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        HTTPAdapter.cert_verify(self, pool, request.url or "", verify, cert)  # type: ignore[no-untyped-call]
        if getattr(pool, "ca_certs", None):
            # One context for all connections: each would read the authorities anew and keep them.
            context = create_urllib3_context()
            context.load_verify_locations(pool.ca_certs)
            pool.conn_kw["ssl_context"], pool.ca_certs = context, None
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What a request line names; without proxies there is nothing to choose."""
        if proxies:
            return super().request_url(request, proxies)
        url = request.url or ""
        beginning = _beginning(url)
        rest = url[len(beginning) :]
        plain = rest.startswith("/") and "#" not in rest and "?" not in beginning and "#" not in beginning
        return rest if plain else request.path_url

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Done once for each pool, when it is made."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response.__new__(requests.Response)
        response.__dict__.update(
            _content=False,
            _content_consumed=True,
            _next=None,
            status_code=resp.status,
            headers=resp.headers,
            raw=resp,
            url=req.url,
            encoding=None,
            history=[],
            reason=resp.reason,
            cookies=None,
            request=req,
        )
        return response


def _spilled(raw: Any) -> bytes | mmap.mmap:
    """The rest of an answer, by way of a temporary file as soon as it turns out to be large."""
    first: list[bytes] = []
    size = 0
    chunks = raw.stream(_CHUNK, decode_content=True)  # one for all: a second would begin behind what is read
    for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size > SPILL_BYTES:
            break
    else:
        return b"".join(first)
    with tempfile.TemporaryFile() as file:
        file.writelines(first)
        first.clear()
        file.writelines(chunks)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _beginning(url: str) -> str:
    """What stands before the third slash of an address, which is its origin if it has a path and says it in
    lower case: to split it as a whole would cost ten times that.
    """
    return "/".join(url.split("/", 3)[:3])


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
