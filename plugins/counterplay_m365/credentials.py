"""What an app proves its identity with: a secret, a certificate, a federated token, the machine itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from counterplay import BlockedError, ConfigError

FORMS = ("client_secret", "certificate_file", "workload_identity_file", "managed_identity")
"""The settings of which a connection has exactly one."""
SYSTEM = "system"


class Credential(Protocol):
    """One way to prove an identity to Microsoft Entra ID."""

    def fingerprint(self) -> str:
        """Changes when the credential was replaced, and tells nothing else about it.

        ConfigError, BlockedError: it cannot be read.
        """

    def for_msal(self) -> Any:
        """What MSAL calls the `client_credential`."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client secret, read whenever a token is needed so that a rotated one is picked up."""

    read: Callable[[], str]

    def fingerprint(self) -> str:
        return _digest(self.read().encode())

    def for_msal(self) -> Any:
        return self.read()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its private key: PEM (both in one file) or PFX, read whenever a token is needed."""

    file: Path
    passphrase: Callable[[], str] | None

    def fingerprint(self) -> str:
        return _digest(self._bytes())

    def for_msal(self) -> Any:
        protected = {"passphrase": self.passphrase()} if self.passphrase else {}
        found = self._bytes()
        if b"-----BEGIN" not in found:
            return {"private_key_pfx_path": str(self.file), **protected}
        text = found.decode("ascii", "replace")
        if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY-----" not in text:
            raise BlockedError(
                f"{self.file} holds no certificate with its private key",
                hint="put both into one PEM file, or use a PFX file",
            )
        certificate = text[text.index("-----BEGIN CERTIFICATE-----") :]
        return {"private_key": text, "public_certificate": certificate, **protected}

    def _bytes(self) -> bytes:
        return _contents(self.file, "certificate_file")


@dataclass(frozen=True, slots=True)
class FederatedToken:
    """A token of another issuer (Kubernetes, a CI service) that the platform renews in a file."""

    file: Path

    def fingerprint(self) -> str:
        return _digest(str(self.file).encode())

    def for_msal(self) -> Any:
        return {"client_assertion": self.read}

    def read(self) -> str:
        """The token as it is now; MSAL asks for it at each call."""
        return _contents(self.file, "workload_identity_file").decode("ascii", "replace").strip()


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """The identity that Azure gives to this machine; `client_id` is None for the system's own."""

    client_id: str | None

    def fingerprint(self) -> str:
        return _digest((self.client_id or SYSTEM).encode())

    def for_msal(self) -> Any:
        from msal import (  # type: ignore[import-untyped]  # it has no types
            SystemAssignedManagedIdentity,
            UserAssignedManagedIdentity,
        )

        if self.client_id is None:
            return SystemAssignedManagedIdentity()
        return UserAssignedManagedIdentity(client_id=self.client_id)


def credential(label: str, settings: Mapping[str, Any], secret: Callable[[str], str]) -> Credential:
    """The credential that a connection's settings describe. ConfigError: none, or more than one."""
    given = [name for name in FORMS if settings.get(name)]
    if len(given) != 1:
        said = f"{' and '.join(given)} are both set" if given else "no credential is set"
        raise ConfigError(f"connections.{label}: {said}", hint=f"set exactly one of {', '.join(FORMS)}")
    if given[0] != "managed_identity" and not settings.get("client_id"):
        raise ConfigError(
            f"connections.{label}: `client_id` is missing",
            hint="set the Application (client) ID of the app registration",
        )
    value = str(settings[given[0]])
    match given[0]:
        case "certificate_file":
            protected = settings.get("certificate_passphrase")
            return Certificate(Path(value), (lambda: secret("certificate_passphrase")) if protected else None)
        case "workload_identity_file":
            return FederatedToken(Path(value))
        case "managed_identity":
            return ManagedIdentity(None if value == SYSTEM else value)
    return ClientSecret(lambda: secret("client_secret"))


def _contents(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BlockedError(
            f"cannot read {file}: {error.strerror}", hint=f"check `{setting}` and the file's permissions"
        ) from error


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
