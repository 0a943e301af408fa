"""What makes an inbox rule suspicious: the marks that attackers' rules have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from counterplay import JsonObject

#: Words in the warnings that an attacker keeps from the user: picking and moving these is enough.
WARNINGS = ("compromised", "fraud", "hacked", "phish", "scam", "suspicious", "virus")
#: Words of payment fraud. People file such mail too, so they count only beside another mark.
FINANCE = ("bank", "iban", "invoice", "password", "payment", "payroll", "remittance", "wire transfer")
#: Folders in which nobody looks, by parts of the names that Outlook gives them in its larger languages.
HIDING_PLACES = (
    "rss",
    "archiv",
    "arquiv",
    "archief",
    "arkiv",
    "conversation",
    "unterhaltung",
    "conversaci",
    "conversazion",
    "conversa",
    "gespreksgeschiedenis",
)
_FORWARDS = (
    ("forwardTo", "forwards"),
    ("forwardAsAttachmentTo", "forwards as attachment"),
    ("redirectTo", "redirects"),
)
_TEXTS = ("subjectContains", "bodyContains", "bodyOrSubjectContains")


def reasons(rule: JsonObject, internal_domains: Collection[str], folder: str | None = None) -> list[str]:
    """Why a rule looks like an attacker's, in words; empty for one that does not.

    `internal_domains` are lower case. `folder` is the name of the folder that the rule moves mail to; where
    it is not known (a name is never the id of a folder), moving alone says nothing, unless the rule picks
    warnings.
    """
    actions = _mapping(rule.get("actions"))
    found = [f"{what} to {address}" for what, address in _outside(actions, internal_domains)]
    if actions.get("permanentDelete") is True:
        found.append("deletes mail for good")
    elif actions.get("delete") is True:
        found.append("deletes mail")
    moves = bool(actions.get("moveToFolder"))
    if folder is not None and any(part in folder.lower() for part in HIDING_PLACES) and _is_name(folder):
        found.append(f"hides mail in the folder {folder!r}")
    if moves and actions.get("markAsRead") is True:
        found.append("moves mail away and marks it as read")
    name = str(rule.get("displayName") or "").strip()
    if actions and not name:
        found.append("has no name")
    elif actions and (len(name) == 1 or not any(sign.isalnum() for sign in name)):
        found.append(f"has the meaningless name {name!r}")
    warnings, finance = _words(rule, WARNINGS), _words(rule, FINANCE)
    if (warnings and (moves or found)) or (finance and found):
        found.append(f"picks mail about {', '.join(warnings + finance)}")
    return found


def domains_of(user: JsonObject) -> set[str]:
    """The domains of a user's own addresses, lower case: those are inside."""
    addresses = [str(user.get("userPrincipalName") or ""), str(user.get("mail") or "")]
    for proxy in _sequence(user.get("proxyAddresses")):
        kind, _, address = str(proxy).partition(":")
        if kind.lower() == "smtp":
            addresses.append(address)
    return {_domain(address) for address in addresses} - {""}


def _outside(actions: JsonObject, internal: Collection[str]) -> Iterator[tuple[str, str]]:
    for member, what in _FORWARDS:
        for recipient in _sequence(actions.get(member)):
            address = str(_mapping(_mapping(recipient).get("emailAddress")).get("address") or "")
            domain = _domain(address)
            if domain and domain not in internal:  # without a domain it is a name inside Exchange
                yield what, address


def _is_name(folder: str) -> bool:
    """Whether it is a name rather than an id of Exchange, which is one long word."""
    return len(folder) <= 60


def _words(rule: JsonObject, words: Collection[str]) -> list[str]:
    """Those words that a rule looks for at the beginning of a word."""
    conditions = _mapping(rule.get("conditions"))
    texts = [str(text).lower() for member in _TEXTS for text in _sequence(conditions.get(member))]
    return [word for word in words if any(re.search(rf"\b{word}", text) for text in texts)]


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip().lower() if "@" in address else ""


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
