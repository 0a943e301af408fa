"""Applications that may ask for tokens: what they prove themselves with, and what was granted to them."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]


@dataclass(frozen=True, slots=True)
class App:
    """An application with its service principal in a tenant.

    `secrets` are (text, end); `certificates` (DER, end), an end being a moment or None; `federated` the
    federated identity credentials as Graph shows them. `proved_by` is set once it has authenticated.
    """

    client_id: str
    principal: str
    application: Doc
    service_principal: Doc
    secrets: tuple[tuple[str, datetime | None], ...] = ()
    certificates: tuple[tuple[bytes, datetime | None], ...] = ()
    federated: tuple[Doc, ...] = ()
    proved_by: str = ""

    @property
    def enabled(self) -> bool:
        """Whether its principal may sign in."""
        return bool(self.service_principal.get("accountEnabled", True))

    def secret_until(self, text: str) -> tuple[bool, datetime | None]:
        """Whether that is one of its secrets, and when it ends."""
        for secret, end in self.secrets:
            if hmac.compare_digest(secret.encode(), text.encode()):
                return True, end
        return False, None

    def proved(self, how: str) -> App:
        """The same, having authenticated by `secret`, `certificate` or `federation`."""
        return replace(self, proved_by=how)


def find_app(tenant: Tenant, client_id: str) -> App | None:
    """The application of that client id, None unless it and its service principal are in the tenant."""
    application = next(iter(tenant.objects["application"].where("appId", client_id)), None)
    principal = next(iter(tenant.objects["servicePrincipal"].where("appId", client_id)), None)
    if application is None or principal is None:
        return None
    held = application.get("@sim.secrets", {})
    ends = {one["keyId"]: _end(one) for one in application.get("passwordCredentials", ())}
    secrets = [(text, ends.get(key)) for key, text in held.items()]
    if client_id.lower() == tenant.client_id:
        secrets.append((tenant.client_secret, None))
    certificates = [
        (base64.b64decode(one["key"]), _end(one))
        for one in application.get("keyCredentials", ())
        if one.get("type") == "AsymmetricX509Cert" and one.get("key")
    ]
    return App(
        client_id=str(application["appId"]),
        principal=str(principal["id"]),
        application=application,
        service_principal=principal,
        secrets=tuple(secrets),
        certificates=tuple(certificates),
        federated=tuple(application.get("@sim.federated", ())),
    )


def granted(tenant: Tenant, app: App, kind: str, resource: Doc) -> list[str]:
    """The permissions of an application on a resource, as they stand now.

    Those of the tenant's own application are `tenant.grants`, less what was taken away by Graph since the
    tenant began; for everything else, app role assignments say it.
    """
    names = {role["id"]: str(role["value"]) for role in resource.get("appRoles", ()) if role.get("value")}
    assigned = [
        names[one["appRoleId"]]
        for one in tenant.objects["appRoleAssignment"].where("principalId", app.principal)
        if one["resourceId"] == resource["id"] and one["appRoleId"] in names
    ]
    if app.client_id.lower() != tenant.client_id:
        return sorted(assigned)
    initial = app.service_principal.get("@sim.initial", {}).get(kind, ())
    tracked = set(names.values())
    kept = [
        name
        for name in tenant.grants.get(kind, ())
        if name not in initial or name not in tracked or name in assigned
    ]
    return kept + sorted(name for name in assigned if name not in initial and name not in kept)


def add_certificate(tenant: Tenant, client_id: str, pem: bytes, *, end: str | None = None) -> None:
    """Register a certificate (PEM) with an application. LookupError: there is no such application."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    key = base64.b64encode(der).decode()
    credential = {"type": "AsymmetricX509Cert", "usage": "Verify", "key": key, "endDateTime": end}
    _change(tenant, client_id, "keyCredentials", credential)


def add_secret(tenant: Tenant, client_id: str, key_id: str, text: str, *, end: str | None = None) -> None:
    """Register a client secret with an application. LookupError: there is no such application."""
    _change(tenant, client_id, "passwordCredentials", {"keyId": key_id, "endDateTime": end}, {key_id: text})


def add_federation(
    tenant: Tenant, client_id: str, credential: Doc, *, issuer_key: bytes | None = None
) -> None:
    """Let an application sign in with tokens of another issuer, whose public key (PEM) is trusted."""
    _change(tenant, client_id, "@sim.federated", credential)
    if issuer_key is not None:
        key = {"id": credential["issuer"], "pem": issuer_key.decode()}
        tenant.objects["issuer"].put(credential["issuer"], key)


def _change(
    tenant: Tenant, client_id: str, member: str, added: Doc, secrets: Mapping[str, str] | None = None
) -> None:
    applications = tenant.objects["application"]
    found = next(iter(applications.where("appId", client_id)), None)
    if found is None:
        raise LookupError(f"no application {client_id} in tenant {tenant.id}")
    changed = {**found, member: [*found.get(member, ()), added]}
    if secrets:
        changed["@sim.secrets"] = {**found.get("@sim.secrets", {}), **secrets}
    applications.put(found["id"], changed)


def _end(credential: Mapping[str, Any]) -> datetime | None:
    text = credential.get("endDateTime")
    return datetime.fromisoformat(str(text)) if text else None
