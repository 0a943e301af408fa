"""Tokens from Microsoft Entra ID through MSAL, and its refusals in words."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import requests

from counterplay import BlockedError, RetryableError
from counterplay.verdicts import retry_after
from counterplay_m365.credentials import Certificate, Credential, ManagedIdentity

if TYPE_CHECKING:
    from counterplay_m365.token_cache import SharedCache

_EARLY = 300  # seconds before its end in which MSAL takes a token for expired too
_TIMEOUT = (10.0, 30.0)
_CODE = re.compile(r"AADSTS(\d+)")
_TLS = re.compile(r"\[SSL[^\]]*\] ([^()']+)")
_SCOPE = "report this: the scope must be {resource}/.default"
_CLOUD = "set `cloud` to the one that the tenant lives in"
_CERTIFICATE = "upload the certificate to the app registration"
_FEDERATED = "compare issuer, subject and audience of the federated credential with the token's"
_LISTED = "add the API permission to the app registration and give admin consent"

#: Code: what happened, what to do. https://login.microsoftonline.com/error?code=…
_EXPLAINED: dict[int, tuple[str, str]] = {
    7000215: ("the client secret is wrong", "paste the secret's value, not its ID, into `client_secret`"),
    7000222: ("the client secret has expired", "make a new one in the app registration"),
    7000218: ("no secret and no assertion was sent", "set `client_secret` or another credential"),
    700016: (
        "the app is not known in this tenant",
        "check `client_id` and `tenant_id`, then give consent there",
    ),
    90002: ("the tenant does not exist", "check `tenant_id` and `cloud`"),
    900023: ("the tenant id is malformed", "check `tenant_id`"),
    7000112: ("the app is disabled in this tenant", "enable its service principal"),
    70001: (
        "the app is disabled or unknown in this tenant",
        "check `client_id`, enable its service principal",
    ),
    700027: ("the certificate is not registered", _CERTIFICATE),
    700030: ("the certificate is not valid for this app", _CERTIFICATE),
    700211: ("no federated credential matches the token's issuer", _FEDERATED),
    700212: ("no federated credential matches the token's audience", _FEDERATED),
    700213: ("no federated credential matches the token", _FEDERATED),
    7002131: ("no federated credential matches the token", _FEDERATED),
    700229: ("federation is not supported for this kind of app", "use a certificate"),
    65001: ("consent is missing", "an administrator has to consent to the app's permissions"),
    65004: ("consent was declined", "an administrator has to consent to the app's permissions"),
    90094: ("an administrator has to consent", "open the app registration's API permissions and grant it"),
    650056: ("the app registration lists no such permission", _LISTED),
    650057: ("the app registration lists no such resource", _LISTED),
    500011: (
        "the tenant does not have this service",
        "activate the product, or create its service principal",
    ),
    500014: (
        "the service's principal is disabled in this tenant",
        "Entra ID > Enterprise applications > the service > Properties: enabled for users to sign in; "
        "a lapsed subscription disables it, too",
    ),
    70018: ("the code is not known any more", "run the command again, and enter the new code"),
    70019: ("the code was not entered in time", "run the command again, and enter the new code"),
    70011: ("the scope is wrong", _SCOPE),
    1002012: ("the scope is wrong", _SCOPE),
    9002313: ("the request was malformed", "check `client_id` and `authority`"),
    53003: ("Conditional Access blocks the app", "exclude its workload identity, or this machine's address"),
    530032: ("Conditional Access blocks the app", "exclude its workload identity, or this machine's address"),
    50049: (
        "the authority is not one that Microsoft knows",
        "set `instance_discovery: false` for a private one",
    ),
    50196: ("the app asks for tokens in a loop", "stop other copies that run with the same app"),
    90038: ("the tenant lives in another national cloud", _CLOUD),
    900382: ("the tenant lives in another national cloud", _CLOUD),
    900432: ("the tenant lives in another national cloud", _CLOUD),
}
CURED_BY_CONSENT = frozenset(
    f"AADSTS{code}" for code in (700016, 65001, 65004, 90094, 650056, 650057, 500011, 500014, 7000112, 70001)
)
"""What an administrator's consent or switch in the tenant ends; the app itself is as it should be."""
NOT_YET_KNOWN = frozenset(f"AADSTS{code}" for code in (700027, 700211, 700213, 7002131))
"""What a credential that was just registered meets until all of Entra ID knows it."""
_PASSING = frozenset({90033, 90055})  # a temporary fault, and a rate limit, whatever their status


class Tokens:
    """Access tokens of one app in one tenant, kept in memory until shortly before they expire.

    Safe for threads. The credential is read whenever a new token is needed, so that a rotated one is
    picked up; it may raise ConfigError or BlockedError. With `shared`, other processes' tokens are
    used too.
    """

    def __init__(
        self,
        *,
        connection: str,
        authority: str,
        client_id: str,
        credential: Credential,
        instance_discovery: bool = True,
        ca_file: str | None = None,
        shared: SharedCache | None = None,
    ) -> None:
        self._authority = authority
        self._client_id = client_id
        self._credential = credential
        self._instance_discovery = instance_discovery
        self._http = _EntraSession(connection, ca_file)
        self._shared = shared
        self._caches: dict[str, Any] = {}
        self._ready: dict[str, tuple[str, float]] = {}
        self._given: dict[str, float] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def bearer(self, resource: str) -> str:
        """A valid access token for everything that was granted on this resource.

        BlockedError: Entra ID refuses the app, with the code explained. RetryableError: it cannot be
        reached, or has a passing fault.
        """
        with self._lock:
            token, until = self._ready.get(resource, ("", 0.0))
            if time.monotonic() < until:
                return token
            answer = self._acquired(resource)
            token = str(answer.get("access_token") or "")
            if not token:
                raise self._http.refused(200, json.dumps(answer))
            self._given[resource] = time.monotonic()
            self._ready[resource] = (token, self._given[resource] + int(answer.get("expires_in", 0)) - _EARLY)
            return token

    def ages(self) -> dict[str, float]:
        """Seconds since each token in use was given to this process, by resource."""
        with self._lock:
            return {resource: time.monotonic() - self._given[resource] for resource in self._ready}

    def forget(self) -> None:
        """Drop every token, so that the next request asks for a new one."""
        with self._lock:
            self._refused.update(token for token, _ in self._ready.values())
            self._caches.clear()
            self._ready.clear()

    def _acquired(self, resource: str) -> Any:
        if self._shared is None:
            return self._asked(resource, self._memory())
        with self._shared.locked() as cache:
            found = self._asked(resource, cache)
            if found.get("access_token") not in self._refused:
                return found
            for entry in list(cache.search(cache.CredentialType.ACCESS_TOKEN)):
                if entry["secret"] in self._refused:
                    cache.remove_at(entry)
            return self._asked(resource, cache)

    def _memory(self) -> Any:
        """The cache of this process; a credential that was replaced makes the older one useless."""
        from msal import TokenCache  # type: ignore[import-untyped]  # it has no types

        key = self._credential.fingerprint()
        if key not in self._caches:
            self._caches = {key: TokenCache()}
        return self._caches[key]

    def _asked(self, resource: str, cache: Any) -> Any:
        """MSAL's answer: from the cache, else from Entra ID."""
        from msal import ConfidentialClientApplication, ManagedIdentityClient

        proof = self._credential.for_msal()
        if isinstance(self._credential, ManagedIdentity):
            machine = ManagedIdentityClient(proof, http_client=self._http, token_cache=cache)
            return machine.acquire_token_for_client(resource=resource)
        try:
            app = ConfidentialClientApplication(
                self._client_id,
                client_credential=proof,
                authority=self._authority,
                instance_discovery=self._instance_discovery,
                http_client=self._http,
                token_cache=cache,
            )
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(self._credential, Certificate):
                raise BlockedError(
                    f"{self._credential.file} cannot be used as a certificate: {error}",
                    hint="check the file, and `certificate_passphrase` if it is encrypted",
                ) from error
            raise BlockedError(
                f"{self._authority} does not describe itself as an authority of Microsoft Entra ID",
                hint="check `authority`, and set `instance_discovery: false` for a private one",
            ) from error
        return app.acquire_token_for_client(scopes=[f"{resource}/.default"])


def roles(token: str) -> tuple[str, ...] | None:
    """The application permissions that a token carries; None when its format cannot be read.

    For diagnosis only: Microsoft calls the format opaque.
    """
    try:
        return tuple(sorted(str(role) for role in claims(token).get("roles", ())))
    except (IndexError, ValueError, AttributeError, TypeError):
        return None


def principal(token: str) -> str | None:
    """The object id of the service principal that a token was given to; None when it cannot be read."""
    try:
        found = claims(token).get("oid")
    except (IndexError, ValueError, AttributeError, TypeError):
        return None
    return found if isinstance(found, str) else None


def claims(token: str) -> Any:
    """What a token says of itself, unchecked. IndexError, ValueError: it is no JWT."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def entra_session(connection: str, ca_file: str | None) -> _EntraSession:
    """A session for a sign-in that MSAL waits for: a 400 says that it is still pending, and is MSAL's."""
    return _EntraSession(connection, ca_file, waits=True)


class _EntraSession(requests.Session):
    """The session that MSAL sends with: it sees successful answers only, all others raise our errors."""

    def __init__(self, connection: str, ca_file: str | None, waits: bool = False) -> None:
        super().__init__()
        self._waits = waits
        self._connection = connection
        self._ca_file = ca_file
        self.headers["Connection"] = "close"  # a token an hour is no reason to keep a socket

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        options.update(timeout=_TIMEOUT, allow_redirects=False)
        if self._ca_file:
            options["verify"] = self._ca_file  # else REQUESTS_CA_BUNDLE would win
        try:
            response = super().request(method, url, *args, **options)
        except requests.exceptions.SSLError as error:
            said = _TLS.search(str(error))
            raise BlockedError(
                f"no TLS connection to Microsoft Entra ID at {_host(url)}: "
                f"{said[1].strip() if said else 'the handshake failed'}",
                hint="check `authority` and the certificate authorities (`ca_file`)",
            ) from error
        except requests.exceptions.RequestException as error:
            raise RetryableError(
                f"no answer from Microsoft Entra ID at {_host(url)}: {type(error).__name__}"
            ) from error
        if response.status_code >= 300 and not (self._waits and response.status_code == 400):
            raise self.refused(response.status_code, response.text, retry_after(response))
        try:
            response.json()
        except ValueError as error:
            raise RetryableError(
                f"Microsoft Entra ID at {_host(url)} answered {response.status_code} with something "
                "that is not JSON",
                status=response.status_code,
            ) from error
        return response

    def refused(self, status: int, text: str, after: float | None = None) -> BlockedError | RetryableError:
        """The error for an answer that is no token."""
        try:
            body = json.loads(text)
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        match = _CODE.search(text)
        codes = [code for code in body.get("error_codes") or () if isinstance(code, int)]
        code = codes[0] if codes else int(match[1]) if match else 0
        about: dict[str, Any] = {
            "status": status,
            "code": f"AADSTS{code}" if code else None,
            "request_id": body.get("trace_id") or body.get("correlation_id"),
        }
        said = str(body.get("error_description") or body.get("error") or "").splitlines()
        if status >= 500 or status in (408, 429) or code in _PASSING:
            return RetryableError(
                f"Microsoft Entra ID answered {status}{f' AADSTS{code}' if code else ''}",
                retry_after=after,
                **about,
            )
        if code not in _EXPLAINED:
            return BlockedError(
                f"Microsoft Entra ID gave no token for {self._connection!r}: {said[0] if said else status}",
                hint=f"https://login.microsoftonline.com/error?code={code}" if code else "check `authority`",
                **about,
            )
        fact, advice = _EXPLAINED[code]
        return BlockedError(
            f"Microsoft Entra ID gave no token for {self._connection!r}: AADSTS{code}: {fact}",
            hint=advice,
            **about,
        )


def _host(url: object) -> str:
    return str(url).partition("://")[2].partition("/")[0]
