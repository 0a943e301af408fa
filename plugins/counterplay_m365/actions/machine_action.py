"""What isolating and releasing a machine share: a request that Defender carries out when it can."""

from __future__ import annotations

from typing import Any, ClassVar

from counterplay import Action, Inverse, JsonObject, RejectedError, StepContext
from counterplay.modules import Settle
from counterplay_m365.defender import Defender, Verb, isolated

_UNDER_WAY = "ActiveRequestAlreadyExists"
_STATUS = {"Pending": "requested", "InProgress": "in progress", "Succeeded": "done"}
_OFFLINE = "the machine is offline: it is isolated, or released, when it comes back"


class MachineAction(Action):
    """Asks for `verb`, unless that holds or is under way already.

    State before: `{"id", "displayName", "health", "isolated": bool, "action": id, "scope": str}`, of the
    isolation that holds.
    """

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    verb: ClassVar[Verb]
    wanted: ClassVar[bool]
    """Whether the machine is to be isolated."""
    opposite: ClassVar[str]
    _before: JsonObject | None = None

    def values(self) -> JsonObject:
        """The body of the request."""
        return {"Comment": str(self.arguments.get("comment") or "by counterplay")}

    def given(self, before: JsonObject) -> JsonObject:
        """The arguments, besides the machine, with which `opposite` takes it back."""
        return {"comment": str(self.arguments.get("comment") or "by counterplay")}

    def run(self, context: StepContext) -> JsonObject:
        before = self._before or self.capture(context)
        if before["isolated"] is self.wanted:
            return self._shown(before, self._latest(context, before["id"]))
        try:
            found = Defender(context).act(self.verb, before["id"], self.values())
        except RejectedError as error:
            if error.code != _UNDER_WAY:
                raise
            found = self._latest(context, before["id"])  # what was asked for is on its way already
        return self._shown(before, found)

    def target(self) -> str | None:
        return str(self.arguments.get("machine_id") or self.arguments.get("device_id"))

    def subject(self, before: JsonObject) -> str | None:
        return before.get("displayName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        self._before = self._read(context)
        return self._before

    def caution(self, before: JsonObject) -> str | None:
        return None if before.get("health") in (None, "Active") else _OFFLINE

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        present = self._read(context)
        if present["isolated"] is not self.wanted:
            return None
        return self._shown(before, self._latest(context, before["id"]))

    def rebased(self, before: JsonObject, present: JsonObject) -> JsonObject:
        return present  # it is one request, and what it did shows

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        """Whether it was asked for and not undone; that the machine did it, `m365.get_machine` tells."""
        return bool(self._read(context)["isolated"] is self.wanted)

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        if before["isolated"] is self.wanted:
            return None  # it was like this before, so there is nothing to take back
        return Inverse(self.opposite, {"machine_id": before["id"], **self.given(before)})

    def _read(self, context: StepContext) -> JsonObject:
        defender = Defender(context)
        found = defender.machine(
            machine_id=self.arguments.get("machine_id"), device_id=self.arguments.get("device_id")
        )
        holding = isolated(defender.actions(found["id"])) or {}
        return {
            "id": found["id"],
            "displayName": found.get("computerDnsName"),
            "health": found.get("healthStatus"),
            "isolated": bool(holding),
            "scope": holding.get("scope"),
        }

    def _latest(self, context: StepContext, machine_id: str) -> JsonObject:
        kind = "Isolate" if self.wanted else "Unisolate"
        found: list[Any] = Defender(context).actions(machine_id)
        return next((one for one in found if one.get("type") == kind), {})

    def _shown(self, before: JsonObject, action: JsonObject) -> JsonObject:
        status = str(action.get("status") or "Pending")
        return {
            "machine_id": before["id"],
            "name": before.get("displayName"),
            "action_id": action.get("id"),
            "status": _STATUS.get(status, status),
            "confirmed": status == "Succeeded",
            "note": self.caution(before),
        }
