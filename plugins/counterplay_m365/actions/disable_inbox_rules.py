"""The action `m365.disable_inbox_rules`: stop rules that move mail out or hide it."""

from __future__ import annotations

from collections.abc import Sequence

from counterplay import JsonObject
from counterplay_m365.actions.rule_reading import Rules
from counterplay_m365.actions.rule_switch import SwitchRules


class DisableInboxRules(SwitchRules):
    """Disable inbox rules of a user: those that are suspicious, or those that are named.

    What is suspicious, and what Graph does not show, says `m365.list_inbox_rules`. Rules that Graph
    cannot change are reported, not failed. Nothing is deleted; taken back by
    `m365.enable_inbox_rules`.

    Needs:
        Graph application permissions `MailboxSettings.ReadWrite` and `User.Read.All`.
    Result:
        `{"user_id": str, "disabled": [{"id", "name", "reasons"}], "skipped": [{"id", "name", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/messagerule-update
    """

    name = "disable_inbox_rules"
    enabled = False
    opposite = "m365.enable_inbox_rules"
    outcome = "disabled"

    def meant(self, rules: Rules, present: Sequence[JsonObject]) -> list[JsonObject]:
        """The named rules; without names the suspicious ones, and those that are on and cannot be judged."""
        if self._named():
            return super().meant(rules, present)
        return [rule for rule in present if rules.picked(rule)]
