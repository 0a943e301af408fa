"""The oracle against arrivals and changes that are made by hand."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from counterplay_sim.report import lines
from counterplay_sim.testing import Oracle


@pytest.fixture
def bodies(simulator: Any) -> dict[str, bytes]:
    """Every offered event, by its id."""
    return simulator.tenant.events()


def test_everything_once_is_right(simulator: Any, client: Any, bodies: dict[str, bytes]) -> None:
    """The verdict of a complete run, and the sentence that it becomes."""
    client.send(*bodies.values())

    verdict = simulator.oracle().verdict()

    assert verdict.events.ok
    assert verdict.events.arrived == verdict.events.offered == len(bodies)
    assert lines(verdict) == [
        f"The simulated tenant confirms: {len(bodies)} of {len(bodies)} audit events arrived exactly once and"
        " byte-equal."
    ]


def test_missing_repeated_and_altered_events_are_named(
    simulator: Any, client: Any, bodies: dict[str, bytes]
) -> None:
    """Each kind of wrong is told by id, in the verdict and in the sentence."""
    lost, twice, changed, *rest = sorted(bodies)
    respaced = json.dumps(json.loads(bodies[changed])).encode()
    client.send(*(bodies[key] for key in rest), bodies[twice], bodies[twice], respaced)

    verdict = simulator.oracle().verdict()

    assert verdict.events.missing == (lost,)
    assert verdict.events.duplicated == (twice,)
    assert verdict.events.altered == (changed,)
    assert verdict.events.exact == len(rest)
    (line,) = lines(verdict)
    assert line.startswith(f"The simulated tenant disagrees: {len(rest)} of {len(bodies)}")
    for key in (lost, twice, changed):
        assert key in line


def test_a_reader_of_one_content_type_is_judged_by_that_one(
    simulator: Any, client: Any, bodies: dict[str, bytes]
) -> None:
    """What it did not ask for is not missing, and what it lost of its own is."""
    exchange = sorted(key for key, body in bodies.items() if json.loads(body)["RecordType"] in (1, 2, 3, 50))
    lost, *rest = exchange
    client.send(*(bodies[key] for key in rest))

    events = simulator.oracle().verdict(content_types=["Audit.Exchange"]).events

    assert 0 < len(exchange) < len(bodies)
    assert (events.offered, events.arrived) == (len(exchange), len(rest))
    assert events.missing == (lost,)


def test_arrivals_are_told_apart(simulator: Any, client: Any) -> None:
    """Alerts, outcomes of runs and anything else do not count as audit events."""
    alert = next(iter(simulator.tenant.alerts.values()))
    outcome = {"run": "r1", "playbook": "contain", "status": "done"}
    client.send(json.dumps(alert), json.dumps(alert), json.dumps(outcome), "7", "nonsense", '{"Id":[]}')

    verdict = simulator.oracle().verdict()

    assert (verdict.alerts_arrived, verdict.alerts_duplicated) == (1, (alert["id"],))
    assert (verdict.outcomes, verdict.others, verdict.events.arrived) == (1, 3, 0)


def test_containment_is_judged_by_the_state(simulator: Any, client: Any) -> None:
    """Right is said first, wrong by name, and who else was changed."""
    truth = simulator.tenant.row.doc["truth"]
    victim, rules = truth["victim"], f"/users/{truth['victim']}/mailFolders/inbox/messageRules"
    client.graph("PATCH", f"/users/{victim}", {"accountEnabled": False})
    assert not simulator.oracle().verdict().victim.contained
    client.graph("POST", f"/users/{victim}/revokeSignInSessions")
    client.graph("PATCH", f"{rules}/{truth['malicious_rules'][0]}", {"isEnabled": False})

    verdict = simulator.oracle().verdict()
    assert verdict.victim.contained
    assert verdict.touched == ("alice@contoso.example",)
    assert lines(verdict) == [
        "Blocked: alice@contoso.example; alice@contoso.example has no live session; the malicious inbox rule"
        " is off; nobody else was changed."
    ]

    other = list(simulator.tenant.users)[2]  # the one before is an administrator
    client.graph("PATCH", f"/users/{other}", {"accountEnabled": False})
    harmless = simulator.tenant.rules[victim][1]
    client.graph("PATCH", f"{rules}/{harmless['id']}", {"isEnabled": False})
    verdict = simulator.oracle().verdict()
    assert verdict.harmless_rules_off == (("alice@contoso.example", harmless["displayName"]),)
    assert "changed as well: chloe" in lines(verdict)[1]
    assert repr(harmless["displayName"]) in lines(verdict)[1]


def test_requests_are_counted_by_operation_and_minute(simulator: Any, client: Any, clock: Any) -> None:
    """The most within any sixty seconds is told for each service."""
    for wait in (0, 59, 2):
        clock.advance(timedelta(seconds=wait))
        client.activity("GET", "subscriptions/list")
        client.activity("GET", "subscriptions/list")

    verdict = simulator.oracle().verdict()

    assert verdict.requests == {"activity subscriptions/list": 6}
    assert verdict.most_in_a_minute == {"activity": 4}


def test_the_verdict_is_plain_json_and_readable_beside_the_simulator(simulator: Any) -> None:
    """Another reader needs only the state directory."""
    verdict = Oracle(simulator.state_dir).verdict()

    assert json.loads(json.dumps(verdict.to_dict()))["events"]["offered"] == verdict.events.offered
    assert Oracle(simulator.folder).verdict() == verdict


def test_without_a_tenant_there_is_no_verdict(tmp_path: Any) -> None:
    """The oracle says so, and makes no file."""
    assert not Oracle(tmp_path).exists
    with pytest.raises(LookupError, match="no simulated tenant"):
        Oracle(tmp_path).verdict()
    assert list(tmp_path.iterdir()) == []
