"""Subscriptions of the audit feed: their states, and the times for which content exists because of them.

What a subscription document has under `@sim.` is the simulator's own: `periods` ([from, to] in ns, `to` null
while it lasts), `started` (the last start, ns), `disabled_by`, `removed`, `ready` (AF20022 until then), and
the state of its webhook (`notified`, `failures`, `next_try`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from counterplay_sim.activity_errors import AfError, too_many
from counterplay_sim.blobs import ALWAYS, Span
from counterplay_sim.clock import from_ns, span_ns
from counterplay_sim.strictness import Strictness
from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]

PRIVATE = "@sim."
PERIODS, STARTED, READY = "@sim.periods", "@sim.started", "@sim.ready"
DISABLED_BY, REMOVED = "@sim.disabled_by", "@sim.removed"
NOTIFIED, FAILURES, NEXT_TRY = "@sim.notified", "@sim.failures", "@sim.next_try"
_FOR_EVER = 2**63 - 1
_BODY = ("webhook",)
_WEBHOOK = ("address", "authId", "expiration")

#: Proves that a listener is there: (address, authId) to the reason why it is refused, or None.
Validate = Callable[[str, str], str | None]


def start(tenant: Tenant, content_type: str, body: bytes, publisher: str, validate: Validate) -> Doc:
    """Start a subscription, or change its webhook. AfError: it is refused, and nothing has changed."""
    now = tenant.clock.now_ns()
    wanted = _webhook(body, now)
    with tenant.lock:
        known = tenant.subscriptions.get(content_type, {})
        enabled = known.get("status") == "enabled"
        webhook = known.get("webhook")
        if enabled and wanted is None and not (webhook and tenant.strictness.bodyless_start == "remove"):
            raise AfError("AF20024", "The subscription is already enabled. No property change.")
        last = known.get(STARTED)
        if last is not None and now - last < span_ns(tenant.strictness.start_cooldown):
            raise _too_soon(tenant.strictness, publisher)
    if wanted is not None:  # without the lock: the listener may ask this service something
        why = validate(wanted["address"], wanted["authId"])
        if why is not None:
            raise AfError(
                "AF20021", f"The webhook endpoint ({wanted['address']}) could not be validated. {why}"
            )
    with tenant.lock:
        periods = [list(period) for period in known.get(PERIODS, [])]
        if not enabled:
            periods.append([now, None])
        made = {
            **{name: value for name, value in known.items() if name not in (DISABLED_BY, REMOVED)},
            "contentType": content_type,
            "status": "enabled",
            "webhook": wanted if wanted or tenant.strictness.bodyless_start == "remove" else webhook,
            PERIODS: periods,
            STARTED: now,
            READY: now + span_ns(tenant.strictness.start_lag),
            NOTIFIED: now,
            FAILURES: 0,
            NEXT_TRY: 0,
        }
        tenant.put_subscription(made)
        return made


def stop(tenant: Tenant, content_type: str, *, by: str = "") -> None:
    """End a subscription: what becomes available until the next start is lost."""
    with tenant.lock:
        known = tenant.subscriptions.get(content_type)
        if known is None or known["status"] != "enabled":
            return
        now = tenant.clock.now_ns()
        periods = [list(period) for period in known.get(PERIODS, [[0, None]])]
        if periods and periods[-1][1] is None:
            periods[-1][1] = now
        made = {**known, "status": "disabled", PERIODS: periods}
        tenant.put_subscription({**made, DISABLED_BY: by} if by else made)


def enabled(tenant: Tenant, content_type: str) -> Doc:
    """The subscription of a content type. AfError: there is none that is enabled."""
    known: Doc | None = tenant.subscriptions.get(content_type)
    if known is not None and known.get(DISABLED_BY) and known["status"] != "enabled":
        raise AfError("AF20023", f"The subscription was disabled by {known[DISABLED_BY]}.")
    if known is None or known["status"] != "enabled" or tenant.clock.now_ns() < known.get(READY, 0):
        raise AfError("AF20022", "No subscription found for the specified content type.")
    return known


def shown(subscription: Doc, now: datetime) -> Doc:
    """A subscription as it is listed."""
    made = {name: value for name, value in subscription.items() if not name.startswith(PRIVATE)}
    webhook = made.get("webhook")
    if webhook and expired(webhook, now):
        made["webhook"] = {**webhook, "status": "expired"}
    return made


def listed(tenant: Tenant) -> list[Doc]:
    """All subscriptions as they are listed."""
    now = tenant.clock.now()
    return [shown(one, now) for one in tenant.subscriptions.values() if not one.get(REMOVED)]


def spans(subscription: Doc | None, strictness: Strictness) -> tuple[Span, ...]:
    """The times for which a subscription gives content, [from, to) in ns; for all of it without a record."""
    periods = (subscription or {}).get(PERIODS)
    if not periods:
        return ALWAYS
    found = []
    for number, (since, to) in enumerate(periods):
        since = since - span_ns(strictness.backfill) if number == 0 else since
        found.append((since, _FOR_EVER if to is None else to))
    return tuple(found)


def expired(webhook: Doc, now: datetime) -> bool:
    """Whether a webhook's time is over."""
    text = webhook.get("expiration")
    return text is not None and _moment(str(text)) <= now


def _webhook(body: bytes, now: int) -> Doc | None:
    """The webhook of a start request's body, complete; None when it has none."""
    if not body.strip():
        return None
    try:
        document = orjson.loads(body)
        webhook = document.get("webhook")
    except (ValueError, AttributeError):
        raise AfError("AF20002", "Invalid parameter type: webhook. Expected type: object") from None
    _refuse_unknown(document, _BODY)
    if webhook is None:
        return None
    if not isinstance(webhook, dict):
        raise AfError("AF20002", "Invalid parameter type: webhook. Expected type: object")
    _refuse_unknown(webhook, _WEBHOOK)
    address = str(webhook.get("address") or "")
    if not address.lower().startswith("https://"):
        raise AfError(
            "AF20021",
            f"The webhook endpoint ({address}) could not be validated. The address must begin with HTTPS.",
        )
    expiration: Any = webhook.get("expiration") or None
    try:
        if expiration and _moment(expiration) <= from_ns(now):
            raise AfError("AF20003", f"Expiration {expiration} provided is set to past date and time.")
    except (ValueError, TypeError, AttributeError):
        raise AfError("AF20002", "Invalid parameter type: expiration. Expected type: datetime") from None
    return {
        "status": "enabled",
        "address": address,
        "authId": str(webhook.get("authId") or ""),
        "expiration": expiration,
    }


def _refuse_unknown(document: Doc, known: tuple[str, ...]) -> None:
    """A member that the request does not have would be a setting that is silently not made."""
    unknown = next((name for name in document if name not in known), None)
    if unknown is not None:
        raise AfError("AF20002", f"Invalid parameter: {unknown}. Expected: {', '.join(known)}")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _too_soon(strictness: Strictness, publisher: str) -> AfError:
    if strictness.cooldown_code == "AF429":
        return too_many("StartSubscription", publisher, strictness.cooldown_status, strictness.retry_after)
    minutes = strictness.start_cooldown.total_seconds() / 60
    return AfError(
        strictness.cooldown_code,
        f"A subscription can be started once in {minutes:g} minutes.",
        strictness.cooldown_status,
    )
