"""The action `m365.get_mailbox_settings`: whose mailbox is it, and what does it answer by itself?"""

from __future__ import annotations

from counterplay import Action, JsonObject, StepContext
from counterplay_m365.mailboxes import Mailboxes

_SHOWN = (
    "userPurpose",
    "automaticRepliesSetting",
    "delegateMeetingMessageDeliveryOptions",
    "archiveFolder",
    "timeZone",
    "language",
    "workingHours",
)


class GetMailboxSettings(Action):
    """Read the settings of a user's mailbox: its purpose, automatic replies, language, working hours.

    Forwarding that is set on the mailbox, and delegates, Graph does not show: use Get-Mailbox of Exchange
    Online PowerShell.

    Needs:
        Graph application permission `MailboxSettings.Read`.
    Result:
        `{"user_id": str, "userPurpose", "automaticRepliesSetting",
        "delegateMeetingMessageDeliveryOptions", "archiveFolder", "timeZone", "language",
        "workingHours"}`, as Graph spells them; null where the mailbox has no value.
    Source:
        https://learn.microsoft.com/graph/api/user-get-mailboxsettings
    """

    name = "get_mailbox_settings"
    connection = "m365.tenant"

    def run(self, context: StepContext) -> JsonObject:
        user_id = self.arguments["user_id"]
        found = Mailboxes(context).settings(user_id)
        return {"user_id": user_id, **{name: found.get(name) for name in _SHOWN}}
