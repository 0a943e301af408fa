"""A user's inbox rules as the actions see them: read once, and judged by what is inside for this user."""

from __future__ import annotations

from functools import cached_property

from counterplay import JsonObject, StepContext
from counterplay_m365 import inbox_rules
from counterplay_m365.mailboxes import FOLDERS, Mailboxes
from counterplay_m365.tenant import GRAPH, tenant

READ_ONLY = (
    "it was made by another client, so Graph neither shows what it does nor changes it: "
    "use Get-InboxRule, Disable-InboxRule and Remove-InboxRule of Exchange Online PowerShell"
)


class Rules:
    """The rules of `arguments["user_id"]`, with the domains that count as inside.

    Those are `arguments["internal_domains"]`, else what the workspace or the tenant says, and in any case the
    domains of the user's own addresses.
    """

    def __init__(self, context: StepContext, arguments: JsonObject) -> None:
        self._context = context
        self.mailboxes = Mailboxes(context)
        self._user_id: str = arguments["user_id"]
        self._stated: list[str] | None = arguments.get("internal_domains")

    def all(self) -> list[JsonObject]:
        """Every rule that Graph shows, as it is now."""
        return self.mailboxes.rules(self._user_id)

    def reasons(self, rule: JsonObject) -> list[str]:
        """What makes a rule suspicious."""
        return inbox_rules.reasons(rule, self._internal, self._folder(rule))

    def picked(self, rule: JsonObject) -> bool:
        """Whether the selector `suspicious` means it: and rules that are on and cannot be judged."""
        unreadable = rule.get("isReadOnly") is True and rule.get("isEnabled") is not False
        return unreadable or bool(self.reasons(rule))

    @property
    def owner(self) -> JsonObject:
        """Whose they are: `{"id", "userPrincipalName"}`."""
        return {name: self._user.get(name) for name in ("id", "userPrincipalName")}

    def _folder(self, rule: JsonObject) -> str | None:
        """The name of the folder that a rule moves mail to, as far as the app may see it."""
        actions = rule.get("actions")
        folder = actions.get("moveToFolder") if isinstance(actions, dict) else None
        return self._folders.get(str(folder), str(folder)) if folder else None

    @cached_property
    def _folders(self) -> dict[str, str]:
        """Names by id: of all folders if the app may read them, else of the archive, which settings tell."""
        if FOLDERS & set(tenant(self._context).granted(GRAPH) or ()):
            return self.mailboxes.folders(self._user_id)
        archive = self.mailboxes.settings(self._user_id).get("archiveFolder")
        return {str(archive): "Archive"} if archive else {}

    @cached_property
    def _user(self) -> JsonObject:
        return self.mailboxes.user(self._user_id, ("id", "userPrincipalName", "mail", "proxyAddresses"))

    @cached_property
    def _internal(self) -> set[str]:
        stated = self._context.internal().get("domains") if self._stated is None else self._stated
        return {str(domain).lower() for domain in stated or ()} | inbox_rules.domains_of(self._user)
