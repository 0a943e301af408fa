"""The action `m365.enable_inbox_rules`: let rules work again."""

from __future__ import annotations

from counterplay_m365.actions.rule_switch import SwitchRules


class EnableInboxRules(SwitchRules):
    """Enable the named inbox rules of a user, after `m365.disable_inbox_rules`.

    Rules that Graph cannot change, and rules that do not exist, are reported, not failed. Taken back
    by `m365.disable_inbox_rules`.

    Needs:
        Graph application permissions `MailboxSettings.ReadWrite` and `User.Read.All`.
    Result:
        `{"user_id": str, "enabled": [{"id", "name", "reasons"}], "skipped": [{"id", "name", "reason"}]}`
    Source:
        https://learn.microsoft.com/graph/api/messagerule-update
    """

    name = "enable_inbox_rules"
    enabled = True
    opposite = "m365.disable_inbox_rules"
    outcome = "enabled"
