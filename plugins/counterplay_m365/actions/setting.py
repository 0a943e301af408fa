"""What actions share that set properties of one object, which can be set back to what they were."""

from __future__ import annotations

from typing import ClassVar

from counterplay import Action, Inverse, JsonObject, StepContext
from counterplay.modules import Settle


class Setting(Action):
    """Gives properties of the object that `arguments[key]` names the values of `wanted`.

    State before: what `read` gives, the object's `id` among it.
    """

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    key: ClassVar[str] = "user_id"
    opposite: ClassVar[str]
    """The module that takes it back; it takes the same `key`."""
    only_differing: ClassVar[bool] = False
    """Send nothing when all is so already, because a repeat does not go unnoticed. A plan in which an
    earlier step changes the same object cannot tell, so it is not the rule."""
    _before: JsonObject | None = None

    def wanted(self) -> JsonObject:
        """The properties and their values, as Graph spells them."""
        raise NotImplementedError

    def read(self, context: StepContext) -> JsonObject:
        """The object as it is now, as far as it matters. GoneError: there is none."""
        raise NotImplementedError

    def write(self, context: StepContext, values: JsonObject) -> None:
        """Set these of its properties."""
        raise NotImplementedError

    def done(self, before: JsonObject) -> JsonObject:
        """The result; `before` is empty when the state was not captured in this attempt."""
        raise NotImplementedError

    def given(self, old: JsonObject) -> JsonObject:
        """The arguments, besides `key`, with which `opposite` sets these old values again."""
        return {}

    def run(self, context: StepContext) -> JsonObject:
        values = self.wanted()
        if self.only_differing and self._before is not None:
            values = self._differing(self._before)
        if values:
            self.write(context, values)
        return self.done(self._before or {})

    def target(self) -> str | None:
        return str(self.arguments[self.key])

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or before.get("displayName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        self._before = self.read(context)
        return self._before

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        return None if self._differing(self.read(context)) else self.done(before)

    def rebased(self, before: JsonObject, present: JsonObject) -> JsonObject:
        return present  # it is one request, and what it did shows

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        return not self._differing(self.read(context))

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        old = {name: before.get(name) for name in self._differing(before)}
        if not old:
            return None  # it was like this before, so there is nothing to take back
        return Inverse(self.opposite, {self.key: before["id"], **self.given(old)})

    def _differing(self, present: JsonObject) -> JsonObject:
        return {name: value for name, value in self.wanted().items() if present.get(name) != value}


class Switch(Setting):
    """Sets `accountEnabled`, which users, apps and devices have."""

    enabled: ClassVar[bool]

    def wanted(self) -> JsonObject:
        return {"accountEnabled": self.enabled}

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        """Nothing where the state before was not known."""
        return None if before.get("accountEnabled") is None else super().inverse(before, result)
