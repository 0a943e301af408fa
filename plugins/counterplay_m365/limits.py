"""Microsoft's documented limits: which of them a request counts against, so that they are kept, not met.

https://learn.microsoft.com/graph/throttling-limits, and for Defender for Endpoint its own API reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from counterplay import Limit

#: Resource units that a read costs, by the last word of its path; any other costs one.
_DEAR = {
    "users": 2,
    "oauth2PermissionGrants": 2,
    "appRoleAssignments": 2,
    "appRoleAssignedTo": 2,
    "applications": 2,
    "memberOf": 2,
    "transitiveMemberOf": 2,
    "subscribedSkus": 3,
}
_MAILBOX = re.compile(r"/users(?:/|\(')([^/']+)(?:'\))?/mail(?:Folders|boxSettings)")
_DEFENDER = "/api/machine"


def of(
    method: str,
    address: str,
    tenant: str,
    app: str,
    scale: float,
    mailbox: Callable[[str], str] = str,
) -> Sequence[Limit]:
    """The limits that a request counts against, narrowest first; `address` follows the base address.

    Identity and access reads are taken to be those of a small tenant, as nothing tells its size. `mailbox`
    gives one name to a mailbox whose user goes by several.
    """
    parts = urlsplit(address)
    found = _of(method, parts.path, parts.query, tenant, app, mailbox)
    return [
        Limit(one.name, one.units * scale, one.seconds, one.cost, one.at_once, one.share) for one in found
    ]


def _of(
    method: str, path: str, query: str, tenant: str, app: str, named: Callable[[str], str]
) -> Iterator[Limit]:
    mine = f"{app} in {tenant}"
    if _DEFENDER in path:
        yield Limit(f"Defender machines of {tenant}", 100, 60)
        yield Limit(f"Defender machines of {tenant}, an hour", 1500, 3600)
        return
    path = re.sub(r"^/(v1\.0|beta)", "", path)
    mailbox = _MAILBOX.match(path)
    if mailbox is not None:
        name = f"mailbox {named(unquote(mailbox[1]).lower())} for {mine}"
        yield Limit(name, 10_000, 600)
        yield Limit(f"{name}, at once", at_once=4)
    elif path == "/security/runHuntingQuery":
        yield Limit(f"hunting in {tenant}", 45, 60)
    elif path.startswith("/security/"):
        yield Limit(f"security for {mine}", 150, 60)
    elif path.startswith("/identityProtection/"):
        yield Limit(f"identity protection of {tenant}", 1, 1)  # all apps of the tenant together
    elif path.startswith(("/auditLogs/", "/reports/")):
        yield Limit(f"reports for {mine}", 5, 10)
    elif method == "GET":
        yield Limit(f"identity reads for {mine}", 3500, 10, _units(path, query))
        yield Limit(f"identity reads of {app}", 150_000, 20, _units(path, query), share=tenant)
    else:
        yield Limit(f"identity writes for {mine}", 3000, 150)
        yield Limit(f"identity writes in {tenant}", 18_000, 300)
        yield Limit(f"identity writes of {app}", 35_000, 300, share=tenant)
    yield Limit(f"Graph for {app}", 130_000, 10, share=tenant)


def _units(path: str, query: str) -> int:
    """What a read costs in resource units."""
    names = [part for part in path.strip("/").split("/") if part]
    last = names[-1 - (len(names) % 2 == 0)] if names else ""  # the words stand before their ids
    asked = parse_qs(query)
    top = asked.get("$top", [""])[0]
    cost = _DEAR.get(last, 1) + ("$expand" in asked) - ("$select" in asked)
    cost -= top.isdecimal() and int(top) < 20
    return max(1, cost)
