"""The admin port, the clock that it sets, and several tenants in one process."""

from __future__ import annotations

import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

import counterplay_sim
from counterplay_sim import admin
from counterplay_sim.attach import ask, close_all
from counterplay_sim.clock import Clock
from counterplay_sim.faults import KINDS
from counterplay_sim.scenario.chains import CHAINS
from counterplay_sim.testing import Simulator, simulator_process


def _admin(simulator: Any, method: str, path: str, body: Any = None) -> Any:
    return ask(simulator.info(), method, path, body)


def test_the_clock_is_set_by_the_admin_port(tmp_path: Path, connect: Any) -> None:
    """Set, advanced, accelerated, skewed; `Date` follows, and a restart goes on with it."""
    with Simulator(tmp_path, events=20) as simulator:
        shown = _admin(simulator, "POST", "/clock", {"set": "2030-01-01T00:00:00Z", "rate": 0})
        assert shown == {"now": "2030-01-01T00:00:00.000000Z", "rate": 0.0, "skew": 0.0}
        _admin(simulator, "POST", "/clock", {"advance": 90, "skew": -600})
        answer = connect(simulator).activity("GET", "subscriptions/list")
        date = parsedate_to_datetime(answer.headers["Date"])
        assert f"{date:%Y-%m-%dT%H:%M:%S}" == "2029-12-31T23:51:30"
        assert _admin(simulator, "GET", "/clock")["now"].startswith("2030-01-01T00:01:30")
    with Simulator(tmp_path) as simulator:
        assert simulator.clock.now().isoformat() == "2030-01-01T00:01:30+00:00"
        assert simulator.clock.skew == timedelta(minutes=-10)
        _admin(simulator, "POST", "/clock", {"rate": 3600})
        before = simulator.clock.now()
        assert simulator.clock.now() - before < timedelta(minutes=5)
        while simulator.clock.now() - before < timedelta(seconds=30):
            pass  # a hundredth of a real second


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/clock", {"set": "yesterday"}),
        ("/clock", {"rate": -1}),
        ("/clock", {"speed": 2}),
        ("/strictness", {"page_order": "odd"}),
        ("/faults", {"kind": "earthquake"}),
        ("/faults", [{"kind": "AF20050"}, {"nth": "x", "colour": 1}]),
        ("/events", {"content_type": "Audit.Exchange", "event": 3}),
        ("/ledger", [{"reason": "lost"}]),
        ("/subscriptions", {"content_type": "Audit.Exchnage"}),
        ("/subscriptions", {"by": "somebody"}),
        ("/subscriptions", {"content_type": "Audit.Exchange", "by": 3}),
        ("/clock", []),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(simulator: Any, path: str, body: Any) -> None:
    """400 with the reason."""
    before = (simulator.clock.state(), simulator.strictness, simulator.faults.report())

    with pytest.raises(OSError, match="400"):
        _admin(simulator, "POST", path, body)

    assert (simulator.clock.state(), simulator.strictness, simulator.faults.report()) == before


def test_truth_switches_events_and_subscriptions_are_at_hand(simulator: Any, client: Any) -> None:
    """What tests of another process need."""
    assert _admin(simulator, "GET", "/truth")["victim_upn"] == "alice@contoso.example"
    assert _admin(simulator, "POST", "/strictness", {"page_size": 7})["page_size"] == 7
    client.activity("POST", "subscriptions/start", contentType="DLP.All")
    event = {"Id": "1" * 8 + "-1111-4111-8111-111111111111"}
    _admin(simulator, "POST", "/events", {"content_type": "DLP.All", "event": event})
    assert event["Id"] in simulator.tenant.events()
    _admin(simulator, "POST", "/subscriptions", {"content_type": "DLP.All", "by": "a service admin"})
    refused = client.activity("GET", "subscriptions/content", contentType="DLP.All").json()
    assert refused["error"] == {
        "code": "AF20023",
        "message": "The subscription was disabled by a service admin.",
    }


def test_tenants_have_everything_of_their_own(tmp_path: Path, connect: Any) -> None:
    """Id, app, secret, key, data; a token of one opens nothing of another."""
    with Simulator(tmp_path, events=40, tenants=3) as simulator:
        one, two = (
            connect(
                SimpleNamespace(
                    m365_settings=lambda slot=slot: simulator.m365_settings(slot),
                    intake_settings=lambda slot=slot: simulator.intake_settings(slot),
                )
            )
            for slot in (1, 2)
        )
        for name in ("tenant_id", "client_id", "client_secret"):
            assert len({simulator.m365_settings(slot)[name] for slot in (1, 2, 3)}) == 3
        foreign = two.feed.replace(two.tenant["tenant_id"], one.tenant["tenant_id"])
        refused = two.activity("GET", f"{foreign}/subscriptions/list")
        assert refused.json()["error"]["code"] == "AF20010"
        body = [
            {"intake_key": one.intake["intake_key"], "json": '{"a":1}'},
            {"intake_key": two.intake["intake_key"], "json": '{"b":1}'},
            {"intake_key": one.intake["intake_key"], "json": '{"c":1}'},
        ]
        answer = one.session.post(one.intake["url"] + "/array", json=body)
        assert len(set(answer.json()["event_ids"])) == 3
        others = [simulator.oracle().verdict(tenant.id).others for tenant in simulator.tenants]
        assert others == [2, 1, 0]
        simulator.finish(2)
        simulator.renew()
        assert simulator.m365_settings(2) != two.tenant
        assert simulator.m365_settings(1) == one.tenant
    with Simulator(tmp_path) as simulator:
        assert len(simulator.tenants) == 3


def test_each_tenant_is_a_connection(tmp_path: Path) -> None:
    """`sim`, `sim-2`, `sim-3` once a simulator runs with three; naming them starts nothing."""
    assert {offer.name for offer in counterplay_sim.counterplay_connections(tmp_path)} == {"sim"}
    assert not (tmp_path / "sim").exists()
    try:
        with simulator_process(tmp_path, "--events", "20", "--tenants", "3") as running:
            offers = list(counterplay_sim.counterplay_connections(tmp_path))
            assert [offer.name for offer in offers] == ["sim", "sim", "sim-2", "sim-2", "sim-3", "sim-3"]
            second = offers[2].open()
            assert second == running.info["tenants"][1]["m365.tenant"]
            running.admin("POST", "/finish?tenant=2")
            ids = [one["m365.tenant"]["tenant_id"] for one in running.info["tenants"]]
            finished = [running.oracle().verdict(key).finished for key in ids]
            assert finished == [False, True, False]
            assert offers[2].open()["tenant_id"] == second["tenant_id"]  # as it was left, for a look
            counterplay_sim.counterplay_invocation_started()
            assert offers[2].open()["tenant_id"] != second["tenant_id"]
    finally:
        close_all()


def test_a_clock_can_run_fast_and_stand_still() -> None:
    """Without a jump when its rate changes."""
    clock = Clock()
    clock.run_at(0)
    still = clock.now_ns()
    clock.run_at(1000)
    clock.run_at(0)

    assert clock.now_ns() >= still
    stopped = clock.now_ns()
    assert clock.now_ns() == stopped
    other = Clock()
    other.restore(clock.state())
    assert other.now_ns() == stopped
    with pytest.raises(ValueError, match="rate"):
        clock.run_at(-1)


def test_the_admin_port_is_closed_to_strangers(simulator: Any) -> None:
    """401 on everything, known or not."""
    for path in ("/info", "/nothing"):
        answer = requests.get(simulator.url("admin") + path, verify=simulator.ca_file, timeout=5)
        assert answer.status_code == 401


def test_the_guide_knows_every_fault_and_operation() -> None:
    """An undocumented fault or admin operation fails the build."""
    guide = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text("utf-8")
    source = Path(admin.__file__).read_text("utf-8")
    paths = set(re.findall(r'\("(?:GET|POST|DELETE)", "(/\w+)"\)', source))

    assert len(paths) > 8
    assert [kind for kind in KINDS if f"`{kind}`" not in guide] == []
    assert [path for path in paths if path not in guide] == []
    assert [name for name in CHAINS if f"`{name}`" not in guide] == []
