"""`playbook doctor`: what it predicts on four licences and five sets of permissions is what happens."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from counterplay import (
    Action,
    BlockedError,
    Context,
    Diagnosis,
    Need,
    PollTrigger,
    StepContext,
    UnavailableError,
    WorkError,
)
from counterplay.cli import playbook as command
from counterplay.language import with_defaults
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.own_roles import ROLES
from counterplay_m365.tenant import Tenant
from counterplay_m365.triggers.audit_log import AuditLog
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
OTHERS = ("m365.audit_log", "m365.get_user", "m365.revoke_sessions", "m365.block_sign_in")
SECURITY = ["SecurityAlert.Read.All", "SecurityIncident.Read.All", "ThreatHunting.Read.All"]
IDENTITY = ["IdentityRiskEvent.Read.All", "IdentityRiskyUser.Read.All", "AuditLog.Read.All"]
LICENCES = ["LicenseAssignment.Read.All"]
RESPONSE = ["User.Read.All", "User.EnableDisableAccount.All", "User.RevokeSessions.All"]
REST = ["MailboxSettings.ReadWrite", "RoleManagement.Read.Directory", "Application.Read.All"]
PERMISSIONS = {
    "nothing": [],
    "security": [*SECURITY, *LICENCES],
    "identity": [*IDENTITY, *LICENCES],
    "response": [*RESPONSE, "ActivityFeed.Read"],
    "all": [*SECURITY, *IDENTITY, *RESPONSE, *REST, *LICENCES, "ActivityFeed.Read"],
}
#: By licence and permissions: a letter for each module in their order. `.` works, `p` permission is missing,
#: `l` unavailable for want of a licence.
TABLE = {
    ("free", "nothing"): "ppppppp pppp",
    ("free", "security"): "llppppl pppp",
    ("free", "identity"): "pplll.p pppp",
    ("free", "response"): "ppppppp ....",
    ("free", "all"): "lllll.l ....",
    ("p1", "nothing"): "ppppppp pppp",
    ("p1", "security"): "llppppl pppp",
    ("p1", "identity"): "pp....p pppp",
    ("p1", "response"): "ppppppp ....",
    ("p1", "all"): "ll....l ....",
    ("business_premium", "nothing"): "ppppppp pppp",
    ("business_premium", "security"): "..ppppl pppp",
    ("business_premium", "identity"): "pp....p pppp",
    ("business_premium", "response"): "ppppppp ....",
    ("business_premium", "all"): "......l ....",
    ("e5", "nothing"): "ppppppp pppp",
    ("e5", "security"): "..pppp. pppp",
    ("e5", "identity"): "pp....p pppp",
    ("e5", "response"): "ppppppp ....",
    ("e5", "all"): "....... ....",
}
EVERYTHING = """\
name: everything
description: All that is followed, and what contains an account.
playbooks:
  - office365-to-intake
  - alerts-to-intake
  - incidents-to-intake
  - identity-risk-to-intake
  - directory-audit-to-intake
  - defender-hunting-to-intake
  - respond
"""
RESPOND = """\
name: respond
trigger: {uses: m365.alerts, connection: contoso}
steps:
  - {id: user, uses: m365.get_user, with: {user_id: "{{ event | m365_users | first }}"}}
  - {uses: m365.block_sign_in, with: {user_id: "{{ steps.user.result.id }}"}}
  - {uses: m365.revoke_sessions, with: {user_id: "{{ steps.user.result.id }}"}}
  - {uses: m365.disable_inbox_rules, with: {user_id: "{{ steps.user.result.id }}", only: suspicious}}
"""
SNAPSHOTS = Path(__file__).parent / "doctor"


UNHURRIED = Strictness(graph=GraphRules(throttle_scale=0))


@pytest.fixture(scope="module", params=["free", "p1", "business_premium", "e5"])
def simulator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Simulator]:
    """A small tenant with a licence, whose audit feed was started."""
    with Simulator(
        tmp_path_factory.mktemp(request.param),
        seed=3,
        plan=Plan(events=20, users=8, licence=request.param),
        strictness=UNHURRIED,
    ) as made:
        context = connected(made, ["ActivityFeed.Read"])
        with context.http:
            AuditLog({}).prepare(context)
        yield made


def grant(simulator: Simulator, permissions: list[str]) -> None:
    (tenant,) = simulator._tenants.values()
    tenant.grants["activity"] = [one for one in permissions if one.startswith("ActivityFeed.")]
    tenant.grants["graph"] = [one for one in permissions if not one.startswith("ActivityFeed.")]


def connected(simulator: Simulator, permissions: list[str]) -> Context:
    """A new sign-in of an app that was granted these permissions and no others."""
    grant(simulator, permissions)
    connection = Tenant("sim", simulator.info()["m365.tenant"])
    return Context(http=Wire(connection, attempts=2, backoff=0), connection=connection)


def needs() -> list[Need]:
    return [need(uses) for uses in (*FEEDS, *OTHERS)]


def need(uses: str) -> Need:
    info = HOST.module(uses)
    return info.need(with_defaults(info.schema, FEEDS.get(uses, {})))


@pytest.mark.parametrize("permissions", PERMISSIONS)
def test_what_it_predicts_is_what_happens(simulator: Simulator, permissions: str) -> None:
    """The table, and the first poll of each feed and one use of each action held against it."""
    licence = next(iter(simulator._tenants.values())).licence
    context = connected(simulator, PERMISSIONS[permissions])
    assert context.connection is not None
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, needs())}
        letters = ""
        for uses in (*FEEDS, *OTHERS):
            one = found[uses]
            letter = "." if one.ok else "l" if one.detail.startswith("unavailable: ") else "p"
            letters += " " * (uses == OTHERS[0]) + letter
            assert one.ok is not None
            assert bool(one.grant) == (letter == "p")
            assert happens(uses, context, user_of(simulator, administrator=False)) == letter, one

    assert letters == TABLE[licence, permissions]


def happens(uses: str, context: Context, user_id: str) -> str:
    info = HOST.module(uses)
    module = info.cls(
        with_defaults(info.schema, FEEDS.get(uses, {"user_id": user_id} if info.kind == "action" else {}))
    )
    try:
        match module:
            case PollTrigger():
                module.poll(context, None, context.now() - timedelta(minutes=5))
            case AuditLog():
                module.prepare(context)
            case Action():
                step = StepContext(http=context.http, connection=context.connection)
                module.capture(step)
                module.run(step)
    except UnavailableError:
        return "l"
    except BlockedError:
        return "p"
    return "."


def user_of(simulator: Simulator, *, administrator: bool) -> str:
    """Somebody who holds a role, or somebody whom nobody protects and Active Directory does not own."""
    (tenant,) = simulator._tenants.values()
    holders = {one["principalId"] for one in tenant.objects["roleAssignment"].values()}
    return next(
        str(one["id"])
        for one in tenant.objects["user"].values()
        if (one["id"] in holders) == administrator and not one.get("onPremisesSyncEnabled")
    )


@pytest.mark.parametrize("permissions", PERMISSIONS)
def test_the_printed_table(
    simulator: Simulator, permissions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands in `doctor/`; UPDATE_SNAPSHOTS=1 writes it anew, to be read before it is committed."""
    grant(simulator, PERMISSIONS[permissions])
    monkeypatch.setenv("COLUMNS", "80")
    workspace_of(simulator, tmp_path)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "everything.yaml").write_text(EVERYTHING)
    (tmp_path / "playbooks" / "respond.yaml").write_text(RESPOND)

    done = call(tmp_path, "everything")

    licence = next(iter(simulator._tenants.values())).licence
    file = SNAPSHOTS / f"{licence}-{permissions}.txt"
    printed = re.sub(
        r"\([^()]*request-id [^()]*\)", "(request-id …)", f"{done.stdout}exit {done.exit_code}\n"
    )
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(printed)
    assert printed == file.read_text()


def test_a_role_of_the_app_is_looked_for(simulator: Simulator) -> None:
    """Without it an administrator's account is refused, as doctor says; with it it is not."""
    (tenant,) = simulator._tenants.values()
    administrator = user_of(simulator, administrator=True)
    context = connected(simulator, [*RESPONSE, *REST])
    assert context.connection is not None
    with context.http:
        (before,) = [one for one in examined(context) if one.about == "m365.block_sign_in"]
        refused = refusal(context, administrator)
        own = context.connection.own_names()[1]  # type: ignore[index]  # a list here
        given = {
            "id": "own-role",
            "principalId": own,
            "roleDefinitionId": ROLES["Privileged Authentication Administrator"],
            "directoryScopeId": "/",
            "appScopeId": None,
            "principalOrganizationId": tenant.id,
            "condition": None,
        }
        tenant.objects["roleAssignment"].put("own-role", given)
        try:
            found = {one.about: one for one in examined(context)}
            allowed = refusal(context, administrator)
        finally:
            tenant.objects["roleAssignment"].remove("own-role")

    assert (before.ok, refused) == (True, True)
    assert before.detail == (
        "permitted; not for accounts that hold an administrator role: that takes the role "
        "Privileged Authentication Administrator"
    )
    assert (found["roles of the app"].detail, allowed) == ("Privileged Authentication Administrator", False)
    assert found["m365.block_sign_in"].detail == "permitted"


def examined(context: Context) -> list[Diagnosis]:
    assert context.connection is not None
    return list(context.connection.examine(context, needs()))


def refusal(context: Context, user_id: str) -> bool:
    info = HOST.module("m365.block_sign_in")
    action = info.cls(with_defaults(info.schema, {"user_id": user_id}))
    assert isinstance(action, Action)
    try:
        action.run(StepContext(http=context.http, connection=context.connection))
    except WorkError as error:
        return error.status == 403
    return False


@pytest.mark.parametrize(
    ("always", "readable", "ok"), [(True, True, False), (True, False, None), (False, False, True)]
)
def test_a_role_that_a_call_always_takes(
    simulator: Simulator, always: bool, readable: bool, ok: bool | None
) -> None:
    """Missing it is a refusal; not being able to look is told as such."""
    role = {"any": ["User Administrator"], "for": "new passwords", "always": always}
    context = connected(simulator, REST if readable else [])
    assert context.connection is not None
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, [Need("x", roles=(role,))])}

    assert found["x"].ok is ok
    assert "User Administrator for new passwords" in found["x"].detail
    assert found["x"].grant == (("Entra ID role: User Administrator",) if always else ())
    assert found["roles of the app"].ok is (True if readable else None)


def test_auditing_that_is_off_is_told(simulator: Simulator) -> None:
    """A listing of a subscription that is started says so."""
    context = connected(simulator, PERMISSIONS["all"])
    assert context.connection is not None
    with context.http:
        (on,) = [one for one in examined(context) if one.about == "audit log"]
        simulator.disturb([{"kind": "auditing_off"}])
        try:
            (off,) = [one for one in examined(context) if one.about == "audit log"]
        finally:
            simulator.calm()

    assert on.detail.startswith("on; subscriptions that are started: Audit.AzureActiveDirectory")
    assert off.ok is False
    assert "turn on unified auditing (Set-AdminAuditLogConfig" in off.detail


def test_the_audit_log_alone_is_enough_to_know_the_clock_and_the_principal(simulator: Simulator) -> None:
    """A playbook that never asks Graph hears of both: Entra ID gives no token for a disabled principal."""
    context = connected(simulator, ["ActivityFeed.Read"])
    assert context.connection is not None
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, [need("m365.audit_log")])}

    assert found["clock"].ok is True
    assert found["Office 365 Management APIs"].detail == "enabled for sign-in, as a token for it was given"


def test_a_hunting_query_that_the_tenant_refuses_is_told(simulator: Simulator) -> None:
    """The playbook's own query is tried, not only whether hunting is there."""
    context = connected(simulator, PERMISSIONS["all"])
    (tenant,) = simulator._tenants.values()
    wrong = replace(need("m365.hunting"), arguments={"query": "AlertInfo | where nonsense"})
    assert context.connection is not None
    with context.http:
        found = {one.about: one for one in context.connection.examine(context, [wrong])}

    assert found["m365.hunting"].ok is False
    assert ("'nonsense'" in found["m365.hunting"].detail) == (tenant.licence == "e5")


def test_a_principal_that_is_disabled_is_told(simulator: Simulator) -> None:
    """The Management API's: no token is given for it, and both lines say what to do."""
    (tenant,) = simulator._tenants.values()
    principals = tenant.objects["servicePrincipal"]
    (own,) = principals.where("appId", "c5393580-f805-4401-95e8-94b7a6ef2fc2")
    principals.put(own["id"], {**own, "accountEnabled": False})
    try:
        context = connected(simulator, PERMISSIONS["all"])
        with context.http:
            found = {one.about: one for one in examined(context)}
    finally:
        principals.put(own["id"], own)

    assert "AADSTS500014: the service's principal is disabled" in found["sign-in to Management Activity API"].detail  # fmt: skip  # noqa: E501
    assert "enable it for users to sign in" in found["Office 365 Management APIs"].detail
    assert found["m365.audit_log"].detail == "no sign-in to Management Activity API"
    assert found["m365.audit_log"].ok is False


def test_a_service_that_cannot_be_reached_is_told(simulator: Simulator) -> None:
    """Nothing listens there: no feed is called well."""
    grant(simulator, PERMISSIONS["all"])
    settings = {**simulator.info()["m365.tenant"], "graph_url": "https://127.0.0.1:9"}
    connection = Tenant("sim", settings)
    context = Context(http=Wire(connection, attempts=1, backoff=0), connection=connection)
    with context.http:
        found = {one.about: one for one in examined(context)}

    assert found["clock"].detail.startswith("Microsoft Graph cannot be reached: ")
    assert found["clock"].ok is False
    assert {found[uses].ok for uses in FEEDS} == {None}


def test_a_clock_that_is_wrong_is_told(simulator: Simulator) -> None:
    """More than five minutes make tokens and windows fail."""
    context = connected(simulator, PERMISSIONS["all"])
    simulator.disturb([{"kind": "clock_skew", "service": "graph", "skew": 600}])
    try:
        with context.http:
            found = {one.about: one for one in examined(context)}
    finally:
        simulator.calm()

    assert found["clock"].ok is False
    assert re.fullmatch(
        r"this machine's clock is (59\d|600) s behind that of Microsoft Graph; set it right",
        found["clock"].detail,
    )


def workspace_of(simulator: Simulator, root: Path) -> None:
    """Its connections, as a tenant and an intake of one's own."""
    info = simulator.info()
    settings = json.dumps({"uses": "m365.tenant", **info["m365.tenant"]})
    intake = json.dumps({"uses": "intake.key", **info["intake.key"]})
    (root / "counterplay.yaml").write_text(f"connections:\n  contoso: {settings}\n  siem: {intake}\n")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    with Simulator(tmp_path / ".counterplay", seed=3, plan=Plan(events=20, users=8, licence="p1")) as made:
        grant(made, [*LICENCES, "AuditLog.Read.All"])
        workspace_of(made, tmp_path)
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


def test_domains_that_count_as_inside_are_a_need(workspace: Path) -> None:
    """A playbook that asks for them needs a permission, unless the workspace names them."""
    (workspace / "playbooks").mkdir()
    (workspace / "playbooks" / "foreign.yaml").write_text(
        "name: foreign\ntrigger: {uses: m365.sign_ins, connection: contoso}\n"
        "filter: not (event.ipAddress | m365_is_internal(internal))\n"
        "sinks: [{uses: intake.forward, connection: siem}]\n"
    )
    refused = json.loads(call(workspace, "foreign", "--json").stdout)
    config = workspace / "counterplay.yaml"
    config.write_text(config.read_text() + "internal: {domains: [contoso.com]}\n")
    fine = json.loads(call(workspace, "foreign", "--json").stdout)

    assert refused["grants"] == {"contoso": ["Microsoft Graph: Organization.Read.All"]}
    assert fine["grants"] == {}
    assert "internal" not in [row["about"] for row in fine["findings"]]


def hunting(workspace: Path, name: str, query: str, *, default: str | None = None) -> None:
    """A playbook that hunts with a query, or with one that an input gives."""
    given = {"type": "string", "description": "KQL.", **({"default": default} if default else {})}
    (workspace / "playbooks").mkdir(exist_ok=True)
    (workspace / "playbooks" / f"{name}.yaml").write_text(
        f"name: {name}\ninputs: {json.dumps({'query': given})}\n"
        f"trigger: {{uses: m365.hunting, connection: contoso, with: {{query: {json.dumps(query)}}}}}\n"
        "sinks: [{uses: intake.forward, connection: siem}]\n"
    )


def test_each_query_of_several_playbooks_is_tried(tmp_path: Path) -> None:
    """One module with two arguments is two needs; the default of an input is what is tried."""
    with Simulator(tmp_path / ".counterplay", seed=3, plan=Plan(events=20, users=8, licence="e5")) as made:
        grant(made, [*LICENCES, "ThreatHunting.Read.All"])
        workspace_of(made, tmp_path)
        hunting(tmp_path, "a-good-one", "AlertInfo | take 5")
        hunting(tmp_path, "b-typing-error", "AlertInfo | where Nonsense ==")
        hunting(tmp_path, "c-of-an-input", "{{ inputs.query }}", default="NoSuchTable | take 1")
        hunting(tmp_path, "d-without-default", "{{ inputs.query }}")
        done = call(tmp_path, "--json")
    close_all()

    found = [row for row in json.loads(done.stdout)["findings"] if row["about"] == "m365.hunting"]
    assert [(row["ok"], row["playbooks"]) for row in found] == [
        (True, ["a-good-one", "d-without-default"]),
        (False, ["b-typing-error"]),
        (False, ["c-of-an-input"]),
    ]
    assert "NoSuchTable" in found[2]["detail"]
    assert done.exit_code == 1


def test_one_playbook_that_is_wrong_does_not_hide_the_others(workspace: Path) -> None:
    """It is named with its place, the rest is looked at, and the exit code tells of it."""
    hunting(workspace, "good", "AlertInfo")
    (workspace / "playbooks" / "broken.yaml").write_text(
        "name: broken\ntrigger: {uses: m365.hunts}\nsinks: [{uses: std.null}]\n"
    )

    done = call(workspace)

    assert done.exit_code == 2
    assert "contoso     m365.hunting" in done.stdout
    assert re.search(r"^not looked at: \S+broken\.yaml:2:\d+: ", done.stderr, re.MULTILINE), done.stderr
