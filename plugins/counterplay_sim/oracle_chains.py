"""How the attacks of a tenant stand: what each attacker still has, and who else was changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from counterplay_sim.store import Change, Store, TenantRow

Doc = dict[str, Any]

#: What an attacker holds, as the truth of a chain lists it; the journal names all of it by these ids.
HELD = (
    "malicious_rules",
    "grants",
    "app_roles",
    "service_principals",
    "authentication_methods",
    "devices",
    "machines",
)
#: Changes of an account itself: allowed for whoever was attacked.
_OF_ACCOUNT = frozenset(
    ["update_user", "revoke_sessions", "set_password", "confirm_compromised", "confirm_safe", "dismiss_risk"]
)
_KINDS = (
    "oauth2PermissionGrant",
    "appRoleAssignment",
    "servicePrincipal",
    "authenticationMethod",
    "device",
    "machine",
    "alert",
    "incident",
)


@dataclass(frozen=True, slots=True)
class ChainState:
    """How one attack stands: what the attacker still has. All lists name what is left.

    Rules count while they are on, service principals and devices while they are enabled, machines while
    they are not isolated. `password`: it is known to the attacker, was not changed since, and the account
    is open. `forwarding` is where the mailbox forwards to, which Graph neither shows nor changes: it does
    not count as left. `evidence_lost` names what an investigation would look for and not find: a rule, an
    application, a device that was deleted instead of switched off, the alert or its incident.
    """

    scenario: str
    victim: str
    alert: str | None
    incident: str | None
    blocked: bool
    to_block: bool
    password: bool
    sessions: tuple[str, ...]
    rules: tuple[str, ...]
    grants: tuple[str, ...]
    app_roles: tuple[str, ...]
    service_principals: tuple[str, ...]
    authentication_methods: tuple[str, ...]
    devices: tuple[str, ...]
    machines: tuple[str, ...]
    forwarding: str
    evidence_lost: tuple[str, ...]

    @property
    def left(self) -> bool:
        """Whether the attacker has anything left."""
        return bool(
            self.password
            or self.sessions
            or self.rules
            or self.grants
            or self.app_roles
            or self.service_principals
            or self.authentication_methods
            or self.devices
            or self.machines
        )

    @property
    def contained(self) -> bool:
        """The end that is expected of a response: the attacker is out, all evidence still stands, and the
        account is blocked if the attacker had its password, and only then."""
        return not self.left and not self.evidence_lost and self.blocked is self.to_block


class Attacks:
    """The attacks that a tenant was invented with, held against its objects as they are now."""

    def __init__(self, store: Store, row: TenantRow) -> None:
        self._truths: list[Doc] = row.doc["truth"]["chains"]
        self._users = store.objects(row.id, "user")
        self._sessions = store.objects(row.id, "sessions")
        self._rules = store.objects(row.id, "rules")
        self._objects = {kind: store.objects(row.id, kind) for kind in _KINDS}

    def chains(self) -> tuple[ChainState, ...]:
        """Each attack, in the order of the plan."""
        return tuple(self._chain(truth) for truth in self._truths)

    def collateral(self, changes: Iterable[Change]) -> tuple[str, ...]:
        """Every change of something that is no attacker's and no attacked account: what it was, and whose."""
        held = {key for truth in self._truths for name in HELD for key in truth.get(name, ())}
        held |= {truth[name] for truth in self._truths for name in ("alert", "incident")}
        attacked = {truth["victim"] for truth in self._truths}
        found: dict[str, None] = {}
        for change in changes:
            of_account = change.action in _OF_ACCOUNT and change.user in attacked
            if change.target not in held and not of_account:
                upn = self._users.get(change.user, {}).get("userPrincipalName")
                found[f"{change.action} {change.target}" + (f" of {upn}" if upn else "")] = None
        return tuple(found)

    def _chain(self, truth: Doc) -> ChainState:
        user = self._users[truth["victim"]]
        blocked, known = not user["accountEnabled"], truth.get("password", True)
        changed = str(user.get("lastPasswordChangeDateTime") or "") > truth.get("began", "")
        live = {session["id"] for session in self._sessions[truth["victim"]]}
        on = {rule["id"] for rule in self._rules[truth["victim"]] if rule["isEnabled"]}
        return ChainState(
            scenario=truth["scenario"],
            victim=user["userPrincipalName"],
            alert=truth["alert"],
            incident=truth["incident"],
            blocked=blocked,
            to_block=known,
            password=known and not blocked and not changed,
            sessions=tuple(key for key in truth["sessions"] if key in live),
            rules=tuple(key for key in truth["malicious_rules"] if key in on),
            grants=self._among("oauth2PermissionGrant", truth["grants"]),
            app_roles=self._among("appRoleAssignment", truth.get("app_roles", ())),
            service_principals=self._among("servicePrincipal", truth["service_principals"], enabled=True),
            authentication_methods=self._among("authenticationMethod", truth["authentication_methods"]),
            devices=self._among("device", truth["devices"], enabled=True),
            machines=tuple(
                key
                for key in self._among("machine", truth.get("machines", ()))
                if not self._objects["machine"][key].get("@sim.isolated")
            ),
            forwarding=truth["forwarding"],
            evidence_lost=self._lost(truth),
        )

    def _among(self, kind: str, keys: Iterable[str], *, enabled: bool = False) -> tuple[str, ...]:
        """Those of the keys whose object is there, and enabled where that is asked."""
        there = self._objects[kind]
        return tuple(key for key in keys if key in there and (not enabled or there[key]["accountEnabled"]))

    def _lost(self, truth: Doc) -> tuple[str, ...]:
        rules = {rule["id"] for rule in self._rules[truth["victim"]]}
        kept = (("servicePrincipal", "service_principals"), ("device", "devices"), ("machine", "machines"))
        lost = [f"rule {key}" for key in truth["malicious_rules"] if key not in rules]
        lost += [
            f"{kind} {key}"
            for kind, name in kept
            for key in truth.get(name, ())
            if key not in self._objects[kind]
        ]
        lost += [
            f"{kind} {truth[kind]}"
            for kind in ("alert", "incident")
            if truth[kind] is not None and truth[kind] not in self._objects[kind]
        ]
        return tuple(lost)
