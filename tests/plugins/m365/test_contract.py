"""Every request of the triggers, and every answer to it, held against Microsoft's contract of Graph."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema
import pytest
import requests

from counterplay import Context, Event, PollTrigger
from counterplay.language import with_defaults
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.tenant import Tenant
from counterplay_m365.triggers import audit_search
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness

HOST = PluginHost.load()
CONTRACTS = Path(__file__).parents[2] / "contracts"
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


@cache
def contract(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONTRACTS / f"graph-{version}.openapi.json").read_text("utf-8"))
    return found


def operation(version: str, path: str, method: str) -> dict[str, Any]:
    """The contract's operation behind a path."""
    for template, operations in contract(version)["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    raise AssertionError(f"the contract has no {method} {path} in {version}")


def validate(version: str, schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": contract(version)["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def resolved(version: str, node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = contract(version)
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


class Watched(Wire):
    """A wire that holds what passes it against the contract."""

    seen = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        response = super().send(request, **options)
        url = urlsplit(str(request.url))
        match = re.fullmatch(r".*/(v1\.0|beta)(/.*)", unquote(url.path))
        assert match is not None
        assert request.method is not None
        version, path = match.groups()
        described = operation(version, path, request.method)
        known = {resolved(version, one)["name"] for one in described.get("parameters", ())}
        assert {name for name, _ in parse_qsl(url.query)} <= known | {"$skiptoken"}, request.url
        if request.body:
            body = resolved(version, described["requestBody"])["content"]["application/json"]["schema"]
            validate(version, body, json.loads(request.body))
        answers = described["responses"]
        answer = answers.get(str(response.status_code)) or answers.get("2XX") or answers["default"]
        content = resolved(version, answer).get("content")
        if content:
            validate(version, content["application/json"]["schema"], response.json())
        self.seen += 1
        return response


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
