"""The Office 365 Management Activity API: subscriptions, listings of content, and the content itself.

https://learn.microsoft.com/office/office-365-management-api/office-365-management-activity-api-reference
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from mmap import mmap
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from counterplay import Context, GoneError, PermanentError, RetryableError, Unit, Verdict
from counterplay_m365 import times
from counterplay_m365.answers import activity, content
from counterplay_m365.tenant import ACTIVITY, tenant

if TYPE_CHECKING:
    from requests import Response

WIDEST = timedelta(hours=24)  # a wider window may be answered in part, or with AF20055
MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the tenant's feed of one content type is set to. `webhook` is where another product listens."""

    content_type: str
    status: str
    webhook: str | None


class ActivityFeed:
    """A client for the tenant of a context. Calls carry the publisher, whose quota they count against."""

    def __init__(self, context: Context) -> None:
        connection = tenant(context)
        self.skew: timedelta | None = None
        """How far this machine's clock was ahead of the service's when subscriptions were last listed."""
        self._http = context.http
        self._publisher = f"PublisherIdentifier={quote(connection.publisher_id, safe='')}"
        self._root = f"{connection.activity_url}/api/v1.0/{connection.tenant}/activity/feed"

    @property
    def subscriptions_url(self) -> str:
        """Where all subscriptions are listed."""
        return self._url("subscriptions/list")

    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of the app in this tenant. An entry without a status counts as enabled."""
        answer = self._http.get(self.subscriptions_url)
        self.skew = times.skew(answer.headers.get("Date"))
        found = self._list(answer, "the list of subscriptions")
        return [
            Subscription(
                str(item.get("contentType", "")),
                str(item.get("status") or "enabled"),
                _address(item.get("webhook")),
            )
            for item in found
        ]

    def start(self, content_type: str, webhook: tuple[str, str] | None = None) -> None:
        """Start a subscription. One that runs already is a success (AF20024).

        `webhook` is an HTTPS address and the id that Microsoft sends it; the address is tried at once.
        """
        body = None
        if webhook is not None:
            body = {"webhook": {"address": webhook[0], "authId": webhook[1], "expiration": ""}}
        url = self._url("subscriptions/start", contentType=content_type)
        self._http.request("POST", url, json=body, repeatable=True, classify=_of_start)

    def listing(self, content_type: str, start: datetime, end: datetime) -> Iterator[Unit]:
        """The content that became available in [start, end), in windows that the service accepts.

        It takes whole seconds, so that what is available since the last one is asked for by its end. Who
        asks takes nothing for listed behind `end`.
        """
        start, end = times.floor(start), times.ceil(end)
        while start < end:
            upto = min(start + WIDEST, end)
            yield from self._window(content_type, start, upto)
            start = upto

    def blob(self, unit: Unit) -> bytes | mmap:
        """The bytes of listed content: a JSON array of events.

        GoneError: it has expired. PermanentError: the service says again and again that it does not exist.
        """
        try:
            return self._http.bulk("GET", self._with_publisher(str(unit.locator["uri"]))).body
        except GoneError as error:
            if error.code is not None:
                raise
            raise _absent(unit, error) from error
        except RetryableError as error:
            if error.code == "AF20050":
                raise _absent(unit, error) from error
            raise

    def _window(self, content_type: str, start: datetime, end: datetime) -> Iterator[Unit]:
        first = self._url(
            "subscriptions/content",
            contentType=content_type,
            startTime=times.stamp(start),
            endTime=times.stamp(end),
        )
        where = f"{content_type} from {times.stamp(start)} to {times.stamp(end)}"
        try:
            yield from self._pages(first, where)
        except PermanentError as error:
            if error.code != "AF20031":
                raise
            raise RetryableError(
                f"the listing of {where} was cut: its next page is no longer known", code=error.code
            ) from error

    def _pages(self, first: str, where: str) -> Iterator[Unit]:
        """What a listing holds, page by page. Who stops at a failure has what stood before it.

        Content that cannot be addressed is the failure at the end: what stands beside it comes first.
        """
        seen: set[str] = set()
        address: str | None = first
        spoilt: PermanentError | None = None
        while address is not None:
            if address in seen:
                raise RetryableError(f"the listing of {where} names a page as its own successor: {address}")
            if len(seen) == MAX_PAGES:
                raise RetryableError(f"the listing of {where} does not end after {MAX_PAGES} pages")
            seen.add(address)
            response = self._http.get(address)
            for item in self._list(response, f"the listing of {where}"):
                try:
                    unit = _unit(item, where)
                except PermanentError as error:
                    spoilt = spoilt or error
                    continue
                yield unit
            following = response.headers.get("NextPageUri")
            address = self._with_publisher(following) if following else None
        if spoilt is not None:
            raise spoilt

    def _list(self, response: Any, what: str) -> list[dict[str, Any]]:
        found = content(response, f"{ACTIVITY}, asked for {what},")
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise RetryableError(f"{ACTIVITY}, asked for {what}, answered no list of objects")
        return found

    def _url(self, operation: str, **query: str) -> str:
        parts = [f"{name}={quote(value, safe=':')}" for name, value in query.items()]
        return f"{self._root}/{operation}?{'&'.join([*parts, self._publisher])}"

    def _with_publisher(self, address: str) -> str:
        """An address of the service, verbatim, with the publisher where it is missing."""
        query = urlsplit(address).query
        if "publisheridentifier=" in query.lower():
            return address
        return f"{address}{'&' if query else '?'}{self._publisher}"


def _unit(item: dict[str, Any], where: str) -> Unit:
    identity, uri = item.get("contentId"), item.get("contentUri")
    if not isinstance(uri, str) or not uri:
        raise PermanentError(f"the listing of {where} holds content without an address: {str(item)[:200]}")
    created = item.get("contentCreated")
    return Unit(
        id=identity if isinstance(identity, str) and identity else uri,
        locator={"uri": uri, "content_type": item.get("contentType"), "content_created": created},
        created=times.parse(created),
        expires=times.parse(item.get("contentExpiration")),
    )


def _of_start(response: Response) -> Verdict:
    """A start too soon after the last one may be refused as throttling: nobody else has to wait for that."""
    verdict = activity(response)
    return replace(verdict, meaning="retry") if verdict.meaning == "wait" else verdict


def _address(webhook: object) -> str | None:
    if not isinstance(webhook, dict):
        return None
    return str(webhook.get("address") or "an unknown address")


def _absent(unit: Unit, error: RetryableError | GoneError) -> PermanentError:
    return PermanentError(
        f"listed content does not exist: {error.message}",
        hint=f"it was asked for several times; content id {unit.id}",
        status=error.status,
        code=error.code,
    )
