"""The Management Activity API, strict where the real one is."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from counterplay_sim.testing import Strictness

START, END = "2026-03-01T10:45:00", "2026-03-02T10:30:00"
EXCHANGE = "Audit.Exchange"


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_subscription_starts_once_and_stops(client: Any) -> None:
    """The states of a subscription, with the codes that the service gives between them."""
    assert client.activity("GET", "subscriptions/list").json() == []
    listing = {"contentType": EXCHANGE, "startTime": START, "endTime": END}
    assert _code(client.activity("GET", "subscriptions/content", **listing)) == (400, "AF20022")

    started = client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    assert started.json() == {"contentType": EXCHANGE, "status": "enabled", "webhook": None}
    assert _code(client.activity("POST", "subscriptions/start", contentType=EXCHANGE)) == (400, "AF20024")
    assert client.activity("GET", "subscriptions/list").json() == [started.json()]
    assert client.activity("GET", "subscriptions/content", **listing).status_code == 200

    stopped = client.activity("POST", "subscriptions/stop", contentType=EXCHANGE)
    assert (stopped.status_code, stopped.content) == (200, b"")
    assert _code(client.activity("GET", "subscriptions/content", **listing)) == (400, "AF20022")
    assert client.activity("GET", "subscriptions/list").json()[0]["status"] == "disabled"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"startTime": START}, "AF20055"),
        ({"endTime": END}, "AF20055"),
        ({"startTime": END, "endTime": START}, "AF20055"),
        ({"startTime": START, "endTime": START}, "AF20055"),
        ({"startTime": "2026-03-01T10:00:00", "endTime": "2026-03-02T10:00:01"}, "AF20055"),
        ({"startTime": "2026-02-23T10:29:59", "endTime": "2026-02-23T11:00:00"}, "AF20055"),
        ({"startTime": "yesterday", "endTime": END}, "AF20002"),
        ({"startTime": "2026-02-30", "endTime": END}, "AF20002"),
        ({"startTime": START, "endTime": END, "PublisherIdentifier": "TEST365LOGS"}, "AF20002"),
        ({"startTime": START, "endTime": END, "contentType": "Audit.Nothing"}, "AF20020"),
        ({"startTime": START, "endTime": END, "nextPage": "2026030110R000000999999"}, "AF20031"),
        ({"startTime": START, "endTime": END, "nextPage": "garbage"}, "AF20031"),
    ],
)
def test_a_listing_refuses_what_the_service_refuses(client: Any, query: dict[str, str], code: str) -> None:
    """Both times or neither, at most 24 hours, at most 7 days back, known types, GUIDs."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    answer = client.activity("GET", "subscriptions/content", **({"contentType": EXCHANGE} | query))

    assert _code(answer) == (400, code)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"startTime": "2026-03-02", "endTime": "2026-03-02T10:00"},
        {"startTime": "2026-03-02T00:00:00Z", "endTime": "2026-03-02T10:00:00.1234567Z"},
        {"startTime": "2026-03-02T02:00:00+02:00", "endTime": "2026-03-02T23:00:00"},
        {"STARTTIME": "2026-03-02", "endtime": "2026-03-02T10:00", "contenttype": "audit.exchange"},
    ],
)
def test_a_listing_takes_what_the_service_takes(client: Any, query: dict[str, str]) -> None:
    """Dates in every accepted form, an end in the future, names and types in any case."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    names = {name.lower() for name in query}

    answer = client.activity(
        "GET",
        "subscriptions/content",
        **query,
        **({} if "contenttype" in names else {"contentType": EXCHANGE}),
    )

    assert answer.status_code == 200
    assert answer.json()


def test_pages_follow_the_header_and_add_up(start: Any) -> None:
    """With three blobs a page the pages hold what one big page holds, by way of /api/v1/ addresses."""
    simulator, client = start(events=400, strictness=Strictness(page_size=3))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    first = client.activity(
        "GET", "subscriptions/content", contentType=EXCHANGE, startTime=START, endTime=END
    )
    items = client.window(EXCHANGE, START, END)

    assert len(first.json()) == 3
    assert f"/api/v1/{simulator.tenant.id}/activity/feed/" in first.headers["NextPageUri"]
    assert "endtime=" in first.headers["NextPageUri"]
    assert len(items) > 6
    assert len({item["contentId"] for item in items}) == len(items)
    assert sum(len(client.activity("GET", item["contentUri"]).json()) for item in items) == sum(
        len(simulator.tenant.blobs.body(blob, blob.id)[1:-1].split(b'"OrganizationId"')) - 1
        for blob in simulator.tenant.blobs.listing(EXCHANGE, 0, 2**63)
    )


def test_a_window_is_cut_out_of_the_log(client: Any) -> None:
    """Another window shows the same events under other ids, and tiles neither overlap nor leave a hole."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    hours = [f"2026-03-{1 + (11 + h) // 24:02d}T{(11 + h) % 24:02d}:00:00" for h in range(24)]

    def events(start: str, end: str) -> tuple[set[str], list[str]]:
        items = client.window(EXCHANGE, start, end)
        bodies = [client.activity("GET", item["contentUri"]).json() for item in items]
        return {item["contentId"] for item in items}, [event["Id"] for body in bodies for event in body]

    ids, whole = events(hours[0], hours[-1])
    tiled_ids, tiled = set(), []
    for tile_start, tile_end in pairwise(hours):
        part_ids, part = events(tile_start, tile_end)
        tiled_ids |= part_ids
        tiled += part

    assert sorted(tiled) == sorted(whole)
    assert tiled_ids != ids
    assert events(hours[0], hours[-1]) == (ids, whole)


def test_an_item_tells_times_that_fit_its_window(client: Any) -> None:
    """`contentCreated` lies in the window, the events before it, the expiration seven days after it."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    for item in client.window(EXCHANGE, START, END):
        created = item["contentCreated"]
        assert START <= created.removesuffix("Z") < END
        assert item["contentExpiration"] > created
        for event in client.activity("GET", item["contentUri"]).json():
            assert event["CreationTime"] <= created


def test_content_ids_are_checked(client: Any, clock: Any) -> None:
    """A blob that does not exist, a malformed id, and one that has expired have their codes."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    item = client.window(EXCHANGE, START, END)[0]
    other = "1".join([item["contentId"][:14], item["contentId"][15:]]).replace("20260", "20250")

    assert _code(client.activity("GET", "audit/nonsense")) == (400, "AF20052")
    assert _code(client.activity("GET", "audit/" + "9" * 23 + item["contentId"][23:])) == (400, "AF20052")
    assert _code(client.activity("GET", f"audit/{other}")) == (400, "AF20050")
    quoted = item["contentUri"].replace("$", "%24")
    assert client.activity("GET", quoted).content == client.activity("GET", item["contentUri"]).content
    clock.advance(timedelta(days=7))
    client._tokens.clear()
    assert _code(client.activity("GET", item["contentUri"])) == (400, "AF20051")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("contoso.example", 400, "AF20013"),
        ("00000000-0000-0000-0000-000000000001", 400, "AF20010"),
    ],
)
def test_the_tenant_of_the_address_is_that_of_the_token(
    client: Any, path: str, status: int, code: str
) -> None:
    """It has to be a GUID, and the token's."""
    url = f"{client.tenant['activity_url']}/api/v1.0/{path}/activity/feed/subscriptions/list"

    assert _code(client.activity("GET", url)) == (status, code)


def test_a_token_without_the_role_is_refused(simulator: Any, client: Any) -> None:
    """AF10001 comes with 401, though no other token would help."""
    simulator.tenant.grants["activity"] = []

    assert _code(client.activity("GET", "subscriptions/list")) == (401, "AF10001")


def test_too_many_requests_are_throttled_for_a_minute(start: Any, clock: Any) -> None:
    """AF429 comes as 403, as in Microsoft's sample, and ends when the minute has passed."""
    _, client = start(strictness=Strictness(requests_per_minute=3))
    for _ in range(3):
        assert client.activity("GET", "subscriptions/list").status_code == 200

    refused = client.activity("GET", "subscriptions/list", PublisherIdentifier=client.tenant["tenant_id"])
    assert _code(refused) == (403, "AF429")
    assert "Retry-After" not in refused.headers
    assert refused.json()["error"]["message"] == (
        f"Too many requests. Method=ListSubscriptions, PublisherId={client.tenant['tenant_id']}"
    )
    clock.advance(timedelta(seconds=61))
    assert client.activity("GET", "subscriptions/list").status_code == 200


def test_throttling_can_be_polite(start: Any) -> None:
    """The switch makes it 429 with Retry-After."""
    _, client = start(strictness=Strictness(requests_per_minute=0, throttle_status=429, retry_after=7))

    refused = client.activity("GET", "subscriptions/list")

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")


def test_a_webhook_cannot_be_validated(client: Any) -> None:
    """A subscription with a webhook is refused and not created."""
    url = f"{client.feed}/subscriptions/start"
    bearer = client._bearer(client.tenant["activity_url"])
    body = {"webhook": {"address": "http://example.net", "authId": "", "expiration": ""}}

    answer = client.session.post(url, params={"contentType": EXCHANGE}, json=body, headers=bearer)

    assert _code(answer) == (400, "AF20021")
    assert client.activity("GET", "subscriptions/list").json() == []


def test_answers_carry_the_headers_of_the_service(client: Any) -> None:
    """IIS headers, a Date from the simulated clock, no rate-limit headers."""
    headers = client.activity("GET", "subscriptions/list").headers

    assert headers["Date"] == "Mon, 02 Mar 2026 10:30:00 GMT"
    assert headers["Server"] == "Microsoft-IIS/10.0"
    assert headers["Expires"] == "-1"
    assert not [name for name in headers if "ratelimit" in name.lower()]


@pytest.mark.parametrize(
    ("method", "operation", "status"),
    [("GET", "subscriptions/start", 405), ("POST", "subscriptions/list", 405), ("GET", "nothing", 404)],
)
def test_wrong_methods_and_addresses_are_answered(
    client: Any, method: str, operation: str, status: int
) -> None:
    """They get the web framework's own answer, without an AF code."""
    answer = client.activity(method, operation, contentType=EXCHANGE)

    assert answer.status_code == status
    assert set(answer.json()) == {"Message"}


def test_every_event_is_listable_and_some_are_listed_twice(start: Any) -> None:
    """A naive client drains the whole log; what it holds twice has the same bytes both times."""
    simulator, client = start(events=800)

    drained = client.drain(START, END)
    bodies = [body for bodies in drained.values() for body in bodies]
    by_id: dict[str, set[bytes]] = {}
    for body in bodies:
        by_id.setdefault(json.loads(body)["Id"], set()).add(body)

    verdict = simulator.oracle().verdict()
    assert len(by_id) == verdict.events.offered
    assert len(bodies) == verdict.events.offered + verdict.events.listed_twice
    assert verdict.events.listed_twice > 0
    assert all(len(same) == 1 for same in by_id.values())
    assert set(drained) == {
        "Audit.AzureActiveDirectory",
        "Audit.Exchange",
        "Audit.SharePoint",
        "Audit.General",
        "DLP.All",
    }
