"""The simulator as a whole: the same from a seed, durable, one to a state directory, a clean end."""

from __future__ import annotations

import json
import os
import signal
import stat
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import counterplay_sim
from counterplay.errors import ConfigError, StateError
from counterplay.hookspecs import Invocation
from counterplay_sim.blobs import BlobIndex, Line
from counterplay_sim.scenario.background import Ids
from counterplay_sim.scenario.build import Plan, Scenario, build
from counterplay_sim.testing import Oracle, Simulator, Strictness, close_all, simulator_process

CREATED = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
START, END = "2026-03-01T10:45:00", "2026-03-02T10:30:00"


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Simulators that a test opened by way of the plugin end with it."""
    yield
    close_all()


def _lines(scenario: Scenario) -> list[Line]:
    index = BlobIndex(scenario.log, Strictness(), scenario.ordinary, scenario.ids)
    return list(index.lines(2**62))


def _everything(scenario: Scenario) -> Any:
    people = [(p.id, p.doc, p.rules, p.sessions) for p in scenario.people]
    rest = (scenario.alerts, scenario.objects, scenario.organization, scenario.truth, scenario.client)
    return _lines(scenario), people, rest


def test_the_same_seed_and_moment_give_the_same_tenant() -> None:
    """Byte for byte, with every attack in it; another seed or another moment gives another one."""
    plan = Plan(events=300, scenarios=("all",))
    first = build(1, CREATED, plan)

    assert _everything(build(1, CREATED, plan)) == _everything(first)
    assert build(2, CREATED, plan).tenant != first.tenant
    assert build(1, CREATED.replace(minute=31), plan).tenant != first.tenant


def test_a_fixed_tenant_has_the_same_people_at_any_moment() -> None:
    """Tests that compare tenants judge the same ones whenever they run; only the times differ."""
    plan = Plan(events=50, scenarios=("all",), fixed=True)
    first, later = build(1, CREATED, plan), build(1, CREATED.replace(minute=31), plan)

    assert [one.id for one in later.people] == [one.id for one in first.people]
    assert later.tenant == first.tenant
    assert later.truth["chains"][0]["victim"] == first.truth["chains"][0]["victim"]
    assert build(2, CREATED, plan).tenant != first.tenant


def test_every_machine_says_from_the_start_whether_it_is_isolated() -> None:
    """An attacked device, too: else a release would leave it otherwise than it was."""
    attacked = build(1, CREATED, Plan(events=10, scenarios=("compromised-device",))).objects["machine"]

    assert [(one["@sim.isolated"], one["@sim.offline"]) for one in attacked] == [(False, False)]


def test_a_large_tenant_is_the_same_after_a_restart(tmp_path: Path, clock: Any) -> None:
    """What is made while it is read is made the same way by the next process, bodies used again included."""
    plan = Plan(events=25_000, users=60, rules=200)
    with Simulator(tmp_path, plan=plan, clock=clock) as simulator:
        before = simulator.tenant.events()
        assert sum(len(rules) for rules in simulator.tenant.rules.values()) == 201
    with Simulator(tmp_path, clock=clock) as simulator:
        assert simulator.tenant.events() == before
    assert len({body[80:] for body in before.values()}) < len(before) - 1000


def test_every_id_is_read_back_and_no_other() -> None:
    """The numbers of ordinary events are in their ids, under the tenant's own key."""
    ids, others = Ids("one"), Ids("two")

    for feed in range(5):
        for number in (0, 1, 63, 64, 999_999, 2**31 - 1):
            key = ids.of(feed, number).decode()
            assert ids.read(key) == (feed, number)
            assert others.read(key) is None
            assert uuid.UUID(key).version == 4
            assert ids.read(key[:-1] + ("0" if key[-1] != "0" else "1")) is None
    assert ids.read("no guid at all, but as long as one is") is None


def test_the_scenario_has_the_shape_of_a_real_day() -> None:
    """All content types, a mean record of 1.2 to 1.8 kB, non-ASCII and escapes, times in order."""
    scenario = build(1, CREATED)
    lines = _lines(scenario)
    sizes = [len(line.body) for line in lines]
    joined = b"".join(line.body for line in lines)

    assert 4000 < len(lines) < 4400
    assert len({line.content_type for line in lines}) == 5
    assert 1200 < sum(sizes) / len(sizes) < 1800
    for text in ("Müller".encode(), "契約書".encode(), b"\\u", b'\\"final\\"', b"\\r\\n", "–".encode()):
        assert text in joined
    for line in lines:
        event = json.loads(line.body)
        created = datetime.fromisoformat(event["CreationTime"] + "Z")
        assert created.timestamp() * 1e9 < line.ingested <= CREATED.timestamp() * 1e9
        assert event["OrganizationId"] == scenario.tenant
        assert event["Id"] == line.key
    assert len({(line.content_type, line.ingested) for line in lines}) == len(lines)


def test_an_hour_of_a_skewed_tenant_holds_nine_events_of_ten() -> None:
    """`skewed_tenant` is the day of a bulk job."""
    lines = [line.ingested for line in _lines(build(1, CREATED, Plan(skewed=True)))]
    hour = 3600 * 10**9

    assert max(sum(at <= other < at + hour for other in lines) for at in lines[::50]) > 0.8 * len(lines)


def test_the_takeover_can_be_followed_in_the_log() -> None:
    """Failed sign-ins, one that works, the rule, reading, downloading, and an alert that names the rule."""
    scenario = build(1, CREATED, Plan(events=100))
    events = [json.loads(entry.body) for entry in scenario.log]
    attacker = [event for event in events if scenario.truth["attacker"] in event.get("ClientIP", "")]
    operations = [
        event["Operation"] for event in sorted(attacker, key=lambda event: str(event["CreationTime"]))
    ]
    rule = next(event for event in attacker if event["Operation"] == "New-InboxRule")
    raised = next(event for event in events if event["Operation"] == "AlertTriggered")

    chain = list(dict.fromkeys(operations))
    assert chain == ["UserLoginFailed", "UserLoggedIn", "New-InboxRule", "FileDownloaded"]
    assert operations.count("UserLoginFailed") >= 8
    assert operations.count("FileDownloaded") >= 40
    assert {"Name": "Name", "Value": "."} in rule["Parameters"]
    assert json.loads(raised["Data"])["reid"] == rule["Id"]
    assert {event["UserId"] for event in attacker} == {scenario.truth["victim_upn"]}


def test_a_stopped_simulator_goes_on_as_it_was(start: Any, tmp_path: Path, clock: Any) -> None:
    """Tenant, secrets, changes, subscriptions, arrivals, ports and tokens outlive the process."""
    with Simulator(tmp_path, events=60, clock=clock) as first:
        settings, intake = first.m365_settings(), first.intake_settings()
        truth = first.tenant.row.doc["truth"]
        first.tenant.change_user(
            first.tenant.users[truth["victim"]], {"accountEnabled": False}, app="a", request="r"
        )
        first.tenant.put_subscription({"contentType": "DLP.All", "status": "enabled", "webhook": None})
        first.tenant.accept([b"{}"])
        before = first.oracle().verdict()

    second, client = start(seed=9)

    assert (second.m365_settings(), second.intake_settings()) == (settings, intake)
    assert second.oracle().verdict() == before
    assert client.activity("GET", "subscriptions/list").json()[0]["contentType"] == "DLP.All"


def test_a_finished_tenant_makes_room_for_a_new_one(tmp_path: Path, clock: Any) -> None:
    """What was finished can be read until the next one begins."""
    with Simulator(tmp_path, events=60, clock=clock) as simulator:
        first = simulator.tenant.id
        simulator.renew()
        assert simulator.tenant.id == first
        simulator.finish()
        assert simulator.oracle().verdict().finished
    clock.advance(timedelta(seconds=1))

    with Simulator(tmp_path, events=60, clock=clock) as simulator:
        assert simulator.tenant.id != first
        with pytest.raises(LookupError):
            simulator.oracle().verdict(first)


def test_a_killed_simulator_keeps_what_it_acknowledged(tmp_path: Path, connect: Any) -> None:
    """`kill -9` between two requests loses neither an event nor a change; a new process serves them."""
    with simulator_process(tmp_path, "--events", "60") as running:
        client = connect(running)
        events = _drain(client)
        assert client.send(*events[:20]).status_code == 200
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        assert Oracle(tmp_path).verdict().events.exact == 20
    with simulator_process(tmp_path) as running:
        assert running.m365_settings() == client.tenant
        assert client.send(*events[20:]).status_code == 200
        assert running.oracle().verdict().events.ok


def _drain(client: Any) -> list[bytes]:
    now = datetime.now(UTC)
    start, end = now - timedelta(hours=23, minutes=50), now + timedelta(minutes=1)
    drained = client.drain(f"{start:%Y-%m-%dT%H:%M:%S}", f"{end:%Y-%m-%dT%H:%M:%S}")
    return list(dict.fromkeys(body for bodies in drained.values() for body in bodies))


def test_one_process_serves_a_state_directory(tmp_path: Path, simulator: Any) -> None:
    """A second simulator on the same state is refused at once."""
    with pytest.raises(BlockingIOError):
        Simulator(tmp_path).start()


def test_files_with_secrets_are_private(simulator: Any) -> None:
    """Only their owner reads the key and the settings; the certificate authority's key is nowhere."""
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in simulator.folder.iterdir()}

    assert stat.S_IMODE(simulator.folder.stat().st_mode) == 0o700
    assert (modes["server.pem"], modes["sim.json"]) == (0o600, 0o600)
    assert b"PRIVATE KEY" not in (simulator.folder / "ca.pem").read_bytes()
    assert (simulator.folder / "server.pem").read_bytes().count(b"BEGIN PRIVATE KEY") == 1


def test_a_state_file_of_no_use_is_said_so(tmp_path: Path) -> None:
    """A corrupt file is neither used nor replaced."""
    folder = tmp_path / "sim"
    folder.mkdir()
    (folder / "sim.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(
        StateError, match=r"state in .*sim cannot be used: file is not a database; .*delete it"
    ):
        Simulator(tmp_path).start()
    assert (folder / "sim.db").read_bytes().startswith(b"this is no database")


def test_a_port_that_is_taken_is_said_so(tmp_path: Path, simulator: Any) -> None:
    """The message names port, service and option."""
    port = int(simulator.url("login").rpartition(":")[2])

    with pytest.raises(
        ConfigError, match=rf"port {port} for the simulated login service .*; choose another --port"
    ):
        Simulator(tmp_path / "other", events=10, port=port).start()


def test_the_plugin_offers_one_connection_as_tenant_and_as_intake(tmp_path: Path) -> None:
    """Opening starts one simulator for both, and the second time finds it."""
    offers = {offer.uses: offer for offer in counterplay_sim.counterplay_connections(tmp_path)}

    assert {offer.name for offer in offers.values()} == {"sim"}
    assert not (tmp_path / "sim").exists()
    tenant, intake = offers["m365.tenant"].open(), offers["intake.key"].open()
    assert set(tenant) == {
        "tenant_id",
        "client_id",
        "client_secret",
        "authority",
        "instance_discovery",
        "graph_url",
        "limits_scale",
        "activity_url",
        "defender_url",
        "ca_file",
    }
    assert set(intake) == {"url", "intake_key", "ca_file"}
    assert offers["m365.tenant"].open() == tenant


def test_the_plugin_reports_and_ends_a_complete_invocation(tmp_path: Path, connect: Any) -> None:
    """The lines stand under the summary; the next run gets a new tenant, an incomplete one the same."""
    tenant, intake = counterplay_sim.counterplay_connections(tmp_path)
    settings, where = tenant.open(), intake.open()
    client = connect(SimpleNamespace(m365_settings=lambda: settings, intake_settings=lambda: where))
    client.graph("PATCH", "/users/alice@contoso.example", {"accountEnabled": False})

    def finished(complete: bool, *connections: str) -> list[str]:
        invocation = Invocation("contain", connections, complete, {})
        return counterplay_sim.counterplay_invocation_finished(invocation)

    assert finished(True, "contoso") == []
    (good, bad) = finished(False, "sim")
    assert good.startswith("Blocked: alice@contoso.example;")
    assert "live sessions" in bad
    assert tenant.open() == settings
    assert finished(True, "sim") == [good, bad]
    assert finished(True, "sim") == []
    assert tenant.open()["tenant_id"] == settings["tenant_id"]  # to be looked at, or to undo what was done
    counterplay_sim.counterplay_invocation_started()
    assert tenant.open()["tenant_id"] != settings["tenant_id"]


def test_the_plugin_uses_a_simulator_that_runs(tmp_path: Path, monkeypatch: Any) -> None:
    """By the state directory or by COUNTERPLAY_SIM; no run ends its tenant, its admin port does."""
    with simulator_process(tmp_path / "a", "--events", "60") as running:
        offer, _ = counterplay_sim.counterplay_connections(tmp_path / "a")
        assert offer.open() == running.m365_settings()
        monkeypatch.setenv("COUNTERPLAY_SIM", str(running.info_file))
        named, _ = counterplay_sim.counterplay_connections(tmp_path / "b")
        assert named.open() == running.m365_settings()
        counterplay_sim.counterplay_invocation_finished(Invocation("x", ("sim",), True, {}))
        counterplay_sim.counterplay_invocation_started()
        assert named.open() == running.m365_settings()
        running.admin("POST", "/finish")
        assert named.open()["tenant_id"] != running.m365_settings()["tenant_id"]
        assert not (tmp_path / "b").exists()
    with pytest.raises(StateError, match=r"the simulator of .* does not answer: .*; start it again"):
        named.open()


def test_a_name_that_leads_nowhere_is_said_so(tmp_path: Path, monkeypatch: Any) -> None:
    """A stale COUNTERPLAY_SIM is no reason to start something else."""
    monkeypatch.setenv("COUNTERPLAY_SIM", str(tmp_path / "gone.json"))
    offer, _ = counterplay_sim.counterplay_connections(tmp_path)

    with pytest.raises(
        ConfigError, match=r"COUNTERPLAY_SIM names .*gone\.json, but no simulator answers there"
    ):
        offer.open()


def test_faults_and_report_are_reached_by_the_admin_port(tmp_path: Path, connect: Any) -> None:
    """With the token of sim.json; without it nothing is told."""
    with simulator_process(tmp_path, "--events", "60") as running:
        client = connect(running)
        running.admin("POST", "/faults", {"service": "intake", "status": 500, "times": 1})
        assert [client.send("{}").status_code for _ in range(2)] == [500, 200]
        assert running.admin("GET", "/faults") == [
            {"kind": "", "service": "intake", "path": "", "seen": 2, "used": 1}
        ]
        running.admin("DELETE", "/faults", [])
        assert running.admin("GET", "/report")["others"] == 1
        assert client.session.get(running.info["urls"]["admin"] + "/info").status_code == 401
