"""The trigger `m365.audit_log`: the unified audit log, as the Management Activity API hands it out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from mmap import mmap
from typing import Any

from counterplay import BlockedError, Context, CounterplayError, FeedTrigger, JsonObject, RetryableError, Unit
from counterplay_m365.activity import ActivityFeed

CONTENT_TYPES = (
    "Audit.AzureActiveDirectory",
    "Audit.Exchange",
    "Audit.SharePoint",
    "Audit.General",
    "DLP.All",
)
RETENTION = timedelta(days=7)  #: how far back content can be listed (error AF20055)
RETENTION_MARGIN = timedelta(minutes=10)  #: for slow requests and clocks that are ahead
MOST_SKEW = timedelta(seconds=30)  #: between this machine's clock and the service's
START_PAUSE = 15 * 60.0  #: seconds between two starts of a subscription; the service refuses earlier ones


class AuditLog(FeedTrigger):
    """Collect the events of the tenant's audit log, whatever service wrote them.

    Each content type is a feed of its own with its own cursor. The subscription is started when it
    is missing; one that runs, and one that a webhook of another product hangs on, are left alone.

    Needs:
        Application permission `ActivityFeed.Read` (Office 365 Management APIs), and
        `ActivityFeed.ReadDlp` to see the matched values in `DLP.All`; unified auditing turned on.
    Cursor:
        Start of the oldest hour that is not fully accounted for, by the time at which the service
        made content available; blobs above it that are done are in the ledger.
    Delivery:
        At least once. The service repeats events by design; the host drops repeats by `Id`.
    Limits:
        Typically an hour or more passes between an action and its event, and the first content of a
        new subscription can take 12 hours. Content can be listed for 7 days; hours that an older
        cursor can no longer reach become a gap in the ledger.
    Source:
        https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-reference
    """

    name = "audit_log"
    connection = "m365.tenant"
    tile = timedelta(hours=1)
    retention = RETENTION - RETENTION_MARGIN
    settle_time = timedelta(hours=2)
    sweeps = ((timedelta(hours=26), timedelta(hours=1)), (timedelta(days=7), timedelta(days=1)))
    parallel = 32  #: at 150 ms a request five fill the usual quota; the rest is for larger ones
    id_field = "Id"
    time_field = "CreationTime"

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.parallel = int(self.arguments.get("parallel", self.parallel))
        self._clock_is_wrong = False
        self._starts: dict[str, tuple[float, CounterplayError | None]] = {}

    def interruption(self, context: Context) -> str | None:
        feed = ActivityFeed(context)
        present = {one.content_type.lower(): one.status for one in feed.subscriptions()}
        self._compare_clocks(context, feed)
        off = [
            f"{name} ({present.get(name.lower(), 'removed')})"
            for name in self._content_types()
            if present.get(name.lower()) != "enabled"
        ]
        return f"the subscription was off: {', '.join(off)}" if off else None

    def _compare_clocks(self, context: Context, feed: ActivityFeed) -> None:
        """Windows go by this machine's clock: one that is wrong is told, once each time that it changes."""
        wrong = feed.skew is not None and abs(feed.skew) > MOST_SKEW
        if wrong and not self._clock_is_wrong and feed.skew is not None:
            context.log.warning(
                "this machine's clock is %.0f s %s that of the Management Activity API: set it right, or "
                "content is listed late or refused",
                abs(feed.skew).total_seconds(),
                "ahead of" if feed.skew > timedelta(0) else "behind",
            )
        self._clock_is_wrong = wrong

    def prepare(self, context: Context) -> None:
        feed = ActivityFeed(context)
        present = {one.content_type.lower(): one for one in feed.subscriptions()}
        failure: CounterplayError | None = None
        for content_type in self._content_types():
            one = present.get(content_type.lower())
            try:
                if one is None or (one.status != "enabled" and one.webhook is None):
                    self._start(feed, content_type)
                elif one.status != "enabled":
                    raise BlockedError(
                        f"the subscription to {content_type} is {one.status}, and a webhook of another "
                        f"product hangs on it ({one.webhook})",
                        hint="start it in that product: starting it here could take its webhook away",
                    )
            except CounterplayError as error:  # one content type does not hold back the others
                failure = failure or error
        if failure is not None:
            raise failure

    def _start(self, feed: ActivityFeed, content_type: str) -> None:
        """Start a subscription; within the service's pause what came of the last start is said again."""
        last = self._starts.get(content_type)
        if last is not None and time.monotonic() - last[0] < START_PAUSE:
            if last[1] is not None:
                raise last[1].with_traceback(None)
            return  # it was started, and the listing will say if it is still not ready
        failure: CounterplayError | None = None
        try:
            feed.start(content_type)
        except RetryableError:
            raise  # it was not answered, so it does not count
        except CounterplayError as error:
            failure = error
        self._starts[content_type] = (time.monotonic(), failure)
        if failure is not None:
            raise failure

    def discover(self, context: Context, start: datetime, end: datetime) -> Iterable[Unit]:
        feed = ActivityFeed(context)
        for content_type in self._content_types():
            yield from feed.listing(content_type, start, end)

    def fetch(self, context: Context, unit: Unit) -> bytes | mmap:
        return ActivityFeed(context).blob(unit)

    def meta(self, unit: Unit) -> JsonObject:
        return {
            "content_type": unit.locator.get("content_type"),
            "content_id": unit.id,
            "content_created": unit.locator.get("content_created"),
        }

    def _content_types(self) -> list[str]:
        chosen: list[str] = self.arguments.get("content_types") or list(CONTENT_TYPES)
        return chosen
