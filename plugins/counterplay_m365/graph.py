"""Microsoft Graph: users, and the collections that triggers follow. Its parts have modules of their own.

https://learn.microsoft.com/graph/api/overview
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        url = self._url(user_path(user_id), {"$select": ",".join(select)})
        response = self._of_user(user_id, "GET", url, needs="User.Read.All")
        found = content_object(response, f"{GRAPH}, asked for the user {user_id!r},")
        self._tenant.remember({"userPrincipalName": user_id, **found} if "@" in user_id else found)
        return found

    def object_id(self, user_id: str) -> str:
        """The object id of a user, for calls that take no name. GoneError: there is no such user."""
        return str(self.user(user_id, ("id",))["id"])

    def set_user(self, user_id: str, values: JsonObject, *, needs: str) -> None:
        """Change properties of a user."""
        self._of_user(user_id, "PATCH", self._url(user_path(user_id)), json=values, needs=needs)

    def revoke_sessions(self, user_id: str) -> bool:
        """Invalidate a user's refresh tokens; whether Graph confirmed it. Repeating it is harmless."""
        url = self._url(f"{user_path(user_id)}/revokeSignInSessions")
        response = self._of_user(user_id, "POST", url, repeatable=True, needs="User.RevokeSessions.All")
        if not response.content.strip():  # the status of success differs, and not each has a body
            return False
        answer = content_object(response, f"{GRAPH}, asked to revoke the sessions of {user_id!r},")
        return answer.get("value") is True

    def role_members(self, template_id: str) -> list[JsonObject]:
        """Who holds a directory role, of any kind: `{"id", "accountEnabled", "userPrincipalName"}` each.

        Empty when the role was never activated in the tenant.
        """
        needs = "RoleManagement.Read.Directory"
        query = {"$filter": f"roleTemplateId eq '{template_id}'", "$select": "id"}
        roles = self.every("/directoryRoles", "directory roles", query, needs=needs)
        members: list[JsonObject] = []
        for role in roles:
            query = {"$select": "id,accountEnabled,userPrincipalName"}
            path = f"/directoryRoles/{segment(role['id'])}/members"
            members += self.every(path, "members of a role", query, needs=needs)
        return members

    def one(
        self,
        path: str,
        what: str,
        query: Mapping[str, str] | None = None,
        *,
        needs: str,
        licence: Licence | None = None,
    ) -> JsonObject:
        """One object, which `what` names in messages. GoneError: there is none."""
        response = self._named(what, "GET", self._url(path, query), needs=needs, licence=licence)
        return content_object(response, f"{GRAPH}, asked for {what},")

    def every(
        self, path: str, what: str, query: Mapping[str, str] | None = None, *, needs: str
    ) -> list[JsonObject]:
        """Every object of a list, over all its pages."""
        found: list[JsonObject] = []
        for page in self._pages(self._url(path, query), what, needs):
            found += page
        return found

    def first(
        self, path: str, what: str, query: Mapping[str, str], most: int, *, needs: str, licence: Licence
    ) -> tuple[list[JsonObject], bool]:
        """The first objects of a list, and whether that is all of it."""
        found: list[JsonObject] = []
        for page in self._pages(self._url(path, query), what, needs, licence):
            found += page
            if len(found) > most:
                return found[:most], False
        return found, True

    def write(
        self,
        method: str,
        path: str,
        what: str,
        values: JsonObject | None = None,
        *,
        needs: str,
        licence: Licence | None = None,
        repeatable: bool | None = None,
    ) -> JsonObject:
        """Change `what`; the object that Graph answers with, if any. GoneError: it does not exist."""
        response = self._named(
            what,
            method,
            self._url(path),
            json=values,
            needs=needs,
            licence=licence,
            repeatable=repeatable,
        )
        if not response.content.strip():
            return {}
        return content_object(response, f"{GRAPH}, asked to change {what},")

    def _named(self, what: str, method: str, url: str, **options: Any) -> Response:
        try:
            return self._send(method, url, **options)
        except GoneError as error:
            raise _gone(f"{what} does not exist", error) from error

    def _pages(
        self, address: str | None, what: str, needs: str, licence: Licence | None = None
    ) -> Iterator[list[JsonObject]]:
        seen: set[str] = set()
        place = f"{GRAPH}, asked for {what},"
        while address is not None:
            if address in seen or len(seen) == MAX_PAGES:
                raise RetryableError(f"{place} answered pages without an end")
            seen.add(address)
            response = self._named(what, "GET", address, needs=needs, licence=licence)
            page = content_object(response, place)
            objects = page.get("value")
            if not isinstance(objects, list) or not all(map(_identified, objects)):
                raise RetryableError(f"{place} answered no list")
            yield objects
            address = page.get("@odata.nextLink")

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
            reads=True,
            needs="ThreatHunting.Read.All",
            licence=HUNTING,
        )
        return self._page(response, "results", "rows of a hunting query").records

    def incident(self, incident_id: str) -> bytes:
        """One incident with its alerts, as it was sent. GoneError: there is none."""
        url = self._url(f"/security/incidents/{segment(incident_id)}", {"$expand": "alerts"})
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

    def audit_search_status(self, search_id: str, version: str) -> tuple[str, bool]:
        """`notstarted`, `running`, `succeeded`, `failed` or `cancelled`, and whether records were left out.

        GoneError: there is no such job.
        """
        url = self._url(f"/security/auditLog/queries/{segment(search_id)}", version=version)
        response = self._send("GET", url, needs=_AUDIT_SEARCH)
        place = f"{GRAPH}, asked for the state of an audit search,"
        found = content_object(response, place)
        cut = found.get("isRecordCountLimitExceeded") is True
        return str(found.get("status") or "notStarted").lower(), cut

    def audit_search_records(self, search_id: str, version: str) -> Records:
        """The first page of what a job found."""
        path = f"/security/auditLog/queries/{segment(search_id)}/records"
        return self.records(path, {}, "audit records", needs=_AUDIT_SEARCH, version=version)

    def plans(self) -> frozenset[str]:
        """The names of the service plans that the tenant has, as far as `licences.PLANS` knows them."""
        needs = "LicenseAssignment.Read.All"
        return plans_of(self.every("/subscribedSkus", "the tenant's subscriptions", needs=needs))

    def verified_domains(self) -> list[str]:
        """The domains that the tenant has proved to own, in lower case; there is always one."""
        needs = "Organization.Read.All or User.Read.All"
        query = {"$select": "id,verifiedDomains"}
        found = [
            str(domain["name"]).lower()
            for one in self.every("/organization", "the organization", query, needs=needs)
            for domain in one.get("verifiedDomains") or ()
            if isinstance(domain, dict) and domain.get("name")
        ]
        if not found:  # nobody would be inside
            raise RetryableError(f"{GRAPH}, asked for the organization, named no verified domain")
        return found

    def principal_enabled(self, app_id: str) -> bool | None:
        """Whether an app's service principal may be signed in to; None when the tenant has none."""
        query = {"$filter": f"appId eq '{app_id}'", "$select": "id,accountEnabled"}
        needs = "Application.Read.All"
        found = self.every("/servicePrincipals", "a service principal", query, needs=needs)
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
            raise _gone(f"no user {user_id!r} in the tenant", error) from error

    def _send(
        self,
        method: str,
        url: str,
        *,
        needs: str,
        licence: Licence | None = None,
        json: Any = None,
        repeatable: bool | None = None,
        reads: bool = False,
    ) -> Response:
        try:
            return self._http.request(
                method, url, json=json, headers=_PREFER, repeatable=repeatable, reads=reads
            )
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


def _identified(one: object) -> bool:
    return isinstance(one, dict) and isinstance(one.get("id"), str)


def _gone(what: str, error: GoneError) -> GoneError:
    """The same, with what it is about in front: Graph names objects by ids, if at all."""
    return GoneError(
        f"{what}: {error.message}", status=error.status, code=error.code, request_id=error.request_id
    )


def segment(identity: str) -> str:
    """One part of a path: `#EXT#` in the name of a guest, `=` and `/` in the id of a rule."""
    if identity.strip(".") == "":
        raise PermanentError(f"{identity!r} cannot be the id of anything")
    return quote(identity, safe="")


def user_path(user_id: str) -> str:
    """The path of a user, by object id or userPrincipalName."""
    if user_id.startswith("$"):  # only this form takes such a name
        return "/users('" + quote(user_id.replace("'", "''"), safe="") + "')"
    return f"/users/{segment(user_id)}"


def literal(text: str) -> str:
    """A text as OData writes it in a filter."""
    return "'" + text.replace("'", "''") + "'"
