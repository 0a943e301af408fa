"""Client assertions: JWTs that an application signs with its certificate, or that another issuer signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from counterplay_sim.apps_registry import App
from counterplay_sim.tenant import Tenant

Doc = dict[str, Any]

FEDERATION_AUDIENCE = "api://AzureADTokenExchange"
_ALGORITHMS = ("RS256", "PS256")
_ENTRA = ("https://login.microsoftonline.", "https://sts.windows.net/")
_SKEW = 300  # seconds that clocks may differ


class AssertionRefusedError(Exception):
    """Why an assertion is not taken: the number of Entra's error, and its text."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number
        self.text = text


@dataclass(frozen=True, slots=True)
class Assertion:
    """A JWT in its parts."""

    header: Doc
    claims: Doc
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """AssertionRefusedError: it is no JWT, or signed in a way that Entra does not take."""
        malformed = AssertionRefusedError(50027, "JWT token is invalid or malformed.")
        parts = text.split(".")
        if len(parts) != 3:
            raise malformed
        try:
            header, claims = (orjson.loads(_decode(part)) for part in parts[:2])
            made = cls(header, claims, f"{parts[0]}.{parts[1]}".encode(), _decode(parts[2]))
        except (ValueError, binascii.Error):
            raise malformed from None
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise malformed
        if header.get("alg") not in _ALGORITHMS:
            raise AssertionRefusedError(
                5002738,
                f"Invalid JWT token. '{header.get('alg')}' is not a supported signature algorithm. Supported"
                f" signing algorithms are: {', '.join(_ALGORITHMS)}.",
            )
        return made

    def signed_by(self, public_key: Any) -> bool:
        """Whether the signature is that key's."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        if not isinstance(public_key, rsa.RSAPublicKey):
            return False
        scheme: Any = padding.PKCS1v15()
        if self.header["alg"] == "PS256":
            scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        try:
            public_key.verify(self.signature, self.signed, scheme, hashes.SHA256())
        except InvalidSignature:
            return False
        return True


def check(text: str, app: App, tenant: Tenant, audiences: frozenset[str], now: datetime) -> App:
    """The application, proved by its assertion. AssertionRefusedError: it is not."""
    assertion = Assertion.parse(text)
    issuer = str(assertion.claims.get("iss") or "")
    if issuer.lower() == app.client_id.lower():
        _check_certificate(assertion, app, now)
        _check_claims(assertion, app, audiences, now)
        return app.proved("certificate")
    if app.federated or issuer.startswith("https://"):
        _check_federation(assertion, app, tenant, now)
        return app.proved("federation")
    raise AssertionRefusedError(
        700021, "Client assertion application identifier doesn't match 'client_id' parameter."
    )


def _check_certificate(assertion: Assertion, app: App, now: datetime) -> None:
    from cryptography import x509

    header = assertion.header
    for der, end in app.certificates:
        if _names(header, der):
            if end is not None and end <= now:
                raise _unknown_key(app, header, "The key used is expired.")
            if not assertion.signed_by(x509.load_der_x509_certificate(der).public_key()):
                raise _unknown_key(
                    app, header, "The provided signature value did not match the expected value."
                )
            return
    if header.get("x5c"):
        raise AssertionRefusedError(
            700030,
            "Invalid certificate - subject name in certificate is not authorized. SubjectNames/"
            "SubjectAlternativeNames (up to 10) in token certificate are: (none).",
        )
    raise _unknown_key(app, header, "The key was not found.")


def _names(header: Doc, der: bytes) -> bool:
    """Whether a header names a certificate, by either thumbprint or by its hexadecimal one."""
    sha1, sha256 = hashlib.sha1(der), hashlib.sha256(der)  # thumbprints, not signatures
    return (
        str(header.get("x5t", "")).rstrip("=") == _encode(sha1.digest())  # MSAL keeps the padding
        or str(header.get("x5t#S256", "")).rstrip("=") == _encode(sha256.digest())
        or str(header.get("kid", "")).upper() in (sha1.hexdigest().upper(), sha256.hexdigest().upper())
    )


def _unknown_key(app: App, header: Doc, reason: str) -> AssertionRefusedError:
    thumbprint = header.get("x5t") or header.get("x5t#S256") or header.get("kid") or ""
    return AssertionRefusedError(
        700027,
        "The certificate with identifier used to sign the client assertion is not registered on application."
        f" [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', Application's Id ="
        f" '{app.client_id}'].",
    )


def _check_claims(assertion: Assertion, app: App, audiences: frozenset[str], now: datetime) -> None:
    claims = assertion.claims
    if str(claims.get("sub") or "").lower() != app.client_id.lower():
        raise AssertionRefusedError(
            700021, "Client assertion application identifier doesn't match 'client_id' parameter."
        )
    if str(claims.get("aud") or "").rstrip("/").lower() not in audiences:
        raise AssertionRefusedError(700023, "Client assertion audience claim does not match Realm issuer.")
    if not claims.get("jti"):
        raise AssertionRefusedError(50027, "JWT token is invalid or malformed. The claim 'jti' is missing.")
    _check_times(claims, now)


def _check_times(claims: Doc, now: datetime) -> None:
    end, begin = claims.get("exp"), claims.get("nbf", 0)
    moment = now.timestamp()
    if (
        not isinstance(end, int | float)
        or not isinstance(begin, int | float)
        or not begin - _SKEW <= moment < end + _SKEW
    ):
        raise AssertionRefusedError(
            700024,
            "Client assertion is not within its valid time range. Current time:"
            f" {now:%Y-%m-%dT%H:%M:%S}Z, expiry time of assertion {end}.",
        )


def _check_federation(assertion: Assertion, app: App, tenant: Tenant, now: datetime) -> None:
    claims = assertion.claims
    issuer, subject = str(claims.get("iss") or ""), str(claims.get("sub") or "")
    if issuer.startswith(_ENTRA):
        raise AssertionRefusedError(
            700229, "Only app-only tokens can be used as Federated Identity Credentials for the AAD issuer."
        )
    of_issuer = [one for one in app.federated if one["issuer"] == issuer]
    if not of_issuer:
        raise _unmatched(700211, "issuer", issuer)
    matching = [one for one in of_issuer if one["subject"] == subject]
    if not matching:
        near = any(str(one["subject"]).lower() == subject.lower() for one in of_issuer)
        raise _unmatched(7002131 if near else 700213, "subject", subject)
    sent = claims.get("aud")
    audiences = set(sent) if isinstance(sent, list) else {sent}
    if not any(audiences & set(one["audiences"]) for one in matching):
        raise _unmatched(700212, "audience", str(sent))
    key = tenant.objects["issuer"].get(issuer)
    if key is None or not assertion.signed_by(_public_key(key["pem"])):
        raise AssertionRefusedError(
            50013, "Assertion failed signature validation. [Reason - The key was not found.]"
        )
    _check_times(claims, now)


def _unmatched(number: int, what: str, value: str) -> AssertionRefusedError:
    return AssertionRefusedError(
        number,
        f"No matching federated identity record found for presented assertion {what} '{value}'. Check your"
        " federated identity credential Subject, Audience and Issuer against the presented assertion.",
    )


def _public_key(pem: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(pem.encode())


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encode(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
