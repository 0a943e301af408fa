"""The action `m365.delete_inbox_rules`: take rules out of an inbox for good."""

from __future__ import annotations

from counterplay import Inverse, JsonObject, StepContext
from counterplay_m365.actions.removal import ReversibleRemoval
from counterplay_m365.actions.rule_reading import READ_ONLY, Rules


class DeleteInboxRules(ReversibleRemoval):
    """Delete inbox rules of a user: those that are suspicious, or those that are named.

    Prefer `m365.disable_inbox_rules`, which leaves the evidence where it is. What is suspicious says
    `m365.list_inbox_rules`; rules that Graph cannot change are reported, not failed. Deleting what is gone
    changes nothing. Taken back by `m365.create_inbox_rules`, under new ids.

    Needs:
        Graph application permissions `MailboxSettings.ReadWrite` and `User.Read.All`.
    Result:
        `{"user_id": str, "deleted": [{"id", "name", "reasons"}], "skipped": [{"id", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/messagerule-delete
    """

    name = "delete_inbox_rules"
    outcome = "deleted"
    named = "rule_ids"

    def present(self, context: StepContext) -> list[JsonObject]:
        return Rules(context, self.arguments).all()

    def chosen(self, context: StepContext) -> list[JsonObject]:
        rules = Rules(context, self.arguments)
        ids = self.ids()
        return [
            {**rule, "reasons": rules.reasons(rule)}
            for rule in rules.all()
            if (rule["id"] in ids if ids else rules.picked(rule))
        ]

    def kept(self, one: JsonObject) -> str | None:
        return READ_ONLY if one.get("isReadOnly") is True else None

    def delete(self, context: StepContext, one: JsonObject) -> None:
        Rules(context, self.arguments).mailboxes.delete_rule(self.arguments["user_id"], one["id"])

    def shown(self, one: JsonObject) -> JsonObject:
        return {"id": one["id"], "name": one.get("displayName"), "reasons": one["reasons"]}

    def owner(self, context: StepContext) -> JsonObject:
        return Rules(context, self.arguments).owner

    def way_back(self, before: JsonObject, objects: list[JsonObject]) -> Inverse:
        rules = [{name: value for name, value in one.items() if name != "reasons"} for one in objects]
        return Inverse("m365.create_inbox_rules", {"user_id": self.arguments["user_id"], "rules": rules})
