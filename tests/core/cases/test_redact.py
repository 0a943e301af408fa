"""Redaction: nobody can be told any more, and what was equal stays equal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.cases.redact import Redactor

NAMES = st.sampled_from(["ada", "bob.smith", "Eve-O'Hara", "svc+mail"])
DOMAINS = st.sampled_from(["fabrikam.com", "mail.fabrikam.co.uk", "tailspin.onmicrosoft.com"])
SECRETS = st.one_of(
    st.builds("{}@{}".format, NAMES, DOMAINS),
    st.uuids(version=4).map(str),
    st.ip_addresses(network="203.0.0.0/8").map(str),
    st.ip_addresses(network="2001:4860::/32").map(str),
    st.builds("https://{}/users/{}".format, DOMAINS, st.integers(1, 10**9)),
    st.text(st.characters(codec="utf-8", categories=["Lu", "Ll", "Nd"]), min_size=9, max_size=30).map(
        "Dept {}".format
    ),
)
MEMBERS = st.sampled_from(["displayName", "id", "value", "ipAddress", "note"])
EVENTS = st.recursive(
    SECRETS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(MEMBERS, inner, max_size=4)),
    max_leaves=12,
)


def _leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in _leaves(part)]
    return [str(value)]


@settings(max_examples=50)
@given(EVENTS)
def test_no_name_address_or_id_survives_and_equality_does(event: object) -> None:
    """Over any shape of data: the same number of different values, none of them an old one."""
    found = Redactor().value(event)
    before, after = _leaves(event), _leaves(found)
    assert len(before) == len(after)
    text = json.dumps(found, ensure_ascii=False)
    assert not [leaf for leaf in before if leaf in text]
    pairs = {(one.casefold(), other) for one, other in zip(before, after, strict=True)}
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("seen", "2026-03-02T08:00:00Z"),
        ("@odata.type", "#microsoft.graph.security.userEvidence"),
        ("verdict", "suspicious"),
        ("count", 3),
        ("enabled", True),
        ("nothing", None),
        ("empty", ""),
    ],
)
def test_what_tells_nobody_anything_stays(member: str, value: object) -> None:
    """Times, words of closed sets, numbers: a playbook decides by them."""
    assert Redactor().value({member: value}) == {member: value}


def test_a_plain_word_is_replaced_where_the_member_is_a_name() -> None:
    """`high` is a severity, and may be a machine."""
    assert Redactor().value({"severity": "high", "deviceName": "high"}) == {
        "severity": "high",
        "deviceName": "text 1",
    }


def test_what_the_playbook_looks_for_is_still_found() -> None:
    """A condition on a part of a text holds for what takes its place."""
    redactor = Redactor(["New-InboxRule"], ["forwards mail"])
    assert redactor.value("A rule forwards mail to eve@evil.com", "title") == "text 1 forwards mail"
    assert redactor.value("New-InboxRule", "Operation") == "New-InboxRule"


def test_addresses_keep_what_they_share() -> None:
    """Two names of one domain, and one name in two domains."""
    redactor = Redactor()
    found = [redactor.value(one) for one in ("a@x.com", "b@x.com", "A@X.com", "a@y.com")]
    assert found == [
        "user1@domain1.example",
        "user2@domain1.example",
        "user1@domain1.example",
        "user1@domain2.example",
    ]


def test_an_error_loses_the_names_in_it() -> None:
    """Quoted texts, addresses, and whatever was replaced elsewhere."""
    redactor = Redactor()
    redactor.value({"id": "LAPTOP-4711"})
    said = redactor.prose(
        "no user 'ada@x.com' on LAPTOP-4711 (request-id 0a5f1c6e-0000-4000-8000-000000000001)"
    )
    assert (
        said == "no user 'user1@domain1.example' on text 1 (request-id 00000000-0000-4000-8000-000000000001)"
    )
