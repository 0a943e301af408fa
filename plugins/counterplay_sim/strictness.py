"""How strict the services are. The defaults are the documented or measured behaviour of the real ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from counterplay_sim import fault_checks as check
from counterplay_sim.graph_rules import GraphRules


@dataclass(frozen=True, slots=True)
class Strictness:
    """The switches, as `Simulator(strictness=...)`, a faults file and the admin port take them.

    Of the audit feed, where what the real service does is not known or differs from its documentation:

    * `requests_per_minute`, `throttle_status`, `retry_after`: the limit, what is answered beyond it (403 as
      in Microsoft's sample, or 429), and the `Retry-After` header in seconds, if any. `quota_by`: whom the
      limit holds for, the `tenant` or the `publisher` (`PublisherIdentifier`; callers without share one).
    * `gone_status`: of AF20050 and AF20051, 400 or 404.
    * `page_size`, `page_order` (`sorted`, `shuffled`, `reversed`), `page_life`: blobs on a page of a listing,
      their order on it, and how long its `nextPage` is good (None: for ever; later AF20031).
    * `endtime_spelling` (`lower`, `camel`, `random`) and `keep_publisher`: of the `NextPageUri`.
    * `blob_events`, `blob_span`: what one blob holds at most. `stored_blobs`: blobs are objects that every
      window shows alike, not ranges cut to the window. `created_is` (`last`, `first`): the end of the range
      that `contentCreated` tells.
    * `retention`, `retention_slack`: how far back content can be listed, and how much later it says no.
      `content_life`: from a blob's creation to its expiration (seven days, or 20 days 23 hours as measured).
    * `backfill`: content from so long before a subscription's first start can be listed.
    * `start_cooldown`, `cooldown_code`, `cooldown_status`: how soon a content type may be started again, and
      the refusal. `start_lag`: for so long after a start the answer is AF20022.
    * `bodyless_start`: what a start without a body does to a webhook: `keep` or `remove`.
    * `dlp_needs_role`: `DLP.All` needs ActivityFeed.ReadDlp.
    * `webhook_retry`, `webhook_patience`: the first delay after a failed notification, which doubles each
      time, and after how many failures in a row the webhook is disabled. `webhook_items`: blobs in one.
    * `fraction_digits`: of `contentCreated` and `contentExpiration`.

    Of Graph: `graph` (switches of its own, see `GraphRules`), `alerts_page`: alerts on a page when `$top`
    does not say. `audit_latency`: how long after a change in the tenant its audit event can be listed.
    """

    requests_per_minute: int = 2000
    throttle_status: int = 403
    retry_after: int | None = None
    quota_by: str = "tenant"
    gone_status: int = 400
    page_size: int = 200
    page_order: str = "sorted"
    page_life: timedelta | None = timedelta(hours=1)
    endtime_spelling: str = "lower"
    keep_publisher: bool = False
    blob_events: int = 200
    blob_span: timedelta = timedelta(minutes=20)
    stored_blobs: bool = False
    created_is: str = "last"
    retention: timedelta = timedelta(days=7)
    retention_slack: timedelta = timedelta(0)
    content_life: timedelta = timedelta(days=7)
    backfill: timedelta = timedelta(hours=24)
    start_cooldown: timedelta = timedelta(minutes=15)
    cooldown_code: str = "AF429"
    cooldown_status: int = 403
    start_lag: timedelta = timedelta(0)
    bodyless_start: str = "keep"
    dlp_needs_role: bool = False
    webhook_retry: timedelta = timedelta(minutes=1)
    webhook_patience: int = 5
    webhook_items: int = 50
    fraction_digits: int = 3
    alerts_page: int = 100
    audit_latency: timedelta = timedelta(minutes=20)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                found = getattr(self, name)
                raise ValueError(f"{name} is one of {', '.join(map(str, choices))}, not {found!r}")
        for name, least in _LEAST.items():
            check.whole(name, getattr(self, name), least, 7 if name == "fraction_digits" else None)
        for name in ("keep_publisher", "stored_blobs", "dlp_needs_role"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is true or false, not {getattr(self, name)!r}")
        if self.retry_after is not None:
            check.whole("retry_after", self.retry_after)
        for name in _SPANS:
            _check_span(name, getattr(self, name))
        if re.fullmatch(r"AF\d{3,5}", self.cooldown_code) is None:
            raise ValueError(f"cooldown_code is a code such as AF429, not {self.cooldown_code!r}")

    graph: GraphRules = field(default_factory=GraphRules)

    @classmethod
    def parse(cls, switches: Mapping[str, Any]) -> Strictness:
        """From JSON, spans in seconds. ValueError: no switch has that name, or no such value."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        values = {}
        for name, value in switches.items():
            if name not in kinds:
                check.choice("a switch", name, sorted(kinds), empty=False)
            if name == "graph":
                value = value if isinstance(value, GraphRules) else GraphRules.parse(value)
            elif "timedelta" in kinds[name] and value is not None:
                if not isinstance(value, int | float) or isinstance(value, bool):
                    raise ValueError(f"{name} is a number of seconds, not {value!r}")
                value = _span(name, value)
            elif kinds[name] in _TYPES and not isinstance(value, _TYPES[kinds[name]]):
                raise ValueError(f"{name} is a value of type {kinds[name]}, not {value!r}")
            values[name] = value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As `parse` takes it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["graph"] = self.graph.to_dict()
        return {k: v.total_seconds() if isinstance(v, timedelta) else v for k, v in found.items()}


_CHOICES: dict[str, tuple[object, ...]] = {
    "throttle_status": (403, 429),
    "gone_status": (400, 404),
    "cooldown_status": (400, 403, 429),
    "quota_by": ("tenant", "publisher"),
    "page_order": ("sorted", "shuffled", "reversed"),
    "endtime_spelling": ("lower", "camel", "random"),
    "created_is": ("last", "first"),
    "bodyless_start": ("keep", "remove"),
}
#: Numbers, and the least that makes sense of each.
_LEAST = {
    "requests_per_minute": 0,
    "page_size": 1,
    "blob_events": 1,
    "webhook_patience": 1,
    "webhook_items": 1,
    "fraction_digits": 0,
    "alerts_page": 1,
}
#: Spans; the value says whether one of no length makes sense.
_SPANS = {
    "page_life": False,
    "blob_span": False,
    "retention": False,
    "retention_slack": True,
    "content_life": False,
    "backfill": True,
    "start_cooldown": True,
    "start_lag": True,
    "webhook_retry": False,
    "audit_latency": True,
}


def _span(name: str, seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{name} is a number of seconds, not {seconds!r}") from None


def _check_span(name: str, span: object) -> None:
    if span is None and name == "page_life":
        return
    if not isinstance(span, timedelta):
        raise ValueError(f"{name} is a span of time, not {span!r}")
    if span < timedelta(0) or (not span and not _SPANS[name]):
        limit = "not negative" if _SPANS[name] else "longer than 0"
        raise ValueError(f"{name} is a span of time that is {limit}, not {span.total_seconds():g} seconds")


_TYPES: dict[str, type] = {"int": int, "str": str, "bool": bool}
