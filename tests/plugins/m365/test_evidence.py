"""The template filter m365_users: whom an alert is about."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.plugins import PluginHost
from counterplay_m365.evidence import m365_users


def user(
    oid: str | None, upn: str | None, *roles: str, verdict: str = "suspicious", kind: str = "user"
) -> Any:
    return {
        "@odata.type": f"#microsoft.graph.security.{kind}Evidence",
        "roles": list(roles),
        "verdict": verdict,
        "userAccount": {"azureAdUserId": oid, "userPrincipalName": upn},
    }


@pytest.mark.parametrize(
    ("evidence", "users"),
    [
        ([user("1", "a@c", "compromised")], ["1"]),
        ([user(None, "a@c", "compromised")], ["a@c"]),
        ([user("1", "a@c", "suspicious"), user("2", "b@c", "compromised")], ["2", "1"]),
        ([user("1", "a@c", "contextual"), user("2", "b@c", "attacked"), user("3", "c@c", "edited")], []),
        ([user("1", "a@c", "contextual", "compromised")], ["1"]),
        ([user("1", "a@c"), user("2", "b@c", "compromised")], ["2"]),
        ([user("1", "a@c"), user("2", "b@c", verdict="unknown")], ["1"]),
        ([user("1", "a@c", "unknown", verdict="malicious")], ["1"]),
        ([user("1", "a@c", "contextual")], []),
        ([user("1", "a@c", "compromised"), user(None, "A@C", "compromised", kind="mailbox")], ["1"]),
        ([user("A1", None, "compromised"), user("a1", None, "attacker")], ["A1"]),
        ([user(None, None, "compromised")], []),
        ([user("1", "a@c", "compromised", kind="process")], []),
        (
            [
                {
                    "@odata.type": "#microsoft.graph.security.mailboxEvidence",
                    "upn": "a@c",
                    "roles": ["compromised"],
                }
            ],
            ["a@c"],
        ),
        ([], []),
        (None, []),
        ("evidence", []),
        ([None, 3, {"@odata.type": 5}, {"@odata.type": "x.userEvidence", "roles": 1, "userAccount": []}], []),
    ],
)
def test_the_subjects_of_an_alert(evidence: Any, users: list[str]) -> None:
    """Compromised accounts come first, bystanders and victims of a mere attack not at all."""
    assert m365_users(evidence) == users


@given(
    st.lists(
        st.builds(
            user,
            *[st.sampled_from([None, "1", "2", "A@c", "a@C"])] * 2,
            st.sampled_from(["compromised", "suspicious", "contextual", "unknown"]),
        )
    )
)
def test_nobody_is_named_twice(evidence: list[Any]) -> None:
    """Whatever the evidence repeats, a user stands once."""
    users = [one.lower() for one in m365_users(evidence)]

    assert len(users) == len(set(users))


def test_expressions_know_the_filter() -> None:
    """The plugin offers it under its name."""
    assert PluginHost.load().template_filters["m365_users"] is m365_users
