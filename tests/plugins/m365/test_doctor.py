"""`playbook doctor`: what it predicts on four licences and five sets of permissions is what happens."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from counterplay import BlockedError, Context, Need, PollTrigger, UnavailableError
from counterplay.cli import playbook as command
from counterplay.language import with_defaults
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.tenant import Tenant
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness, close_all

HOST = PluginHost.load()
FEEDS = {
    "m365.alerts": {},
    "m365.incidents": {},
    "m365.risk_detections": {},
    "m365.risky_users": {},
    "m365.sign_ins": {},
    "m365.directory_audits": {},
    "m365.hunting": {"query": "AlertInfo | take 1"},
}
SECURITY = ["SecurityAlert.Read.All", "SecurityIncident.Read.All", "ThreatHunting.Read.All"]
IDENTITY = ["IdentityRiskEvent.Read.All", "IdentityRiskyUser.Read.All", "AuditLog.Read.All"]
LICENCES = ["LicenseAssignment.Read.All"]
PERMISSIONS = {
    "nothing": [],
    "other": ["MailboxSettings.Read"],
    "security": [*SECURITY, *LICENCES],
    "identity": [*IDENTITY, *LICENCES],
    "all": [*SECURITY, *IDENTITY, *LICENCES],
}
#: By licence and permissions: a letter for each feed in their order. `.` works, `p` permission is missing,
#: `l` unavailable for want of a licence.
TABLE = {
    ("free", "nothing"): "ppppppp",
    ("free", "other"): "ppppppp",
    ("free", "security"): "llppppl",
    ("free", "identity"): "pplll.p",
    ("free", "all"): "lllll.l",
    ("p1", "nothing"): "ppppppp",
    ("p1", "other"): "ppppppp",
    ("p1", "security"): "llppppl",
    ("p1", "identity"): "pp....p",
    ("p1", "all"): "ll....l",
    ("business_premium", "nothing"): "ppppppp",
    ("business_premium", "other"): "ppppppp",
    ("business_premium", "security"): "..ppppl",
    ("business_premium", "identity"): "pp....p",
    ("business_premium", "all"): "......l",
    ("e5", "nothing"): "ppppppp",
    ("e5", "other"): "ppppppp",
    ("e5", "security"): "..pppp.",
    ("e5", "identity"): "pp....p",
    ("e5", "all"): ".......",
}


UNHURRIED = Strictness(graph=GraphRules(throttle_scale=0))


@pytest.fixture(scope="module", params=["free", "p1", "business_premium", "e5"])
def simulator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Simulator]:
    """A small tenant with a licence."""
    with Simulator(
        tmp_path_factory.mktemp(request.param),
        seed=3,
        plan=Plan(events=20, users=8, licence=request.param),
        strictness=UNHURRIED,
    ) as made:
        yield made


def connected(simulator: Simulator, permissions: list[str]) -> Context:
    """A new sign-in of an app that was granted these permissions and no others."""
    (tenant,) = simulator._tenants.values()
    tenant.grants["graph"] = permissions
    connection = Tenant("sim", simulator.info()["m365.tenant"])
    return Context(http=Wire(connection, attempts=2, backoff=0), connection=connection)


def needs() -> list[Need]:
    found = []
    for uses, arguments in FEEDS.items():
        info = HOST.module(uses)
        found.append(
            Need(uses, with_defaults(info.schema, arguments), tuple(info.permissions), tuple(info.licences))
        )
    return found


@pytest.mark.parametrize("permissions", PERMISSIONS)
def test_what_it_predicts_is_what_happens(simulator: Simulator, permissions: str) -> None:
    """The table, and the first poll of each feed held against it."""
    licence = next(iter(simulator._tenants.values())).licence
    context = connected(simulator, PERMISSIONS[permissions])
    assert context.connection is not None
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, needs())}
        letters = ""
        for uses in FEEDS:
            one = found[uses]
            letters += "." if one.ok else "l" if one.detail.startswith("unavailable: ") else "p"
            assert one.ok is not None
            assert bool(one.grant) == (letters[-1] == "p")
            assert happens(uses, context) == letters[-1], one

    assert letters == TABLE[licence, permissions]


def happens(uses: str, context: Context) -> str:
    info = HOST.module(uses)
    trigger = info.cls(with_defaults(info.schema, FEEDS[uses]))
    assert isinstance(trigger, PollTrigger)
    try:
        trigger.poll(context, None, context.now() - timedelta(minutes=5))
    except UnavailableError:
        return "l"
    except BlockedError:
        return "p"
    return "."


def test_a_clock_that_is_wrong_is_told(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than five minutes make tokens and windows fail."""
    from counterplay_m365 import doctor

    context = connected(simulator, PERMISSIONS["all"])
    assert context.connection is not None
    monkeypatch.setattr(doctor, "MOST_SKEW", timedelta(seconds=-1))
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, needs())}

    assert found["clock"].ok is False
    assert "this machine's clock is 0 s" in found["clock"].detail or "1 s" in found["clock"].detail


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    with Simulator(tmp_path / ".counterplay", seed=3, plan=Plan(events=20, users=8, licence="p1")) as made:
        info = made.info()
        (tenant,) = made._tenants.values()
        tenant.grants["graph"] = [*LICENCES, "AuditLog.Read.All"]
        tenant.grants["activity"] = []
        settings = json.dumps({"uses": "m365.tenant", **info["m365.tenant"]})
        intake = json.dumps({"uses": "intake.key", **info["intake.key"]})
        (tmp_path / "counterplay.yaml").write_text(f"connections:\n  contoso: {settings}\n  siem: {intake}\n")
        yield tmp_path
    close_all()


def call(root: Path, *words: str) -> Any:
    before = Path.cwd()
    os.chdir(root)
    try:
        return CliRunner().invoke(command, ["doctor", *words])
    finally:
        os.chdir(before)


def test_the_command_prints_the_table_and_the_smallest_grant(workspace: Path) -> None:
    """What would be refused, with what mends it; the exit code is for CI."""
    refused = call(workspace, "risk-detections-to-intake")
    fine = call(workspace, "sign-ins-to-intake")

    assert refused.exit_code == 1
    lines = [line.split() for line in refused.stdout.splitlines()]
    assert lines[0] == ["CONNECTION", "ABOUT", "RESULT", "DETAIL"]
    assert "contoso     m365.risk_detections        REFUSED  the permission is missing: " in refused.stdout
    assert refused.stdout.endswith(
        "\nThe smallest grant that would do for contoso:\n  Microsoft Graph: IdentityRiskEvent.Read.All\n"
    )
    assert fine.exit_code == 0, fine.stdout
    assert "REFUSED" not in fine.stdout


def test_a_set_is_looked_at_as_one_and_told_as_json(workspace: Path) -> None:
    """Each finding names the playbooks that it concerns."""
    done = call(workspace, "identity-risk-to-intake", "--json")

    report = json.loads(done.stdout)
    by_module = {row["about"]: row for row in report["findings"]}
    assert by_module["m365.sign_ins"]["ok"] is True
    assert by_module["m365.sign_ins"]["playbooks"] == ["sign-ins-to-intake"]
    assert by_module["m365.risky_users"]["ok"] is False
    assert report["grants"] == {
        "contoso": [
            "Microsoft Graph: IdentityRiskEvent.Read.All",
            "Microsoft Graph: IdentityRiskyUser.Read.All",
        ]
    }
    assert done.exit_code == 1


def test_a_feed_of_the_audit_log_without_its_permission_is_refused(workspace: Path) -> None:
    """The Management API has permissions of its own."""
    done = call(workspace, "office365-to-intake", "--json")

    row = next(one for one in json.loads(done.stdout)["findings"] if one["about"] == "m365.audit_log")
    assert row["ok"] is False
    assert row["grant"] == ["Office 365 Management APIs: ActivityFeed.Read"]
