"""The part of Graph about mailboxes: inbox rules, folders, settings."""

from __future__ import annotations

from counterplay import GoneError, JsonObject
from counterplay_m365.graph import Graph, segment, user_path

_READ = "MailboxSettings.Read"
_WRITE = "MailboxSettings.ReadWrite"
#: Application permissions of which any is enough to see the names of folders.
FOLDERS = frozenset({"Mail.ReadBasic.All", "Mail.Read", "Mail.ReadWrite"})


class Mailboxes(Graph):
    """Mailboxes of the tenant of a context, named as their users are."""

    def rules(self, user_id: str) -> list[JsonObject]:
        """All rules of a user's inbox that Graph shows. GoneError: no user, or no mailbox in the cloud."""
        what = f"the inbox rules of {user_id!r}"
        try:
            return self.every(_rules(user_id), what, needs=_READ)
        except GoneError as error:
            raise _explained(user_id, error) from error

    def set_rule(self, user_id: str, rule_id: str, enabled: bool) -> None:
        """Switch one rule on or off. GoneError: it does not exist any more."""
        self.write("PATCH", _rule(user_id, rule_id), "the rule", {"isEnabled": enabled}, needs=_WRITE)

    def delete_rule(self, user_id: str, rule_id: str) -> None:
        """Delete one rule. GoneError: it does not exist any more."""
        self.write("DELETE", _rule(user_id, rule_id), "the rule", needs=_WRITE)

    def create_rule(self, user_id: str, rule: JsonObject) -> JsonObject:
        """Create a rule; as Graph shows it, with its id."""
        what = f"the inbox rules of {user_id!r}"
        return self.write("POST", _rules(user_id), what, rule, needs=_WRITE)

    def settings(self, user_id: str) -> JsonObject:
        """The mailbox's settings. GoneError: no user, or no mailbox in the cloud."""
        what = f"the mailbox settings of {user_id!r}"
        try:
            return self.one(f"{user_path(user_id)}/mailboxSettings", what, needs=_READ)
        except GoneError as error:
            raise _explained(user_id, error) from error

    def folders(self, user_id: str) -> dict[str, str]:
        """The names of the top folders by their ids, as the mailbox's language spells them."""
        query = {"$select": "id,displayName", "$top": "200"}
        what = f"the mail folders of {user_id!r}"
        path = f"{user_path(user_id)}/mailFolders"
        found = self.every(path, what, query, needs="Mail.ReadBasic.All")
        return {one["id"]: str(one.get("displayName") or "") for one in found}


def _explained(user_id: str, error: GoneError) -> GoneError:
    if error.code == "MailboxNotEnabledForRESTAPI":
        what = f"the user {user_id!r} has no mailbox in Exchange Online"
    else:
        what = f"no user {user_id!r} in the tenant"
    said = error.message.partition(" does not exist: ")[2] or error.message
    return GoneError(f"{what}: {said}", status=error.status, code=error.code, request_id=error.request_id)


def _rules(user_id: str) -> str:
    return f"{user_path(user_id)}/mailFolders/inbox/messageRules"


def _rule(user_id: str, rule_id: str) -> str:
    return f"{_rules(user_id)}/{segment(rule_id)}"
