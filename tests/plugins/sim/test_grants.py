"""What the tenant's own application may do: by default, on the command line, by the admin port."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from click.testing import CliRunner

from counterplay_sim.attach import ask
from counterplay_sim.cli import sim
from counterplay_sim.grants import grant, known, parse_grants
from counterplay_sim.testing import Simulator, simulator_process

FEEDS = [
    "/security/alerts_v2",
    "/security/incidents",
    "/identityProtection/riskDetections",
    "/identityProtection/riskyUsers",
    "/auditLogs/signIns",
    "/auditLogs/directoryAudits",
    "/security/auditLog/queries",
]


def test_by_default_every_feed_can_be_read(client: Any, clock: Any) -> None:
    """A newcomer's `playbook sim` serves the shipped playbooks; it may not write what they do not."""
    for path in FEEDS:
        assert client.graph("GET", path).status_code == 200, path
        clock.advance(timedelta(seconds=2))  # risk data may be read once a second
    hunted = client.graph("POST", "/security/runHuntingQuery", {"Query": "AlertInfo | take 1"})
    assert hunted.status_code == 200
    assert client.graph("POST", "/applications", {"displayName": "x"}).status_code == 403


def test_the_admin_port_replaces_the_grants_of_a_service(tmp_path: Path, connect: Any) -> None:
    """Tokens and app role assignments say so from then on, after a restart too; the other service stays."""
    with Simulator(tmp_path, events=20) as simulator:
        shown = ask(simulator.info(), "PUT", "/grants", {"graph": ["Application.Read.All", "User.Read.All"]})
        assert shown["graph"] == ["Application.Read.All", "User.Read.All"]
        assert shown["activity"] == ["ActivityFeed.Read", "ActivityFeed.ReadDlp"]
        assert ask(simulator.info(), "GET", "/grants") == shown
    with Simulator(tmp_path, events=20) as simulator:
        client = connect(simulator)
        assert ask(simulator.info(), "GET", "/grants") == shown
        assert client.graph("GET", "/users").status_code == 200
        assert client.graph("GET", "/security/alerts_v2").status_code == 403
        assert client.activity("GET", "subscriptions/list").status_code == 200
        own = f"/servicePrincipals(appId='{simulator.tenant.client_id}')"
        listed = client.graph("GET", f"{own}/appRoleAssignments").json()["value"]
        ids = {key: name for roles in known().values() for name, key in roles.items()}
        assert {ids[one["appRoleId"]] for one in listed} == {*shown["graph"], *shown["activity"]}


def test_one_of_several_tenants_is_granted_alone(tmp_path: Path, connect: Any) -> None:
    """`?tenant=` says which."""
    with Simulator(tmp_path, events=20, tenants=2) as simulator:
        ask(simulator.info(), "PUT", "/grants?tenant=2", {"activity": []})
        assert simulator.tenants[0].grants["activity"]
        assert simulator.tenants[1].grants["activity"] == []


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"mail": []},
        {"graph": "User.Read.All"},
        {"graph": [1]},
        {"graph": ["User.Read.Al"]},
        {"activity": ["User.Read.All"]},
    ],
)
def test_grants_that_make_no_sense_change_nothing(simulator: Any, body: Any) -> None:
    """The admin port answers 400."""
    before = ask(simulator.info(), "GET", "/grants")

    with pytest.raises(HTTPError) as refused:
        ask(simulator.info(), "PUT", "/grants", body)

    assert refused.value.code == 400
    refused.value.close()
    assert ask(simulator.info(), "GET", "/grants") == before


def test_what_graph_took_away_can_be_granted_again(simulator: Any, client: Any) -> None:
    """An app role assignment that was removed ends a permission until the next grant of it."""
    grant(simulator.tenant, {"graph": ["AppRoleAssignment.ReadWrite.All", "User.Read.All"]})
    own = next(iter(simulator.tenant.objects["servicePrincipal"].where("appId", simulator.tenant.client_id)))
    path = f"/servicePrincipals/{own['id']}/appRoleAssignments"
    wanted = known()["graph"]["User.Read.All"]
    assignment = next(
        one["id"]
        for one in simulator.tenant.objects["appRoleAssignment"].where("principalId", own["id"])
        if one["appRoleId"] == wanted
    )
    assert client.graph("DELETE", f"{path}/{assignment}").status_code == 204

    client._tokens.clear()
    assert client.graph("GET", "/users").status_code == 403
    grant(simulator.tenant, {"graph": ["User.Read.All"]})
    client._tokens.clear()
    assert client.graph("GET", "/users").status_code == 200


def test_the_command_line_grants(tmp_path: Path, connect: Any) -> None:
    """`--grants` of a process, seen in what its tokens open."""
    with simulator_process(
        tmp_path, "--events", "10", "--grants", "graph:User.Read.All, graph:Group.Read.All"
    ) as running:
        info = json.loads((tmp_path / "sim" / "sim.json").read_text("utf-8"))
        client = connect(running)
        assert ask(info, "GET", "/grants")["graph"] == ["User.Read.All", "Group.Read.All"]
        assert client.graph("GET", "/users").status_code == 200
        assert client.graph("GET", "/security/incidents").status_code == 403
        assert client.activity("GET", "subscriptions/list").status_code == 200


def test_all_is_every_permission_that_is_simulated() -> None:
    """Of all three services."""
    assert parse_grants("all") == {service: sorted(names) for service, names in known().items()}


@pytest.mark.parametrize("text", ["", "User.Read.All", "graph:Nothing", "mail:User.Read.All", ","])
def test_a_list_that_makes_no_sense_ends_the_command(tmp_path: Path, text: str) -> None:
    """With exit code 2 and one line."""
    done = CliRunner().invoke(sim, ["--state-dir", str(tmp_path), "--grants", text])

    assert done.exit_code == 2
    assert done.output.startswith("Error: ")
