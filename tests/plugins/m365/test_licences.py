"""What a missing licence looks like, and what it does to a feed."""

from datetime import UTC, datetime
from typing import Any

import pytest
import responses

from counterplay import BlockedError, Context, RetryableError, UnavailableError
from counterplay.plugins import PluginHost
from counterplay_m365 import licences, tenant
from counterplay_m365.following import GraphTrigger
from counterplay_m365.licences import ENTRA_P1, PLANS, PREMIUM_CODE, plans_of
from counterplay_m365.triggers.alerts import Alerts
from counterplay_m365.triggers.hunting import Hunting
from counterplay_m365.triggers.risk_detections import RiskDetections
from counterplay_m365.triggers.sign_ins import SignIns

GRAPH = "https://graph.microsoft.com/v1.0"
SIGN_INS = f"{GRAPH}/auditLogs/signIns"
SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)


def refusal(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "innerError": {"request-id": "9f3c"}}}


NOT_PREMIUM = refusal(PREMIUM_CODE, "Neither tenant is B2C or tenant doesn't have premium license")


def skus(*plans: str, status: str = "Enabled", provisioned: str = "Success") -> dict[str, Any]:
    listed = [{"servicePlanId": PLANS[name], "provisioningStatus": provisioned} for name in plans]
    return {"value": [{"id": "1", "capabilityStatus": status, "servicePlans": listed}]}


def test_a_licence_that_is_missing_makes_the_feed_unavailable(
    context: Context, wire: responses.RequestsMock
) -> None:
    """The ambiguous refusal is held against the tenant's plans."""
    wire.get(SIGN_INS, status=403, json=NOT_PREMIUM)
    wire.get(f"{GRAPH}/subscribedSkus", json=skus("EXCHANGE_S_STANDARD"))

    with pytest.raises(UnavailableError) as caught:
        SignIns({}).poll(context, None, SINCE)

    assert str(caught.value) == "needs Entra ID P1"
    assert (caught.value.status, caught.value.request_id) == (403, "9f3c")


def test_a_refusal_that_the_plans_contradict_is_tried_again(
    context: Context, wire: responses.RequestsMock
) -> None:
    """The code is given to licensed tenants too, now and then."""
    wire.get(SIGN_INS, status=403, json=NOT_PREMIUM)
    wire.get(f"{GRAPH}/subscribedSkus", json=skus("AAD_PREMIUM"))

    with pytest.raises(RetryableError, match="though the tenant has a plan for it"):
        SignIns({}).poll(context, None, SINCE)


def test_without_the_plans_three_refusals_over_a_quarter_of_an_hour_count(
    context: Context, wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a person may have to act, and the feed is asked again within the minute."""
    wire.get(SIGN_INS, status=403, json=NOT_PREMIUM)
    wire.get(f"{GRAPH}/subscribedSkus", status=403, json=refusal("Authorization_RequestDenied", "No."))
    moments = iter([1000.0, 1000.0, 1400.0, 2000.0])
    monkeypatch.setattr(tenant.time, "monotonic", lambda: next(moments))
    connection = context.connection
    assert isinstance(connection, tenant.Tenant)

    assert [connection.refused_for_long("Entra ID P2") for _ in range(2)] == [False, False]
    assert connection.refused_for_long("Entra ID P2")
    monkeypatch.undo()
    with pytest.raises(BlockedError) as caught:
        SignIns({}).poll(context, None, SINCE)
    assert not isinstance(caught.value, UnavailableError)
    assert "perhaps it needs Entra ID P1; grant LicenseAssignment.Read.All" in str(caught.value)


@pytest.mark.parametrize(
    ("trigger", "method", "path", "status", "body", "message"),
    [
        (
            RiskDetections({}),
            "GET",
            "/identityProtection/riskDetections",
            403,
            refusal("Forbidden", "Your tenant is not licensed for this feature."),
            "needs Entra ID P1",
        ),
        (
            Alerts({}),
            "GET",
            "/security/alerts_v2",
            401,
            refusal("Unauthorized", "Unauthorized request - Account is not provisioned."),
            "Microsoft Defender XDR was never activated in the tenant",
        ),
        (
            Hunting({"query": "AlertInfo", "overlap": "30m"}),
            "POST",
            "/security/runHuntingQuery",
            401,
            refusal("Unauthorized", "Unauthorized request - Account is not provisioned."),
            "Microsoft Defender XDR was never activated in the tenant",
        ),
    ],
)
def test_other_words_for_a_missing_licence(
    context: Context,
    wire: responses.RequestsMock,
    entra: Any,
    trigger: Any,
    method: str,
    path: str,
    status: int,
    body: Any,
    message: str,
) -> None:
    """Each is told as what is needed; no token is asked for again because of it."""
    wire.add(method, f"{GRAPH}{path}", status=status, json=body)

    with pytest.raises(UnavailableError) as caught:
        trigger.poll(context, None, SINCE)

    assert str(caught.value) == message
    assert len(entra.asked) == 1


def test_a_missing_permission_is_no_missing_licence(context: Context, wire: responses.RequestsMock) -> None:
    """403 of the other kind says which permission to grant."""
    wire.get(SIGN_INS, status=403, json=refusal("Authorization_RequestDenied", "Insufficient privileges."))

    with pytest.raises(BlockedError) as caught:
        SignIns({}).poll(context, None, SINCE)

    assert not isinstance(caught.value, UnavailableError)
    assert caught.value.hint == "grant the application permission AuditLog.Read.All with admin consent"


@pytest.mark.parametrize(
    ("answer", "plans"),
    [
        (skus("AAD_PREMIUM", "MTP"), {"AAD_PREMIUM", "MTP"}),
        (skus("AAD_PREMIUM", status="Warning"), {"AAD_PREMIUM"}),
        (skus("AAD_PREMIUM", status="Suspended"), set()),
        (skus("AAD_PREMIUM", provisioned="PendingActivation"), {"AAD_PREMIUM"}),
        (skus("AAD_PREMIUM", provisioned="Disabled"), set()),
        ({"value": [{"capabilityStatus": "Enabled"}]}, set()),
        (
            {
                "value": [
                    {
                        "capabilityStatus": "Enabled",
                        "servicePlans": [{"servicePlanId": "0", "provisioningStatus": "Success"}],
                    }
                ]
            },
            set(),
        ),
    ],
)
def test_plans_count_when_they_are_switched_on(answer: Any, plans: set[str]) -> None:
    """What is being provisioned may work already; what is suspended does not."""
    assert plans_of(answer["value"]) == plans


def test_schemas_and_code_name_the_same_licences() -> None:
    """`doctor` reads the schema, the feed the class: they must not differ."""
    known = {one.name: one for one in vars(licences).values() if isinstance(one, licences.Licence)}
    found = 0
    for info in PluginHost.load().modules.values():
        for need in info.schema.get("x-licences", ()):
            found += 1
            assert set(need) - {"optional"} == {"name", "any", "for"}
            assert tuple(need["any"]) == known[need["name"]].any_of, info.uses
        if issubclass(info.cls, GraphTrigger):
            needs = info.schema.get("x-licences", ())
            named = [need["name"] for need in needs if not need.get("optional")]
            assert named == ([info.cls.licence.name] if info.cls.licence else []), info.uses
            assert info.cls.permission in info.permissions[0]["any"]
    assert found >= 6
    assert ENTRA_P1.covered_by(["AAD_PREMIUM_P2"])
