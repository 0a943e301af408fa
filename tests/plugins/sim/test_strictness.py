"""Each switch of the strictness, as it shows on the wire."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from counterplay_sim.testing import Strictness

START, END = "2026-03-01T10:45:00", "2026-03-02T10:30:00"
EXCHANGE = "Audit.Exchange"


def _open(client: Any, content_type: str = EXCHANGE) -> list[dict[str, str]]:
    client.activity("POST", "subscriptions/start", contentType=content_type)
    return list(client.window(content_type, START, END))


def _code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_both_prefixes_lead_to_the_feed(client: Any) -> None:
    """`/api/v1/` and `/api/v1.0/`, and no other."""
    for prefix, status in (("v1", 200), ("v1.0", 200), ("v2", 404)):
        url = client.feed.replace("/v1.0/", f"/{prefix}/")
        assert client.activity("GET", f"{url}/subscriptions/list").status_code == status


@pytest.mark.parametrize(("status", "wait"), [(403, None), (403, 5), (429, None), (429, 5)])
def test_throttling_has_four_faces(start: Any, status: int, wait: int | None) -> None:
    """403 or 429, with and without Retry-After."""
    rules = Strictness(requests_per_minute=0, throttle_status=status, retry_after=wait)
    _, client = start(strictness=rules)

    refused = client.activity("GET", "subscriptions/list")

    assert _code(refused) == (status, "AF429")
    assert refused.headers.get("Retry-After") == (str(wait) if wait else None)


def test_the_quota_may_be_the_publishers(start: Any) -> None:
    """Each identifier has its own minute; callers without one share theirs."""
    _, client = start(strictness=Strictness(requests_per_minute=1, quota_by="publisher"))
    one, two = {"PublisherIdentifier": "1" * 8 + "-1111-1111-1111-111111111111"}, {}

    statuses = [client.activity("GET", "subscriptions/list", **who).status_code for who in (one, two) * 2]

    assert statuses == [200, 200, 403, 403]


def test_lost_content_may_be_404(start: Any, clock: Any) -> None:
    """AF20050 and AF20051 come with the status of the switch."""
    _, client = start(strictness=Strictness(gone_status=404))
    item = _open(client)[0]
    gone = item["contentUri"].replace("2026", "2025")

    assert _code(client.activity("GET", gone)) == (404, "AF20050")
    clock.advance(timedelta(days=7))
    client._tokens.clear()
    assert _code(client.activity("GET", item["contentUri"])) == (404, "AF20051")


def test_content_may_live_longer_than_it_can_be_listed(start: Any, clock: Any) -> None:
    """20 days 23 hours, as one live tenant showed."""
    _, client = start(strictness=Strictness(content_life=timedelta(days=20, hours=23)))
    item = _open(client)[0]
    clock.advance(timedelta(days=20))
    client._tokens.clear()

    assert item["contentExpiration"][:10] in ("2026-03-22", "2026-03-23")
    assert client.activity("GET", item["contentUri"]).status_code == 200


def test_an_hour_of_slack_at_the_far_end(start: Any) -> None:
    """A window that begins seven days and half an hour ago."""
    window = {"contentType": EXCHANGE, "startTime": "2026-02-23T10:00:00", "endTime": "2026-02-23T11:00:00"}
    for slack, status in ((timedelta(0), 400), (timedelta(hours=1), 200)):
        simulator, client = start(strictness=Strictness(retention_slack=slack))
        client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
        assert client.activity("GET", "subscriptions/content", **window).status_code == status
        simulator.close()


def test_stored_blobs_are_the_same_in_every_window(start: Any) -> None:
    """The textbook: objects with one id each, listed where their creation lies."""
    _, client = start(events=400, strictness=Strictness(stored_blobs=True))
    whole = _open(client)
    hours = ["2026-03-01T10:45:00", "2026-03-01T20:10:00", "2026-03-02T03:33:00", END]

    tiled = [item for a, b in pairwise(hours) for item in client.window(EXCHANGE, a, b)]

    assert tiled == whole
    ids = [event["Id"] for item in whole for event in client.activity("GET", item["contentUri"]).json()]
    assert len(ids) > 200
    assert {len(item["contentId"]) for item in whole} == {len(whole[0]["contentId"])}


def test_the_creation_may_be_either_end_of_a_range(start: Any) -> None:
    """`contentCreated` is the time of the last event in it, or of the first."""
    for end, place in (("last", 1), ("first", 0)):
        simulator, client = start(strictness=Strictness(created_is=end, blob_events=7))
        for item in _open(client):
            digits = item["contentId"].split("$")[place]
            created = item["contentCreated"]
            assert digits[:17] == "".join(c for c in created if c.isdigit())
        simulator.close()


def test_the_order_on_a_page_is_a_switch(start: Any) -> None:
    """Sorted, reversed or shuffled: the same items."""
    seen = {}
    for order in ("sorted", "reversed", "shuffled"):
        simulator, client = start(events=400, strictness=Strictness(page_order=order))
        seen[order] = [item["contentCreated"] for item in _open(client)]
        simulator.close()

    assert seen["sorted"] == sorted(seen["sorted"])
    assert seen["reversed"] == seen["sorted"][::-1]
    assert sorted(seen["shuffled"]) == seen["sorted"] != seen["shuffled"]


def test_a_next_page_grows_stale(start: Any, clock: Any) -> None:
    """After an hour its token is AF20031, and the window begins anew."""
    _, client = start(events=400, strictness=Strictness(page_size=3))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    query = {"contentType": EXCHANGE, "startTime": START, "endTime": END}
    link = client.activity("GET", "subscriptions/content", **query).headers["NextPageUri"]

    clock.advance(timedelta(minutes=50))
    assert client.activity("GET", link).status_code == 200
    clock.advance(timedelta(minutes=11))
    client._tokens.clear()
    assert _code(client.activity("GET", link)) == (400, "AF20031")


def test_a_next_page_spells_and_drops_as_told(start: Any) -> None:
    """`endTime` or `endtime`, with the publisher or without."""
    found = set()
    for spelling, keep in (("camel", True), ("lower", False), ("random", False)):
        simulator, client = start(
            events=400, strictness=Strictness(page_size=3, endtime_spelling=spelling, keep_publisher=keep)
        )
        client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
        query = {"contentType": EXCHANGE, "startTime": START, "endTime": END}
        query["PublisherIdentifier"] = client.tenant["tenant_id"]
        for _ in range(12):
            link = client.activity("GET", "subscriptions/content", **query).headers["NextPageUri"]
            found.add((spelling, "endTime=" in link, "PublisherIdentifier=" in link))
        simulator.close()

    assert found == {
        ("camel", True, True),
        ("lower", False, False),
        ("random", True, False),
        ("random", False, False),
    }


@pytest.mark.parametrize(("code", "status"), [("AF429", 403), ("AF20099", 400)])
def test_a_start_needs_a_pause(start: Any, clock: Any, code: str, status: int) -> None:
    """Fifteen minutes between two starts of one content type; stopping is free."""
    _, client = start(strictness=Strictness(cooldown_code=code, cooldown_status=status))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    assert client.activity("POST", "subscriptions/start", contentType="DLP.All").status_code == 200
    assert client.activity("POST", "subscriptions/stop", contentType=EXCHANGE).status_code == 200

    assert _code(client.activity("POST", "subscriptions/start", contentType=EXCHANGE)) == (status, code)
    clock.advance(timedelta(minutes=15))
    assert client.activity("POST", "subscriptions/start", contentType=EXCHANGE).status_code == 200


def test_a_stop_loses_the_time_until_the_next_start(start: Any, clock: Any) -> None:
    """What became available meanwhile is never listed; the oracle does not count it as offered."""
    simulator, client = start()
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    def write(number: int) -> None:
        event = {"CreationTime": "2026-03-02T10:00:00", "Id": f"{number:08d}-0000-4000-8000-000000000000"}
        simulator.tenant.log(EXCHANGE, event, clock.now_ns())
        clock.advance(timedelta(minutes=20))

    write(1)
    client.activity("POST", "subscriptions/stop", contentType=EXCHANGE)
    write(2)
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    write(3)
    client._tokens.clear()

    found = [
        event["Id"][:8]
        for item in client.window(EXCHANGE, "2026-03-02T10:30:00", "2026-03-02T12:00:00")
        for event in client.activity("GET", item["contentUri"]).json()
    ]
    assert found == ["00000001", "00000003"]
    assert simulator.oracle().verdict().events.withheld == ("00000002-0000-4000-8000-000000000000",)


def test_a_first_start_reaches_back_so_far(start: Any) -> None:
    """`backfill`: content from before the subscription."""
    _, client = start(events=400, strictness=Strictness(backfill=timedelta(hours=2)))

    items = _open(client)

    assert items
    assert min(item["contentId"][:14] for item in items) >= "20260302083000"


def test_dlp_may_need_its_own_role(start: Any) -> None:
    """AF10001 for DLP.All alone, when the switch says so."""
    simulator, client = start(strictness=Strictness(dlp_needs_role=True))
    simulator.tenant.grants["activity"] = ["ActivityFeed.Read"]

    assert _code(client.activity("POST", "subscriptions/start", contentType="DLP.All")) == (401, "AF10001")
    assert client.activity("POST", "subscriptions/start", contentType=EXCHANGE).status_code == 200


def test_a_start_may_take_effect_late(start: Any, clock: Any) -> None:
    """`start_lag`: AF20022 for so long after it."""
    _, client = start(strictness=Strictness(start_lag=timedelta(seconds=60)))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    query = {"contentType": EXCHANGE, "startTime": START, "endTime": END}

    assert _code(client.activity("GET", "subscriptions/content", **query)) == (400, "AF20022")
    clock.advance(timedelta(seconds=60))
    assert client.activity("GET", "subscriptions/content", **query).status_code == 200


def test_a_post_needs_its_length(simulator: Any, client: Any) -> None:
    """411 without; a start without a body but with `Content-Length: 0` is fine."""
    bearer = client._bearer(client.tenant["activity_url"])["Authorization"]
    path = f"/api/v1.0/{simulator.tenant.id}/activity/feed/subscriptions/start?contentType={EXCHANGE}"
    address = urlsplit(client.tenant["activity_url"])
    context = ssl.create_default_context(cafile=client.tenant["ca_file"])

    def post(**headers: str) -> int:
        connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
        with closing(connection):
            connection.putrequest("POST", path)
            for name, value in {"Authorization": bearer, **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            with connection.getresponse() as answer:
                return answer.status

    assert post() == 411
    assert post(Content_Length="0") == 200


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [("en-US", 200, None), ("de-DE;q=0.5", 200, None), ("en, de", 400, "AF20053"), ("??", 400, "AF20054")],
)
def test_names_of_sensitive_types(client: Any, header: str, status: int, code: str | None) -> None:
    """One language, else AF20053; a header that nobody can read is AF20054."""
    url = f"{client.feed}/resources/dlpSensitiveTypes"
    headers = client._bearer(client.tenant["activity_url"]) | {"Accept-Language": header}

    answer = client.session.get(url, headers=headers)

    assert answer.status_code == status
    if code:
        assert answer.json()["error"]["code"] == code
    else:
        names = {one["name"] for one in answer.json()}
        assert ("Kreditkartennummer" in names) == header.startswith("de")


def test_switches_are_parsed_and_checked() -> None:
    """By name, with seconds for spans; a misspelt one would be a test that tests nothing."""
    made = Strictness.parse({"page_size": 3, "content_life": 86400, "page_life": None})

    assert (made.page_size, made.content_life, made.page_life) == (3, timedelta(days=1), None)
    assert Strictness.parse(json.loads(json.dumps(made.to_dict()))) == made
    for wrong in ({"pagesize": 1}, {"page_order": "odd"}, {"page_size": "3"}, {"backfill": "1h"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Strictness.parse(wrong)


@pytest.mark.parametrize(
    ("switches", "why"),
    [
        ({"page_size": 0}, "page_size is a whole number at least 1, not 0"),
        ({"page_size": True}, "page_size is a whole number at least 1, not True"),
        ({"blob_events": 0}, "blob_events is a whole number at least 1, not 0"),
        ({"blob_span": 0}, "blob_span is a span of time that is longer than 0"),
        ({"throttle_status": 503}, "throttle_status is one of 403, 429, not 503"),
        ({"gone_status": 200}, "gone_status is one of 400, 404, not 200"),
        ({"cooldown_status": 200}, "cooldown_status is one of 400, 403, 429, not 200"),
        ({"cooldown_code": "429"}, "cooldown_code is a code such as AF429, not '429'"),
        ({"retry_after": -1}, "retry_after is a whole number at least 0, not -1"),
        ({"requests_per_minute": -1}, "requests_per_minute is a whole number at least 0, not -1"),
        ({"fraction_digits": 8}, "fraction_digits is a whole number from 0 to 7, not 8"),
        ({"webhook_items": 0}, "webhook_items is a whole number at least 1, not 0"),
        ({"webhook_retry": 0}, "webhook_retry is a span of time that is longer than 0"),
        ({"start_cooldown": -60}, "start_cooldown is a span of time that is not negative, not -60 seconds"),
        ({"retention": 1e300}, "retention is a number of seconds"),
        ({"page_sise": 3}, "did you mean 'page_size'?"),
        ({"graph": {"link_life": -1}}, "link_life of Graph is a span of time that is not negative"),
        ({"graph": {"token_loop": 0}}, "token_loop of Graph is a whole number at least 1, not 0"),
        ({"graph": {"throttle_scale": -1}}, "throttle_scale of Graph is a number at least 0, not -1"),
    ],
)
def test_the_admin_port_refuses_switches_that_make_no_sense(
    simulator: Any, client: Any, switches: dict[str, Any], why: str
) -> None:
    """400 with the reason, and the switches in force stay as they were."""
    before, info = simulator.strictness, simulator.info()

    answer = client.session.post(
        f"{info['urls']['admin']}/strictness",
        json=switches,
        headers={"Authorization": f"Bearer {info['admin_token']}"},
    )

    assert answer.status_code == 400
    assert why in answer.json()["error"]
    assert simulator.strictness == before


def test_a_blob_spans_no_more_than_blob_span(start: Any) -> None:
    """From its first event to its last; a longer span makes fewer blobs of the same events."""
    seen = {}
    for minutes in (5, 60):
        simulator, client = start(events=400, strictness=Strictness(blob_span=timedelta(minutes=minutes)))
        items = _open(client)
        ends = [
            [datetime.strptime(digits[:14], "%Y%m%d%H%M%S") for digits in item["contentId"].split("$")[:2]]
            for item in items
        ]
        # the longest blob nearly fills its span, so that the switch and nothing else has cut it
        longest = max(last - first for first, last in ends)
        assert timedelta(minutes=minutes * 0.4) < longest <= timedelta(minutes=minutes)
        events = [e["Id"] for item in items for e in client.activity("GET", item["contentUri"]).json()]
        seen[minutes] = (len(items), sorted(events))
        simulator.close()

    assert seen[5][0] > seen[60][0] > 1
    assert len(seen[5][1]) > 100
    assert seen[5][1] == seen[60][1]


@pytest.mark.parametrize(("seconds", "waits"), [(0, 0), (60, 60), (3600, 3600)])
def test_a_start_cools_down_for_start_cooldown(start: Any, clock: Any, seconds: int, waits: int) -> None:
    """A second too early it is AF429, at the second it is taken."""
    _, client = start(strictness=Strictness(start_cooldown=timedelta(seconds=seconds)))
    for operation in ("start", "stop"):
        client.activity("POST", f"subscriptions/{operation}", contentType=EXCHANGE)
    if waits:
        clock.advance(timedelta(seconds=waits - 1))
        assert _code(client.activity("POST", "subscriptions/start", contentType=EXCHANGE)) == (403, "AF429")
        clock.advance(timedelta(seconds=1))
    client._tokens.clear()

    assert client.activity("POST", "subscriptions/start", contentType=EXCHANGE).status_code == 200
