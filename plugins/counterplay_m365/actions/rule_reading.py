"""A user's inbox rules as the actions see them: read once, and judged by what is inside for this user."""

from __future__ import annotations

from functools import cached_property

from counterplay import Context, JsonObject
from counterplay_m365 import inbox_rules
from counterplay_m365.graph import Graph


class Rules:
    """The rules of `arguments["user_id"]`, with the domains that count as inside."""

    def __init__(self, context: Context, arguments: JsonObject) -> None:
        self._graph = Graph(context)
        self._user_id: str = arguments["user_id"]
        self._stated = {str(domain).lower() for domain in arguments.get("internal_domains") or ()}

    def all(self) -> list[JsonObject]:
        """Every rule that Graph shows, as it is now."""
        return self._graph.inbox_rules(self._user_id)

    def reasons(self, rule: JsonObject) -> list[str]:
        """What makes a rule suspicious."""
        return inbox_rules.reasons(rule, self._internal)

    def switch(self, rule_id: str, enabled: bool) -> None:
        """Switch a rule on or off. GoneError: it does not exist any more."""
        self._graph.set_inbox_rule(self._user_id, rule_id, enabled)

    @property
    def owner(self) -> JsonObject:
        """Whose rules they are: `{"id", "userPrincipalName"}`."""
        return {name: self._user.get(name) for name in ("id", "userPrincipalName")}

    @cached_property
    def _user(self) -> JsonObject:
        return self._graph.user(self._user_id, ("id", "userPrincipalName", "mail", "proxyAddresses"))

    @cached_property
    def _internal(self) -> set[str]:
        return self._stated | inbox_rules.domains_of(self._user)
