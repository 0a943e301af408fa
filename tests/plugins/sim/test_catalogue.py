"""Every fault of the catalogue as it shows on the wire, and what the oracle says of it."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from counterplay_sim.activity_faults import LOSSY
from counterplay_sim.faults import FEED_KINDS, KINDS, WIRE_KINDS
from counterplay_sim.testing import Strictness

START, END = "2026-03-01T10:45:00", "2026-03-02T10:30:00"
EXCHANGE, ENTRA = "Audit.Exchange", "Audit.AzureActiveDirectory"


def kind(name: str, **rule: Any) -> dict[str, Any]:
    """A rule for a kind."""
    return {"kind": name, **rule}


def _open(client: Any, content_type: str = EXCHANGE) -> list[dict[str, str]]:
    client.activity("POST", "subscriptions/start", contentType=content_type)
    return list(client.window(content_type, START, END))


def _listing(client: Any, content_type: str = EXCHANGE) -> Any:
    return client.activity(
        "GET", "subscriptions/content", contentType=content_type, startTime=START, endTime=END
    )


def _ids(body: bytes) -> list[str]:
    return [event["Id"] for event in json.loads(body)]


REFUSED = [
    ("AF20050", 400, "AF20050"),
    ("AF20051", 400, "AF20051"),
    ("blob_404", 404, None),
    ("AF50000", 500, "AF50000"),
    ("AF50005", 500, "AF50005"),
    ("html_503", 503, None),
    ("timeout_408", 408, None),
    ("unauthorized", 401, None),
    ("AF10001", 401, "AF10001"),
    ("AF429", 403, "AF429"),
]


@pytest.mark.parametrize(("name", "status", "code"), REFUSED)
def test_a_blob_is_refused_for_some_tries(start: Any, name: str, status: int, code: str | None) -> None:
    """Each blob so many times, then it is served; nothing is lost, and the recovery is on record."""
    simulator, client = start()
    first, second = _open(client)[:2]
    simulator.disturb([kind(name, path="/audit/", per_target=2)])

    answers = [client.activity("GET", first["contentUri"]) for _ in range(3)]
    other = client.activity("GET", second["contentUri"])

    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert other.status_code == status
    if code is not None:
        assert answers[0].json()["error"]["code"] == code
    else:
        assert "error" not in answers[0].text
    verdict = simulator.oracle().verdict()
    (recovery,) = verdict.recoveries
    assert (recovery.fault, recovery.met, recovery.recovered) == (name, 3, 2)


def test_a_blob_that_stays_away_is_known_to_the_oracle(start: Any) -> None:
    """What a fault keeps back for ever is missing, and not the reader's fault; the rest would be."""
    simulator, client = start()
    first, *others = _open(client)
    wanted = re.escape(first["contentId"])
    simulator.disturb([kind("AF20050", blob=wanted)])

    kept = [client.activity("GET", item["contentUri"]) for item in (first, *others)]
    for answer in kept[1:-1]:
        client.send(*(json.dumps(event) for event in answer.json()))

    assert [answer.status_code for answer in kept] == [400] + [200] * len(others)
    events = simulator.oracle().verdict().events
    lost = set(_ids(simulator.tenant.blobs.body(*_blob(simulator, first))))
    assert set(events.lost_to_faults) == lost
    assert set(events.lost_to_faults.values()) == {"AF20050"}
    assert set(_ids(kept[-1].content)) - lost <= set(events.unexplained)


def _blob(simulator: Any, item: dict[str, str]) -> tuple[Any, str]:
    return simulator.tenant.blobs.find(item["contentId"]), item["contentId"]


def test_faults_are_addressed_by_type_blob_chance_and_number(start: Any) -> None:
    """Another content type, another blob and another call are left alone."""
    simulator, client = start()
    first, second, *_ = _open(client)
    (entra, *_) = _open(client, ENTRA)

    def statuses(**rule: Any) -> list[int]:
        simulator.calm()
        simulator.disturb([{"kind": "blob_404", **rule}])
        return [client.activity("GET", item["contentUri"]).status_code for item in (first, second, entra)]

    assert statuses(content_type="audit.exchange") == [404, 404, 200]
    assert statuses(content_type=ENTRA) == [200, 200, 404]
    assert statuses(blob=re.escape(second["contentId"])) == [200, 404, 200]
    assert statuses(nth=2) == [200, 404, 200]
    assert statuses(probability=0.0) == [200, 200, 200]
    assert statuses(times=1) == [404, 200, 200]
    simulator.calm()
    simulator.disturb([{"kind": "AF429", "path": "/content$", "content_type": ENTRA}])
    assert _listing(client).status_code == 200
    assert _listing(client, ENTRA).status_code == 403


def test_auditing_that_is_off_says_so_in_its_own_way(start: Any) -> None:
    """400 with an exception cut at its first colon, and no AF code."""
    simulator, client = start(faults=[kind("auditing_off")])

    answer = client.activity("POST", "subscriptions/start", contentType=EXCHANGE)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"].startswith("StartSubscription [CorrId=")
    assert f"DataServiceException: Tenant {simulator.tenant.id} does not exist." in error["message"]


def test_the_token_end_point_fails(start: Any) -> None:
    """500 with AADSTS90033, then it works."""
    _, client = start(faults=[kind("token_500", times=1)])

    answers = [client.token(client.tenant["activity_url"]) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 200]
    assert "AADSTS90033" in answers[0].text


def test_a_blob_of_broken_json(start: Any) -> None:
    """Cut off inside, with a length that fits: only a parser notices."""
    simulator, client = start()
    item = _open(client)[0]
    simulator.disturb([kind("truncated_json", times=1)])

    answers = [client.activity("GET", item["contentUri"]) for _ in range(2)]

    assert len(answers[0].content) == int(answers[0].headers["Content-Length"])
    with pytest.raises(ValueError, match=r"\S"):
        json.loads(answers[0].content)
    assert answers[1].content.startswith(answers[0].content)


@pytest.mark.parametrize("element", ["syntax", "utf8", "surrogate", "number", "replace"])
def test_one_element_of_an_array_is_wrong(start: Any, element: str) -> None:
    """In the middle, beside the others or in place of one, which then is lost on purpose."""
    simulator, client = start()
    item = _open(client)[0]
    parts = simulator.tenant.blobs.events(_blob(simulator, item)[0])
    simulator.disturb([kind("invalid_element", element=element)])

    body = client.activity("GET", item["contentUri"]).content

    whole = [part for part in parts if part in body]
    assert len(whole) == len(parts) - (element == "replace")
    if element in ("syntax", "utf8", "replace"):
        with pytest.raises(ValueError, match=r"\S"):
            json.loads(body.decode())
    lost = simulator.oracle().verdict().events.lost_to_faults
    assert len(lost) == (element == "replace")


def test_a_blob_is_empty(start: Any) -> None:
    """`[]`, though the listing promised more."""
    _, client = start(faults=[kind("empty_blob", times=1)])
    item = _open(client)[0]

    answers = [client.activity("GET", item["contentUri"]) for _ in range(2)]

    assert answers[0].content == b"[]"
    assert len(answers[1].json()) > 0


def test_a_blob_is_huge(start: Any) -> None:
    """So many megabytes: its events over and over. The default is 100."""
    simulator, client = start(faults=[kind("huge_blob", megabytes=3)])
    item = _open(client)[0]

    body = client.activity("GET", item["contentUri"]).content

    assert 2.5 * 2**20 < len(body) <= 3.1 * 2**20
    assert set(_ids(body)) == set(simulator.tenant.blobs.keys(_blob(simulator, item)[0]))


def test_a_body_drips(start: Any) -> None:
    """It comes in pieces with a pause between, and whole."""
    simulator, client = start(faults=[kind("slow_drip", drip=0.0005)])
    item = _open(client)[0]

    assert len(client.activity("GET", item["contentUri"]).json()) > 0
    assert simulator.faults.report()[0]["used"] == 1


def test_a_connection_is_reset(start: Any) -> None:
    """No answer at all; the next time there is one."""
    _, client = start(faults=[kind("connection_reset", times=1)])
    item = _open(client)[0]

    with pytest.raises(requests.ConnectionError):
        client.activity("GET", item["contentUri"])
    assert client.activity("GET", item["contentUri"]).status_code == 200


def test_a_blob_says_that_it_is_html(start: Any) -> None:
    """The content type is wrong and the content right."""
    _, client = start(faults=[kind("wrong_content_type")])
    answer = client.activity("GET", _open(client)[0]["contentUri"])

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(answer.json()) > 0


def test_the_last_event_of_a_blob_comes_again_in_the_next(start: Any) -> None:
    """Two blobs in a row share an event."""
    simulator, client = start(strictness=Strictness(blob_events=5))
    first, second = _open(client)[:2]
    simulator.disturb([kind("repeat_last")])

    bodies = [client.activity("GET", item["contentUri"]).content for item in (first, second)]

    assert _ids(bodies[1])[0] == _ids(bodies[0])[-1]


def test_times_have_odd_fractions(start: Any) -> None:
    """None, three or seven digits, from item to item."""
    _, client = start(events=400, faults=[kind("fraction_digits")])

    shapes = {re.sub(r"\d", "9", item["contentCreated"]) for item in _open(client)}

    assert shapes == {"9999-99-99T99:99:99" + rest for rest in ("Z", ".999Z", ".9999999Z")}


def test_an_address_leads_elsewhere(start: Any) -> None:
    """The first item of a page names a foreign host, until the listing is asked again."""
    simulator, client = start(faults=[kind("foreign_content_uri", times=1, host="evil.example")])

    (bad, *good), (again, *_) = _open(client), _open(client)

    assert bad["contentUri"].startswith("https://evil.example/api/v1.0/")
    assert all(item["contentUri"].startswith(client.tenant["activity_url"]) for item in (*good, again))
    assert set(simulator.oracle().verdict().events.lost_to_faults) == set(
        simulator.tenant.blobs.keys(_blob(simulator, bad)[0])
    )
    client.activity("GET", again["contentUri"])
    assert simulator.oracle().verdict().events.lost_to_faults == {}


def test_the_next_page_leads_elsewhere_or_back(start: Any) -> None:
    """A foreign host, or the page that was just read; what lies behind counts as kept back."""
    simulator, client = start(events=400, strictness=Strictness(page_size=3))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    simulator.disturb([kind("foreign_next_page", times=1), kind("self_next_page", times=1)])

    foreign, itself, right = (_listing(client) for _ in range(3))

    assert foreign.headers["NextPageUri"].startswith("https://feed.evil.example/api/v1/")
    assert itself.headers["NextPageUri"] == itself.url
    assert "nextPage=" in right.headers["NextPageUri"]
    assert foreign.json() == itself.json() == right.json()


def test_pages_behind_a_foreign_link_are_lost_on_purpose(start: Any) -> None:
    """As long as the listing is not asked again."""
    simulator, client = start(events=400, strictness=Strictness(page_size=3))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    simulator.disturb([{"kind": "foreign_next_page"}])
    shown = _listing(client).json()

    lost = simulator.oracle().verdict().events.lost_to_faults

    behind = [event for event in simulator.tenant.events() if event in lost]
    assert len(behind) == len(lost) > 50
    assert not set(lost) & set(_ids(client.activity("GET", shown[0]["contentUri"]).content))


def test_a_subscription_goes_without_a_word(start: Any, clock: Any) -> None:
    """Disabled it is listed as such and says AF20023; removed it is gone and says AF20022."""
    simulator, client = start()
    _open(client)
    _open(client, ENTRA)
    simulator.disturb(
        [
            kind("subscription_disabled", content_type=EXCHANGE, times=1),
            kind("subscription_removed", content_type=ENTRA, times=1),
        ]
    )

    codes = [_listing(client, content_type).json()["error"] for content_type in (EXCHANGE, ENTRA)]

    assert [error["code"] for error in codes] == ["AF20023", "AF20022"]
    assert "tenant admin" in codes[0]["message"]
    assert client.activity("GET", "subscriptions/list").json() == [
        {"contentType": EXCHANGE, "status": "disabled", "webhook": None}
    ]
    clock.advance(timedelta(minutes=16))
    assert client.activity("POST", "subscriptions/start", contentType=ENTRA).status_code == 200


def test_a_webhook_is_forgotten(start: Any) -> None:
    """It becomes null in the listing, and nobody says why."""
    simulator, client = start()
    webhook = {"status": "enabled", "address": "https://127.0.0.1:1/", "authId": "", "expiration": None}
    simulator.tenant.put_subscription({"contentType": EXCHANGE, "status": "enabled", "webhook": webhook})
    assert client.activity("GET", "subscriptions/list").json()[0]["webhook"] == webhook
    simulator.disturb([kind("webhook_nulled", times=1)])

    assert client.activity("GET", "subscriptions/list").json()[0]["webhook"] is None


def test_a_start_takes_a_while(start: Any, clock: Any) -> None:
    """After a start that went well listings still say AF20022, for a minute."""
    simulator, client = start()
    simulator.disturb([kind("start_lag")])
    assert client.activity("POST", "subscriptions/start", contentType=EXCHANGE).status_code == 200

    assert _listing(client).json()["error"]["code"] == "AF20022"
    clock.advance(timedelta(seconds=61))
    assert _listing(client).status_code == 200


@pytest.mark.parametrize("skew", [600, -600])
def test_the_date_is_wrong(start: Any, clock: Any, skew: int) -> None:
    """By ten minutes, either way."""
    _, client = start(faults=[kind("clock_skew", skew=skew)])

    shown = parsedate_to_datetime(client.activity("GET", "subscriptions/list").headers["Date"])

    assert (shown - clock.now()).total_seconds() == skew


def test_content_becomes_listable_late(start: Any, clock: Any) -> None:
    """Within a window that was listed before; the oracle knows when it could first be seen."""
    _, client = start(faults=[kind("late_listing", content_type=EXCHANGE, minutes=1500)])
    assert _open(client) == []
    assert len(_open(client, ENTRA)) > 0

    clock.advance(timedelta(minutes=1500))
    client._tokens.clear()
    late = client.window(EXCHANGE, START, END)

    assert late
    assert {item["contentId"][-7:] for item in late} == {"sim0002"}
    assert all(START <= item["contentCreated"] < END for item in late)
    assert len(_ids(client.activity("GET", late[0]["contentUri"]).content)) > 0


@pytest.mark.parametrize(("name", "minutes"), [("same_event_twice", 10), ("redelivery", 5 * 24 * 60)])
def test_an_event_comes_in_another_blob_again(start: Any, clock: Any, name: str, minutes: int) -> None:
    """Minutes or days later, with the same bytes and under another content id."""
    simulator, client = start(faults=[kind(name, content_type=EXCHANGE)], seed=3)
    _open(client)
    clock.advance(timedelta(minutes=minutes))
    client._tokens.clear()
    at = clock.now() - timedelta(hours=23)
    window = f"{at:%Y-%m-%dT%H:%M:%S}", f"{clock.now():%Y-%m-%dT%H:%M:%S}"

    bodies = [
        (item["contentId"][-7:], client.activity("GET", item["contentUri"]).json())
        for item in client.window(EXCHANGE, *window)
    ]

    again = {json.dumps(event) for stream, events in bodies for event in events if stream == "sim0002"}
    known = {json.dumps(json.loads(body)) for body in simulator.tenant.events().values()}
    assert again
    assert again <= known
    assert simulator.oracle().verdict().events.listed_twice >= len(again)


SHAPES = [
    ("creation_time_z", lambda event: event["CreationTime"].endswith("Z")),
    ("creation_time_fraction", lambda event: event["CreationTime"].endswith(".1234567")),
    ("missing_id", lambda event: "Id" not in event),
    ("unknown_record_type", lambda event: event["RecordType"] == 99999),
    ("string_parameters", lambda event: isinstance(event.get("Parameters", ""), str)),
    (
        "string_modified_properties",
        lambda event: all(isinstance(one, str) for one in event.get("ModifiedProperties", [])),
    ),
]


@pytest.mark.parametrize(("name", "holds"), SHAPES)
def test_events_have_another_shape(start: Any, tmp_path: Any, name: str, holds: Any) -> None:
    """Always the same ones, also after a restart, and the oracle expects exactly that."""
    simulator, client = start(faults=[kind(name)])
    drained = [body for bodies in client.drain(START, END).values() for body in bodies]
    assert all(holds(json.loads(body)) for body in drained)

    client.send(*dict.fromkeys(drained))
    simulator.close()
    again, _ = start()

    verdict = again.oracle().verdict().events
    assert verdict.ok
    assert verdict.arrived == verdict.offered == len(set(drained))


def test_log_faults_hit_a_share_or_chosen_places(start: Any) -> None:
    """By chance that depends on the event alone, or by its place in the log."""
    rules = [
        {"kind": "missing_id", "content_type": ENTRA, "nth": [1, 2]},
        {"kind": "unknown_record_type", "probability": 0.5},
    ]
    simulator, _ = start(events=400, faults=rules)
    events = [json.loads(body) for body in simulator.tenant.events().values()]

    unknown = sum(event["RecordType"] == 99999 for event in events)
    without = sum("Id" not in event for event in events)
    assert 0.3 * len(events) < unknown < 0.7 * len(events)
    assert without == 4  # two ordinary events, and the two first of the attack


def test_a_skewed_tenant_has_to_be_born_so(start: Any) -> None:
    """Its log is laid out when it begins; later it is refused."""
    simulator, _ = start(events=400, faults=[kind("skewed_tenant")])
    times = sorted(line.ingested for line in simulator.tenant.blobs.lines(2**62))
    hour = 3600 * 10**9

    assert max(sum(at <= other < at + hour for other in times) for at in times) > 0.7 * len(times)
    with pytest.raises(ValueError, match="skewed_tenant is for a new tenant"):
        simulator.disturb([{"kind": "skewed_tenant"}])


def test_every_kind_has_its_test_here() -> None:
    """A fault that nobody has seen on the wire would be a promise."""
    here = Path(__file__).read_text("utf-8")
    assert [name for name in KINDS if f'"{name}"' not in here] == []
    assert set(FEED_KINDS) & LOSSY
    assert not set(FEED_KINDS) & set(WIRE_KINDS)
