"""The action `m365.create_inbox_rules`: give an inbox rules back that were deleted."""

from __future__ import annotations

from typing import Any

from counterplay import JsonObject, StepContext
from counterplay_m365.actions.removal import Restoring
from counterplay_m365.actions.rule_reading import Rules

_SET = ("displayName", "sequence", "isEnabled", "conditions", "actions", "exceptions")
_SAME = ("displayName", "conditions", "actions", "exceptions")


class CreateInboxRules(Restoring):
    """Create inbox rules of a user, as `m365.list_inbox_rules` or Graph showed them.

    A rule that is there already, with the same name, conditions and actions, is not created twice. New
    rules have new ids. Taken back by `m365.delete_inbox_rules`.

    Needs:
        Graph application permissions `MailboxSettings.ReadWrite` and `User.Read.All`.
    Result:
        `{"user_id": str, "created": [{"id", "name"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/mailfolder-post-messagerules
    """

    name = "create_inbox_rules"
    member = "rules"
    outcome = "created"
    opposite = "m365.delete_inbox_rules"

    def present(self, context: StepContext) -> list[JsonObject]:
        return Rules(context, self.arguments).all()

    def content(self, one: JsonObject) -> Any:
        return {name: _plain(one.get(name)) for name in _SAME}

    def create(self, context: StepContext, one: JsonObject) -> JsonObject:
        values = {name: one[name] for name in _SET if one.get(name) is not None}
        return Rules(context, self.arguments).mailboxes.create_rule(self.arguments["user_id"], values)

    def shown(self, one: JsonObject) -> JsonObject:
        return {"id": one.get("id"), "name": one.get("displayName")}

    def owner(self, context: StepContext) -> JsonObject:
        return Rules(context, self.arguments).owner

    def about(self) -> JsonObject:
        return {"user_id": self.arguments["user_id"]}

    def target(self) -> str | None:
        return str(self.arguments["user_id"])

    def taken_back(self, ids: list[str]) -> JsonObject:
        return {"user_id": self.arguments["user_id"], "rule_ids": ids}


def _plain(value: Any) -> Any:
    """Without what says nothing: Graph shows some members only when they are set, some always."""
    if isinstance(value, dict):
        found = {name: _plain(item) for name, item in value.items() if not name.startswith("@odata.")}
        return {name: item for name, item in found.items() if item not in (None, False, [], {})}
    return [_plain(item) for item in value] if isinstance(value, list) else value
