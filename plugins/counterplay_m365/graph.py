"""Microsoft Graph: users, inbox rules, and the collections that triggers follow.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from counterplay import (
    BlockedError,
    Context,
    GoneError,
    JsonObject,
    PermanentError,
    RejectedError,
    RetryableError,
    UnavailableError,
    WorkError,
)
from counterplay_m365.answers import content_object
from counterplay_m365.licences import (
    DEFENDER,
    HUNTING,
    PREMIUM_CODE,
    Licence,
    not_activated,
    plans_of,
    refused_for_licence,
)
from counterplay_m365.slices import members
from counterplay_m365.sweeps import Records
from counterplay_m365.tenant import GRAPH, tenant

if TYPE_CHECKING:
    from requests import Response

# Members of an enumeration that are newer than its first version are hidden without this.
_PREFER = {"Prefer": "include-unknown-enum-members"}
MAX_PAGES = 1000
_AUDIT_SEARCH = "AuditLogsQuery.Read.All"


class Graph:
    """A client for the tenant of a context. Users are named by object id or userPrincipalName."""

    def __init__(self, context: Context) -> None:
        self._http = context.http
        self._tenant = tenant(context)
        self._root = self._tenant.graph_url

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

    def records(
        self,
        path: str,
        query: Mapping[str, str],
        what: str,
        *,
        needs: str,
        licence: Licence | None = None,
        version: str = "v1.0",
    ) -> Records:
        """The first page of a collection.

        UnavailableError: the tenant has no licence for it, or never activated the product.
        """
        url = self._url(path, query, version)
        return self.records_at(url, what, needs=needs, licence=licence)

    def records_at(self, link: str, what: str, *, needs: str, licence: Licence | None = None) -> Records:
        """The page at a link that an earlier page gave, which is followed as it is."""
        response = self._send("GET", link, needs=needs, licence=licence)
        return self._page(response, "value", what)

    def hunt(self, kql: str, timespan: str) -> tuple[bytes, ...]:
        """The rows that a KQL query gives for a time span (ISO 8601, `start/end`). It only reads."""
        response = self._send(
            "POST",
            self._url("/security/runHuntingQuery"),
            json={"Query": kql, "Timespan": timespan},
            repeatable=True,
            needs="ThreatHunting.Read.All",
            licence=HUNTING,
        )
        return self._page(response, "results", "rows of a hunting query").records

    def incident(self, incident_id: str) -> bytes:
        """One incident with its alerts, as it was sent. GoneError: there is none."""
        url = self._url(f"/security/incidents/{_segment(incident_id)}", {"$expand": "alerts"})
        return self._send("GET", url, needs="SecurityIncident.Read.All", licence=DEFENDER).content

    def start_audit_search(self, search: JsonObject, version: str) -> str:
        """Start a job that searches the audit log; its id."""
        response = self._send(
            "POST",
            self._url("/security/auditLog/queries", version=version),
            json=search,
            repeatable=True,  # one search too many reads the same events once more
            needs=_AUDIT_SEARCH,
        )
        found = content_object(response, f"{GRAPH}, asked to search the audit log,").get("id")
        if not isinstance(found, str) or not found:
            raise RetryableError(f"{GRAPH}, asked to search the audit log, answered no id")
        return found

    def audit_search_status(self, search_id: str, version: str) -> str:
        """`notStarted`, `running`, `succeeded`, `failed` or `cancelled`. GoneError: there is no such job."""
        url = self._url(f"/security/auditLog/queries/{_segment(search_id)}", version=version)
        response = self._send("GET", url, needs=_AUDIT_SEARCH)
        place = f"{GRAPH}, asked for the state of an audit search,"
        return str(content_object(response, place).get("status") or "notStarted")

    def audit_search_records(self, search_id: str, version: str) -> Records:
        """The first page of what a job found."""
        path = f"/security/auditLog/queries/{_segment(search_id)}/records"
        return self.records(path, {}, "audit records", needs=_AUDIT_SEARCH, version=version)

    def plans(self) -> frozenset[str]:
        """The names of the service plans that the tenant has, as far as `licences.PLANS` knows them."""
        needs = "LicenseAssignment.Read.All"
        return plans_of(self._all(self._url("/subscribedSkus"), "the tenant's subscriptions", needs))

    def verified_domains(self) -> list[str]:
        """The domains that the tenant has proved to own, in lower case; there is always one."""
        needs = "Organization.Read.All or User.Read.All"
        url = self._url("/organization", {"$select": "id,verifiedDomains"})
        found = [
            str(domain["name"]).lower()
            for one in self._all(url, "the organization", needs)
            for domain in one.get("verifiedDomains") or ()
            if isinstance(domain, dict) and domain.get("name")
        ]
        if not found:  # nobody would be inside
            raise RetryableError(f"{GRAPH}, asked for the organization, named no verified domain")
        return found

    def principal_enabled(self, app_id: str) -> bool | None:
        """Whether an app's service principal may be signed in to; None when the tenant has none."""
        query = {"$filter": f"appId eq '{app_id}'", "$select": "id,accountEnabled"}
        url = self._url("/servicePrincipals", query)
        found = self._all(url, "a service principal", "Application.Read.All")
        return found[0].get("accountEnabled") is not False if found else None

    def _page(self, response: Response, member: str, what: str) -> Records:
        place = f"{GRAPH}, asked for {what},"
        found = members(response.content, member)
        if found is None:
            content_object(response, place)  # says what is wrong when it is not JSON at all
            raise RetryableError(f"{place} answered no list of {what}")
        following = content_object(response, place).get("@odata.nextLink")
        return Records(tuple(found), following if isinstance(following, str) and following else None)

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
        licence: Licence | None = None,
        json: Any = None,
        repeatable: bool | None = None,
    ) -> Response:
        try:
            return self._http.request(method, url, json=json, headers=_PREFER, repeatable=repeatable)
        except (BlockedError, RejectedError) as error:
            if not_activated(error.status, error.message):
                raise UnavailableError("Microsoft Defender XDR was never activated in the tenant") from error
            if refused_for_licence(error.status, error.code, error.message):
                raise self._unlicensed(error, licence) from error
            if error.status == 403 and error.hint is None:
                error.hint = f"grant the application permission {needs} with admin consent"
            raise

    def _unlicensed(self, error: WorkError, licence: Licence | None) -> WorkError:
        """A refusal for want of a licence, held against the tenant's plans where the app may read them.

        One code is also given to tenants that have the licence, now and then: alone it counts only
        when it is given for a while.
        """
        name = f"needs {licence.name}" if licence else "needs a licence that the tenant does not have"
        about: dict[str, Any] = {"status": error.status, "code": error.code, "request_id": error.request_id}
        if error.code != PREMIUM_CODE or licence is None:
            return UnavailableError(name, **about)
        try:
            plans = self.plans()
        except WorkError:
            if self._tenant.refused_for_long(licence.name):
                return UnavailableError(name, **about)
            return BlockedError(
                f"{error.message}; perhaps it {name}",
                hint="grant LicenseAssignment.Read.All, with which that can be told at once",
                **about,
            )
        if licence.covered_by(plans):
            return RetryableError(f"{error.message}, though the tenant has a plan for it", **about)
        return UnavailableError(name, **about)

    def _url(self, path: str, query: Mapping[str, str] | None = None, version: str = "v1.0") -> str:
        parameters = f"?{urlencode(query, quote_via=quote, safe='$,:()')}" if query else ""
        return f"{self._root}/{version}{path}{parameters}"


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
