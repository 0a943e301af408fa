"""The Office 365 Management Activity API: subscriptions, content listings and blobs.

Strict where the real service is: time windows, GUIDs, content types, subscription state, roles. Codes and
texts are the documented ones; HTTP statuses those that were seen, else 400.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import orjson

from counterplay_sim.blobs import Blob
from counterplay_sim.clock import Clock, from_ns, stamp, to_ns
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.meter import Meter
from counterplay_sim.scenario.noise import CONTENT_TYPES
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import ACTIVITY, Claims, Tokens

Query = dict[str, str]

_PATH = re.compile(r"/api/v1(?:\.0)?/([^/]+)/activity/feed/(.+)")
_BY_LOWER_NAME = {name.lower(): name for name in CONTENT_TYPES}
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,7}))?)?)?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)
_PAGE = re.compile(r"(\d{10})R(\d{12})")
_HEADERS = (
    ("Cache-Control", "no-cache"),
    ("Pragma", "no-cache"),
    ("Expires", "-1"),
    ("Server", "Microsoft-IIS/10.0"),
    ("X-AspNet-Version", "4.0.30319"),
    ("X-Powered-By", "ASP.NET"),
)
_WINDOW = (
    "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24"
    " hours apart, with the start time prior to end time and start time no more than 7 days in the past."
)
_NO_GUID = uuid.UUID(int=0)


class _AfError(Exception):
    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers: tuple[tuple[str, str], ...] = ()


class ActivityService:
    """`manage.office.com` for the simulated tenants."""

    name = "activity"

    def __init__(
        self,
        tokens: Tokens,
        find: Callable[[str], Tenant | None],
        clock: Clock,
        strictness: Strictness,
        meter: Meter,
        audiences: Callable[[], frozenset[str]],
    ) -> None:
        self._tokens = tokens
        self._find = find
        self._clock = clock
        self._strictness = strictness
        self._meter = meter
        self._audiences = audiences
        self._operations: dict[str, tuple[str, Callable[[Request, Tenant, Query], Answer]]] = {
            "subscriptions/start": ("POST", self._start),
            "subscriptions/stop": ("POST", self._stop),
            "subscriptions/list": ("GET", self._list),
            "subscriptions/content": ("GET", self._content),
        }

    def handle(self, request: Request) -> Answer:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return self.failure(404, "No HTTP resource was found that matches the request URI.")
        claims = self._tokens.claims(request)
        if claims is None or claims["aud"].lower() not in self._audiences():
            return self.failure(401, "Authorization has been denied for this request.")
        try:
            query = {name.lower(): value for name, value in request.query().items()}
            tenant = self._tenant(match[1], claims)
            return self._operate(request, tenant, match[2], query)
        except _AfError as error:
            body = orjson.dumps({"error": {"code": error.code, "message": error.message}})
            return Answer(error.status, body, headers=_HEADERS + error.headers)

    def failure(self, status: int, text: str) -> Answer:
        if status >= 500:
            body: dict[str, Any] = {"error": {"code": "AF50000", "message": text}}
        else:
            body = {"Message": text}
        return Answer(status, orjson.dumps(body), headers=_HEADERS)

    def _tenant(self, name: str, claims: Claims) -> Tenant:
        if not _is_guid(name):
            raise _AfError("AF20013", f"The tenant ID passed in the URL ({name}) is not a valid GUID.")
        if name.lower() != claims["tid"]:
            raise _AfError(
                "AF20010",
                f"The tenant ID passed in the URL ({name}) does not match the tenant ID passed in the access"
                f" token ({claims['tid']}).",
            )
        tenant = self._find(name)
        if tenant is None:
            raise _AfError(
                "AF20011", f"Specified tenant ID ({name}) does not exist in the system or has been deleted."
            )
        roles = claims.get("roles", [])
        if "ActivityFeed.Read" not in roles:
            raise _AfError(
                "AF10001",
                f"The permission set ({' '.join(roles)}) sent in the request does not include the expected"
                " permission.",
                401,
            )
        return tenant

    def _operate(self, request: Request, tenant: Tenant, operation: str, query: Query) -> Answer:
        blob = operation.startswith("audit/")
        method, work = ("GET", self._blob) if blob else self._operations.get(operation, ("", None))
        if work is None:
            return self.failure(404, "No HTTP resource was found that matches the request URI.")
        self._meter.count(tenant.id, self.name, "blob" if blob else operation)
        publisher = query.get("publisheridentifier", str(_NO_GUID))
        if not _is_guid(publisher):
            raise _AfError("AF20002", "Invalid parameter type: PublisherIdentifier. Expected type: guid")
        if tenant.throttled():
            raise self._too_many("GetBlob" if blob else _SERVER_NAMES[operation], publisher)
        if request.method != method:
            return self.failure(
                405, f"The requested resource does not support http method '{request.method}'."
            )
        return work(request, tenant, query)

    def _too_many(self, operation: str, publisher: str) -> _AfError:
        error = _AfError(
            "AF429",
            f"Too many requests. Method={operation}, PublisherId={publisher}",
            self._strictness.throttle_status,
        )
        if self._strictness.retry_after is not None:
            error.headers = (("Retry-After", str(self._strictness.retry_after)),)
        return error

    def _start(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        if request.body.strip():
            self._refuse_webhook(request.body)
        with tenant.lock:
            known = tenant.subscriptions.get(content_type)
            if known is not None and known["status"] == "enabled":
                raise _AfError("AF20024", "The subscription is already enabled. No property change.")
            subscription = {"contentType": content_type, "status": "enabled", "webhook": None}
            tenant.put_subscription(subscription)
        return _json(subscription)

    @staticmethod
    def _refuse_webhook(body: bytes) -> None:
        """This simulator calls nobody, so a webhook is one that could not be validated."""
        try:
            webhook = orjson.loads(body).get("webhook")
        except (ValueError, AttributeError):
            raise _AfError("AF20002", "Invalid parameter type: webhook. Expected type: object") from None
        if webhook is None:
            return
        address = str(webhook.get("address", "")) if isinstance(webhook, dict) else ""
        why = "The endpoint did not return HTTP 200."
        if not address.startswith("https://"):
            why = "The address must begin with HTTPS."
        raise _AfError("AF20021", f"The webhook endpoint ({address}) could not be validated. {why}")

    def _stop(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        with tenant.lock:
            tenant.put_subscription({**_enabled(tenant, content_type), "status": "disabled"})
        return Answer(200, headers=_HEADERS)

    def _list(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        return _json(list(tenant.subscriptions.values()))

    def _content(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        _enabled(tenant, content_type)
        start, end = self._window(query)
        blobs = list(
            tenant.blobs.listing(content_type, to_ns(start), min(to_ns(end), self._clock.now_ns() + 1))
        )
        first = self._first_of_page(query, len(blobs))
        page = blobs[first : first + self._strictness.page_size]
        base = f"https://{request.headers.get('host', '127.0.0.1')}"
        headers: tuple[tuple[str, str], ...] = _HEADERS
        if first + len(page) < len(blobs):
            headers += (
                ("NextPageUri", self._next_page(base, tenant, query, content_type, start, end, first)),
            )
        return Answer(200, orjson.dumps([self._item(base, tenant, blob) for blob in page]), headers=headers)

    def _window(self, query: Query) -> tuple[datetime, datetime]:
        now = self._clock.now()
        if "starttime" not in query and "endtime" not in query:
            return now - timedelta(hours=24), now
        wrong = _AfError(
            "AF20055",
            f"{_WINDOW} StartTime:{query.get('starttime', '')}, EndTime:{query.get('endtime', '')}",
        )
        if "starttime" not in query or "endtime" not in query:
            raise wrong
        start, end = _time(query, "starttime"), _time(query, "endtime")
        oldest = now - self._strictness.retention - self._strictness.retention_slack
        if start >= end or end - start > timedelta(hours=24) or start < oldest:
            raise wrong
        return start, end

    @staticmethod
    def _first_of_page(query: Query, count: int) -> int:
        token = query.get("nextpage")
        if token is None:
            return 0
        match = _PAGE.fullmatch(token)
        if match is None or not 0 < int(match[2]) < count:
            raise _AfError("AF20031", f"Invalid nextPage Input: {token}.")
        return int(match[2])

    def _next_page(
        self,
        base: str,
        tenant: Tenant,
        query: Query,
        content_type: str,
        start: datetime,
        end: datetime,
        first: int,
    ) -> str:
        odd = self._strictness.odd_paging
        token = f"{start:%Y%m%d%H}R{first + self._strictness.page_size:012d}"
        parameters = [
            ("contentType", content_type),
            ("startTime", query.get("starttime") or stamp(start, 6).removesuffix("Z")),
            ("endtime" if odd else "endTime", query.get("endtime") or stamp(end, 6).removesuffix("Z")),
            ("nextPage", token),
        ]
        if "publisheridentifier" in query and not odd:
            parameters.append(("PublisherIdentifier", query["publisheridentifier"]))
        text = "&".join(f"{name}={quote(value, safe=':')}" for name, value in parameters)
        return f"{base}/api/v1/{tenant.id}/activity/feed/subscriptions/content?{text}"

    def _item(self, base: str, tenant: Tenant, blob: Blob) -> dict[str, str]:
        created = from_ns(blob.created)
        content_id = blob.id
        return {
            "contentType": blob.content_type,
            "contentId": content_id,
            "contentUri": f"{base}/api/v1.0/{tenant.id}/activity/feed/audit/{content_id}",
            "contentCreated": stamp(created, 3),
            "contentExpiration": stamp(created + self._strictness.content_life, 3),
        }

    def _blob(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_id = request.path.partition("/activity/feed/audit/")[2]
        try:
            blob = tenant.blobs.find(content_id)
        except ValueError:
            raise _AfError("AF20052", f"Content ID {content_id} in the URL is invalid.") from None
        if blob is None:
            raise _AfError("AF20050", f"The specified content ({content_id}) does not exist.")
        if from_ns(blob.created) + self._strictness.content_life <= self._clock.now():
            raise _AfError(
                "AF20051",
                f"Content requested with the key {content_id} has already expired. Content older than 7 days"
                " cannot be retrieved.",
            )
        return Answer(200, tenant.blobs.body(blob, content_id), headers=_HEADERS)


_SERVER_NAMES = {
    "subscriptions/start": "StartSubscription",
    "subscriptions/stop": "StopSubscription",
    "subscriptions/list": "ListSubscriptions",
    "subscriptions/content": "GetContents",
}


def audiences(url: str) -> frozenset[str]:
    """The audiences of tokens that this service takes, in lower case."""
    return frozenset({url, "https://manage.office.com", ACTIVITY})


def _json(value: object) -> Answer:
    return Answer(200, orjson.dumps(value), headers=_HEADERS)


def _is_guid(text: str) -> bool:
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _content_type(query: Query) -> str:
    if "contenttype" not in query:
        raise _AfError("AF20001", "Missing parameter: contentType.")
    found = _BY_LOWER_NAME.get(query["contenttype"].lower())
    if found is None:
        raise _AfError("AF20020", "The specified content type is not valid.")
    return found


def _enabled(tenant: Tenant, content_type: str) -> dict[str, Any]:
    subscription: dict[str, Any] | None = tenant.subscriptions.get(content_type)
    if subscription is None or subscription["status"] != "enabled":
        raise _AfError("AF20022", "No subscription found for the specified content type.")
    return subscription


def _time(query: Query, name: str) -> datetime:
    match = _TIME.fullmatch(query[name])
    if match is not None:
        day, minutes, seconds, fraction, zone = match.groups()
        text = f"{day}T{minutes or '00:00'}:{seconds or '00'}.{(fraction or '0').ljust(6, '0')[:6]}"
        try:
            moment = datetime.fromisoformat(text + (zone or "Z").upper())
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _AfError("AF20002", f"Invalid parameter type: {name}. Expected type: datetime")
