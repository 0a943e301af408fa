"""The Office 365 Management Activity API: its seven operations.

Strict where the real service is: time windows, GUIDs, content types, subscription state, roles. Codes and
texts are the documented ones; HTTP statuses those that were seen, else 400. What is not known of the real
service is a switch of `Strictness`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import orjson

from counterplay_sim import activity_faults as spoiled
from counterplay_sim import activity_subscriptions as subscriptions
from counterplay_sim.activity_errors import HEADERS, AfError, Query, is_guid, json_answer, too_many
from counterplay_sim.activity_subscriptions import Validate
from counterplay_sim.activity_types import sensitive_types
from counterplay_sim.blobs import Blob
from counterplay_sim.clock import NANOSECONDS, Clock, from_ns, span_ns, stamp, to_ns
from counterplay_sim.faults import Fault, content_type_of
from counterplay_sim.faults_record import FaultRecord
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.meter import Meter
from counterplay_sim.scenario.noise import CONTENT_TYPES, DLP
from counterplay_sim.tenant import Tenant
from counterplay_sim.tokens import ACTIVITY, Claims, Tokens

_PATH = re.compile(r"/api/v1(?:\.0)?/([^/]+)/activity/feed/(.+)")
_BY_LOWER_NAME = {name.lower(): name for name in CONTENT_TYPES}
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,7}))?)?)?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)
_PAGE = re.compile(r"(\d{10})R(\d{5})(\d{7})")
_PAGE_CLOCK = 10**7  # seconds after which the time in a nextPage comes round again
_WINDOW = (
    "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24"
    " hours apart, with the start time prior to end time and start time no more than 7 days in the past."
)
_NOBODY = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about, as far as its address says: for faults and their record."""

    tenant: Tenant | None
    target: str
    operation: str
    publisher: str
    content_type: str = ""
    blob: Blob | None = None

    @property
    def events(self) -> list[str]:
        """The `Id`s of the events that it would get."""
        if self.tenant is None or self.blob is None:
            return []
        return self.tenant.blobs.keys(self.blob)


class ActivityService:
    """`manage.office.com` for the simulated tenants."""

    name = "activity"

    def __init__(
        self,
        tokens: Tokens,
        find: Callable[[str], Tenant | None],
        clock: Clock,
        meter: Meter,
        audiences: Callable[[], frozenset[str]],
        record: FaultRecord,
        validate: Validate,
    ) -> None:
        self._tokens = tokens
        self._find = find
        self._clock = clock
        self._meter = meter
        self._audiences = audiences
        self._record = record
        self._validate = validate
        self._chance = random.Random(0)
        self._known: dict[tuple[bytes, bytes, bytes], tuple[Tenant, str, int]] = {}
        self._operations: dict[str, tuple[str, Callable[[Request, Tenant, Query], Answer]]] = {
            "subscriptions/start": ("POST", self._start),
            "subscriptions/stop": ("POST", self._stop),
            "subscriptions/list": ("GET", self._list),
            "subscriptions/content": ("GET", self._content),
            "subscriptions/notifications": ("GET", self._notifications),
            "resources/dlpsensitivetypes": ("GET", self._sensitive_types),
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
        except AfError as error:
            return error.answer()

    def quick(self, head: bytes) -> tuple[bytes, bytes] | None:
        """A blob's answer without the long way: what it needs was proved by an earlier, equal head.

        None: the long way answers. What it checks is the same: token, tenant, quota, expiration.
        """
        line, _, headers = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1":
            return None
        path, _, query = words[1].partition(b"?")
        start, _, content_id = path.rpartition(b"/audit/")
        known = self._known.get((start, query, headers))
        if known is None:
            return None
        tenant, publisher, until = known
        found = tenant.blobs.cached(content_id.decode("latin-1"))
        if found is None:
            blob = _found(tenant, content_id, self._clock.now_ns())
            if blob is None:
                return None
            found = tenant.blobs.body(blob, blob.id), blob
        body, blob = found
        now = self._clock.now_ns()
        if self._find(tenant.id) is not tenant:
            return None
        if now >= min(until, blob.created + span_ns(tenant.strictness.content_life)):
            return None
        if tenant.throttled(publisher):
            return None
        self._meter.count(tenant.id, self.name, "blob")
        return _QUICK_HEAD % len(body), body

    def _remember(self, request: Request, tenant: Tenant, publisher: str) -> None:
        """Let `quick` answer requests that are like this one but for the blob."""
        claims = self._tokens.claims(request)
        if request.head is None or claims is None or "connection" in request.headers:
            return
        line, _, headers = request.head.partition(b"\r\n")
        path, _, query = line.split(b" ")[1].partition(b"?")
        if len(self._known) > 1000:
            self._known.clear()
        key = (path.rpartition(b"/audit/")[0], query, headers)
        self._known[key] = (tenant, publisher, int(claims["exp"]) * NANOSECONDS)

    def failure(self, status: int, text: str) -> Answer:
        if status >= 500:
            body: dict[str, Any] = {"error": {"code": "AF50000", "message": text}}
        else:
            body = {"Message": text}
        return Answer(status, orjson.dumps(body), headers=HEADERS)

    def target(self, request: Request) -> str:
        """What the record of faults calls the thing that a request is about."""
        return request.raw_path.replace("%24", "$").replace("/api/v1.0/", "/api/v1/") + (
            "" if "/audit/" in request.raw_path else f"?{content_type_of('', request.query_string)}"
        )

    def meet(self, request: Request, fault: Fault) -> Answer:
        """Answer a request as a fault says that has no answer of its own; keep what it does."""
        about = self._about(request)
        if about.tenant is not None and fault.kind in spoiled.REFUSALS:
            self._meter.count(about.tenant.id, self.name, "blob" if about.blob else about.operation)
        refused = spoiled.refusal(fault, request, about, about.tenant)
        if refused is not None or fault.status or fault.reset:
            self._keep(fault, about, about.events)
            return refused or Answer(fault.status, fault.body.encode(), headers=fault.headers)
        if about.tenant is not None and fault.kind != "start_lag":
            spoiled.change_state(fault, about, about.tenant)
        answer = self.handle(request)
        if about.tenant is not None and fault.kind == "start_lag" and answer.status == 200:
            spoiled.change_state(fault, about, about.tenant)
        if answer.status != 200 or about.tenant is None:
            self._keep(fault, about, [])
        elif about.blob is not None:
            answer, lost = spoiled.spoil_blob(fault, answer, about.tenant, about.blob)
            self._keep(fault, about, lost)
        elif about.operation == "GetContents":
            answer = self._spoil_listing(fault, about, answer, request)
        else:
            self._keep(fault, about, [])
        return answer

    def _spoil_listing(self, fault: Fault, about: About, answer: Answer, request: Request) -> Answer:
        tenant, base = about.tenant, _base(request)
        assert tenant is not None
        answer, hidden, rest = spoiled.spoil_listing(fault, answer, request, base, self._chance)
        if hidden:
            blob = tenant.blobs.find(hidden.partition("/audit/")[2])
            target = hidden.replace("/api/v1.0/", "/api/v1/")
            about = About(tenant, target, "GetBlob", about.publisher, about.content_type, blob)
            self._keep(fault, about, about.events)
        elif rest:
            items = orjson.loads(answer.body)
            since = max((item["contentCreated"] for item in items), default="")
            start = to_ns(datetime.fromisoformat(since)) if since else 0
            self._keep(fault, about, [], start, self._clock.now_ns())
        else:
            self._keep(fault, about, [])
        return answer

    def _keep(self, fault: Fault, about: About, events: list[str], since: int = 0, until: int = 0) -> None:
        if events and about.blob is not None:
            since, until = about.blob.first, about.blob.last + 1
        self._record.met(
            fault,
            self.name,
            about.target,
            tenant=about.tenant.id if about.tenant is not None else "",
            content_type=_BY_LOWER_NAME.get(about.content_type.lower(), about.content_type),
            since=since,
            until=until,
            events=events,
        )

    def _about(self, request: Request) -> About:
        match = _PATH.fullmatch(request.path)
        tenant = self._find(match[1]) if match is not None else None
        operation = match[2] if match is not None else ""
        content_type = content_type_of(request.path, request.query_string)
        content_type = _BY_LOWER_NAME.get(content_type, content_type)
        query = {name.lower(): value for name, value in request.query().items()}
        blob = None
        if tenant is not None and operation.startswith("audit/"):
            try:
                blob = tenant.blobs.find(operation[6:], self._clock.now_ns())
            except ValueError:
                pass
        name = (
            "GetBlob" if operation.startswith("audit/") else _SERVER_NAMES.get(operation.lower(), operation)
        )
        publisher = query.get("publisheridentifier", _NOBODY)
        return About(tenant, self.target(request), name, publisher, content_type, blob)

    def _tenant(self, name: str, claims: Claims) -> Tenant:
        if not is_guid(name):
            raise AfError("AF20013", f"The tenant ID passed in the URL ({name}) is not a valid GUID.")
        if name.lower() != claims["tid"]:
            raise AfError(
                "AF20010",
                f"The tenant ID passed in the URL ({name}) does not match the tenant ID passed in the access"
                f" token ({claims['tid']}).",
            )
        tenant = self._find(name)
        if tenant is None:
            raise AfError(
                "AF20011", f"Specified tenant ID ({name}) does not exist in the system or has been deleted."
            )
        roles = claims.get("roles", [])
        if "ActivityFeed.Read" not in roles:
            raise AfError(
                "AF10001",
                f"The permission set ({' '.join(roles)}) sent in the request does not include the expected"
                " permission.",
                401,
            )
        return tenant

    def _operate(self, request: Request, tenant: Tenant, operation: str, query: Query) -> Answer:
        blob = operation.startswith("audit/")
        method, work = ("GET", self._blob) if blob else self._operations.get(operation.lower(), ("", None))
        if work is None:
            return self.failure(404, "No HTTP resource was found that matches the request URI.")
        self._meter.count(tenant.id, self.name, "blob" if blob else operation)
        publisher = query.get("publisheridentifier", _NOBODY)
        if publisher is not _NOBODY and not is_guid(publisher):
            raise AfError("AF20002", "Invalid parameter type: PublisherIdentifier. Expected type: guid")
        if tenant.throttled(publisher):
            name = "GetBlob" if blob else _SERVER_NAMES[operation.lower()]
            rules = tenant.strictness
            raise too_many(name, publisher, rules.throttle_status, rules.retry_after)
        if request.method != method:
            return self.failure(
                405, f"The requested resource does not support http method '{request.method}'."
            )
        self._may(request, tenant, query)
        return work(request, tenant, query)

    def _may(self, request: Request, tenant: Tenant, query: Query) -> None:
        if tenant.strictness.dlp_needs_role and query.get("contenttype", "").lower() == DLP.lower():
            claims = self._tokens.claims(request) or {}
            if "ActivityFeed.ReadDlp" not in claims.get("roles", []):
                raise AfError(
                    "AF10001",
                    f"The permission set ({' '.join(claims.get('roles', []))}) sent in the request does not"
                    " include the expected permission.",
                    401,
                )

    def _start(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        publisher = query.get("publisheridentifier", _NOBODY)
        content_type = _content_type(query)
        made = subscriptions.start(tenant, content_type, request.body, publisher, self._validate)
        return json_answer(subscriptions.shown(made, self._clock.now()))

    def _stop(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        with tenant.lock:
            subscriptions.enabled(tenant, content_type)
            subscriptions.stop(tenant, content_type)
        return Answer(200, headers=HEADERS)

    def _list(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        return json_answer(subscriptions.listed(tenant))

    def _content(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        subscription = subscriptions.enabled(tenant, content_type)
        start, end = self._window(tenant, query)
        spans = subscriptions.spans(subscription, tenant.strictness)
        now = self._clock.now_ns()
        blobs = list(tenant.blobs.listing(content_type, to_ns(start), to_ns(end), now, spans))
        first = self._first_of_page(tenant, query, len(blobs))
        page = blobs[first : first + tenant.strictness.page_size]
        more = first + len(page) < len(blobs)
        base = _base(request)
        items = [self._item(base, tenant, blob) for blob in self._ordered(tenant, page)]
        return self._page(request, tenant, query, items, (start, end), first, more=more)

    def _notifications(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_type = _content_type(query)
        subscriptions.enabled(tenant, content_type)
        start, end = self._window(tenant, query)
        since, until = stamp(start, 3), stamp(end, 3)
        found = [
            attempt
            for attempt in tenant.objects["notification"].values()
            if attempt["contentType"] == content_type and since <= attempt["contentCreated"] < until
        ]
        first = self._first_of_page(tenant, query, len(found))
        page = found[first : first + tenant.strictness.page_size]
        more = first + len(page) < len(found)
        return self._page(request, tenant, query, page, (start, end), first, more=more)

    def _sensitive_types(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        return json_answer(sensitive_types(request.headers.get("accept-language", "en-US")))

    def _page(
        self,
        request: Request,
        tenant: Tenant,
        query: Query,
        items: list[Any],
        window: tuple[datetime, datetime],
        first: int,
        *,
        more: bool,
    ) -> Answer:
        headers: tuple[tuple[str, str], ...] = HEADERS
        if more:
            headers += (("NextPageUri", self._next_page(request, tenant, query, window, first)),)
        return Answer(200, orjson.dumps(items), headers=headers)

    def _ordered(self, tenant: Tenant, page: list[Blob]) -> list[Blob]:
        match tenant.strictness.page_order:
            case "reversed":
                return page[::-1]
            case "shuffled":
                return self._chance.sample(page, len(page))
        return page

    def _window(self, tenant: Tenant, query: Query) -> tuple[datetime, datetime]:
        now = self._clock.now()
        if "starttime" not in query and "endtime" not in query:
            return now - timedelta(hours=24), now
        wrong = AfError(
            "AF20055",
            f"{_WINDOW} StartTime:{query.get('starttime', '')}, EndTime:{query.get('endtime', '')}",
        )
        if "starttime" not in query or "endtime" not in query:
            raise wrong
        start, end = _time(query, "starttime"), _time(query, "endtime")
        oldest = now - tenant.strictness.retention - tenant.strictness.retention_slack
        if start >= end or end - start > timedelta(hours=24) or start < oldest:
            raise wrong
        return start, end

    def _first_of_page(self, tenant: Tenant, query: Query, count: int) -> int:
        token = query.get("nextpage")
        if token is None:
            return 0
        match = _PAGE.fullmatch(token)
        if match is None or not 0 < int(match[2]) < count:
            raise AfError("AF20031", f"Invalid nextPage Input: {token}.")
        age = (self._clock.now_ns() // NANOSECONDS - int(match[3])) % _PAGE_CLOCK
        life = tenant.strictness.page_life
        if life is not None and age > life.total_seconds():
            raise AfError("AF20031", f"Invalid nextPage Input: {token}.")
        return int(match[2])

    def _next_page(
        self,
        request: Request,
        tenant: Tenant,
        query: Query,
        window: tuple[datetime, datetime],
        first: int,
    ) -> str:
        rules = tenant.strictness
        start, end = window
        spelling = rules.endtime_spelling
        if spelling == "random":
            spelling = self._chance.choice(("lower", "camel"))
        issued = self._clock.now_ns() // NANOSECONDS % _PAGE_CLOCK
        token = f"{start:%Y%m%d%H}R{first + rules.page_size:05d}{issued:07d}"
        parameters = [
            ("contentType", _content_type(query)),
            ("startTime", query.get("starttime") or stamp(start, 6).removesuffix("Z")),
            (
                "endtime" if spelling == "lower" else "endTime",
                query.get("endtime") or stamp(end, 6).removesuffix("Z"),
            ),
            ("nextPage", token),
        ]
        if "publisheridentifier" in query and rules.keep_publisher:
            parameters.append(("PublisherIdentifier", query["publisheridentifier"]))
        text = "&".join(f"{name}={quote(value, safe=':')}" for name, value in parameters)
        operation = request.path.rpartition("/")[2]
        return f"{_base(request)}/api/v1/{tenant.id}/activity/feed/subscriptions/{operation}?{text}"

    def _item(self, base: str, tenant: Tenant, blob: Blob) -> dict[str, str]:
        created = from_ns(blob.created)
        content_id = blob.id
        digits = tenant.strictness.fraction_digits
        return {
            "contentType": blob.content_type,
            "contentId": content_id,
            "contentUri": f"{base}/api/v1.0/{tenant.id}/activity/feed/audit/{content_id}",
            "contentCreated": stamp(created, digits),
            "contentExpiration": stamp(created + tenant.strictness.content_life, digits),
        }

    def _blob(self, request: Request, tenant: Tenant, query: Query) -> Answer:
        content_id = request.path.partition("/activity/feed/audit/")[2]
        rules = tenant.strictness
        try:
            blob = tenant.blobs.find(content_id, self._clock.now_ns())
        except ValueError:
            raise AfError("AF20052", f"Content ID {content_id} in the URL is invalid.") from None
        if blob is None:
            raise AfError(
                "AF20050", f"The specified content ({content_id}) does not exist.", rules.gone_status
            )
        if from_ns(blob.created) + rules.content_life <= self._clock.now():
            raise AfError(
                "AF20051",
                f"Content requested with the key {content_id} has already expired. Content older than 7 days"
                " cannot be retrieved.",
                rules.gone_status,
            )
        self._remember(request, tenant, query.get("publisheridentifier", _NOBODY))
        return Answer(200, tenant.blobs.body(blob, content_id), headers=HEADERS)


_QUICK_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json; charset=utf-8\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
).encode()
_SERVER_NAMES = {
    "subscriptions/start": "StartSubscription",
    "subscriptions/stop": "StopSubscription",
    "subscriptions/list": "ListSubscriptions",
    "subscriptions/content": "GetContents",
    "subscriptions/notifications": "GetNotifications",
    "resources/dlpsensitivetypes": "GetSensitiveTypes",
}


def audiences(url: str) -> frozenset[str]:
    """The audiences of tokens that this service takes, in lower case."""
    return frozenset({url, "https://manage.office.com", ACTIVITY})


def _found(tenant: Tenant, content_id: bytes, now: int) -> Blob | None:
    try:
        return tenant.blobs.find(content_id.decode("latin-1"), now)
    except ValueError:
        return None


def _base(request: Request) -> str:
    return f"{request.scheme}://{request.headers.get('host', '127.0.0.1')}"


def _content_type(query: Query) -> str:
    if "contenttype" not in query:
        raise AfError("AF20001", "Missing parameter: contentType.")
    found = _BY_LOWER_NAME.get(query["contenttype"].lower())
    if found is None:
        raise AfError("AF20020", "The specified content type is not valid.")
    return found


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
    raise AfError("AF20002", f"Invalid parameter type: {name}. Expected type: datetime")
