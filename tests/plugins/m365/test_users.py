"""The actions get_user, revoke_sessions, block_sign_in and allow_sign_in."""

import json
from typing import Any

import jsonschema
import pytest
import responses

from counterplay import (
    Action,
    BlockedError,
    GoneError,
    Inverse,
    PermanentError,
    RejectedError,
    RetryableError,
    StepContext,
    WorkError,
)
from counterplay.plugins import PluginHost
from counterplay_m365.actions.allow_sign_in import AllowSignIn
from counterplay_m365.actions.block_sign_in import BlockSignIn
from counterplay_m365.actions.get_user import GetUser
from counterplay_m365.actions.revoke_sessions import RevokeSessions

GRAPH = "https://graph.microsoft.com/v1.0"
ANA = f"{GRAPH}/users/ana%40contoso.com"
USER = {"user_id": "ana@contoso.com"}
MISSING = {
    "error": {
        "code": "Request_ResourceNotFound",
        "message": "Resource 'x' does not exist.",
        "innerError": {"request-id": "9f3c"},
    }
}
DENIED = {
    "error": {
        "code": "Authorization_RequestDenied",
        "message": "Insufficient privileges.",
        "innerError": None,
    }
}


def fits(uses: str, result: Any) -> None:
    jsonschema.validate(result, PluginHost.load().module(uses).schema["$defs"]["result"])


def test_a_user_is_read_with_the_properties_that_are_not_default(
    context: StepContext, wire: responses.RequestsMock
) -> None:
    """`accountEnabled` has to be asked for; what the account lacks is null."""
    wire.get(ANA, json={"id": "1", "userPrincipalName": "ana@contoso.com", "accountEnabled": True, "more": 1})

    result = GetUser(USER).run(context)

    fits("m365.get_user", result)
    assert result["accountEnabled"] is True
    assert result["department"] is None
    assert "more" not in result
    assert "accountEnabled" in (wire.calls[-1].request.url or "")


@pytest.mark.parametrize(
    ("user_id", "path"),
    [
        ("eve_fabrikam.com#EXT#@contoso.com", "/users/eve_fabrikam.com%23EXT%23%40contoso.com"),
        ("$o'neil@contoso.com", "/users('%24o%27%27neil%40contoso.com')"),
        ("a/b?c", "/users/a%2Fb%3Fc"),
    ],
)
def test_names_of_users_are_quoted(
    context: StepContext, wire: responses.RequestsMock, user_id: str, path: str
) -> None:
    """The name of a guest, and signs with a meaning in addresses, reach Graph as they are."""
    wire.get(f"{GRAPH}{path}", json={"id": "1"})

    assert GetUser({"user_id": user_id}).run(context)["id"] == "1"
    assert (wire.calls[-1].request.url or "").startswith(f"{GRAPH}{path}?")


def test_a_name_that_leads_out_of_the_path_is_refused(context: StepContext) -> None:
    """Dots alone would be taken for a part of the address."""
    with pytest.raises(PermanentError, match=r"'\.\.' cannot be the id of anything"):
        GetUser({"user_id": ".."}).run(context)


@pytest.mark.parametrize("action", [GetUser, RevokeSessions, BlockSignIn, AllowSignIn])
def test_a_user_that_is_gone_is_named(
    context: StepContext, wire: responses.RequestsMock, action: type[Action]
) -> None:
    """Graph's 404 names the user and the request."""
    for method in ("GET", "PATCH", "POST"):
        wire.add(method, ANA, status=404, json=MISSING)
    wire.post(f"{ANA}/revokeSignInSessions", status=404, json=MISSING)

    with pytest.raises(GoneError) as caught:
        action(USER).run(context)

    assert str(caught.value) == (
        "no user 'ana@contoso.com' in the tenant: Microsoft Graph answered 404 Request_ResourceNotFound: "
        "Resource 'x' does not exist. (request-id 9f3c)"
    )


@pytest.mark.parametrize("answer", [{"json": [1]}, {"body": "<html>"}])
def test_an_answer_that_is_no_user_is_retryable(
    context: StepContext, wire: responses.RequestsMock, answer: dict[str, Any]
) -> None:
    """A page of a proxy is no account without properties."""
    wire.get(ANA, **answer)

    with pytest.raises(RetryableError, match=r"asked for the user 'ana@contoso\.com', answered 200"):
        GetUser(USER).run(context)


@pytest.mark.parametrize(
    ("answer", "revoked"),
    [
        ({"json": {"value": True}}, True),
        ({"json": {"value": False}}, False),
        ({"status": 204}, False),
        ({"status": 202, "json": {"value": True}}, True),
    ],
)
def test_revoking_says_whether_graph_confirmed_it(
    context: StepContext, wire: responses.RequestsMock, answer: dict[str, Any], revoked: bool
) -> None:
    """Any success is accepted; `false` and an absent body are no confirmation."""
    wire.post(f"{ANA}/revokeSignInSessions", **answer)

    result = RevokeSessions(USER).run(context)

    fits("m365.revoke_sessions", result)
    assert result == {"user_id": "ana@contoso.com", "revoked": revoked}


def test_revoking_is_repeated_after_a_lost_answer(context: StepContext, wire: responses.RequestsMock) -> None:
    """Doing it twice is harmless, so a lost answer leaves nothing open."""
    wire.post(f"{ANA}/revokeSignInSessions", body=responses.ConnectionError("reset"))
    wire.post(f"{ANA}/revokeSignInSessions", json={"value": True})

    assert RevokeSessions(USER).run(context)["revoked"] is True


@pytest.mark.parametrize(
    ("before", "now", "held"),
    [
        ("2026-03-01T00:00:00Z", "2026-03-02T08:00:00Z", True),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", False),
        (None, "2026-03-02T08:00:00Z", True),
        (None, None, None),
    ],
)
def test_a_revocation_is_read_back(
    context: StepContext, wire: responses.RequestsMock, before: str | None, now: str | None, held: bool | None
) -> None:
    """Sessions count from a later time on than the captured one."""
    action = RevokeSessions(USER)
    wire.get(ANA, json={"id": "1", "signInSessionsValidFromDateTime": before})
    captured = action.capture(context)
    wire.replace("GET", ANA, json={"signInSessionsValidFromDateTime": now})

    assert action.verify(context, captured, {}) is held


@pytest.mark.parametrize(("action", "enabled"), [(BlockSignIn, False), (AllowSignIn, True)])
def test_sign_in_is_set(
    context: StepContext, wire: responses.RequestsMock, action: type[Action], enabled: bool
) -> None:
    """One property changes, and the result says to what."""
    wire.patch(ANA, status=204)

    result = action(USER).run(context)

    fits(f"m365.{action.name}", result)
    assert result == {"user_id": "ana@contoso.com", "account_enabled": enabled, "note": None}
    assert json.loads(wire.calls[-1].request.body or b"") == {"accountEnabled": enabled}


@pytest.mark.parametrize(
    ("action", "before", "inverse"),
    [
        (BlockSignIn, True, Inverse("m365.allow_sign_in", {"user_id": "1"})),
        (BlockSignIn, False, None),
        (BlockSignIn, None, None),
        (AllowSignIn, False, Inverse("m365.block_sign_in", {"user_id": "1"})),
        (AllowSignIn, True, None),
    ],
)
def test_sign_in_is_taken_back_to_what_it_was(
    context: StepContext, wire: responses.RequestsMock, action: type[Action], before: Any, inverse: Any
) -> None:
    """What was so before, or is not known, is not changed by an undo."""
    wire.get(ANA, json={"id": "1", "userPrincipalName": "ana@contoso.com", "accountEnabled": before})
    captured = action(USER).capture(context)

    assert captured == {
        "id": "1",
        "userPrincipalName": "ana@contoso.com",
        "accountEnabled": before,
        "onPremisesSyncEnabled": None,
    }
    assert action(USER).inverse(captured, {}) == inverse


def test_an_unknown_attempt_is_settled_by_reading(context: StepContext, wire: responses.RequestsMock) -> None:
    """The account's state tells whether the attempt took effect."""
    wire.get(ANA, json={"accountEnabled": False})

    assert BlockSignIn(USER).settled(context, {}) == {
        "user_id": "ana@contoso.com",
        "account_enabled": False,
        "note": None,
    }
    assert BlockSignIn(USER).verify(context, {}, {}) is True
    assert AllowSignIn(USER).settled(context, {}) is None
    assert AllowSignIn(USER).verify(context, {}, {}) is False


def test_a_synced_account_is_explained(context: StepContext, wire: responses.RequestsMock) -> None:
    """Active Directory owns it, so the 400 says where to act."""
    wire.patch(
        ANA, status=400, json={"error": {"code": "Request_BadRequest", "message": "Unable to update."}}
    )
    wire.get(ANA, json={"id": "1", "onPremisesSyncEnabled": True})

    with pytest.raises(PermanentError) as caught:
        BlockSignIn(USER).run(context)

    assert str(caught.value) == (
        "'ana@contoso.com' is synced from Active Directory, which owns this setting: Microsoft Graph "
        "answered 400 Request_BadRequest: Unable to update.; change the account there, and let it synchronise"
    )


def test_a_bad_request_for_a_cloud_account_stays_what_it_is(
    context: StepContext, wire: responses.RequestsMock
) -> None:
    """Only a synced account gets that explanation."""
    wire.patch(ANA, status=400, json={"error": {"code": "Request_BadRequest", "message": "Unable."}})
    wire.get(ANA, json={"id": "1", "onPremisesSyncEnabled": None})

    with pytest.raises(RejectedError) as caught:
        BlockSignIn(USER).run(context)

    assert str(caught.value) == "Microsoft Graph answered 400 Request_BadRequest: Unable."


def test_an_administrator_is_told_from_a_missing_permission(
    context: StepContext, wire: responses.RequestsMock
) -> None:
    """The app has the permission, so the 403 is about this account, and repeating it is no use."""
    wire.patch(ANA, status=403, json=DENIED)

    with pytest.raises(PermanentError) as caught:
        BlockSignIn(USER).run(context)

    assert str(caught.value) == (
        "the app may change accounts, but not 'ana@contoso.com': it holds an administrator role: "
        "Microsoft Graph answered 403 Authorization_RequestDenied: Insufficient privileges.; change it by "
        "hand, or give the app's service principal the role Privileged Authentication Administrator"
    )


@pytest.mark.parametrize(
    ("action", "method", "url", "permission"),
    [
        (GetUser, "GET", ANA, "User.Read.All"),
        (RevokeSessions, "POST", f"{ANA}/revokeSignInSessions", "User.RevokeSessions.All"),
        (BlockSignIn, "PATCH", ANA, "User.EnableDisableAccount.All"),
    ],
)
def test_a_missing_permission_is_named(
    context: StepContext,
    wire: responses.RequestsMock,
    entra: Any,
    action: type[Action],
    method: str,
    url: str,
    permission: str,
) -> None:
    """The app lacks it, so a person has to grant it."""
    entra.roles = {}
    wire.add(method, url, status=403, json=DENIED)

    with pytest.raises(BlockedError) as caught:
        action(USER).run(context)

    assert str(caught.value) == (
        "Microsoft Graph answered 403 Authorization_RequestDenied: Insufficient privileges.; "
        f"grant the application permission {permission} with admin consent"
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (402, BlockedError),
        (404, GoneError),
        (409, RetryableError),
        (410, GoneError),
        (412, RetryableError),
        (415, RejectedError),
        (423, RetryableError),
        (500, RetryableError),
        (509, RetryableError),
        (302, PermanentError),
    ],
)
def test_graphs_statuses_have_their_meaning(
    context: StepContext, wire: responses.RequestsMock, status: int, kind: type[WorkError]
) -> None:
    """A refusal without a body is told by its status."""
    wire.get(ANA, status=status)

    with pytest.raises(WorkError) as caught:
        GetUser(USER).run(context)

    assert type(caught.value) is kind
    assert caught.value.status == status
