"""Connections that are wrong: told before anything runs where that can be known, else explained."""

from typing import Any

import pytest

from counterplay_sim.testing import Simulator

FORWARD = ("run", "alerts-to-intake", "--once")
GUID = (
    "'contoso.com' is not written as it has to be; the Directory (tenant) ID of the app registration, a GUID."
    " A domain name does not do: the audit feed takes the GUID only, for instance "
    "'6c2a8c5e-0d4b-4f0e-9a57-1f2b3c4d5e6f'"
)


def everything_arrived(tenant: Simulator) -> bool:
    """All alerts are at the intake, each of them once."""
    verdict = tenant.oracle().verdict()
    return verdict.alerts_arrived == verdict.alerts_offered > 0 and not verdict.alerts_duplicated


def test_a_missing_secret_is_told_before_anything_runs(
    desk: Any, tenant: Simulator, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the file, the setting, the variable and what to type; the next run has it all."""
    connect(tenant)
    monkeypatch.delenv("CONTOSO_SECRET")
    line = (
        "counterplay.yaml: connections.contoso.client_secret: the environment variable CONTOSO_SECRET is not"
        " set; export CONTOSO_SECRET=…\n"
    )

    run = desk.playbook(*FORWARD)
    checked = desk.playbook("connections", "check", "contoso")
    connect(tenant)
    good = desk.playbook(*FORWARD)

    assert (run.code, run.out, run.err) == (2, "", line)
    assert (checked.code, checked.out, checked.err) == (2, "", line)
    assert good.code == 0
    assert everything_arrived(tenant)


@pytest.mark.parametrize("name", ["CONTOSO_SECRET", "INTAKE_KEY"])
def test_a_short_secret_is_refused_without_being_shown(
    desk: Any, tenant: Simulator, connect: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A value that could not be masked is not used, whichever of the connections it opens."""
    connect(tenant)
    monkeypatch.setenv(name, "q7!z")
    setting = {"CONTOSO_SECRET": "contoso.client_secret", "INTAKE_KEY": "siem.intake_key"}[name]

    said = desk.playbook(*FORWARD)

    assert (said.code, said.out, said.err) == (
        2,
        "",
        f"counterplay.yaml: connections.{setting}: the secret has fewer than 8 characters, so it could not be"
        " masked; use a longer one\n",
    )
    assert desk.leaks("q7!z") == []
    connect(tenant)
    assert desk.playbook(*FORWARD).code == 0
    assert everything_arrived(tenant)


def test_a_short_secret_in_clear_is_a_finding_with_its_line(
    desk: Any, tenant: Simulator, connect: Any
) -> None:
    """It is found when the file is read, by every command that needs a connection."""
    connect(tenant)
    text = (desk.root / "counterplay.yaml").read_text().replace("${env:INTAKE_KEY}", "q7!z")
    desk.write("counterplay.yaml", text)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "q7!z" in one)

    for command in (FORWARD, ("connections",), ("runs",)):
        said = desk.playbook(*command)

        assert (said.code, said.err) == (
            2,
            f"counterplay.yaml:{line}:17: the secret has fewer than 8 characters; use a longer one\n",
        )


@pytest.mark.parametrize("given", ["contoso.com", "${env:TENANT_ID}"])
def test_a_tenant_id_that_is_no_guid_is_refused(
    desk: Any, tenant: Simulator, connect: Any, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """In clear it is found in the file, by reference when it is resolved; nothing has run then."""
    monkeypatch.setenv("TENANT_ID", "contoso.com")
    connect(tenant, tenant_id=given)

    said = desk.playbook(*FORWARD)

    place = (
        "counterplay.yaml:5:16:" if "$" not in given else "counterplay.yaml: connections.contoso.tenant_id:"
    )
    assert (said.code, said.out, said.err) == (2, "", f"{place} {GUID}\n")
    connect(tenant)
    assert desk.playbook(*FORWARD).code == 0
    assert everything_arrived(tenant)


def test_a_wrong_client_secret_is_explained_once(desk: Any, tenant: Simulator, connect: Any) -> None:
    """AADSTS7000215 in words with what to do; the run is blocked, and the right secret brings everything."""
    wrong = "wrong-secret-of-contoso-4711"
    connect(tenant, client_secret=wrong)
    reason = (
        "Microsoft Entra ID gave no token for 'contoso': AADSTS7000215: the client secret is wrong; paste the"
        " secret's value, not its ID, into `client_secret`"
    )

    said = desk.playbook("run", "office365-to-intake", "--once", "--json")
    alerts = desk.playbook(*FORWARD)
    checked = desk.playbook("connections", "check", "contoso", "--json")

    assert said.code == alerts.code == 3
    assert said.data["notices"] == [
        f"m365.audit_log contoso Audit.AzureActiveDirectory and 4 others: {reason}"
    ]
    assert alerts.out.splitlines()[-1] == f"  ! m365.alerts contoso: {reason}"
    assert checked.code == 1
    assert {one["detail"] for one in checked.data} == {reason}
    connect(tenant)
    assert desk.playbook(*FORWARD).code == 0
    assert everything_arrived(tenant)
    for secret in (wrong, tenant.tenant.client_secret, tenant.tenant.intake_key):
        assert desk.leaks(secret) == []


def test_a_connection_that_works_says_so_without_its_secrets(
    desk: Any, tenant: Simulator, connect: Any
) -> None:
    """`connections check` proves token, permissions and reach of both kinds, and shows no secret."""
    connect(tenant)

    m365 = desk.playbook("connections", "check", "contoso", "--json")
    intake = desk.playbook("connections", "check", "siem", "--json")

    assert (m365.code, intake.code) == (0, 0)
    assert all(one["ok"] for one in [*m365.data, *intake.data])
    assert {one["kind"] for one in m365.data} == {"m365.tenant"}
    for secret in (tenant.tenant.client_secret, tenant.tenant.intake_key):
        assert desk.leaks(secret) == []
