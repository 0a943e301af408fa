"""The connection `m365.tenant`: one app registration in one Microsoft 365 tenant."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from counterplay import (
    CheckResult,
    ConfigError,
    Connection,
    Context,
    CounterplayError,
    Diagnosis,
    JsonObject,
    Limit,
    Need,
    Verdict,
)
from counterplay_m365.clouds import CLOUDS
from counterplay_m365.licences import DEFENDER, not_activated

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from counterplay.modules import SecretSource
    from counterplay_m365.entra import Tokens
    from counterplay_m365.token_cache import SharedCache

GRAPH = "Microsoft Graph"
ACTIVITY = "Management Activity API"
ENDPOINT = "Defender for Endpoint"
#: The services by the names that schemas give their resources.
SERVICES = {GRAPH: GRAPH, "Office 365 Management APIs": ACTIVITY, ENDPOINT: ENDPOINT}
REQUESTS_PER_MINUTE = 2000  #: what the audit feed grants a tenant at least; more with seats and E5
_FOR_LONG = 15 * 60.0
_REMEMBERED = 10_000  # names of users
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Tenant(Connection):
    """One Microsoft 365 tenant, entered as an app registration or as a managed identity.

    The app proves itself by a client secret, a certificate, a federated token (workload identity), or
    is the identity that Azure gave to the machine. One multi-tenant app serves several connections:
    each names its own `tenant_id`, and the app's administrator consent is needed in each.
    Tokens come from Microsoft Entra ID, one for Graph, one for the Management Activity API and, where a
    machine is isolated, one for Defender for Endpoint. They stay in memory, or with `sign_in_cache:
    keyring` in a file that processes share, encrypted with a key that only the system's keyring holds. A
    token goes to the hosts of these services only.
    """

    name = "tenant"
    setup_command = "counterplay_m365.setup:setup"

    def __init__(self, name: str, settings: Mapping[str, Any], secrets: SecretSource | None = None) -> None:
        super().__init__(name, settings, secrets)
        self._tenant = str(settings.get("tenant_id", ""))
        if not _GUID.fullmatch(self._tenant):
            raise ConfigError(
                f"connections.{name}.tenant_id: {self._tenant!r} is not a GUID",
                hint="copy the Directory (tenant) ID of the app registration; a domain name does not do",
            )
        self._tenant = self._tenant.lower()
        cloud = CLOUDS[settings.get("cloud") or "global"]
        self._resources = {GRAPH: cloud.graph, ACTIVITY: cloud.activity, ENDPOINT: cloud.defender}
        self.authority = str(settings.get("authority") or cloud.authority).rstrip("/")
        self.graph_url = str(settings.get("graph_url") or cloud.graph).rstrip("/")
        self.activity_url = str(settings.get("activity_url") or cloud.activity).rstrip("/")
        self.defender_url = str(settings.get("defender_url") or cloud.defender).rstrip("/")
        known = ((GRAPH, self.graph_url), (ACTIVITY, self.activity_url), (ENDPOINT, self.defender_url))
        self._places = tuple((name, url, _origin(url)) for name, url in known if url)
        self._activity_origin = _origin(self.activity_url)
        scale = settings.get("limits_scale")
        self._scale = 1.0 if scale is None else float(scale)
        from counterplay_m365.credentials import credential  # naming the modules has to be quick

        self._credential = credential(name, settings, self.secret)
        self._tokens: Tokens | None = None
        self._refusals: dict[str, tuple[int, float]] = {}
        self._ids: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def tenant(self) -> str:
        """The tenant id, a GUID in lower case."""
        return self._tenant

    @property
    def publisher_id(self) -> str:
        """Whose request quota the audit feed counts against: the tenant's own unless configured."""
        return str(self.settings.get("publisher_id") or self._tenant)

    def own_names(self) -> Collection[str]:
        """The application (client) id, and the object id of its service principal once a token shows it."""
        from counterplay_m365.entra import principal

        own = str(self.settings.get("client_id") or "")
        found = principal(self.token(GRAPH))
        return [name for name in (own, found) if name]

    def internal_domains(self, context: Context) -> Collection[str]:
        """The domains that the tenant has proved to own."""
        from counterplay_m365.graph import Graph

        return Graph(context).verified_domains()

    def origins(self) -> Collection[str]:
        return tuple({origin: None for _, _, origin in self._places})

    def requests_per_minute(self, origin: str) -> float | None:
        if origin != self._activity_origin:
            return None
        return float(self.settings.get("requests_per_minute") or REQUESTS_PER_MINUTE)

    def limits(self, request: PreparedRequest) -> Sequence[Limit]:
        if self._service_of(request.url or "") == ACTIVITY or not self._scale:
            return ()
        from counterplay_m365 import limits

        app = str(self.settings.get("client_id") or self.label)
        path = (request.url or "").removeprefix(self.defender_url).removeprefix(self.graph_url)
        method = request.method or "GET"
        return limits.of(method, path, self._tenant, app, self._scale, self._mailbox)

    def remember(self, user: JsonObject) -> None:
        """Note that one user has an id and a name, so that the mailbox is counted once, whichever is used."""
        identity, name = user.get("id"), user.get("userPrincipalName")
        if not isinstance(identity, str) or not isinstance(name, str):
            return
        with self._lock:
            self._ids.pop(name.lower(), None)
            self._ids[name.lower()] = identity.lower()
            if len(self._ids) > _REMEMBERED:
                del self._ids[next(iter(self._ids))]

    def _mailbox(self, name: str) -> str:
        return self._ids.get(name, name)

    def service(self, origin: str) -> str:
        here = [name for name, _, one in self._places if one == origin]
        named = [name for name in here if name != ENDPOINT] or here  # it may stand behind Graph's host
        return named[0] if len(named) == 1 else "Microsoft 365"

    def ca_file(self) -> str | None:
        path = self.settings.get("ca_file")
        return str(path) if path else None

    def authorize(self, request: PreparedRequest) -> None:
        request.headers["Authorization"] = f"Bearer {self.token(self._service_of(request.url or ''))}"

    def renew(self, response: Response) -> bool:
        verdict = self.classify(response)
        if verdict is not None and verdict.code == "AF10001":
            return False  # a permission is missing, which a new token does not cure
        if verdict is not None and not_activated(response.status_code, verdict.text):
            return False
        self._token_source().forget()
        return True

    def classify(self, response: Response) -> Verdict | None:
        from counterplay_m365 import answers

        if self._service_of(response.url or "") == ACTIVITY:
            return answers.activity(response)
        return answers.graph(response)

    def check(self, context: Context) -> Iterable[CheckResult]:
        """A token for each service, what it may do, the audit subscriptions, and one page of alerts."""
        for service in (GRAPH, ACTIVITY):
            yield from self._check_token(service)
        if self.settings.get("sign_in_cache") == "keyring":
            shared = self._shared_cache()
            said = f"tokens stay in memory: {shared}" if isinstance(shared, str) else "shared, encrypted"
            yield CheckResult("sign-in cache", not isinstance(shared, str), said)
        yield _tried("audit subscriptions", lambda: _subscriptions(context))
        yield _tried("alerts", lambda: _alerts(context))

    def examine(self, context: Context, needs: Sequence[Need]) -> Iterable[Diagnosis]:
        """Sign-in, clock, plans, auditing, and for each need its permissions and licences."""
        from counterplay_m365.doctor import examine

        return examine(self, context, needs)

    def _check_token(self, service: str) -> Iterable[CheckResult]:
        from counterplay_m365.entra import roles

        try:
            carried = roles(self.token(service))
        except CounterplayError as error:
            yield CheckResult(f"token for {service}", False, str(error))
            return
        yield CheckResult(f"token for {service}", True, "granted")
        if carried is None:
            yield CheckResult(f"permissions for {service}", True, "the token does not show them")
            return
        detail = f"granted: {', '.join(carried) or 'none'}; `playbook doctor` tells what playbooks miss"
        yield CheckResult(f"permissions for {service}", bool(carried), detail)

    def granted(self, service: str) -> tuple[str, ...] | None:
        """The permissions that the present token carries for a service; None when they cannot be read."""
        from counterplay_m365.entra import roles

        return roles(self.token(service))

    def token(self, service: str) -> str:
        """The present token for a service; show it to nobody. BlockedError: none is given."""
        return self._token_source().bearer(self._resources[service])

    def token_ages(self) -> Mapping[str, float]:
        with self._lock:
            tokens = self._tokens
        ages = tokens.ages() if tokens is not None else {}
        return {service: ages[resource] for service, resource in self._resources.items() if resource in ages}

    def forget_tokens(self) -> None:
        """The next request asks for a new token: it carries what was granted meanwhile."""
        self._token_source().forget()

    def refused_for_long(self, feature: str) -> bool:
        """Note one more refusal of a feature: were there three, over a quarter of an hour or more?"""
        with self._lock:
            count, since = self._refusals.get(feature, (0, time.monotonic()))
            self._refusals[feature] = (count + 1, since)
            return count >= 2 and time.monotonic() - since >= _FOR_LONG

    def _token_source(self) -> Tokens:
        with self._lock:
            if self._tokens is None:
                from counterplay_m365.entra import Tokens

                shared = self._shared_cache()
                self._tokens = Tokens(
                    connection=self.label,
                    authority=f"{self.authority}/{self._tenant}",
                    client_id=str(self.settings.get("client_id") or ""),
                    credential=self._credential,
                    instance_discovery=bool(self.settings.get("instance_discovery", True)),
                    ca_file=self.ca_file(),
                    shared=None if isinstance(shared, str) else shared,
                )
            return self._tokens

    def _shared_cache(self) -> SharedCache | str:
        """Where tokens are shared with other processes, or why they are not."""
        if self.settings.get("sign_in_cache") != "keyring":
            return "`sign_in_cache` is memory"
        from counterplay.places import find_state_dir
        from counterplay_m365.token_cache import shared_cache

        return shared_cache(find_state_dir() / "tokens" / "m365.cache")

    def _service_of(self, url: str) -> str:
        return _service(self._places, url)


def tenant(context: Context) -> Tenant:
    """The connection that a module of this plugin works with."""
    if not isinstance(context.connection, Tenant):
        raise ConfigError("this module needs a connection of kind m365.tenant")
    return context.connection


@lru_cache(maxsize=512)  # asked several times for each request
def _service(places: tuple[tuple[str, str, str], ...], url: str) -> str:
    """Which service an address belongs to. Several may stand behind one host, so its path tells."""
    origin = _origin(url)
    here = [(name, base) for name, base, one in places if one == origin]
    if len(here) == 1:
        return here[0][0]
    path = url.partition("?")[0].partition("#")[0][len(_beginning(url)) :]
    if "/activity/feed/" in path:
        return ACTIVITY
    inside = [(len(base), name) for name, base in here if url.startswith(f"{base}/") and name != ACTIVITY]
    return max(inside)[1] if inside else GRAPH


def _origin(url: str) -> str:
    return _origin_of(_beginning(url))


def _beginning(url: str) -> str:
    """What stands before the third slash."""
    return "/".join(url.split("/", 3)[:3])


@lru_cache(maxsize=64)
def _origin_of(beginning: str) -> str:
    """Of an address, by what stands before its path: to split whole ones costs more than all else here."""
    parts = urlsplit(beginning)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _tried(name: str, work: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, True, work())
    except CounterplayError as error:
        return CheckResult(name, False, str(error))


def _subscriptions(context: Context) -> str:
    from counterplay_m365.activity import ActivityFeed

    found = ActivityFeed(context).subscriptions()
    return ", ".join(f"{one.content_type} {one.status}" for one in found) or "none started yet"


def _alerts(context: Context) -> str:
    from counterplay_m365.graph import Graph

    page = Graph(context).records(
        "/security/alerts_v2", {"$top": "1"}, "alerts", needs="SecurityAlert.Read.All", licence=DEFENDER
    )
    return "readable, and there are some" if page.records else "readable, and there are none"
