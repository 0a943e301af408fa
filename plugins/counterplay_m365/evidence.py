"""The accounts that an alert is about, read from its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Roles that make an account the subject of an alert, the clearest first. An account that was merely
#: seen, attacked or edited is none: containing it would hit a bystander or a victim.
SUBJECT_ROLES = ("compromised", "attacker", "suspicious", "policyViolator")
_DOUBTED = frozenset({"suspicious", "malicious"})
_UNSAID = frozenset({"", "unknown", "unknownFutureValue"})


def m365_users(evidence: object) -> list[str]:
    """`{{ event.evidence | m365_users | first }}`: the accounts to act on, compromised ones first.

    Each is an object id, or a userPrincipalName where the alert does not know the id. Accounts without
    any role count when no account has a role that makes it the subject, and their verdict is suspicious
    or malicious. Accounts without both names (on-premises detections) cannot be acted on, and are left out.
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
    for item in evidence if isinstance(evidence, (list, tuple)) else ():
        if not isinstance(item, Mapping):
            continue
        kind = str(item.get("@odata.type", "")).rpartition(".")[2]
        if kind not in ("userEvidence", "mailboxEvidence"):
            continue
        account = item.get("userAccount")
        account = account if isinstance(account, Mapping) else {}
        upn = _text(account.get("userPrincipalName")) or _text(item.get("upn"))
        yield _rank(item), _text(account.get("azureAdUserId")), upn


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
