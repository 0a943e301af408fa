"""What a tenant would refuse, and why: sign-in, permissions, licences, audit log, clock.

What the plans of `subscribedSkus` predict is confirmed by one cheap request for each feed, and both are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from counterplay import (
    BlockedError,
    Context,
    CounterplayError,
    Diagnosis,
    Need,
    RejectedError,
    UnavailableError,
    Verdict,
    WorkError,
)
from counterplay_m365 import times
from counterplay_m365.activity import ActivityFeed
from counterplay_m365.graph import Graph
from counterplay_m365.own_roles import own_roles
from counterplay_m365.tenant import ACTIVITY, ENDPOINT, GRAPH, SERVICES, Tenant

if TYPE_CHECKING:
    from requests import Response

MOST_SKEW = timedelta(minutes=5)
"""Beyond this tokens are refused, and windows are out of reach."""
_MANAGEMENT_APP = "c5393580-f805-4401-95e8-94b7a6ef2fc2"
_NOT_STARTED = (
    "no subscription is started yet; the first run starts them, and first data may take up to 12 hours"
)
_READ_ROLES = f"{GRAPH}: RoleManagement.Read.Directory"
_READ_APPS = frozenset({"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All"})


def examine(connection: Tenant, context: Context, needs: Sequence[Need]) -> Iterator[Diagnosis]:
    """One line for each thing that was looked at, then one for each need."""
    services = _services(needs)
    granted: dict[str, tuple[str, ...] | None] = {}
    signed_in: dict[str, str] = {}
    for service in services:
        try:
            granted[service] = connection.granted(service)
            yield Diagnosis(f"sign-in to {service}", True, "a token was given")
        except CounterplayError as error:
            signed_in[service] = str(error)
            yield Diagnosis(f"sign-in to {service}", False, str(error))
    if granted:
        yield _clock(connection, context, next(iter(granted)))
    plans: frozenset[str] | None = None
    if GRAPH in granted and any(need.licences for need in needs):
        try:
            plans = Graph(context).plans()
            yield Diagnosis("licences", True, ", ".join(sorted(plans)) or "no plan that is known here")
        except WorkError as error:
            detail = f"the tenant's plans cannot be read, so each feed is tried instead: {error}"
            yield Diagnosis("licences", None, detail)
    if ACTIVITY in granted:
        yield _auditing(context)
    if ACTIVITY in services and granted:
        yield _principal(context, granted)
    found = _Found(granted, signed_in, plans, None)
    if GRAPH in granted and any(need.roles for need in needs):
        try:
            found.roles = own_roles(context)
        except WorkError as error:
            detail = f"the app's own roles in Entra ID cannot be read: {error}"
            yield Diagnosis("roles of the app", None, detail, (_READ_ROLES,))
        else:
            said = ", ".join(sorted(found.roles or ())) or "none that is known here"
            yield Diagnosis("roles of the app", True, said)
    for need in needs:
        yield replace(_need(context, need, found), need=need)


@dataclass(slots=True)
class _Found:
    """What was found out: permissions and refusals by service, plans and roles; None for not known."""

    granted: Mapping[str, tuple[str, ...] | None]
    signed_in: Mapping[str, str]
    plans: frozenset[str] | None
    roles: frozenset[str] | None


def _services(needs: Iterable[Need]) -> list[str]:
    found = {_service(permission) for need in needs for permission in need.permissions}
    return [service for service in (GRAPH, ACTIVITY, ENDPOINT) if service in found] or [GRAPH]


def _service(permission: Mapping[str, Any]) -> str:
    return SERVICES[permission["resource"]]


def _need(context: Context, need: Need, found: _Found) -> Diagnosis:
    missing: list[str] = []
    grant: list[str] = []
    for permission in need.permissions:
        service = _service(permission)
        if service in found.signed_in:
            return Diagnosis(need.uses, False, f"no sign-in to {service}")
        carried = found.granted.get(service)
        if carried is not None and not set(permission["any"]) & set(carried):
            missing.append(f"{permission['any'][0]} for {permission['for']}")
            grant.append(f"{permission['resource']}: {permission['any'][0]}")
    if missing:
        return Diagnosis(need.uses, False, f"the permission is missing: {'; '.join(missing)}", tuple(grant))
    plans = found.plans
    unbought = [one for one in need.licences if plans is not None and not set(one["any"]) & plans]
    lacking = [one["name"] for one in unbought if not one.get("optional")]
    told = _with_roles(_tried(context, need, lacking, plans), need, found.roles)
    more = [f"{one['name']} would add {one['for']}" for one in unbought if one.get("optional")]
    return replace(told, detail="; ".join([told.detail, *more])) if told.ok else told


def _with_roles(one: Diagnosis, need: Need, held: frozenset[str] | None) -> Diagnosis:
    """What the roles of the app itself make of a need that is well otherwise."""
    lacking = [role for role in need.roles if held is None or not set(role["any"]) & held]
    if one.ok is not True or not lacking:
        return one
    always = [role for role in lacking if role["always"]]
    told = "; ".join(f"{' or '.join(role['any'])} for {role['for']}" for role in always or lacking)
    grant = tuple(f"Entra ID role: {role['any'][0]}" for role in always)
    if held is None:
        unsure = f"whether the app holds a role is not known, and it takes one: {told}"
        return Diagnosis(need.uses, None if always else True, f"{one.detail}; {unsure}", grant)
    if always:
        return Diagnosis(need.uses, False, f"the app holds no role that it takes: {told}", grant)
    without = "; ".join(f"not for {role['for']}: that takes the role {role['any'][0]}" for role in lacking)
    return Diagnosis(need.uses, True, f"{one.detail}; {without}")


def _tried(context: Context, need: Need, lacking: Sequence[str], plans: frozenset[str] | None) -> Diagnosis:
    """The licences confirmed by one request, where there is one that changes nothing and costs little."""
    from counterplay_m365.probes import probe

    attempt = probe(need)
    if attempt is None:
        if lacking:
            return Diagnosis(need.uses, False, f"unavailable: needs {' and '.join(lacking)}")
        return Diagnosis(need.uses, True, "permitted" if need.permissions else "")
    try:
        attempt(context)
    except UnavailableError as error:
        return Diagnosis(need.uses, False, f"unavailable: {error}{_remedy(error, need, lacking, plans)}")
    except (BlockedError, RejectedError) as error:
        return Diagnosis(need.uses, False, str(error))
    except WorkError as error:
        return Diagnosis(need.uses, None, f"it could not be tried: {error}")
    if lacking:
        return Diagnosis(need.uses, True, f"works, though {' and '.join(lacking)} is not among the plans")
    return Diagnosis(need.uses, True, "works")


def _remedy(error: UnavailableError, need: Need, lacking: Sequence[str], plans: frozenset[str] | None) -> str:
    """What would bring a feed that is not offered: a licence, or setting up what was bought."""
    if plans is None or not need.licences:
        return ""
    if not lacking:
        return f" (bought: {_bought(need, plans)}; is it set up?)"
    missing = [name for name in lacking if name not in error.message]
    return f"; needs {' and '.join(missing)}" if missing else ""


def _bought(need: Need, plans: frozenset[str] | None) -> str:
    wanted = {name for licence in need.licences for name in licence["any"]}
    return ", ".join(sorted(wanted & (plans or frozenset())))


def _clock(connection: Tenant, context: Context, service: str) -> Diagnosis:
    """This machine's clock against a service's, as its answers tell the time, refusals too."""
    url = {
        GRAPH: f"{connection.graph_url}/v1.0/organization?$select=id",
        ACTIVITY: ActivityFeed(context).subscriptions_url,
        ENDPOINT: f"{connection.defender_url}/api/machines?$top=1",
    }[service]
    try:
        response: Response = context.http.request("GET", url, classify=lambda _: Verdict("ok"))
    except WorkError as error:
        return Diagnosis("clock", False, f"{service} cannot be reached: {error}")
    skew = times.skew(response.headers.get("Date"))
    if skew is None:
        return Diagnosis("clock", None, f"{service} does not tell the time")
    if abs(skew) > MOST_SKEW:
        side = "ahead of" if skew > timedelta(0) else "behind"
        return Diagnosis(
            "clock",
            False,
            f"this machine's clock is {abs(skew).total_seconds():.0f} s {side} that of {service}; "
            "set it right",
        )
    return Diagnosis("clock", True, "agrees with the service's")


def _auditing(context: Context) -> Diagnosis:
    """Is the audit log on? A listing says so when it is not."""
    feed = ActivityFeed(context)
    try:
        started = [one for one in feed.subscriptions() if one.status == "enabled"]
        if started:
            now = context.now()
            list(feed.listing(started[0].content_type, now - timedelta(minutes=5), now))
    except WorkError as error:
        return Diagnosis("audit log", False, str(error))
    if not started:
        return Diagnosis("audit log", True, _NOT_STARTED)
    names = ", ".join(one.content_type for one in started)
    return Diagnosis("audit log", True, f"on; subscriptions that are started: {names}")


def _principal(context: Context, granted: Mapping[str, tuple[str, ...] | None]) -> Diagnosis:
    """Is the Management API's own service principal enabled for sign-in in the tenant?

    Entra ID gives no token for one that is not (AADSTS500014), so a token says it where reading is not
    permitted.
    """
    about = "Office 365 Management APIs"
    permissions = granted.get(GRAPH)
    if GRAPH not in granted or (permissions is not None and not _READ_APPS & set(permissions)):
        if ACTIVITY in granted:
            return Diagnosis(about, True, "enabled for sign-in, as a token for it was given")
        detail = "whether its service principal is enabled is not known: that takes Application.Read.All"
        return Diagnosis(about, None, detail)
    try:
        enabled = Graph(context).principal_enabled(_MANAGEMENT_APP)
    except WorkError as error:
        return Diagnosis(about, None, f"its service principal cannot be read: {error}")
    if enabled is None:
        return Diagnosis(about, False, "the tenant has no service principal of it; give consent to create it")
    if not enabled:
        return Diagnosis(about, False, "its service principal is disabled; enable it for users to sign in")
    return Diagnosis(about, True, "enabled for sign-in")
