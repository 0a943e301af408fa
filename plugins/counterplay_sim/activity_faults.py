"""The audit feed's own faults: what each kind of the catalogue makes of an answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from counterplay_sim import activity_subscriptions as subscriptions
from counterplay_sim.activity_errors import HEADERS, AfError, too_many
from counterplay_sim.blobs import Blob
from counterplay_sim.faults import Fault
from counterplay_sim.http_server import Answer, Request
from counterplay_sim.tenant import Tenant

if TYPE_CHECKING:
    from counterplay_sim.activity import About

_BUSY = (
    "<!DOCTYPE html><html><head><title>Service Unavailable</title></head><body><h2>Our services aren't"
    " available right now</h2></body></html>"
)
_STAMP = re.compile(rb'"(contentCreated|contentExpiration)":"([^"]+?)(?:\.(\d+))?Z"')
_ELEMENTS = {
    "syntax": b'{"CreationTime":"2026-03-02T08:14:07","Id":',
    "utf8": b'{"Id":"\xff\xfe\xfa"}',
    "surrogate": b'{"Id":"\\ud800"}',
    "number": b"17",
}
#: Kinds that answer instead of the service.
REFUSALS = frozenset(
    [
        "AF20050",
        "AF20051",
        "blob_404",
        "AF50000",
        "AF50005",
        "html_503",
        "timeout_408",
        "unauthorized",
        "AF10001",
        "AF429",
        "auditing_off",
    ]
)
#: Kinds that keep what a request is about from the reader, as far as it is not served later.
LOSSY = frozenset(
    [
        "AF20050",
        "AF20051",
        "blob_404",
        "AF50000",
        "AF50005",
        "html_503",
        "timeout_408",
        "unauthorized",
        "AF10001",
        "AF429",
        "auditing_off",
        "truncated_json",
        "empty_blob",
        "foreign_content_uri",
        "foreign_next_page",
        "self_next_page",
        "subscription_disabled",
        "subscription_removed",
        "connection_reset",
    ]
)


def refusal(fault: Fault, request: Request, about: About, tenant: Tenant | None) -> Answer | None:
    """The answer of a kind that refuses, None when it is not of that sort."""
    content_id = request.path.partition("/audit/")[2]
    gone = tenant.strictness.gone_status if tenant is not None else 400
    name = tenant.id if tenant is not None else "unknown"
    match fault.kind:
        case "AF20050":
            text = f"The specified content ({content_id}) does not exist."
            return AfError("AF20050", text, gone).answer()
        case "AF20051":
            text = (
                f"Content requested with the key {content_id} has already expired. Content older than 7 days"
                " cannot be retrieved."
            )
            return AfError("AF20051", text, gone).answer()
        case "blob_404":
            return Answer(404, b'{"Message":"No HTTP resource was found."}', headers=HEADERS)
        case "AF50000" | "AF50005":
            return AfError(fault.kind, "An internal error occurred. Retry the request.", 500).answer()
        case "html_503":
            return Answer(503, _BUSY.encode(), "text/html", HEADERS)
        case "timeout_408":
            return Answer(408, b"", headers=HEADERS)
        case "unauthorized":
            return Answer(
                401, b'{"Message":"Authorization has been denied for this request."}', headers=HEADERS
            )
        case "AF10001":
            text = "The permission set () sent in the request does not include the expected permission."
            return AfError("AF10001", text, 401).answer()
        case "AF429":
            rules = tenant.strictness if tenant is not None else None
            status, wait = (rules.throttle_status, rules.retry_after) if rules else (403, None)
            return too_many(about.operation, about.publisher, status, wait).answer()
        case "auditing_off":  # an uncaught exception, cut at its first colon: code and message are its halves
            code = (
                f"StartSubscription [CorrId=8a1f0c32-3a7e-4d0e-9f0a-6d4c8a1f0c32] [TenantId={name},"
                f"ContentType={about.content_type},ApplicationId={tenant.client_id if tenant else ''},"
                f"PublisherId={about.publisher}][AppId"
            )
            text = (
                "failed. Exception: Microsoft.Office.Compliance.Audit.DataServiceException: Tenant"
                f" {name} does not exist.\r\n   at Microsoft.Office.Compliance.Audit.API.AuditDataServ"
            )
            return AfError(code, text, 400).answer()
    return None


def change_state(fault: Fault, about: About, tenant: Tenant) -> None:
    """Kinds that change a subscription behind its owner's back."""
    content_type = about.content_type
    known = tenant.subscriptions.get(content_type)
    match fault.kind:
        case "subscription_disabled":
            subscriptions.stop(tenant, content_type, by="a tenant admin")
        case "subscription_removed":
            subscriptions.stop(tenant, content_type)
            tenant.remove_subscription(content_type)
        case "webhook_nulled":
            for name, one in list(tenant.subscriptions.items()):
                if content_type in ("", name) and one.get("webhook"):
                    tenant.put_subscription({**one, "webhook": None})
        case "start_lag" if known is not None:
            ready = tenant.clock.now_ns() + int((fault.minutes or 1.0) * 60 * 10**9)
            tenant.put_subscription({**known, subscriptions.READY: ready})


def spoil_blob(fault: Fault, answer: Answer, tenant: Tenant, blob: Blob) -> tuple[Answer, list[str]]:
    """The answer of a blob as a kind makes it, and the `Id`s that it keeps from the reader."""
    body = answer.body
    match fault.kind:
        case "truncated_json":
            cut = max(1, len(body) * 2 // 3)
            return _with(answer, body[:cut]), tenant.blobs.keys(blob)
        case "empty_blob":
            return _with(answer, b"[]"), tenant.blobs.keys(blob)
        case "invalid_element":
            parts = tenant.blobs.events(blob)
            at = len(parts) // 2
            if fault.element == "replace":
                lost = tenant.blobs.keys(blob)[at]
                parts[at] = _ELEMENTS["syntax"]
                return _with(answer, b"[" + b",".join(parts) + b"]"), [lost]
            parts.insert(at, _ELEMENTS[fault.element])
            return _with(answer, b"[" + b",".join(parts) + b"]"), []
        case "huge_blob":
            size = int(fault.megabytes * 1024 * 1024)
            inside = body[1:-1]
            times = max(1, size // max(1, len(inside)))
            return _with(answer, b"[" + b",".join([inside] * times) + b"]"), []
        case "wrong_content_type":
            return Answer(200, body, "text/html; charset=utf-8", answer.headers), []
        case "repeat_last":
            before = tenant.blobs.before(blob)
            return (_with(answer, b"[" + before + b"," + body[1:]) if before else answer), []
    return answer, []


def spoil_listing(
    fault: Fault, answer: Answer, request: Request, base: str, chance: random.Random
) -> tuple[Answer, str, bool]:
    """A listing as a kind makes it, the blob that it hides (its path), and whether it hides later pages."""
    link = dict(answer.headers).get("NextPageUri")
    match fault.kind:
        case "fraction_digits":
            return _with(answer, _STAMP.sub(_odd_time(fault.digits, chance), answer.body)), "", False
        case "foreign_content_uri":
            items = orjson.loads(answer.body)
            wanted = [item for item in items if re.search(fault.blob, item["contentId"])]
            if not wanted:
                return answer, "", False
            path = wanted[0]["contentUri"].removeprefix(base)
            wanted[0]["contentUri"] = f"https://{fault.host}{path}"
            return _with(answer, orjson.dumps(items)), path, False
        case "foreign_next_page" if link:
            return _link(answer, f"https://{fault.host}{link.removeprefix(base)}"), "", True
        case "self_next_page":
            return _link(answer, f"{base}{request.target}"), "", link is not None
    return answer, "", False


def _odd_time(digits: tuple[int, ...], chance: random.Random) -> Callable[[re.Match[bytes]], bytes]:
    def changed(match: re.Match[bytes]) -> bytes:
        count = chance.choice(digits)
        fraction = (match[3] or b"").ljust(9, b"0")[:count]
        return b'"%b":"%b%bZ"' % (match[1], match[2], b"." + fraction if count else b"")

    return changed


def _with(answer: Answer, body: bytes) -> Answer:
    return Answer(answer.status, body, answer.content_type, answer.headers)


def _link(answer: Answer, link: str) -> Answer:
    kept = tuple(pair for pair in answer.headers if pair[0] != "NextPageUri")
    return Answer(answer.status, answer.body, answer.content_type, (*kept, ("NextPageUri", link)))
