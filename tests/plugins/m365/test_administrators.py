"""The last Global Administrator who can sign in is never kept out."""

from typing import Any

import pytest
import responses

from counterplay import EffectIntent, StepContext
from counterplay_m365 import administrators

GRAPH = "https://graph.microsoft.com/v1.0"


def intent(uses: str = "m365.block_sign_in") -> EffectIntent:
    """Blocking Ada."""
    return EffectIntent(
        "r-1", "contain", "block", uses, "contoso", "t", "ada", {"id": "ada-id"}, subject="ada@contoso.com"
    )


def members(wire: responses.RequestsMock, *found: dict[str, Any]) -> None:
    """Who holds the role."""
    wire.get(f"{GRAPH}/directoryRoles", json={"value": [{"id": "role-1"}]})
    wire.get(f"{GRAPH}/directoryRoles/role-1/members", json={"value": list(found)})


@pytest.fixture
def reader(entra: Any) -> None:
    """The app may read roles."""
    entra.roles["https://graph.microsoft.com"] += ("RoleManagement.Read.Directory",)


ADA = {"id": "ada-id", "accountEnabled": True}


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("other", [None, {"id": "bob-id", "accountEnabled": False}, {"id": "a-group"}])
def test_the_last_one_is_refused(
    wire: responses.RequestsMock, context: StepContext, other: dict[str, Any] | None
) -> None:
    """A second administrator who cannot sign in, or a group, does not count."""
    members(wire, ADA, *([other] if other else []))

    verdict = administrators.verdict(intent(), context)

    assert verdict is not None
    assert verdict.refuse
    assert "ada@contoso.com is the last Global Administrator" in verdict.reason


@pytest.mark.usefixtures("reader")
def test_one_of_two_may_be_blocked(wire: responses.RequestsMock, context: StepContext) -> None:
    """Somebody is left."""
    members(wire, ADA, {"id": "bob-id", "accountEnabled": True})

    assert administrators.verdict(intent(), context) is None


@pytest.mark.usefixtures("reader")
def test_somebody_else_may_be_blocked(wire: responses.RequestsMock, context: StepContext) -> None:
    """The rule is about administrators."""
    members(wire, {"id": "bob-id", "accountEnabled": True})

    assert administrators.verdict(intent(), context) is None


def test_nothing_is_asked_without_the_permission(wire: responses.RequestsMock, context: StepContext) -> None:
    """An app that may not read roles cannot block an administrator either: Graph refuses it."""
    assert administrators.verdict(intent(), context) is None
    assert not [call for call in wire.calls if "directoryRoles" in call.request.url]


@pytest.mark.usefixtures("reader")
def test_effects_that_lock_nobody_out_are_not_asked_about(
    wire: responses.RequestsMock, context: StepContext
) -> None:
    """Only what keeps an account out is looked at."""
    assert administrators.verdict(intent("m365.revoke_sessions"), context) is None
    assert not wire.calls
