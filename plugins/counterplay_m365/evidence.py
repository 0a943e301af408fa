"""The accounts to act on of an alert or an incident, read from its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Roles that make an account the subject of an alert, the clearest first. An account that was merely
#: seen, attacked or edited is none: containing it would hit a bystander or a victim.
SUBJECT_ROLES = ("compromised", "attacker", "suspicious", "policyViolator")
_DOUBTED = frozenset({"suspicious", "malicious"})
_UNSAID = frozenset({"", "unknown", "unknownFutureValue"})


def m365_users(evidence: object) -> list[str]:
    """`{{ event | m365_users | first }}`: the accounts to act on, compromised ones first.

    It takes an alert, an incident with its alerts, or a list of evidence. Each is an object id, or a
    userPrincipalName where the alert does not know the id. Accounts without any role count when no
    account has a role that makes it the subject, and their verdict is suspicious or malicious. Accounts
    without both names (on-premises detections) cannot be acted on, and are left out.
    """
    accounts = list(_accounts(evidence))
    known_ids = {upn.lower(): oid for _, oid, upn in accounts if oid and upn}
    ranked = sorted((one for one in accounts if one[0] is not None), key=lambda one: one[0] or 0)
    subjects = [one for one in ranked if one[0] != len(SUBJECT_ROLES)] or ranked
    users: dict[str, str] = {}
    for _, oid, upn in subjects:
        user = oid or known_ids.get(upn.lower(), upn)
        if user:
            users.setdefault(user.lower(), user)
    return list(users.values())


def _accounts(evidence: object) -> Iterator[tuple[int | None, str, str]]:
    """Rank (None: no subject), object id and userPrincipalName of each account, as far as they are given."""
    for item in evidence_of(evidence):
        if kind_of(item) not in ("userEvidence", "mailboxEvidence", "mailboxConfigurationEvidence"):
            continue
        account = item.get("userAccount")
        account = account if isinstance(account, Mapping) else {}
        upn = _text(account.get("userPrincipalName")) or _text(item.get("upn"))
        oid = _text(account.get("azureAdUserId")) or _text(item.get("externalDirectoryObjectId"))
        yield _rank(item), oid, upn


def evidence_of(found: object) -> Iterator[Mapping[str, Any]]:
    """The pieces of evidence in a list of them, in an alert, or in all alerts of an incident."""
    if isinstance(found, Mapping):
        alerts = found.get("alerts")
        for part in (found.get("evidence"), *(alerts if isinstance(alerts, (list, tuple)) else ())):
            yield from evidence_of(part)
        return
    for item in _list(found):
        if isinstance(item, Mapping):
            yield item


def kind_of(item: Mapping[str, Any]) -> str:
    """`userEvidence` of `#microsoft.graph.security.userEvidence`."""
    return _text(item.get("@odata.type")).rpartition(".")[2]


def _rank(item: Mapping[str, Any]) -> int | None:
    roles = {_text(role) for role in _list(item.get("roles"))}
    for rank, role in enumerate(SUBJECT_ROLES):
        if role in roles:
            return rank
    if roles - _UNSAID or _text(item.get("verdict")) not in _DOUBTED:
        return None
    return len(SUBJECT_ROLES)


def _list(value: object) -> Iterable[object]:
    return value if isinstance(value, (list, tuple)) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
