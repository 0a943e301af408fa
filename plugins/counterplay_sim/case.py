"""A simulated tenant for one case of `playbook test`: begun in a given state, and read back afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

from counterplay.errors import ConfigError
from counterplay_sim import KINDS
from counterplay_sim.clock import ManualClock, stamp
from counterplay_sim.licences import PROFILES
from counterplay_sim.scenario.build import Plan, scenario_names
from counterplay_sim.simulator import Simulator
from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]
_MEMBERS = ("users", "objects", "licence", "scenario")
_RULE = {"isEnabled": True, "hasError": False, "isReadOnly": False, "conditions": {}, "actions": {}}


class CaseTenant:
    """One tenant and its intake. `state` may hold:

    * `users`: properties as Graph spells them, for users of the tenant (by `userPrincipalName` or `id`) or
      new ones; besides, `sessions` (how many) and `rules` (inbox rules, in place of the user's own).
    * `objects`: other objects by the kind that the simulator calls them, each with its `id`.
    * `licence`, `scenario`: as `playbook sim --licence` and `--scenario`; quiet unless said otherwise.
    """

    def __init__(self, state_dir: Path, state: Mapping[str, Any], moment: datetime) -> None:
        """ConfigError: the state makes no sense."""
        _only(_MEMBERS, state, "tenant")
        self._clock = ManualClock(moment)
        self._simulator = Simulator(state_dir, clock=self._clock, plan=_plan(state)).start()
        try:
            self._fill(self._tenant, state, moment)
        except BaseException:
            self._simulator.close()
            raise
        self._untouched = self._changes()

    @property
    def _tenant(self) -> Tenant:
        return self._simulator.tenant

    def kinds(self) -> Collection[str]:
        return KINDS

    def settings(self, kind: str, name: str) -> Doc:
        """Whatever a playbook calls its connections, they lead here."""
        found = {"m365.tenant": self._simulator.m365_settings, "intake.key": self._simulator.intake_settings}
        return dict(found[kind]())

    def tell_time(self, moment: datetime) -> None:
        self._clock.set(moment)

    def change(self, state: Mapping[str, Any]) -> None:
        """Put users and objects as they are from now on. It counts as nobody's change in `changed`."""
        _only(("users", "objects"), state, "meanwhile.tenant")
        self._fill(self._tenant, state, self._clock.now())

    def state(self) -> Doc:
        """`users` by name, as Graph shows them, with `sessions` and `rules`; `changed`: who was changed."""
        tenant = self._tenant
        return {
            "users": {
                user["userPrincipalName"]: {
                    **{name: value for name, value in user.items() if not name.startswith("@sim.")},
                    "sessions": len(tenant.sessions.get(identity) or []),
                    "rules": list(tenant.rules.get(identity) or []),
                }
                for identity, user in tenant.users.items()
            },
            "changed": self._changes()[len(self._untouched) :],
        }

    def close(self) -> None:
        self._simulator.close()

    def _changes(self) -> list[str]:
        """Who was changed, by name, in order; each once."""
        tenant = self._tenant
        changed = dict.fromkeys(one.user for one in tenant.changes() if one.user in tenant.users)
        return [str(tenant.users[identity]["userPrincipalName"]) for identity in changed]

    def _fill(self, tenant: Tenant, state: Mapping[str, Any], moment: datetime) -> None:
        for place, given in enumerate(_objects("users", state.get("users", []))):
            self._put_user(tenant, f"tenant.users[{place}]", given, moment)
        for kind, documents in state.get("objects", {}).items():
            for place, document in enumerate(_objects(f"objects.{kind}", documents)):
                if not isinstance(document.get("id"), str):
                    raise ConfigError(f"tenant.objects.{kind}[{place}]: it has no `id`", hint="give it one")
                tenant.objects[kind].put(document["id"], document)

    def _put_user(self, tenant: Tenant, where: str, given: Doc, moment: datetime) -> None:
        name = given.get("userPrincipalName") or given.get("id")
        if not isinstance(name, str):
            raise ConfigError(f"{where}: it has no `userPrincipalName`", hint="name the user")
        known = tenant.user(name)
        values = {key: value for key, value in given.items() if key not in ("sessions", "rules")}
        user = {**(known or _stranger(tenant, name)), **values}
        tenant.users.put(user["id"], user)
        sessions = given.get("sessions", 1 if known is None else None)
        if sessions is not None:
            tenant.sessions.put(
                user["id"], [_session(name, number, moment) for number in range(int(sessions))]
            )
        if "rules" in given or known is None:
            rules = enumerate(_objects(f"{where}.rules", given.get("rules", [])))
            tenant.rules.put(user["id"], [_rule(name, number, one) for number, one in rules])


def _only(members: Collection[str], state: Mapping[str, Any], where: str) -> None:
    for name in state:
        if name not in members:
            raise ConfigError(f"{where}.{name}: there is no such member", hint=f"write {', '.join(members)}")


def _plan(state: Mapping[str, Any]) -> Plan:
    scenario = state.get("scenario", "quiet")
    licence = state.get("licence", Plan().licence)
    try:
        scenarios = scenario_names([scenario] if isinstance(scenario, str) else list(scenario))
    except ValueError as error:
        raise ConfigError(f"tenant.scenario: {error}") from error
    if licence not in PROFILES:
        raise ConfigError(
            f"tenant.licence: there is no {licence!r}", hint=f"there are {', '.join(sorted(PROFILES))}"
        )
    return Plan(events=0, users=12, scenarios=scenarios, licence=licence)


def _objects(where: str, value: Any) -> list[Doc]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ConfigError(f"tenant.{where}: not a list of objects")
    return value


def _stranger(tenant: Tenant, name: str) -> Doc:
    """A new user of that name, ordinary in all else."""
    user: Doc = deepcopy(next(iter(tenant.users.values())))
    display = name.partition("@")[0].replace(".", " ").title()
    return {
        **user,
        "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        "userPrincipalName": name,
        "displayName": display,
        "mail": name,
        "proxyAddresses": [f"SMTP:{name}"],
    }


def _session(name: str, number: int, moment: datetime) -> Doc:
    made = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{number}.{name}"))
    return {"id": made, "issued": stamp(moment), "ip": "198.51.100.7"}


def _rule(name: str, number: int, given: Doc) -> Doc:
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}").hex
    return {"id": made, "displayName": f"Rule {number + 1}", **_RULE, "sequence": number + 1, **given}
