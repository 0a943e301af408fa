"""An app registration made through Graph, with an administrator's token: what the portal would do by hand.

https://learn.microsoft.com/graph/permissions-grant-via-msgraph
"""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from counterplay import Connection, GoneError, JsonObject, PermanentError, RejectedError
from counterplay_m365.answers import content_object, graph
from counterplay_m365.tenant import ENDPOINT, GRAPH

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from counterplay import Verdict
    from counterplay.wire import Wire

#: The resource applications by the names that schemas give them.
RESOURCES: Mapping[str, str] = {
    GRAPH: "00000003-0000-0000-c000-000000000000",
    "Office 365 Management APIs": "c5393580-f805-4401-95e8-94b7a6ef2fc2",
    ENDPOINT: "fc780465-2017-40d4-a0c5-307022471b92",
}
ADMINISTRATOR_NEEDS = ("Application.ReadWrite.All", "AppRoleAssignment.ReadWrite.All")
"""What the administrator's token has to carry."""
_COMMAND_LINE = "14d82eec-204b-4c2f-b7e8-296a70dab67e"
"""The public client that device codes are asked for with: Microsoft Graph Command Line Tools."""
_REPLICATION = 6  # attempts while a new registration is not yet known everywhere


Wanted = Mapping[str, tuple[JsonObject, Mapping[str, str]]]
"""By resource: its service principal, and the id of each role by its name."""


@dataclass(frozen=True, slots=True)
class Federated:
    """Whose token stands for the app: what its file says of itself.

    https://learn.microsoft.com/graph/api/application-post-federatedidentitycredentials
    """

    issuer: str
    subject: str
    audiences: tuple[str, ...]


class Administrator(Connection):
    """An administrator who is signed in; lives as long as one command."""

    name = "administrator"

    def __init__(self, graph_url: str, token: Callable[[], str], ca_file: str | None) -> None:
        super().__init__("administrator", {})
        self._graph_url = graph_url
        self._token = token
        self._ca_file = ca_file

    def origins(self) -> Collection[str]:
        parts = urlsplit(self._graph_url)
        return (f"{parts.scheme}://{parts.netloc}",)

    def service(self, origin: str) -> str:
        return GRAPH

    def ca_file(self) -> str | None:
        return self._ca_file

    def authorize(self, request: PreparedRequest) -> None:
        request.headers["Authorization"] = f"Bearer {self._token()}"

    def classify(self, response: Response) -> Verdict | None:
        return graph(response)


class Registrar:
    """Makes registrations in one tenant."""

    def __init__(self, http: Wire, graph_url: str, pause: float = 2.0) -> None:
        self._http = http
        self._root = f"{graph_url}/v1.0"
        self._pause = pause

    def wanted(self, permissions: Mapping[str, Collection[str]]) -> Wanted:
        """The roles behind permissions that are given by resource. PermanentError: one does not exist."""
        found: dict[str, tuple[JsonObject, Mapping[str, str]]] = {}
        for resource, names in permissions.items():
            principal = self._resource(resource)
            found[resource] = (principal, {one: _role(principal, resource, one) for one in sorted(names)})
        return found

    def make(self, name: str, wanted: Wanted, redirect_uri: str, certificate: bytes | None) -> JsonObject:
        """Make an app, with a certificate (DER) or without a credential; nothing is granted to it yet.

        Entra ID refuses the consent link of an app that does not list the link's `redirect_uri`.
        BlockedError: the administrator may not do this.
        """
        body: JsonObject = {
            "displayName": name,
            "signInAudience": "AzureADMyOrg",
            "requiredResourceAccess": _with_access([], wanted),
            "web": {"redirectUris": [redirect_uri]},
        }
        if certificate is not None:
            key = {
                "type": "AsymmetricX509Cert",
                "usage": "Verify",
                "key": base64.b64encode(certificate).decode("ascii"),
                "displayName": name,
            }
            body["keyCredentials"] = [key]
        return self._post("/applications", body)

    def app(self, client_id: str) -> JsonObject:
        """The app of a client id. GoneError: the tenant has no registration of it."""
        found = self._found("applications", client_id, "id,appId,requiredResourceAccess")
        if found is None:
            raise GoneError(
                f"the tenant has no app registration with the client id {client_id}",
                hint="check --client-id and --tenant-id",
            )
        return found

    def principal_of(self, client_id: str) -> str:
        """The object id of a service principal. GoneError: the tenant has none of that client id."""
        found = self._found("servicePrincipals", client_id, "id,appId")
        if found is None:
            raise GoneError(
                f"the tenant has no service principal with the client id {client_id}",
                hint="check the client id and --tenant-id",
            )
        return str(found["id"])

    def complete(self, app: JsonObject, wanted: Wanted, federated: Federated | None) -> None:
        """Give an app what it lacks of credential, listed permissions, service principal and grants.

        What it has already stays, so that this may be called again after a fault.
        """
        listed = _with_access(app.get("requiredResourceAccess") or [], wanted)
        if listed != (app.get("requiredResourceAccess") or []):
            self._http.request(
                "PATCH", f"{self._root}/applications/{app['id']}", json={"requiredResourceAccess": listed}
            )
        if federated is not None:
            body = {
                "name": "counterplay",
                "issuer": federated.issuer,
                "subject": federated.subject,
                "audiences": list(federated.audiences),
            }
            self._unless_there(f"/applications/{app['id']}/federatedIdentityCredentials", body)
        found = self._found("servicePrincipals", str(app["appId"]), "id,appId")
        principal = found or self._patiently("/servicePrincipals", {"appId": app["appId"]})
        self.give(str(principal["id"]), wanted)

    def give(self, principal: str, wanted: Wanted) -> None:
        """Grant the roles to a service principal, but for those that it has."""
        for resource, roles in wanted.values():
            for role in roles.values():
                body = {"principalId": principal, "resourceId": resource["id"], "appRoleId": role}
                self._unless_there(f"/servicePrincipals/{resource['id']}/appRoleAssignedTo", body)

    def _unless_there(self, path: str, body: JsonObject) -> None:
        try:
            self._patiently(path, body)
        except RejectedError as error:
            if "already exists" not in error.message:
                raise

    def _found(self, kind: str, client_id: str, properties: str) -> JsonObject | None:
        query = urlencode(
            {"$filter": f"appId eq '{client_id}'", "$select": properties}, quote_via=quote, safe="$,'"
        )
        response = self._http.get(f"{self._root}/{kind}?{query}")
        found = content_object(response, f"{GRAPH}, asked for {client_id},").get("value") or []
        return found[0] if found else None

    def _resource(self, resource: str) -> JsonObject:
        """The service principal of a resource, with its roles; made when the tenant has none."""
        app_id = RESOURCES[resource]
        found = self._found("servicePrincipals", app_id, "id,appId,appRoles")
        return found or self._post("/servicePrincipals", {"appId": app_id})

    def _patiently(self, path: str, body: JsonObject) -> JsonObject:
        """What refers to something new may be refused for some seconds, until all of Entra ID knows it."""
        for attempt in range(_REPLICATION):
            try:
                return self._post(path, body)
            except (GoneError, RejectedError) as error:
                if attempt == _REPLICATION - 1 or "already exists" in error.message:
                    raise
                time.sleep(self._pause)
        raise AssertionError("the last attempt raises or returns")

    def _post(self, path: str, body: JsonObject) -> JsonObject:
        response = self._http.request("POST", f"{self._root}{path}", json=body)
        return content_object(response, f"{GRAPH}, asked to make {path.strip('/')},")


def _with_access(listed: Sequence[JsonObject], wanted: Wanted) -> list[JsonObject]:
    """What an app lists as required, with the wanted roles added where they lack."""
    made = [{**one, "resourceAccess": list(one.get("resourceAccess") or ())} for one in listed]
    for resource, (_, roles) in wanted.items():
        app_id = RESOURCES[resource]
        entry = next((one for one in made if one["resourceAppId"] == app_id), None)
        if entry is None:
            entry = {"resourceAppId": app_id, "resourceAccess": []}
            made.append(entry)
        present = {one["id"] for one in entry["resourceAccess"]}
        entry["resourceAccess"] += [
            {"id": role, "type": "Role"} for role in roles.values() if role not in present
        ]
    return made


def _role(principal: JsonObject, resource: str, name: str) -> str:
    for role in principal.get("appRoles") or ():
        if role.get("value") == name:
            return str(role["id"])
    raise PermanentError(f"{resource} has no application permission {name} in this tenant")


def new_certificate(file: Path, name: str, days: int = 365) -> bytes:
    """Make a key and a certificate that signs itself, write both to a file that only its owner reads.

    Returns the certificate (DER). FileExistsError: the file is there already.
    """
    import os

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    made = builder.not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        target.write(made.public_bytes(serialization.Encoding.PEM))
    return made.public_bytes(serialization.Encoding.DER)


def device_code_token(
    authority: str,
    graph_url: str,
    tell: Callable[[str], None],
    session: Any,
    *,
    instance_discovery: bool = True,
) -> str:
    """Sign an administrator in by device code; `tell` gets the line with address and code.

    A private authority takes `instance_discovery=False`.
    BlockedError: the sign-in was refused or ran out of time.
    """
    from msal import PublicClientApplication  # type: ignore[import-untyped]  # it has no types

    app = PublicClientApplication(
        _COMMAND_LINE, authority=authority, http_client=session, instance_discovery=instance_discovery
    )
    scopes = [f"{graph_url}/{name}" for name in ADMINISTRATOR_NEEDS]
    flow = app.initiate_device_flow(scopes=scopes)
    if "user_code" not in flow:
        raise session.refused(200, _text(flow))
    tell(str(flow["message"]))
    answer = app.acquire_token_by_device_flow(flow)
    if not answer.get("access_token"):
        raise session.refused(200, _text(answer))
    return str(answer["access_token"])


def _text(answer: Any) -> str:
    import json

    return json.dumps(answer)
