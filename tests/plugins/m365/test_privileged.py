"""Accounts that an app may change only with a role of Entra ID: what a 403 and a plan say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import responses

from counterplay import Action, BlockedError, EffectIntent, PermanentError, StepContext, WorkError
from counterplay.plugins import PluginHost
from counterplay_m365 import administrators
from counterplay_m365.own_roles import ROLES
from counterplay_m365.privileged import FOR_ANYBODY, SENSITIVE

HOST = PluginHost.load()
GRAPH = "https://graph.microsoft.com/v1.0"
ANA = f"{GRAPH}/users/ana-id"
METHOD = "phone-1"
OWN = "the-app"
DENIED = {
    "error": {
        "code": "Authorization_RequestDenied",
        "message": "Insufficient privileges.",
        "innerError": {"request-id": "9f3c"},
    }
}
SAID = "Microsoft Graph answered 403 Authorization_RequestDenied: Insufficient privileges. (request-id 9f3c)"
STRONG = "Privileged Authentication Administrator or Global Administrator"
every = pytest.mark.parametrize("uses", sorted(SENSITIVE))


@dataclass
class Account:
    """What Graph says of Ana and of the app: roles by name, and a group that may hold roles."""

    wire: responses.RequestsMock
    entra: Any

    def holds(
        self,
        *tenant_wide: str,
        assigned: tuple[str, ...] = (),
        group: str | None = None,
        own: str | None = None,
    ) -> None:
        """`assigned` roles show in role assignments alone; `own` is the app's role."""
        members: list[dict[str, Any]] = [
            {"@odata.type": "#microsoft.graph.directoryRole", "id": name, "displayName": name}
            for name in tenant_wide
        ]
        if group is not None:
            kind = {"@odata.type": "#microsoft.graph.group", "isAssignableToRole": True}
            members.append({**kind, "id": "group-id", "displayName": group})
        self.wire.get(f"{ANA}/transitiveMemberOf", json={"value": members})
        theirs = [{"id": name, "roleDefinition": {"displayName": name}} for name in assigned]
        mine = [{"id": own, "roleDefinitionId": ROLES[own]}] if own else []

        def assignments(request: Any) -> tuple[int, dict[str, str], str]:
            found = mine if OWN in request.params["$filter"] else theirs
            return 200, {}, json.dumps({"value": found})

        self.wire.add_callback("GET", f"{GRAPH}/roleManagement/directory/roleAssignments", assignments)

    def may(self, *permissions: str) -> None:
        """What the app is granted besides what each action needs."""
        self.entra.roles["https://graph.microsoft.com"] += permissions


@pytest.fixture
def account(wire: responses.RequestsMock, entra: Any) -> Account:
    """Ana exists; every change of hers is refused with 403, and every permission is there."""
    entra.principal = OWN
    made = Account(wire, entra)
    made.may("User-PasswordProfile.ReadWrite.All", "UserAuthenticationMethod.ReadWrite.All")
    wire.get(ANA, json={"id": "ana-id", "userPrincipalName": "ana@contoso.com", "accountEnabled": True})
    wire.patch(ANA, status=403, json=DENIED)
    methods = [{"@odata.type": "#microsoft.graph.phoneAuthenticationMethod", "id": METHOD}]
    wire.get(f"{ANA}/authentication/methods", json={"value": methods})
    wire.delete(f"{ANA}/authentication/phoneMethods/{METHOD}", status=403, json=DENIED)
    return made


def refused(uses: str, context: StepContext) -> WorkError:
    """How the action fails."""
    given = {"user_id": "ana-id"}
    if "method_id" in HOST.module(uses).schema["properties"]:
        given["method_id"] = METHOD
    action = HOST.module(uses).cls(given)
    assert isinstance(action, Action)
    with pytest.raises(WorkError) as caught:
        action.run(context)
    return caught.value


def planned(uses: str, context: StepContext) -> str | None:
    """What a plan says of it beforehand."""
    before = {"id": "ana-id"}
    intent = EffectIntent(
        "plan",
        "contain",
        "act",
        uses,
        "contoso",
        "t",
        "ana-id",
        before,
        subject="ana@contoso.com",
        planned=True,
    )
    verdict = administrators._refused_by_graph(intent, context)
    return verdict.reason if verdict is not None else None


READS = "RoleManagement.Read.Directory"
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a role of the whole tenant": (
        {"tenant_wide": ("Helpdesk Administrator",)},
        "it holds Helpdesk Administrator",
    ),
    "a role that only assignments show": (
        {"assigned": ("Exchange Administrator", "Helpdesk Administrator")},
        "it holds Exchange Administrator, Helpdesk Administrator",
    ),
    "a group that may hold roles": ({"group": "Tier 0"}, "it is in the group Tier 0"),
    "an app with a weaker role": (
        {"tenant_wide": ("Global Administrator",), "own": "User Administrator"},
        "it holds Global Administrator",
    ),
}


@every
@pytest.mark.parametrize("case", CASES)
def test_the_role_that_the_app_lacks_is_named(
    uses: str, case: str, account: Account, context: StepContext
) -> None:
    """After the 403, and in the plan before it: what protects the account, and which role would do."""
    held, what = CASES[case]
    account.may(READS)
    account.holds(*held.get("tenant_wide", ()), **{k: v for k, v in held.items() if k != "tenant_wide"})
    why = f"{what}, and the app's service principal lacks the role {STRONG}"

    error = refused(uses, context)

    assert type(error) is PermanentError
    assert str(error) == (
        f"the app may change accounts, but not 'ana-id': {why}: {SAID}; change it by hand, or give the app's "
        "service principal the role Privileged Authentication Administrator"
    )
    assert planned(uses, context) == f"Graph will answer 403: {why}"


@every
def test_an_app_that_cannot_read_its_roles_is_told_which_it_takes(
    uses: str, account: Account, context: StepContext
) -> None:
    """It sees the account's tenant-wide roles, and not what it holds itself."""
    account.holds("Helpdesk Administrator")
    why = (
        "it holds Helpdesk Administrator, and the app may only change it when its service principal holds "
        f"{STRONG}"
    )

    assert f"but not 'ana-id': {why}: {SAID}" in str(refused(uses, context))
    assert planned(uses, context) == f"Graph will answer 403: {why}"


@every
def test_an_app_with_a_strong_role_is_not_blamed(uses: str, account: Account, context: StepContext) -> None:
    """The refusal has another cause, so it stays what it is; the plan says nothing."""
    account.may(READS)
    account.holds("Global Administrator", own="Privileged Authentication Administrator")

    error = refused(uses, context)

    assert type(error) is BlockedError
    assert "grant the application permission" in str(error)
    assert planned(uses, context) is None


@every
def test_an_ordinary_account_takes_a_role_for_its_password_only(
    uses: str, account: Account, context: StepContext
) -> None:
    """Setting passwords takes User Administrator; nothing else is said to need a role."""
    account.may(READS)
    account.holds()

    error = refused(uses, context)

    if uses in FOR_ANYBODY:
        why = "whatever the account, the app's service principal lacks the role User Administrator for it"
        assert f"but not 'ana-id': {why}: {SAID}" in str(error)
        assert str(error).endswith("give the app's service principal the role User Administrator")
        assert planned(uses, context) == f"Graph will answer 403: {why}"
    else:
        assert type(error) is BlockedError
        assert planned(uses, context) is None


def test_the_schemas_name_the_same_roles() -> None:
    """`playbook doctor` goes by the schemas' `x-roles`, refusals and plans by what is held here."""
    always = {
        info.uses: role["any"][0] for info in HOST.modules.values() for role in info.roles if role["always"]
    }
    named = {info.uses for info in HOST.modules.values() if info.plugin == "m365" and info.roles}

    assert named == SENSITIVE
    assert always == FOR_ANYBODY
