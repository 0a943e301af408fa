"""A certificate authority of the simulator's own, and the server certificate that it signs.

The authority's key is thrown away after that one signature, so whoever trusts `ca.pem` trusts nothing
but this simulator. The server's key lies beside it, readable by its owner only.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the files are: the authority to trust, and the server's certificate with its key."""

    ca_file: Path
    server_file: Path

    def server_context(self) -> ssl.SSLContext:
        """A TLS context for the listeners."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.server_file)
        return context


def certificates(folder: Path) -> Certificates:
    """The certificates in a folder, made on first use and again a day before they expire."""
    found = Certificates(folder / "ca.pem", folder / "server.pem")
    if not (found.ca_file.exists() and found.server_file.exists() and _fresh(found.ca_file)):
        _make(found)
    return found


def _fresh(file: Path) -> bool:
    from cryptography import x509

    until = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    return until - datetime.now(UTC) > timedelta(days=1)


def _make(files: Certificates) -> None:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "counterplay simulated tenant CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "counterplay simulated tenant")])
    start = datetime.now(UTC) - timedelta(days=1)
    authority_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())

    def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False
            )
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    addresses = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    server = (
        builder(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(files.server_file, server.public_bytes(pem) + secret)
    write_private(files.ca_file, ca.public_bytes(pem), mode=0o644)


def write_private(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole; it is never readable by others, not even for a moment."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    draft.replace(file)
