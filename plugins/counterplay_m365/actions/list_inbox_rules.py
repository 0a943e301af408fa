"""The action `m365.list_inbox_rules`: what happens to a user's mail by itself?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.actions.rule_reading import Rules

_SHOWN = ("id", "displayName", "sequence", "isEnabled", "hasError", "isReadOnly")
_PARTS = ("conditions", "actions", "exceptions")


class ListInboxRules(Action):
    """List the rules of a user's inbox, each with what makes it suspicious.

    Inside are the domains of the user's own addresses, and `internal_domains`, by default those of the
    workspace or of the tenant. Graph shows no hidden rules, no rules that run in desktop Outlook only, and no
    forwarding set on the mailbox; a rule with `isReadOnly` was made by another client and shows neither
    conditions nor actions.

    Needs:
        Graph application permissions `MailboxSettings.Read` and `User.Read.All`.
    Result:
        `{"user_id": str, "rules": [{"id", "displayName", "sequence", "isEnabled", "hasError",
        "isReadOnly", "conditions", "actions", "exceptions", "suspicious": [str]}]}`; `suspicious` is
        empty for a rule without such marks.
    Source:
        https://learn.microsoft.com/graph/api/mailfolder-list-messagerules
    """

    name = "list_inbox_rules"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        rules = Rules(context, self.arguments)
        return {
            "user_id": self.arguments["user_id"],
            "rules": [
                {
                    **{name: rule.get(name) for name in (*_SHOWN, *_PARTS)},
                    "suspicious": rules.reasons(rule),
                }
                for rule in rules.all()
            ],
        }
