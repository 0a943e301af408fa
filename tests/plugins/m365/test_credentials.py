"""What an app proves itself with: secret, certificate, federated token, managed identity; shared tokens."""

import base64
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import keyring
import pytest
import responses
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from keyring.backends import fail, null

from counterplay import BlockedError, ConfigError, Context
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365.clouds import CLOUDS
from counterplay_m365.entra import Tokens
from counterplay_m365.tenant import Tenant
from counterplay_m365.token_cache import SharedCache, shared_cache

TENANT = "11111111-2222-4333-8444-555555555555"
OTHER = "22222222-2222-4333-8444-555555555555"
CLIENT = "99999999-2222-4333-8444-555555555555"
GRAPH = "https://graph.microsoft.com"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PASSPHRASE = "correct horse battery"


def certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "counterplay")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(7).not_valid_before(day)
    return builder.not_valid_after(day + datetime.timedelta(days=3650)).sign(KEY, hashes.SHA256())


CERTIFICATE = certificate()


def pem(passphrase: str | None) -> bytes:
    protection: Any = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return key + CERTIFICATE.public_bytes(serialization.Encoding.PEM)


def tenant(**settings: Any) -> Tenant:
    return Tenant("contoso", {"tenant_id": TENANT, "client_id": CLIENT, **settings})


def bearer(connection: Tenant) -> str:
    return connection._token_source().bearer(GRAPH)


def part(assertion: str, index: int) -> dict[str, Any]:
    text = assertion.split(".")[index]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
@pytest.mark.parametrize("form", ["pem", "pfx"])
def test_a_certificate_signs_an_assertion(entra: Any, tmp_path: Path, form: str, passphrase: Any) -> None:
    """Entra ID gets a JWT for its token end-point, signed by the private key; no secret travels."""
    file = tmp_path / f"app.{form}"
    if form == "pem":
        file.write_bytes(pem(passphrase))
    else:
        protection: Any = serialization.NoEncryption()
        if passphrase:
            protection = serialization.BestAvailableEncryption(passphrase.encode())
        file.write_bytes(pkcs12.serialize_key_and_certificates(b"app", KEY, CERTIFICATE, None, protection))
    protected = {"certificate_passphrase": passphrase} if passphrase else {}

    assert bearer(tenant(certificate_file=str(file), **protected))

    form_sent = entra.asked[0]
    assertion = form_sent["client_assertion"]
    signed, _, signature = assertion.rpartition(".")
    KEY.public_key().verify(
        base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)),
        signed.encode(),
        padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        if part(assertion, 0)["alg"] == "PS256"
        else padding.PKCS1v15(),
        hashes.SHA256(),
    )
    claims = part(assertion, 1)
    assert claims["iss"] == claims["sub"] == CLIENT
    assert claims["aud"] == f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"
    assert "client_secret" not in form_sent
    assert PASSPHRASE not in str(form_sent)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (None, {}, "cannot read {file}: No such file or directory; check `certificate_file` and"),
        (b"-----BEGIN CERTIFICATE-----", {}, "{file} holds no certificate with its private key; put both"),
        (b"\x30\x03abc", {}, "{file} cannot be used as a certificate: "),
        (pem(PASSPHRASE), {"certificate_passphrase": "wrong-one"}, "{file} cannot be used as a certificate"),
    ],
)
def test_a_certificate_that_is_of_no_use_blocks(
    entra: Any, tmp_path: Path, content: bytes | None, settings: Any, message: str
) -> None:
    """The file is named, with what to do; the passphrase is not."""
    file = tmp_path / "app.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BlockedError) as caught:
        bearer(tenant(certificate_file=str(file), **settings))

    assert str(caught.value).startswith(message.format(file=file))
    assert "wrong-one" not in str(caught.value)


def test_a_federated_token_is_read_at_each_call(entra: Any, tmp_path: Path) -> None:
    """The platform renews the file within the hour, so what was read before is never used again."""
    file = tmp_path / "token"
    file.write_text("first.token.x\n")
    connection = tenant(workload_identity_file=str(file))
    bearer(connection)
    file.write_text("second.token.x\n")
    connection._token_source().forget()
    bearer(connection)

    assert [form["client_assertion"] for form in entra.asked] == ["first.token.x", "second.token.x"]


@pytest.mark.parametrize(("identity", "named"), [("system", None), (CLIENT, CLIENT)])
def test_a_managed_identity_asks_the_machine(
    wire: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, identity: str, named: str | None
) -> None:
    """No credential is kept anywhere: the platform gives a token for the resource, kept until it expires."""
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"):
        monkeypatch.delenv(name, raising=False)
    answer = {"access_token": "of-the-machine", "expires_in": "3599", "resource": GRAPH}
    wire.get("http://169.254.169.254/metadata/identity/oauth2/token", json=answer)
    connection = Tenant("contoso", {"tenant_id": TENANT, "managed_identity": identity})

    assert [bearer(connection), bearer(connection)] == ["of-the-machine"] * 2

    (call,) = wire.calls
    query = {name: values[0] for name, values in parse_qs(urlsplit(str(call.request.url)).query).items()}
    assert (query["resource"], query.get("client_id")) == (GRAPH, named)
    assert call.request.headers["Metadata"] == "true"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "connections.contoso: no credential is set; set exactly one of client_secret, "),
        (
            {"client_secret": "s", "managed_identity": "system"},
            "connections.contoso: client_secret and managed_identity are both set; set exactly one of ",
        ),
    ],
)
def test_a_connection_has_one_credential(settings: Any, message: str) -> None:
    """Which of two would count is not guessed."""
    with pytest.raises(ConfigError) as caught:
        tenant(**settings)

    assert str(caught.value).startswith(message)


def test_an_app_needs_its_client_id() -> None:
    """Only the machine's own identity goes without."""
    with pytest.raises(ConfigError, match="`client_id` is missing"):
        Tenant("contoso", {"tenant_id": TENANT, "client_secret": "s" * 8})


def test_one_app_serves_several_tenants(wire: responses.RequestsMock, entra: Any) -> None:
    """Each connection asks its own tenant's authority with the same app, and keeps its own tokens."""
    other = f"https://login.microsoftonline.com/{OTHER}"
    wire.get(
        f"{other}/v2.0/.well-known/openid-configuration",
        json={
            "issuer": f"{other}/v2.0",
            "authorization_endpoint": f"{other}/oauth2/v2.0/authorize",
            "token_endpoint": f"{other}/oauth2/v2.0/token",
        },
    )
    wire.add_callback("POST", f"{other}/oauth2/v2.0/token", entra.answer)
    first = tenant(client_secret="s" * 8)
    second = Tenant("fabrikam", {"tenant_id": OTHER, "client_id": CLIENT, "client_secret": "s" * 8})

    assert bearer(first) != bearer(second)
    assert [
        urlsplit(str(call.request.url)).path.split("/")[1] for call in wire.calls if call.request.body
    ] == [
        TENANT,
        OTHER,
    ]


@pytest.mark.parametrize("cloud", list(CLOUDS))
def test_each_cloud_has_its_own_authority_and_resources(wire: responses.RequestsMock, cloud: str) -> None:
    """A token for a cloud's Graph comes from that cloud's sign-in, and goes to that cloud's Graph."""
    one = CLOUDS[cloud]
    authority = f"{one.authority}/{TENANT}"
    wire.get(
        f"{authority}/v2.0/.well-known/openid-configuration",
        json={
            "issuer": f"{authority}/v2.0",
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
        },
    )
    wire.post(
        f"{authority}/oauth2/v2.0/token",
        json={"token_type": "Bearer", "expires_in": 3599, "access_token": "t"},
    )
    wire.get(f"{one.graph}/v1.0/users/ana", json={})
    connection = tenant(client_secret="s" * 8, cloud=cloud, instance_discovery=False)

    Context(http=Wire(connection), connection=connection).http.get(f"{one.graph}/v1.0/users/ana")

    sent = [call.request for call in wire.calls if call.request.method == "POST"]
    assert parse_qs(str(sent[0].body))["scope"] == [f"{one.graph}/.default"]


@pytest.fixture
def shared(tmp_path: Path) -> SharedCache:
    return SharedCache(tmp_path / "tokens" / "m365.cache", Fernet.generate_key())


def tokens(shared: SharedCache | None, connection: Tenant) -> Tokens:
    return Tokens(
        connection="contoso",
        authority=f"https://login.microsoftonline.com/{TENANT}",
        client_id=CLIENT,
        credential=connection._credential,
        shared=shared,
    )


def test_processes_share_tokens_that_lie_on_disk_encrypted(
    entra: Any, shared: SharedCache, tmp_path: Path, connect: Callable[..., Tenant]
) -> None:
    """The second one finds the first one's token; the file shows nothing of it and is the user's own."""
    first, second = tokens(shared, connect()), tokens(shared, connect())
    token = first.bearer(GRAPH)

    assert second.bearer(GRAPH) == token
    assert len(entra.asked) == 1
    file = tmp_path / "tokens" / "m365.cache"
    assert token.encode() not in file.read_bytes()
    assert CLIENT.encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_a_refused_token_leaves_the_shared_cache(
    entra: Any, shared: SharedCache, connect: Callable[..., Tenant]
) -> None:
    """After a 401 the next token is a new one, for the other processes too."""
    first, second = tokens(shared, connect()), tokens(shared, connect())
    old = first.bearer(GRAPH)
    first.forget()
    new = first.bearer(GRAPH)

    assert new != old
    assert second.bearer(GRAPH) == new


def test_a_cache_of_another_key_counts_as_empty(
    entra: Any, shared: SharedCache, tmp_path: Path, connect: Callable[..., Tenant]
) -> None:
    """A keyring that was reset costs a sign-in, nothing else."""
    tokens(shared, connect()).bearer(GRAPH)
    other = SharedCache(tmp_path / "tokens" / "m365.cache", Fernet.generate_key())

    assert tokens(other, connect()).bearer(GRAPH)
    assert len(entra.asked) == 2


@pytest.mark.parametrize("backend", [fail.Keyring(), null.Keyring()])
def test_without_an_encrypting_keyring_tokens_stay_in_memory(tmp_path: Path, backend: Any) -> None:
    """Neither the file nor a key is written, and the reason is told."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        found = shared_cache(tmp_path / "m365.cache")
    finally:
        keyring.set_keyring(before)

    assert found == f"the keyring {type(backend).__module__} does not keep its content encrypted"
    assert list(tmp_path.iterdir()) == []


def test_a_keyring_of_the_system_holds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is made once and found again; it is nowhere in the file's folder."""

    class Keyring(null.Keyring):
        kept: dict[tuple[str, str], str] = {}  # noqa: RUF012  # one for all instances, as the system's is

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

    Keyring.__module__ = "keyring.backends.SecretService"
    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        one, two = shared_cache(tmp_path / "m365.cache"), shared_cache(tmp_path / "m365.cache")
    finally:
        keyring.set_keyring(before)

    assert isinstance(one, SharedCache)
    assert isinstance(two, SharedCache)
    assert one._cipher.decrypt(two._cipher.encrypt(b"x")) == b"x"
    assert len(Keyring.kept) == 1


def test_the_schema_asks_for_one_credential() -> None:
    """`playbook check` says it before anything is opened."""
    schema = PluginHost.load().module("m365.tenant").schema

    assert [one["required"] for one in schema["oneOf"]] == [
        ["client_secret"],
        ["certificate_file"],
        ["workload_identity_file"],
        ["managed_identity"],
    ]
