"""A reader's ledger of gaps, held against the truth; delays; what is withheld."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.testing import LedgerEntry

START, END = "2026-03-01T10:45:00", "2026-03-02T10:30:00"
EXCHANGE = "Audit.Exchange"


def _missing(simulator: Any, client: Any) -> dict[str, str]:
    """Lose the first blob for good, deliver everything else; that blob's item."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    item, *_ = client.window(EXCHANGE, START, END)
    simulator.disturb([{"kind": "AF20051", "blob": item["contentId"].replace("$", r"\$")}])
    assert client.activity("GET", item["contentUri"]).status_code == 400
    lost = set(simulator.tenant.blobs.keys(simulator.tenant.blobs.find(item["contentId"])))
    client.send(*(body for key, body in simulator.tenant.events().items() if key not in lost))
    return dict(item)


def test_a_ledger_that_names_the_lost_unit_matches(simulator: Any, client: Any) -> None:
    """By its content id, or by the time that it covers."""
    item = _missing(simulator, client)
    oracle = simulator.oracle()

    by_unit = oracle.match([LedgerEntry("AF20051", unit=item["contentId"])])
    by_time = oracle.match(
        [LedgerEntry.parse({"reason": "x", "content_type": EXCHANGE, "since": START, "until": END})]
    )

    assert by_unit.ok
    assert by_time.ok
    assert set(by_unit.covered) == set(oracle.verdict().events.missing)
    assert oracle.verdict().events.unexplained == ()


def test_a_ledger_that_says_too_little_or_too_much_does_not_match(simulator: Any, client: Any) -> None:
    """Missing events without an entry, entries without a cause, ids that are none."""
    item = _missing(simulator, client)
    entries = [
        LedgerEntry("made up", unit="20260302000000000000000$nonsense"),
        LedgerEntry.parse(
            {
                "reason": "?",
                "content_type": "Audit.General",
                "since": "2026-03-02T01:00Z",
                "until": "2026-03-02T02:00Z",
            }
        ),
    ]

    found = simulator.oracle().match(entries)

    assert not found.ok
    assert found.uncovered == simulator.oracle().verdict().events.missing
    assert found.unfounded == tuple(entries)
    assert found.to_dict()["ok"] is False
    assert item["contentId"]


def test_a_gap_without_a_subscription_is_a_cause(simulator: Any, client: Any, clock: Any) -> None:
    """What was withheld has to be in the ledger, by the time of the gap."""
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    client.send(*simulator.tenant.events().values())
    client.activity("POST", "subscriptions/stop", contentType=EXCHANGE)
    event = {"CreationTime": "2026-03-02T10:31:00", "Id": "9" * 8 + "-9999-4999-8999-999999999999"}
    simulator.tenant.log(EXCHANGE, event, clock.now_ns() + 60 * 10**9)
    clock.advance(timedelta(minutes=20))
    client.activity("POST", "subscriptions/start", contentType=EXCHANGE)
    gap = LedgerEntry.parse(
        {
            "reason": "no subscription",
            "content_type": EXCHANGE,
            "since": "2026-03-02T10:30:00",
            "until": "2026-03-02T10:50:00",
        }
    )

    assert simulator.oracle().match([]).uncovered == (event["Id"],)
    assert simulator.oracle().match([gap]).ok
    assert simulator.oracle().verdict().events.withheld == (event["Id"],)
    assert simulator.oracle().verdict().events.ok


def test_delays_count_from_the_first_moment(simulator: Any, client: Any, clock: Any) -> None:
    """From when an event could be listed, or from the tenant's beginning, to its arrival."""
    events = simulator.tenant.events()
    clock.advance(timedelta(minutes=5))
    client.send(*list(events.values())[:-1])
    clock.advance(timedelta(minutes=30))
    client.send(list(events.values())[-1])

    verdict = simulator.oracle().verdict().events

    assert (verdict.delay_p50, verdict.delay_max) == (300.0, 2100.0)


def test_an_event_that_cannot_be_listed_yet_is_not_missing(simulator: Any, client: Any, clock: Any) -> None:
    """What a response writes shows up in the log later, and counts from then on."""
    before = simulator.oracle().verdict().events.offered
    victim = simulator.tenant.row.doc["truth"]["victim"]
    client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False})
    assert simulator.oracle().verdict().events.offered == before

    clock.advance(timedelta(hours=1))

    assert simulator.oracle().verdict().events.offered > before


def test_an_entry_without_a_place_is_refused() -> None:
    """Neither a unit nor a range."""
    with pytest.raises(ValueError, match="names a unit, or a time"):
        LedgerEntry.parse({"reason": "lost"})
