"""The people of a tenant: users with their sessions and inbox rules, and the organisation itself."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from counterplay_sim.clock import stamp

Doc = dict[str, Any]

DOMAIN = "contoso.example"


def _names(text: str) -> list[str]:
    return text.split()


_FIRST = _names(
    "Alice Bruno Chloé Dmitri Elif Farid Greta Hiro Inês Jonas Karla Levin Mei Nadia Oskar Priya Quentin "
    "Rosa Søren Tomás Uma Viktor Wanda Xenia Yusuf Zoë Amara Björn Celia Dario Esther Felix Gwen Hana Ivo "
    "Jana Kofi Lena Marek Noor"
)
_LAST = _names(
    "Abel Berger Castillo Dubois Eriksen Fischer García Haddad Ito Jensen Kovač Lindqvist Moreau Novák "
    "Okafor Petrov Quist Rossi Schäfer Tanaka Ueda Varga Weber Xu Yilmaz Zeller"
)
_ASCII = str.maketrans("éèêëáàãíóöøüčžšñåä", "eeeeaaaiooouczsnaa")
_JOBS = (
    ("Accounts Payable Specialist", "Finance"),
    ("Sales Manager", "Sales"),
    ("Software Engineer", "Engineering"),
    ("HR Partner", "People"),
    ("Support Agent", "Support"),
    ("Marketing Lead", "Marketing"),
)
_RULES: tuple[tuple[str, Doc, Doc], ...] = (
    ("Newsletters", {"senderContains": ["newsletter@", "news@"]}, {"markImportance": "low"}),
    ("Jira", {"fromAddresses": [{"emailAddress": {"name": "Jira", "address": "jira@contoso.example"}}]}, {}),
    (
        "Rechnungen für die Buchhaltung",
        {"subjectContains": ["Rechnung"]},
        {"assignCategories": ["Buchhaltung"]},
    ),
    ("From my manager", {"sentToMe": True}, {"markImportance": "high"}),
    ("Meeting answers", {"isMeetingResponse": True}, {"markAsRead": True}),
)


@dataclass(slots=True)
class Person:
    """A user as the scenario's writers need it, with the documents that Graph and the audit log show."""

    id: str
    upn: str
    name: str
    puid: str
    mailbox: str
    address: str
    agent: str
    doc: Doc
    sessions: list[Doc] = field(default_factory=list)
    rules: list[Doc] = field(default_factory=list)

    @property
    def alias(self) -> str:
        """The part of the user principal name before the @."""
        return self.upn.partition("@")[0]


def guid(chance: random.Random) -> str:
    """A random GUID of the scenario's own randomness."""
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def opaque(chance: random.Random, length: int) -> str:
    """A base64-like identifier that ends in `=`, as Exchange gives them."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "AQMkAD" + "".join(chance.choices(alphabet, k=length - 7)) + "="


def people(chance: random.Random, count: int, created: datetime) -> list[Person]:
    """The tenant's users. The first one will be attacked, the second is the administrator."""
    made = [_person(chance, number, created) for number in range(count)]
    for number, person in enumerate(made):
        _give_rules(chance, person, number)
    return made


_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"
    " Safari/537.36 Edg/126.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5"
    " Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile",
)


def _person(chance: random.Random, number: int, created: datetime) -> Person:
    first = _FIRST[number % len(_FIRST)]
    last = _LAST[(number * 7 + number // len(_FIRST)) % len(_LAST)]
    suffix = "" if number < len(_FIRST) else str(number // len(_FIRST) + 1)
    alias = f"{first}.{last}{suffix}".lower().translate(_ASCII)
    if number == 0:
        alias = "alice"
    upn = f"{alias}@{DOMAIN}"
    job, department = _JOBS[number % len(_JOBS)]
    puid = f"1003200{chance.getrandbits(36):09X}"
    person = Person(
        id=guid(chance),
        upn=upn,
        name=f"{first} {last}",
        puid=puid,
        mailbox=guid(chance),
        address=f"198.51.100.{10 + number % 200}",
        agent=_AGENTS[number % len(_AGENTS)],
        doc={},
    )
    joined = created - timedelta(days=chance.randint(100, 2000))
    person.doc = {
        "id": person.id,
        "businessPhones": [f"+1 425 555 {100 + number:04d}"],
        "displayName": person.name,
        "givenName": first,
        "jobTitle": "IT Administrator" if number == 1 else job,
        "mail": upn,
        "mobilePhone": None,
        "officeLocation": f"{chance.randint(1, 40)}/{chance.randint(1000, 4000)}",
        "preferredLanguage": "en-US",
        "surname": last,
        "userPrincipalName": upn,
        "accountEnabled": True,
        "createdDateTime": stamp(joined),
        "department": department,
        "lastPasswordChangeDateTime": stamp(created - timedelta(days=chance.randint(3, 90))),
        "onPremisesSecurityIdentifier": None,
        "onPremisesSyncEnabled": None,
        "proxyAddresses": [f"SMTP:{upn}"],
        "signInSessionsValidFromDateTime": stamp(joined),
        "usageLocation": "US",
        "userType": "Member",
        "assignedPlans": [],
    }
    person.sessions = [
        {
            "id": guid(chance),
            "issued": stamp(created - timedelta(minutes=chance.randint(120, 4000))),
            "ip": person.address,
        }
        for _ in range(chance.randint(1, 3))
    ]
    return person


def _give_rules(chance: random.Random, person: Person, number: int) -> None:
    if number > 0 and chance.random() < 0.4:
        return
    for sequence, (name, conditions, actions) in enumerate(
        chance.sample(_RULES, 2 if number == 0 else chance.randint(1, 3)), start=2 if number == 0 else 1
    ):
        person.rules.append(
            rule(chance, name, sequence, conditions, {**actions, "stopProcessingRules": False})
        )
    if number in (3, 7):  # made by another client with predicates that Graph cannot express
        person.rules.append(
            {
                "id": opaque(chance, 24),
                "displayName": "Client rule",
                "sequence": 9,
                "isEnabled": True,
                "hasError": False,
                "isReadOnly": True,
            }
        )


def more_rules(chance: random.Random, crowd: list[Person], count: int) -> None:
    """Give the people rules until there are so many."""
    missing = count - sum(len(person.rules) for person in crowd)
    for number in range(max(0, missing)):
        person = crowd[number % len(crowd)]
        name, conditions, actions = _RULES[number % len(_RULES)]
        person.rules.append(
            rule(chance, name, len(person.rules) + 1, conditions, {**actions, "stopProcessingRules": False})
        )


def rule(chance: random.Random, name: str, sequence: int, conditions: Doc | None, actions: Doc) -> Doc:
    """An inbox rule as Graph shows it."""
    return {
        "id": opaque(chance, 24),
        "displayName": name,
        "sequence": sequence,
        "isEnabled": True,
        "hasError": False,
        "isReadOnly": False,
        "conditions": conditions,
        "actions": actions,
        "exceptions": None,
    }


def organization(tenant: str, created: datetime) -> Doc:
    """The organisation as `GET /organization` shows it."""
    return {
        "id": tenant,
        "displayName": "Contoso (simulated)",
        "countryLetterCode": "US",
        "createdDateTime": stamp(created - timedelta(days=2200)),
        "tenantType": "AAD",
        "onPremisesSyncEnabled": None,
        "verifiedDomains": [
            {
                "capabilities": "Email, OfficeCommunicationsOnline",
                "isDefault": True,
                "isInitial": False,
                "name": DOMAIN,
                "type": "Managed",
            },
            {
                "capabilities": "Email",
                "isDefault": False,
                "isInitial": True,
                "name": "contoso-sim.onmicrosoft.com",
                "type": "Managed",
            },
        ],
        "assignedPlans": [],
        "provisionedPlans": [],
    }
