"""Microsoft Graph v1.0: users, inbox rules and alerts.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from counterplay import BlockedError, Context, GoneError, JsonObject, PermanentError, RetryableError
from counterplay_m365.answers import content_object
from counterplay_m365.slices import members
from counterplay_m365.tenant import GRAPH, tenant

if TYPE_CHECKING:
    from requests import Response

# Members of an enumeration that are newer than its first version are hidden without this.
_PREFER = {"Prefer": "include-unknown-enum-members"}
MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts as the bytes that Graph sent, and the address of the next page."""

    alerts: tuple[bytes, ...]
    next_link: str | None


class Graph:
    """A client for the tenant of a context. Users are named by object id or userPrincipalName."""

    def __init__(self, context: Context) -> None:
        self._http = context.http
        self._root = f"{tenant(context).graph_url}/v1.0"

    def user(self, user_id: str, select: tuple[str, ...]) -> JsonObject:
        """The chosen properties of a user. GoneError: there is none."""
        url = self._url(_user(user_id), {"$select": ",".join(select)})
        response = self._of_user(user_id, "GET", url, needs="User.Read.All")
        return content_object(response, f"{GRAPH}, asked for the user {user_id!r},")

    def set_sign_in(self, user_id: str, enabled: bool) -> None:
        """Let a user sign in, or not."""
        self._of_user(
            user_id,
            "PATCH",
            self._url(_user(user_id)),
            json={"accountEnabled": enabled},
            needs="User.EnableDisableAccount.All",
        )

    def revoke_sessions(self, user_id: str) -> bool:
        """Invalidate a user's refresh tokens; whether Graph confirmed it. Repeating it is harmless."""
        url = self._url(f"{_user(user_id)}/revokeSignInSessions")
        response = self._of_user(user_id, "POST", url, repeatable=True, needs="User.RevokeSessions.All")
        if not response.content.strip():  # the status of success differs, and not each has a body
            return False
        answer = content_object(response, f"{GRAPH}, asked to revoke the sessions of {user_id!r},")
        return answer.get("value") is True

    def inbox_rules(self, user_id: str) -> list[JsonObject]:
        """All rules of a user's inbox that Graph shows. GoneError: no user, or no mailbox in the cloud."""
        address: str | None = self._url(_rules(user_id))
        rules: list[JsonObject] = []
        seen: set[str] = set()
        place = f"{GRAPH}, asked for the inbox rules of {user_id!r},"
        while address is not None:
            if address in seen or len(seen) == MAX_PAGES:
                raise RetryableError(f"{place} answered pages without an end")
            seen.add(address)
            response = self._of_user(user_id, "GET", address, needs="MailboxSettings.Read")
            page = content_object(response, place)
            found = page.get("value")
            if not isinstance(found, list) or not all(map(_identified, found)):
                raise RetryableError(f"{place} answered no list of rules")
            rules += found
            address = page.get("@odata.nextLink")
        return rules

    def set_inbox_rule(self, user_id: str, rule_id: str, enabled: bool) -> None:
        """Switch one rule on or off. GoneError: it does not exist any more."""
        url = self._url(f"{_rules(user_id)}/{_segment(rule_id)}")
        self._send("PATCH", url, json={"isEnabled": enabled}, needs="MailboxSettings.ReadWrite")

    def role_members(self, template_id: str) -> list[JsonObject]:
        """Who holds a directory role, of any kind: `{"id", "accountEnabled", "userPrincipalName"}` each.

        Empty when the role was never activated in the tenant.
        """
        needs = "RoleManagement.Read.Directory"
        query = {"$filter": f"roleTemplateId eq '{template_id}'", "$select": "id"}
        roles = self._all(self._url("/directoryRoles", query), "directory roles", needs)
        members: list[JsonObject] = []
        for role in roles:
            query = {"$select": "id,accountEnabled,userPrincipalName"}
            url = self._url(f"/directoryRoles/{_segment(role['id'])}/members", query)
            members += self._all(url, "members of a role", needs)
        return members

    def _all(self, address: str | None, what: str, needs: str) -> list[JsonObject]:
        """Every object of a list, over all its pages."""
        found: list[JsonObject] = []
        seen: set[str] = set()
        place = f"{GRAPH}, asked for {what},"
        while address is not None:
            if address in seen or len(seen) == MAX_PAGES:
                raise RetryableError(f"{place} answered pages without an end")
            seen.add(address)
            page = content_object(self._send("GET", address, needs=needs), place)
            objects = page.get("value")
            if not isinstance(objects, list) or not all(map(_identified, objects)):
                raise RetryableError(f"{place} answered no list")
            found += objects
            address = page.get("@odata.nextLink")
        return found

    def alerts(self, condition: str | None, page_size: int) -> AlertPage:
        """The first page of the alerts that an OData `$filter` selects, or of all."""
        query = (
            {"$top": str(page_size)} if condition is None else {"$filter": condition, "$top": str(page_size)}
        )
        return self.alerts_at(self._url("/security/alerts_v2", query))

    def alerts_at(self, next_link: str) -> AlertPage:
        """The page at a link that an earlier page gave, which is followed as it is."""
        response = self._send("GET", next_link, needs="SecurityAlert.Read.All")
        place = f"{GRAPH}, asked for alerts,"
        alerts = members(response.content, "value")
        if alerts is None:
            content_object(response, place)  # says what is wrong when it is not JSON at all
            raise RetryableError(f"{place} answered no list of alerts")
        following = content_object(response, place).get("@odata.nextLink")
        return AlertPage(tuple(alerts), following if isinstance(following, str) and following else None)

    def _of_user(self, user_id: str, method: str, url: str, **options: Any) -> Response:
        try:
            return self._send(method, url, **options)
        except GoneError as error:
            if error.code == "MailboxNotEnabledForRESTAPI":
                what = f"the user {user_id!r} has no mailbox in Exchange Online"
            else:
                what = f"no user {user_id!r} in the tenant"
            raise GoneError(
                f"{what}: {error.message}",
                status=error.status,
                code=error.code,
                request_id=error.request_id,
            ) from error

    def _send(
        self,
        method: str,
        url: str,
        *,
        needs: str,
        json: Any = None,
        repeatable: bool | None = None,
    ) -> Response:
        try:
            return self._http.request(method, url, json=json, headers=_PREFER, repeatable=repeatable)
        except BlockedError as error:
            if error.status == 403 and error.hint is None:
                error.hint = f"grant the application permission {needs} with admin consent"
            raise

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        parameters = f"?{urlencode(query, quote_via=quote, safe='$,:()')}" if query else ""
        return f"{self._root}{path}{parameters}"


def _identified(rule: object) -> bool:
    return isinstance(rule, dict) and isinstance(rule.get("id"), str)


def _segment(identity: str) -> str:
    """One part of a path: `#EXT#` in the name of a guest, `=` and `/` in the id of a rule."""
    if identity.strip(".") == "":
        raise PermanentError(f"{identity!r} cannot be the id of anything")
    return quote(identity, safe="")


def _user(user_id: str) -> str:
    if user_id.startswith("$"):  # only this form takes such a name
        return "/users('" + quote(user_id.replace("'", "''"), safe="") + "')"
    return f"/users/{_segment(user_id)}"


def _rules(user_id: str) -> str:
    return f"{_user(user_id)}/mailFolders/inbox/messageRules"
