"""Mailboxes, devices, addresses and apps of an alert or an incident, whatever product raised it.

Each filter takes an alert, an incident with its alerts, or a list of evidence, looks into nested evidence
(the host of a logon session, the pod of a container) too, and gives each thing once, in the order in
which it is first met. A type that it does not know is looked through like the others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from counterplay_m365.evidence import evidence_of, kind_of

JsonObject = dict[str, Any]
_DEPTH = 8
#: Not all that `is_private` holds: ranges for documentation stand for hosts outside, too.
_PRIVATE = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
)

#: Properties with one IP address, by the kind of evidence that has them.
_ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "ipEvidence": ("ipAddress",),
    "deviceEvidence": ("lastIpAddress", "lastExternalIpAddress"),
    "analyzedMessageEvidence": ("senderIp",),
    "submissionMailEvidence": ("senderIp",),
    "teamsMessageEvidence": ("senderIP",),
}
#: Properties with the address of a mailbox of the tenant, or of one that wrote to it.
_MAILBOXES: Mapping[str, tuple[str, ...]] = {
    "mailboxEvidence": ("primaryAddress",),
    "mailboxConfigurationEvidence": ("mailboxPrimaryAddress",),
    "analyzedMessageEvidence": ("recipientEmailAddress",),
    "submissionMailEvidence": ("recipient",),
}


def m365_mailboxes(found: object) -> list[str]:
    """`{{ event | m365_mailboxes }}`: addresses of the mailboxes that received, or were tampered with."""
    return _once(
        address
        for item in _nested(found)
        for name in _MAILBOXES.get(kind_of(item), ())
        if "@" in (address := _text(item.get(name)))
    )


def m365_addresses(found: object) -> list[str]:
    """`{{ event | m365_addresses }}`: IP addresses, of senders, sessions, devices and connections."""
    return _once(address for one in _possible_addresses(found) if (address := _ip(one)))


def m365_devices(found: object) -> list[JsonObject]:
    """`{{ (event | m365_devices | first).mde_device_id }}`: the devices, each with the ids that are known.

    `{"name", "mde_device_id", "azure_ad_device_id"}`; an id that is not known is null. What Defender for
    Endpoint isolates goes by the first, what Entra ID disables by the second.
    """
    devices: dict[str, JsonObject] = {}
    for item in _nested(found):
        mde, entra = _text(item.get("mdeDeviceId")), _text(item.get("azureAdDeviceId"))
        name = ""
        if kind_of(item) == "deviceEvidence":
            name = _text(item.get("deviceDnsName")) or _text(item.get("hostName"))
        elif kind_of(item) == "ioTDeviceEvidence":
            name = _text(item.get("deviceName")) or _text(item.get("deviceId"))
        if not (mde or entra or name):
            continue
        known = devices.setdefault(
            (mde or entra or name).lower(), {"name": None, "mde_device_id": None, "azure_ad_device_id": None}
        )
        for key, value in (("name", name), ("mde_device_id", mde), ("azure_ad_device_id", entra)):
            known[key] = known[key] or value or None
    return list(devices.values())


def m365_apps(found: object) -> list[JsonObject]:
    """`{{ (event | m365_apps | first).app_id }}`: OAuth apps, service principals and cloud apps.

    `{"kind", "name", "app_id", "object_id"}`; kind is `oauth`, `service_principal` or `cloud`. The app id
    of a cloud app is a number of Defender for Cloud Apps, no app of Entra ID.
    """
    apps: dict[tuple[str, str], JsonObject] = {}
    for item in _nested(found):
        one = _app(kind_of(item), item)
        if one is not None and (one["app_id"] or one["object_id"] or one["name"]):
            key = one["app_id"] or one["object_id"] or one["name"]
            apps.setdefault((str(one["kind"] == "cloud"), str(key).lower()), one)
    return list(apps.values())


def m365_is_internal(address: object, internal: object, networks: object = ()) -> bool:
    """`{{ item | m365_is_internal(internal) }}`: is it one of ours?

    An e-mail address or a domain is when its domain is one of `internal.domains` or below one; an IP
    address when it lies in one of `internal.networks`, or in a range that no host on the internet has.
    Anything else is not. Two lists do as well: `m365_is_internal(['contoso.com'], ['203.0.113.0/24'])`.
    """
    domains = internal
    if isinstance(internal, Mapping):
        domains, networks = internal.get("domains"), internal.get("networks")
    text = _text(address).strip().lower()
    number = _ip(text)
    if number:
        found = ipaddress.ip_address(number)
        return any(found in net for net in (*_networks(_PRIVATE), *_networks(networks)))
    domain = text.rpartition("@")[2].rstrip(".")
    ours = [_text(one).lower().strip(".") for one in _list(domains)]
    return bool(domain) and any(one and (domain == one or domain.endswith(f".{one}")) for one in ours)


def m365_external(addresses: object, internal: object) -> list[str]:
    """`{{ event | m365_addresses | m365_external(internal) }}`: those of a list that are not ours."""
    return _once(
        text for one in _list(addresses) if (text := _text(one)) and not m365_is_internal(text, internal)
    )


def _app(kind: str, item: Mapping[str, Any]) -> JsonObject | None:
    name = _text(item.get("displayName")) or None
    if kind == "oauthApplicationEvidence":
        return _app_of("oauth", name, item.get("appId"), item.get("objectId"))
    if kind == "servicePrincipalEvidence":
        name = _text(item.get("servicePrincipalName")) or name
        identity = item.get("servicePrincipalObjectId")
        return _app_of("service_principal", name, item.get("appId"), identity)
    if kind == "cloudApplicationEvidence":
        return _app_of("cloud", name, item.get("appId"), None)
    return None


def _app_of(kind: str, name: str | None, app_id: object, object_id: object) -> JsonObject:
    known = str(app_id) if isinstance(app_id, (str, int)) and app_id else None
    return {"kind": kind, "name": name, "app_id": known, "object_id": _text(object_id) or None}


def _possible_addresses(found: object) -> Iterator[str]:
    for item in _nested(found):
        for name in _ADDRESSES.get(kind_of(item), ()):
            yield _text(item.get(name))
        if kind_of(item) == "deviceEvidence":
            yield from (_text(one) for one in _list(item.get("ipInterfaces")))


def _nested(found: object) -> Iterator[Mapping[str, Any]]:
    """Every piece of evidence, those inside others after the one that holds them."""
    stack = [(item, 0) for item in reversed(list(evidence_of(found)))]
    while stack:
        item, depth = stack.pop()
        yield item
        if depth < _DEPTH:
            inner = [
                one for value in item.values() for one in (value if isinstance(value, list) else [value])
            ]
            stack += [(one, depth + 1) for one in reversed(inner) if isinstance(one, Mapping)]


def _networks(given: object) -> list[Any]:
    found = []
    for one in _list(given):
        try:
            found.append(ipaddress.ip_network(_text(one), strict=False))
        except ValueError:
            continue
    return found


def _ip(text: str) -> str:
    """The address in its usual form; nothing when it is none. A zone and a port are left out."""
    try:
        return str(ipaddress.ip_address(text.strip().partition("%")[0]))
    except ValueError:
        return ""


def _once(texts: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(text.lower(), text)
    return list(found.values())


def _list(value: object) -> Iterable[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
