"""Mailboxes, devices, addresses and apps of every kind of evidence that the contract knows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay_m365.entities import (
    m365_addresses,
    m365_apps,
    m365_devices,
    m365_external,
    m365_is_internal,
    m365_mailboxes,
)
from counterplay_m365.evidence import m365_users

CONTRACT = Path(__file__).parents[2] / "contracts" / "graph-v1.0.openapi.json"
SCHEMAS: dict[str, Any] = json.loads(CONTRACT.read_text("utf-8"))["components"]["schemas"]
SECURITY = "microsoft.graph.security."
KINDS = sorted(
    name.removeprefix(SECURITY)
    for name in SCHEMAS
    if name.startswith(SECURITY) and name.endswith("Evidence") and name != f"{SECURITY}alertEvidence"
)
HELPERS = {
    "users": m365_users,
    "mailboxes": m365_mailboxes,
    "devices": m365_devices,
    "addresses": m365_addresses,
    "apps": m365_apps,
}
VALUES = {
    "userPrincipalName": "ana@contoso.com",
    "upn": "ana@contoso.com",
    "primaryAddress": "ana@contoso.com",
    "mailboxPrimaryAddress": "ana@contoso.com",
    "recipientEmailAddress": "ana@contoso.com",
    "recipient": "ana@contoso.com",
    "roles": ["compromised"],
    "ipInterfaces": ["10.0.0.7"],
}


def properties(name: str) -> dict[str, Any]:
    """The properties of a schema, those of its bases included."""
    found: dict[str, Any] = {}
    for part in SCHEMAS[name].get("allOf", [SCHEMAS[name]]):
        if "$ref" in part:
            found |= properties(part["$ref"].rpartition("/")[2])
        found |= part.get("properties", {})
    return found


def example(kind: str, depth: int = 0) -> dict[str, Any]:
    """A filled piece of evidence; nested evidence is filled too."""
    made: dict[str, Any] = {"@odata.type": f"#{SECURITY}{kind}"}
    for name, schema in properties(SECURITY + kind).items():
        refers = re.findall(r"schemas/microsoft\.graph\.security\.(\w+)", json.dumps(schema))
        if name == "@odata.type":
            continue
        if name in VALUES:
            made[name] = VALUES[name]
        elif refers and refers[0].endswith("Evidence") and depth < 2:
            inner = example(refers[0], depth + 1) if refers[0] != "alertEvidence" else None
            made[name] = [inner] if "array" in json.dumps(schema.get("type", "")) else inner
        elif refers and refers[0] == "userAccount":
            made[name] = {"userPrincipalName": "ana@contoso.com", "azureAdUserId": "oid-1"}
        elif re.search(r"(?i)ip$|ipaddress$", name):
            made[name] = "203.0.113.7"
        elif "string" in json.dumps(schema):
            made[name] = f"{name} 1"
    return made


#: What each kind of evidence gives, as the first things of each helper; kinds that give nothing are left out.
GIVES = {
    "analyzedMessageEvidence": {"mailboxes", "addresses"},
    "cloudApplicationEvidence": {"apps"},
    "cloudLogonSessionEvidence": set[str](),
    "deviceEvidence": {"devices", "addresses"},
    "dnsEvidence": {"addresses"},
    "fileEvidence": {"devices"},
    "hostLogonSessionEvidence": {"devices", "addresses"},
    "ioTDeviceEvidence": {"devices", "addresses"},
    "ipEvidence": {"addresses"},
    "kubernetesPodEvidence": {"addresses"},
    "kubernetesServiceEvidence": {"addresses"},
    "containerEvidence": {"addresses"},
    "mailboxConfigurationEvidence": {"users", "mailboxes"},
    "mailboxEvidence": {"users", "mailboxes"},
    "malwareEvidence": {"devices"},
    "networkConnectionEvidence": {"addresses"},
    "nicEvidence": {"addresses"},
    "oauthApplicationEvidence": {"apps"},
    "processEvidence": {"devices"},
    "registryValueEvidence": {"devices"},
    "servicePrincipalEvidence": {"apps"},
    "submissionMailEvidence": {"mailboxes", "addresses"},
    "teamsMessageEvidence": {"addresses", "devices"},
    "userEvidence": {"users"},
}


def test_the_contract_is_the_one_that_is_tested() -> None:
    """All 48 kinds, and none that the table names for nothing."""
    assert len(KINDS) == 48
    assert set(GIVES) <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_evidence_gives_what_it_holds(kind: str) -> None:
    """Alone, in an alert and in an incident: the same, and nothing from kinds that hold nothing."""
    item = example(kind)
    found = {name for name, helper in HELPERS.items() if helper([item])}

    assert found == GIVES.get(kind, set())
    for helper in HELPERS.values():
        alert = {"evidence": [item]}
        assert helper(alert) == helper([item]) == helper({"alerts": [alert, alert]})


def test_each_helper_gives_what_actions_take() -> None:
    """Ids where they are known, names for people, each thing once."""
    evidence = [
        example("deviceEvidence"),
        {"@odata.type": f"#{SECURITY}fileEvidence", "mdeDeviceId": "MDEDeviceId 1"},
        example("oauthApplicationEvidence"),
        {"@odata.type": f"#{SECURITY}cloudApplicationEvidence", "appId": 20893, "displayName": "Exchange"},
        example("userEvidence"),
        example("mailboxEvidence"),
    ]

    assert m365_devices(evidence) == [
        {
            "name": "deviceDnsName 1",
            "mde_device_id": "mdeDeviceId 1",
            "azure_ad_device_id": "azureAdDeviceId 1",
        }
    ]
    assert m365_apps(evidence) == [
        {"kind": "oauth", "name": "displayName 1", "app_id": "appId 1", "object_id": "objectId 1"},
        {"kind": "cloud", "name": "Exchange", "app_id": "20893", "object_id": None},
    ]
    assert m365_users(evidence) == ["oid-1"]
    assert m365_mailboxes(evidence) == ["ana@contoso.com"]
    assert m365_addresses(evidence) == ["203.0.113.7", "10.0.0.7"]


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("ana@contoso.com", True),
        ("ana@CONTOSO.com", True),
        ("ana@mail.contoso.com", True),
        ("contoso.com", True),
        ("ana@notcontoso.com", False),
        ("ana@contoso.com.evil.example", False),
        ("203.0.113.9", True),
        ("198.51.100.1", False),
        ("8.8.8.8", False),
        ("10.1.2.3", True),
        ("2001:4860:4860::8888", False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_what_is_inside(address: Any, inside: bool) -> None:
    """By domain, by network, and never by a name that merely ends alike."""
    assert m365_is_internal(address, ["contoso.com"], ["203.0.113.0/24", "nonsense"]) is inside


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["@odata.type", "evidence", "alerts", "ipAddress", "mdeDeviceId", "appId", "roles", "upn"]
            ),
            inner | st.sampled_from([f"#{SECURITY}{kind}" for kind in KINDS]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_anything_can_be_looked_through(found: Any) -> None:
    """Alerts come from many products: a shape that nobody expected gives less, and raises nothing."""
    for helper in HELPERS.values():
        assert isinstance(helper(found), list)


def test_what_is_inside_comes_from_the_workspace() -> None:
    """`internal` as expressions hold it goes in whole; a list keeps what is foreign, each thing once."""
    internal = {"domains": ["contoso.com"], "networks": ["203.0.113.0/24"]}

    assert m365_is_internal("ana@contoso.com", internal)
    assert not m365_is_internal("198.51.100.1", internal)
    assert m365_external(["203.0.113.9", "198.51.100.1", 7, "", "198.51.100.1", "x@y.example"], internal) == [
        "198.51.100.1",
        "x@y.example",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_evidence_can_be_told_inside_from_outside(kind: str) -> None:
    """Whatever addresses a kind of evidence gives: all are ours here, and there none but private ones."""
    item = example(kind)
    for helper in (m365_addresses, m365_mailboxes):
        found = helper([item])
        assert m365_external(found, {"domains": ["contoso.com"], "networks": ["203.0.113.0/24"]}) == []
        foreign = m365_external(found, {"domains": ["x.example"], "networks": []})
        assert foreign == [one for one in found if one != "10.0.0.7"]
