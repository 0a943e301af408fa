"""What the actions on alerts and those on incidents share: the same triage, at two places of Graph."""

from __future__ import annotations

from typing import ClassVar

from counterplay import Action, JsonObject, StepContext
from counterplay.modules import Settle
from counterplay_m365.actions.setting import Setting
from counterplay_m365.cases import CaseKind, Cases, comments_of

#: Arguments, and the properties of Graph that they set.
TRIAGE = {
    "status": "status",
    "assigned_to": "assignedTo",
    "classification": "classification",
    "determination": "determination",
}


class GetCase(Action):
    """Reads an alert or an incident; the result has it under the name of its kind."""

    connection = "m365.tenant"
    kind_of_case: ClassVar[CaseKind]
    key: ClassVar[str]

    def run(self, context: StepContext) -> JsonObject:
        identity = self.arguments[self.key]
        found = Cases(context).case(self.kind_of_case, identity)
        shown = {name: value for name, value in found.items() if not name.startswith("@odata.")}
        return {self.key: identity, self.key.removesuffix("_id"): shown}


class UpdateCase(Setting):
    """Sets those properties that the arguments name. An update is an event for whoever follows updates,
    so that nothing is sent when all is so already."""

    kind_of_case: ClassVar[CaseKind]
    only_differing = True

    def wanted(self) -> JsonObject:
        return {ours: self.arguments[name] for name, ours in TRIAGE.items() if name in self.arguments}

    def read(self, context: StepContext) -> JsonObject:
        found = Cases(context).case(self.kind_of_case, self.arguments[self.key])
        name = found.get("title") or found.get("displayName")
        return {"id": found["id"], "displayName": name, **{one: found.get(one) for one in TRIAGE.values()}}

    def write(self, context: StepContext, values: JsonObject) -> None:
        Cases(context).update(self.kind_of_case, self.arguments[self.key], values)

    def done(self, before: JsonObject) -> JsonObject:
        now = {**before, **self.wanted()}
        shown = {name: now.get(ours) for name, ours in TRIAGE.items()}
        return {self.key: self.arguments[self.key], **shown}

    def given(self, old: JsonObject) -> JsonObject:
        return {name: old[ours] for name, ours in TRIAGE.items() if ours in old}


class CommentCase(Action):
    """Adds a comment. It is settled by looking for one more with this text, so that none comes twice."""

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    kind_of_case: ClassVar[CaseKind]
    key: ClassVar[str]
    _there = 0

    def run(self, context: StepContext) -> JsonObject:
        identity = self.arguments[self.key]
        Cases(context).comment(self.kind_of_case, identity, self.arguments["comment"])
        return {self.key: identity, "commented": True}

    def target(self) -> str | None:
        return str(self.arguments[self.key])

    def subject(self, before: JsonObject) -> str | None:
        return before.get("displayName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        """How many comments say the same before, as one may be meant a second time."""
        found = Cases(context).case(self.kind_of_case, self.arguments[self.key])
        name = found.get("title") or found.get("displayName")
        return {"id": found["id"], "displayName": name, "same": self._same(found)}

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        if not self.verify(context, before, {}):
            return None
        return {self.key: self.arguments[self.key], "commented": True}

    def rebased(self, before: JsonObject, present: JsonObject) -> JsonObject:
        return present  # it is one request, and what it did shows

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        found = Cases(context).case(self.kind_of_case, self.arguments[self.key])
        return self._same(found) > int(before["same"])

    def _same(self, case: JsonObject) -> int:
        return comments_of(case, str(self.arguments["comment"]))
