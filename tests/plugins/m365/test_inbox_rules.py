"""Inbox rules: what is suspicious, and the actions that list, disable and enable them."""

import json
from typing import Any

import jsonschema
import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from counterplay import GoneError, Inverse, JsonObject, RetryableError, StepContext
from counterplay.plugins import PluginHost
from counterplay_m365 import inbox_rules
from counterplay_m365.actions.disable_inbox_rules import DisableInboxRules
from counterplay_m365.actions.enable_inbox_rules import EnableInboxRules
from counterplay_m365.actions.list_inbox_rules import ListInboxRules

ANA = "https://graph.microsoft.com/v1.0/users/ana"
RULES = f"{ANA}/mailFolders/inbox/messageRules"
USER = {"user_id": "ana"}
INSIDE = {"contoso.com"}
READ_ONLY = (
    "it was made by another client, so Graph neither shows what it does nor changes it: "
    "use Get-InboxRule, Disable-InboxRule and Remove-InboxRule of Exchange Online PowerShell"
)


def to(address: str) -> list[JsonObject]:
    return [{"emailAddress": {"name": "x", "address": address}}]


def rule(rule_id: str, **changes: Any) -> JsonObject:
    return {
        "id": rule_id,
        "displayName": "Newsletters",
        "sequence": 1,
        "isEnabled": True,
        "hasError": False,
        "isReadOnly": False,
        "conditions": {"senderContains": ["news@"]},
        "actions": {"moveToFolder": "AAMk=", "stopProcessingRules": True},
        "exceptions": None,
        **changes,
    }


BAD = rule("AQ/A+1=", displayName="Rule", actions={"forwardTo": to("x@evil.example")})
GOOD = rule("good")
FORWARDS = ["forwards to x@evil.example"]
OPAQUE = rule("opaque", isReadOnly=True, conditions=None, actions=None)


def fits(uses: str, result: Any) -> None:
    jsonschema.validate(result, PluginHost.load().module(uses).schema["$defs"]["result"])


@pytest.fixture
def mailbox(wire: responses.RequestsMock) -> dict[str, JsonObject]:
    """A mailbox by rule id, which PATCH changes as Graph does."""
    rules = {one["id"]: dict(one) for one in (BAD, GOOD, OPAQUE)}

    def listed(request: Any) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps({"value": list(rules.values())})

    def patched(rule_id: str) -> Any:
        def answer(request: Any) -> tuple[int, dict[str, str], str]:
            if rule_id not in rules:
                return 404, {}, json.dumps({"error": {"code": "ErrorItemNotFound", "message": "Gone."}})
            rules[rule_id].update(json.loads(request.body))
            return 200, {}, json.dumps(rules[rule_id])

        return answer

    wire.get(ANA, json={"userPrincipalName": "ana@contoso.com", "proxyAddresses": ["SMTP:ana@contoso.com"]})
    wire.get(f"{ANA}/mailboxSettings", json={"archiveFolder": "AAMkArchive="})
    wire.add_callback("GET", RULES, listed)
    wire.add_callback("PATCH", f"{RULES}/AQ%2FA%2B1%3D", patched("AQ/A+1="))
    for name in ("good", "opaque"):
        wire.add_callback("PATCH", f"{RULES}/{name}", patched(name))
    return rules


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"actions": {"forwardTo": to("X@Evil.example")}}, ["forwards to X@Evil.example"]),
        (
            {"actions": {"forwardAsAttachmentTo": to("x@evil.example")}},
            ["forwards as attachment to x@evil.example"],
        ),
        ({"actions": {"redirectTo": to("x@evil.example")}}, ["redirects to x@evil.example"]),
        ({"actions": {"forwardTo": to("bo@CONTOSO.com")}}, []),
        ({"actions": {"forwardTo": to("x@sub.contoso.com")}}, ["forwards to x@sub.contoso.com"]),
        ({"actions": {"forwardTo": to("/o=ExchangeLabs/cn=bo")}}, []),
        ({"actions": {"delete": True}}, ["deletes mail"]),
        ({"actions": {"permanentDelete": True, "delete": True}}, ["deletes mail for good"]),
        ({"actions": {"delete": False}}, []),
        ({"actions": {"markAsRead": True}}, []),
        ({"actions": {"markAsRead": True, "moveToFolder": "A"}}, ["moves mail away and marks it as read"]),
        ({"displayName": "."}, ["has the meaningless name '.'"]),
        ({"displayName": " a "}, ["has the meaningless name 'a'"]),
        ({"displayName": "..,"}, ["has the meaningless name '..,'"]),
        ({"displayName": "", "actions": {}}, []),
        ({"displayName": " "}, ["has no name"]),
        ({"conditions": {"subjectContains": ["Invoice"]}}, []),
        ({"conditions": {"subjectContains": ["been Hacked?"]}}, ["picks mail about hacked"]),
        ({"conditions": {"bodyContains": ["phishing"]}, "actions": {"markImportance": "high"}}, []),
        (
            {"conditions": {"bodyOrSubjectContains": ["Invoices", "wireless"]}, "actions": {"delete": True}},
            ["deletes mail", "picks mail about invoice"],
        ),
        ({"conditions": None, "actions": None}, []),
        ({"actions": {"forwardTo": [None, {"emailAddress": None}, "x@evil.example"]}}, []),
    ],
)
def test_the_marks_of_attackers_rules(changes: JsonObject, found: list[str]) -> None:
    """Mail that leaves, vanishes or is hidden is marked; filing mail is not."""
    assert inbox_rules.reasons(rule("1", **changes), INSIDE) == found


@pytest.mark.parametrize(
    ("folder", "hides"),
    [
        ("RSS Feeds", True),
        ("rss-feeds", True),
        ("Conversation History", True),
        ("Archiv", True),
        ("Invoices 2026", False),
        ("AAMkADArSSArchive" + "x" * 100, False),
        (None, False),
    ],
)
def test_folders_in_which_nobody_looks_are_hiding_places(folder: str | None, hides: bool) -> None:
    """The folder's name tells, in whatever language; an id that happens to hold those letters does not."""
    assert inbox_rules.reasons(rule("1"), INSIDE, folder) == (
        [f"hides mail in the folder {folder!r}"] if hides else []
    )


@given(
    st.dictionaries(
        st.sampled_from(["displayName", "conditions", "actions", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=5),
            lambda inner: st.dictionaries(
                st.sampled_from(["forwardTo", "emailAddress", "address", "subjectContains", "delete"]), inner
            ),
            max_leaves=5,
        ),
    )
)
def test_any_rule_can_be_judged(odd: JsonObject) -> None:
    """Whatever Graph sends, judging it raises nothing."""
    assert all(isinstance(reason, str) for reason in inbox_rules.reasons(odd, INSIDE))


def test_the_domains_of_all_addresses_are_inside() -> None:
    """Sign-in name, primary address and SMTP proxies count; other kinds of addresses do not."""
    user = {
        "userPrincipalName": "eve_f.com#EXT#@contoso.onmicrosoft.com",
        "mail": "eve@Contoso.com",
        "proxyAddresses": ["smtp:eve@contoso.de", "SIP:eve@sip.example", "X500:/o=x"],
    }

    assert inbox_rules.domains_of(user) == {"contoso.onmicrosoft.com", "contoso.com", "contoso.de"}
    assert inbox_rules.domains_of({}) == set()


def test_all_rules_are_listed_with_their_marks(context: StepContext, mailbox: Any) -> None:
    """Harmless and opaque rules are there too, without marks."""
    result = ListInboxRules(USER).run(context)

    fits("m365.list_inbox_rules", result)
    assert [(one["id"], one["suspicious"]) for one in result["rules"]] == [
        ("AQ/A+1=", ["forwards to x@evil.example"]),
        ("good", []),
        ("opaque", []),
    ]


def test_stated_domains_are_inside(context: StepContext, mailbox: Any) -> None:
    """`internal_domains` adds to the user's own."""
    result = ListInboxRules({**USER, "internal_domains": ["Evil.example"]}).run(context)

    assert [one["suspicious"] for one in result["rules"]] == [[], [], []]


def test_rules_are_listed_over_pages(context: StepContext, wire: responses.RequestsMock) -> None:
    """Links are followed to the end."""
    wire.get(ANA, json={})
    wire.get(f"{ANA}/mailboxSettings", json={})
    wire.get(f"{RULES}?$skip=2", json={"value": [rule("b")]})
    wire.get(RULES, json={"value": [rule("a")], "@odata.nextLink": f"{RULES}?$skip=2"})

    assert [one["id"] for one in ListInboxRules(USER).run(context)["rules"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"json": {"value": [{"displayName": "x"}]}}, "answered no list"),
        ({"json": {}}, "answered no list"),
        ({"json": {"value": [], "@odata.nextLink": RULES}}, "answered pages without an end"),
        ({"body": "<html>"}, "answered 200 with something that is not JSON"),
    ],
)
def test_what_is_no_list_of_rules_is_an_error(
    context: StepContext, wire: responses.RequestsMock, answer: dict[str, Any], message: str
) -> None:
    """An odd answer is never a mailbox without rules."""
    wire.get(RULES, **answer)

    with pytest.raises(RetryableError, match=f"asked for the inbox rules of 'ana', {message}"):
        ListInboxRules(USER).run(context)


def test_a_user_without_a_mailbox_is_explained(context: StepContext, wire: responses.RequestsMock) -> None:
    """That 404 is not about the user."""
    body = {"error": {"code": "MailboxNotEnabledForRESTAPI", "message": "Inactive."}}
    wire.get(RULES, status=404, json=body)

    with pytest.raises(GoneError) as caught:
        ListInboxRules(USER).run(context)

    assert str(caught.value) == (
        "the user 'ana' has no mailbox in Exchange Online: Microsoft Graph answered 404 "
        "MailboxNotEnabledForRESTAPI: Inactive; the user has no mailbox in Exchange Online"
    )


def test_suspicious_rules_are_disabled_and_others_left(context: StepContext, mailbox: Any) -> None:
    """The rule that forwards is off, filing goes on, and the one that cannot be judged is reported."""
    action = DisableInboxRules(USER)
    before = action.capture(context)
    result = action.run(context)

    fits("m365.disable_inbox_rules", result)
    assert result == {
        "user_id": "ana",
        "disabled": [{"id": "AQ/A+1=", "name": "Rule", "reasons": FORWARDS}],
        "skipped": [{"id": "opaque", "name": "Newsletters", "reason": READ_ONLY}],
    }
    assert [one["isEnabled"] for one in mailbox.values()] == [False, True, True]
    assert before["rules"][0] == {
        "id": "AQ/A+1=",
        "displayName": "Rule",
        "isEnabled": True,
        "isReadOnly": False,
        "reasons": FORWARDS,
    }
    assert action.verify(context, before, result) is True
    assert action.inverse(before, result) == Inverse(
        "m365.enable_inbox_rules", {"user_id": "ana", "rule_ids": ["AQ/A+1="]}
    )


def test_the_inverse_brings_the_rules_back(context: StepContext, mailbox: Any) -> None:
    """Enabling what was disabled leaves the mailbox as it was."""
    action = DisableInboxRules(USER)
    before = action.capture(context)
    inverse = action.inverse(before, action.run(context))
    assert inverse is not None

    result = EnableInboxRules(inverse.arguments).run(context)

    fits("m365.enable_inbox_rules", result)
    assert result == {
        "user_id": "ana",
        "enabled": [{"id": "AQ/A+1=", "name": "Rule", "reasons": FORWARDS}],
        "skipped": [],
    }
    assert list(mailbox.values()) == [BAD, GOOD, OPAQUE]


def test_named_rules_are_disabled_and_the_rest_reported(context: StepContext, mailbox: Any) -> None:
    """Names win over marks; what is off, opaque or absent is told apart."""
    mailbox["AQ/A+1="]["isEnabled"] = False
    action = DisableInboxRules(
        {**USER, "rule_ids": ["good", "AQ/A+1=", "opaque", "lost"], "only": "suspicious"}
    )
    before = action.capture(context)

    assert action.run(context) == {
        "user_id": "ana",
        "disabled": [{"id": "good", "name": "Newsletters", "reasons": []}],
        "skipped": [
            {"id": "AQ/A+1=", "name": "Rule", "reason": "it is disabled already"},
            {"id": "opaque", "name": "Newsletters", "reason": READ_ONLY},
            {"id": "lost", "name": None, "reason": "there is no such rule"},
        ],
    }
    assert action.inverse(before, {}) == Inverse(
        "m365.enable_inbox_rules", {"user_id": "ana", "rule_ids": ["good"]}
    )


def test_a_rule_that_vanishes_meanwhile_is_reported(
    context: StepContext, wire: responses.RequestsMock, mailbox: Any
) -> None:
    """It is no failure of the step."""
    wire.replace("PATCH", f"{RULES}/good", status=404, json={"error": {"code": "ErrorItemNotFound"}})

    result = DisableInboxRules({**USER, "rule_ids": ["good"]}).run(context)

    assert result["disabled"] == []
    assert result["skipped"] == [
        {"id": "good", "name": "Newsletters", "reason": "it does not exist any more"}
    ]


def test_a_mailbox_without_marks_is_left_alone(
    context: StepContext, wire: responses.RequestsMock, mailbox: Any
) -> None:
    """Nothing to do is a result, and nothing to take back."""
    for name in ("AQ/A+1=", "opaque"):
        del mailbox[name]
    action = DisableInboxRules(USER)
    before = action.capture(context)

    assert action.run(context) == {"user_id": "ana", "disabled": [], "skipped": []}
    assert action.inverse(before, {}) is None
    assert not [call for call in wire.calls if call.request.method == "PATCH"]


def test_an_attempt_that_was_cut_is_settled_by_reading(context: StepContext, mailbox: Any) -> None:
    """Half done is not done; when all rules are off, the result is that of the attempt."""
    mailbox["second"] = {**BAD, "id": "second"}
    action = DisableInboxRules(USER)
    before = action.capture(context)
    mailbox["second"]["isEnabled"] = False

    assert action.settled(context, before) is None

    mailbox["AQ/A+1="]["isEnabled"] = False
    assert action.settled(context, before) == {
        "user_id": "ana",
        "disabled": [
            {"id": "AQ/A+1=", "name": "Rule", "reasons": FORWARDS},
            {"id": "second", "name": "Rule", "reasons": FORWARDS},
        ],
        "skipped": [{"id": "opaque", "name": "Newsletters", "reason": READ_ONLY}],
    }


def test_a_rule_that_came_back_is_seen(context: StepContext, mailbox: Any) -> None:
    """Reading back tells that the effect did not hold."""
    action = DisableInboxRules(USER)
    before = action.capture(context)
    result = action.run(context)
    mailbox["AQ/A+1="]["isEnabled"] = True

    assert action.verify(context, before, result) is False
