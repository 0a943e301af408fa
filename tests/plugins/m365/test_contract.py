"""Every request of the triggers, and every answer to it, held against Microsoft's contract of Graph."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
import requests
from tests.fixtures import graph_contract
from tests.fixtures.graph_contract import Watched

from counterplay import Context, Event, PollTrigger
from counterplay.language import with_defaults
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.tenant import Tenant
from counterplay_m365.triggers import audit_search
from counterplay_m365.triggers.audit_log import AuditLog
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

HOST = PluginHost.load()
PERMISSIONS = [
    "AuditLog.Read.All",
    "AuditLogsQuery.Read.All",
    "IdentityRiskEvent.Read.All",
    "IdentityRiskyUser.Read.All",
    "LicenseAssignment.Read.All",
    "SecurityAlert.Read.All",
    "SecurityIncident.Read.All",
    "ThreatHunting.Read.All",
]
#: Each feed, and the kind of object in the simulated tenant that it has to find whole (None: none of it).
FEEDS: list[tuple[str, dict[str, Any], str | None]] = [
    ("m365.alerts", {"severity": ["high", "medium", "low", "informational"]}, "alert"),
    ("m365.incidents", {}, "incident"),
    ("m365.risk_detections", {}, "riskDetection"),
    ("m365.risky_users", {}, "riskyUser"),
    ("m365.sign_ins", {}, "signIn"),
    ("m365.sign_ins", {"kinds": ["nonInteractiveUser"]}, None),
    ("m365.directory_audits", {"category": ["UserManagement"]}, None),
    ("m365.hunting", {"query": "AlertInfo | take 50"}, None),
    (
        "m365.audit_search",
        {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T06:00:00Z", "services": ["Exchange"]},
        None,
    ),
]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """A tenant whose pages are small surprises: each second one is empty and has a link."""
    rules = GraphRules(throttle_scale=0, empty_page_every=2, audit_search_runs=timedelta(0))
    made = Simulator(
        tmp_path_factory.mktemp("tenant"),
        seed=7,
        plan=Plan(events=300, users=12, scenarios=("all",)),
        strictness=Strictness(graph=rules),
    )
    with made:
        yield made


def test_the_audit_feed_keeps_to_its_reference(simulator: Simulator) -> None:
    """Subscriptions, listings of three days and every blob, as the fixture of this folder holds them."""
    (tenant,) = simulator._tenants.values()
    tenant.grants["activity"] = ["ActivityFeed.Read"]
    connection = Tenant("sim", simulator.info()["m365.tenant"])
    trigger = AuditLog({})
    with Wire(connection, attempts=2, backoff=0) as wire:
        context = Context(http=wire, connection=connection)
        trigger.prepare(context)
        trigger.prepare(context)
        units = list(trigger.discover(context, context.now() - timedelta(days=3), context.now()))
        events = [one for unit in units for one in json.loads(bytes(trigger.fetch(context, unit)))]

    assert len({one["Id"] for one in events}) >= 300


@pytest.mark.parametrize(("uses", "arguments", "kind"), FEEDS)
def test_requests_and_answers_keep_to_the_contract(
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    uses: str,
    arguments: dict[str, Any],
    kind: str | None,
) -> None:
    """Paths, query options, bodies and every page; and the feed finds every object of the tenant."""
    monkeypatch.setattr(audit_search, "_FIRST_PAUSE", 0.01)
    (tenant,) = simulator._tenants.values()
    tenant.grants["graph"] = PERMISSIONS
    connection = Tenant("sim", simulator.info()["m365.tenant"])
    info = HOST.module(uses)
    trigger = info.cls(with_defaults(info.schema, arguments))
    assert isinstance(trigger, PollTrigger)
    found: set[str | None] = set()
    cursor = None
    with Watched(connection, attempts=2, backoff=0) as wire:
        context = Context(http=wire, connection=connection)
        while True:
            page = trigger.poll(context, cursor, context.now() - timedelta(days=3))
            found |= {trigger.run_key(Event(raw)) for raw in page.events}
            cursor = json.loads(json.dumps(page.cursor))
            if not page.more:
                break
        assert wire.seen >= 1
    if kind is not None:
        keys = {trigger.run_key(Event(json.dumps(one).encode())) for one in tenant.objects[kind].values()}
        assert keys
        assert found == keys


@pytest.mark.parametrize(
    ("method", "path", "body", "wrong"),
    [
        ("POST", "machines/m1/isolate", {"Comment": "ticket 17", "IsolationType": "Full"}, None),
        ("POST", "machines/m1/unisolate", {"Comment": "ticket 17"}, None),
        ("GET", "machineactions", None, None),
        ("POST", "machines/m1/isolate", {"comment": "ticket 17", "IsolationType": "Full"}, "comment"),
        ("POST", "machines/m1/isolate", {"Comment": "ticket 17", "IsolationType": "full"}, "full"),
        ("POST", "machines/m1/unisolate", {}, "Comment"),
        ("POST", "machines/m1/offboard", {"Comment": "x"}, "nobody says why"),
    ],
)
def test_what_has_no_contract_is_named_and_its_bodies_are_described(
    method: str, path: str, body: Any, wrong: str | None
) -> None:
    """Requests to Defender for Endpoint are listed with the reason, and are as its reference has them."""
    url = f"https://127.0.0.1/defender/api/{path}"
    request = requests.Request(method, url, json=body).prepare()

    if wrong is None:
        graph_contract.hold(request, requests.Response())
    else:
        with pytest.raises((AssertionError, jsonschema.ValidationError), match=wrong):
            graph_contract.hold(request, requests.Response())
