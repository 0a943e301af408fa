"""What disabling and enabling inbox rules share: which rules, their prior state, and what was skipped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from counterplay import Action, GoneError, Inverse, JsonObject, StepContext
from counterplay.modules import Settle
from counterplay_m365.actions.rule_reading import READ_ONLY, Rules

_STATE = ("id", "displayName", "isEnabled", "isReadOnly")


class SwitchRules(Action):
    """Sets `isEnabled` of rules to `enabled`; `opposite` is the module that takes it back.

    State before: `{"id", "userPrincipalName", "rules": [{"id", "displayName", "isEnabled",
    "isReadOnly", "reasons"}]}`, of the rules that are meant; `reasons` says what makes each suspicious.
    """

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    enabled: ClassVar[bool]
    opposite: ClassVar[str]
    outcome: ClassVar[str]
    """The member of the result that lists the rules which were switched."""
    _before: JsonObject | None = None

    def meant(self, rules: Rules, present: Sequence[JsonObject]) -> list[JsonObject]:
        """The rules that the arguments name, among those that exist."""
        return [rule for rule in present if rule["id"] in self._named()]

    def run(self, context: StepContext) -> JsonObject:
        rules = Rules(context, self.arguments)
        meant = self._meant(rules) if self._before is None else self._before["rules"]
        gone = set()
        for rule in self._to_switch(meant):
            try:
                rules.mailboxes.set_rule(self.arguments["user_id"], rule["id"], self.enabled)
            except GoneError:
                gone.add(rule["id"])
        return self._report(meant, gone)

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def capture(self, context: StepContext) -> JsonObject:
        rules = Rules(context, self.arguments)
        self._before = {**rules.owner, "rules": self._meant(rules)}
        return self._before

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or self.target()

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        """All rules that were to be switched are; a part of them means that the rest is to be done."""
        present = self._present(context)
        wanted = [rule["id"] for rule in self._to_switch(before["rules"])]
        if not self._hold(present, wanted):
            return None
        return self._report(before["rules"], {rule for rule in wanted if rule not in present})

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        return self._hold(self._present(context), [rule["id"] for rule in result[self.outcome]])

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        changed = [rule["id"] for rule in self._to_switch(before["rules"])]
        if not changed:
            return None
        return Inverse(self.opposite, {"user_id": self.arguments["user_id"], "rule_ids": changed})

    def _meant(self, rules: Rules) -> list[JsonObject]:
        return [
            {**{name: rule.get(name) for name in _STATE}, "reasons": rules.reasons(rule)}
            for rule in self.meant(rules, rules.all())
        ]

    def _named(self) -> list[str]:
        return self.arguments.get("rule_ids") or []

    def _to_switch(self, meant: Sequence[JsonObject]) -> list[JsonObject]:
        return [rule for rule in meant if self._reason_to_skip(rule) is None]

    def _reason_to_skip(self, rule: JsonObject) -> str | None:
        if rule.get("isEnabled") is self.enabled:
            return "it is enabled already" if self.enabled else "it is disabled already"
        return READ_ONLY if rule.get("isReadOnly") is True else None

    def _report(self, meant: Sequence[JsonObject], gone: Collection[str]) -> JsonObject:
        done: list[JsonObject] = []
        skipped: list[JsonObject] = []
        for rule in meant:
            name = {"id": rule["id"], "name": rule.get("displayName")}
            reason = self._reason_to_skip(rule)
            if rule["id"] in gone:
                reason = "it does not exist any more"
            if reason is None:
                done.append({**name, "reasons": rule.get("reasons") or []})
            else:
                skipped.append({**name, "reason": reason})
        known = {rule["id"] for rule in meant}
        skipped += [
            {"id": rule_id, "name": None, "reason": "there is no such rule"}
            for rule_id in self._named()
            if rule_id not in known
        ]
        return {"user_id": self.arguments["user_id"], self.outcome: done, "skipped": skipped}

    def _present(self, context: StepContext) -> dict[str, JsonObject]:
        return {rule["id"]: rule for rule in Rules(context, self.arguments).all()}

    def _hold(self, present: dict[str, JsonObject], rule_ids: Sequence[str]) -> bool:
        return all(
            present[rule_id].get("isEnabled") is self.enabled for rule_id in rule_ids if rule_id in present
        )
