"""What actions share that delete objects of a list, and those that create them anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from counterplay import Action, GoneError, Inverse, JsonObject, StepContext, UnknownOutcomeError
from counterplay.modules import Settle

_GONE = "it does not exist any more"


class Removal(Action):
    """Deletes the objects that are `chosen`; one that is gone is reported, not failed.

    State before: what `owner` gives, and `"objects"`, the chosen ones whole, so that they can be created
    anew.
    """

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    outcome: ClassVar[str] = "removed"
    """The member of the result that lists what was deleted."""
    named: ClassVar[str] = ""
    """The argument that lists the ids of what is meant, if there is one."""
    _before: JsonObject | None = None

    def present(self, context: StepContext) -> list[JsonObject]:
        """All objects of the list, as they are now."""
        raise NotImplementedError

    def chosen(self, context: StepContext) -> list[JsonObject]:
        """Those that are meant."""
        found = self.present(context)
        return [one for one in found if one["id"] in self.ids()] if self.ids() else found

    def ids(self) -> Sequence[str]:
        """The ids that the arguments name, if they do."""
        return self.arguments.get(self.named) or ()

    def kept(self, one: JsonObject) -> str | None:
        """Why a chosen one is left alone, None if it is not."""
        return None

    def delete(self, context: StepContext, one: JsonObject) -> None:
        """Delete one. GoneError: it does not exist."""
        raise NotImplementedError

    def shown(self, one: JsonObject) -> JsonObject:
        """One object as the result lists it, with its `id`."""
        raise NotImplementedError

    def owner(self, context: StepContext) -> JsonObject:
        """Whose they are: `id` and a name."""
        return {}

    def about(self) -> JsonObject:
        """The first members of the result."""
        return {name: self.arguments[name] for name in ("user_id", "app_id") if self.arguments.get(name)}

    def run(self, context: StepContext) -> JsonObject:
        chosen = self.chosen(context) if self._before is None else self._before["objects"]
        gone: set[str] = set()
        for one in chosen:
            if self.kept(one) is None:
                try:
                    self.delete(context, one)
                except GoneError:
                    gone.add(one["id"])
                except UnknownOutcomeError as error:
                    if error.status != 404:  # else an earlier attempt, whose answer was lost, deleted it
                        raise
        return self._report(chosen, gone)

    def target(self) -> str | None:
        return str(next(self.arguments[name] for name in ("user_id", "app_id") if self.arguments.get(name)))

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or before.get("displayName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        owner = self.owner(context)
        self._before = {**owner, "objects": self.chosen(context)}
        return self._before

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        """All that was to be deleted is; a part of it means that the rest is to be done."""
        there = {one["id"] for one in self.present(context)}
        if any(one["id"] in there for one in self._to_delete(before)):
            return None
        return self._report(before["objects"], set())

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        there = {one["id"] for one in self.present(context)}
        return not any(one["id"] in there for one in result[self.outcome])

    def _to_delete(self, before: JsonObject) -> list[JsonObject]:
        return [one for one in before["objects"] if self.kept(one) is None]

    def _report(self, chosen: Sequence[JsonObject], gone: set[str]) -> JsonObject:
        done: list[JsonObject] = []
        skipped: list[JsonObject] = []
        for one in chosen:
            reason = _GONE if one["id"] in gone else self.kept(one)
            if reason is None:
                done.append(self.shown(one))
            else:
                skipped.append({"id": one["id"], "reason": reason})
        known = {one["id"] for one in chosen}
        skipped += [{"id": one, "reason": "there is no such one"} for one in self.ids() if one not in known]
        return {**self.about(), self.outcome: done, "skipped": skipped}


class ReversibleRemoval(Removal):
    """A removal after which another action can create the objects anew."""

    def way_back(self, before: JsonObject, objects: list[JsonObject]) -> Inverse:
        """The step that creates these objects anew."""
        raise NotImplementedError

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        gone = {one["id"] for one in result.get("skipped", ()) if one["reason"] == _GONE}
        objects = [one for one in self._to_delete(before) if one["id"] not in gone]
        return self.way_back(before, objects) if objects else None


class Restoring(Action):
    """Creates the objects of `arguments[member]`, as an earlier state showed them, unless they are there.

    State before: what `owner` gives, and `"there"`, the ids of those that exist already.
    """

    connection = "m365.tenant"
    effect = True
    settle: Settle = "read"
    member: ClassVar[str]
    outcome: ClassVar[str] = "restored"
    opposite: ClassVar[str]
    _begun: JsonObject | None = None
    """The state before an earlier attempt, which may have created a part of them."""

    def present(self, context: StepContext) -> list[JsonObject]:
        """All objects that could be one of those, as they are now."""
        raise NotImplementedError

    def content(self, one: JsonObject) -> Any:
        """What makes two objects the same, whatever their ids."""
        raise NotImplementedError

    def create(self, context: StepContext, one: JsonObject) -> JsonObject:
        """Create one; as Graph shows it, with its new id."""
        raise NotImplementedError

    def shown(self, one: JsonObject) -> JsonObject:
        """One object as the result lists it, with its `id`."""
        raise NotImplementedError

    def owner(self, context: StepContext) -> JsonObject:
        """Whose they are: `id` and a name."""
        return {}

    def about(self) -> JsonObject:
        """The first members of the result."""
        return {}

    def taken_back(self, ids: list[str]) -> JsonObject:
        """The arguments with which `opposite` deletes them again."""
        raise NotImplementedError

    def run(self, context: StepContext) -> JsonObject:
        there = self._matches(context)
        made, left = self._parted(there, self._begun)
        made += [
            self.create(context, one)
            for one, found in zip(self.wanted(context), there, strict=True)
            if found is None
        ]
        return self._report(made, left)

    def subject(self, before: JsonObject) -> str | None:
        return before.get("userPrincipalName") or before.get("displayName") or self.target()

    def capture(self, context: StepContext) -> JsonObject:
        there = [one["id"] for one in self._matches(context) if one is not None]
        return {**self.owner(context), "there": there}

    def settled(self, context: StepContext, before: JsonObject) -> JsonObject | None:
        """All are there; a part of them means that the rest is to be done."""
        there = self._matches(context)
        if None in there:
            return None
        return self._report(*self._parted(there, before))

    def rebased(self, before: JsonObject, present: JsonObject) -> JsonObject:
        self._begun = before  # what is there beside it is what the earlier attempt created
        return before

    def verify(self, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
        return None not in self._matches(context)

    def inverse(self, before: JsonObject, result: JsonObject) -> Inverse | None:
        ids = [one["id"] for one in result[self.outcome]]
        return Inverse(self.opposite, self.taken_back(ids)) if ids else None

    def wanted(self, context: StepContext) -> list[JsonObject]:
        """The objects that are to be there."""
        return list(self.arguments[self.member])

    def _matches(self, context: StepContext) -> list[JsonObject | None]:
        """For each wanted object the one that is there; each counts once."""
        there = self.present(context)
        found: list[JsonObject | None] = []
        for one in self.wanted(context):
            match = next((each for each in there if self.content(each) == self.content(one)), None)
            there = [each for each in there if each is not match]
            found.append(match)
        return found

    def _parted(
        self, there: Sequence[JsonObject | None], before: JsonObject | None
    ) -> tuple[list[JsonObject], list[JsonObject]]:
        """Of those that are there: what this effect made since `before`, and what was there already."""
        found = [one for one in there if one is not None]
        if before is None:
            return [], found
        old = before["there"]
        return [one for one in found if one["id"] not in old], [one for one in found if one["id"] in old]

    def _report(self, made: Sequence[JsonObject], there: Sequence[JsonObject]) -> JsonObject:
        skipped = [{"id": one["id"], "reason": "there is one already"} for one in there]
        return {**self.about(), self.outcome: [self.shown(one) for one in made], "skipped": skipped}
