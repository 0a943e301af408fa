"""How strict the services are. The defaults are the documented or measured behaviour of the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Strictness:
    """The switches, as `Simulator(strictness=...)` takes them.

    * `requests_per_minute`, `throttle_status`, `retry_after`: the audit feed's limit for each tenant, what
      it answers beyond it (403 as in Microsoft's sample, or 429), and the `Retry-After` header, if any.
    * `page_size`: blobs on a page of a listing. `blob_events`, `blob_span`: what one blob holds at most.
    * `retention`, `retention_slack`: how far back content can be listed, and how much later it says no.
    * `content_life`: from a blob's creation to its expiration.
    * `odd_paging`: a `NextPageUri` without `PublisherIdentifier` and with `endtime` in lower case, as seen.
    * `alerts_page`: alerts on a page when `$top` does not say.
    """

    requests_per_minute: int = 2000
    throttle_status: int = 403
    retry_after: int | None = None
    page_size: int = 200
    blob_events: int = 200
    blob_span: timedelta = timedelta(minutes=20)
    retention: timedelta = timedelta(days=7)
    retention_slack: timedelta = timedelta(0)
    content_life: timedelta = timedelta(days=7)
    odd_paging: bool = True
    alerts_page: int = 100
