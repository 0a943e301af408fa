"""How an application proves itself, and each mistake that the token end-point tells by number."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from counterplay_sim.apps_registry import add_certificate, add_federation, add_secret
from counterplay_sim.graph import GraphRules
from counterplay_sim.strictness import Strictness

_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ISSUER = "https://token.actions.example"
_EXCHANGE = "api://AzureADTokenExchange"


class Pair:
    """A certificate of a key of its own."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robot")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(7)
            .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A JWT, RS256 unless the header says PS256."""
        head = {"alg": "RS256", "typ": "JWT", **header}
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (head, claims))
        scheme: Any = padding.PKCS1v15()
        if head["alg"] == "PS256":
            scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return f"{signed}.{_encode(self.key.sign(signed.encode(), scheme, hashes.SHA256()))}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


@pytest.fixture(scope="module")
def stranger() -> Pair:
    return Pair()


@pytest.fixture
def registered(simulator: Any, pair: Pair) -> Any:
    """The tenant, whose application has a certificate and trusts another issuer."""
    tenant = simulator.tenant
    add_certificate(tenant, tenant.client_id, pair.pem)
    credential = {
        "id": "f",
        "name": "ci",
        "issuer": _ISSUER,
        "subject": "repo:a/b:ref:main",
        "audiences": [_EXCHANGE],
    }
    add_federation(tenant, tenant.client_id, credential, issuer_key=pair.public)
    return tenant


@pytest.fixture
def claims(client: Any, clock: Any) -> Callable[..., dict[str, Any]]:
    """The claims of a good client assertion, changed as wanted."""

    def made(**changes: Any) -> dict[str, Any]:
        tenant, now = client.tenant, int(clock.now().timestamp())
        good = {
            "iss": tenant["client_id"],
            "sub": tenant["client_id"],
            "aud": f"{tenant['authority']}/{tenant['tenant_id']}/oauth2/v2.0/token",
            "exp": now + 600,
            "nbf": now,
            "jti": "one",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    return made


def _ask(client: Any, assertion: str, **form: str) -> Any:
    return client.token(
        client.tenant["graph_url"],
        **{"client_assertion": assertion, "client_assertion_type": _JWT, "client_secret": "", **form},
    )


@pytest.mark.parametrize("old", [True, False])
def test_msal_signs_in_with_a_certificate(
    client: Any, registered: Any, pair: Pair, clock: Any, old: bool
) -> None:
    """By SHA-256 and PS256 as it does now, and by the older thumbprint."""
    clock.set(datetime.now(UTC))  # MSAL dates its assertions by the real time
    credential = {"private_key": pair.private, "public_certificate": pair.pem.decode()}
    if old:
        credential = {"private_key": pair.private, "thumbprint": hashlib.sha1(pair.der).hexdigest()}
    application = msal.ConfidentialClientApplication(
        client.tenant["client_id"],
        authority=f"{client.tenant['authority']}/{client.tenant['tenant_id']}",
        client_credential=credential,
        instance_discovery=False,
        http_client=client.session,
    )

    answer = application.acquire_token_for_client([client.tenant["graph_url"] + "/.default"])

    assert "access_token" in answer, answer
    part = answer["access_token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["appidacr"] == "2"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize("name", ["x5t", "x5t#S256"])
def test_both_signatures_and_both_thumbprints_are_taken(
    client: Any, registered: Any, pair: Pair, claims: Any, algorithm: str, name: str
) -> None:
    """Whatever way a library names its certificate."""
    digest = hashlib.sha1(pair.der) if name == "x5t" else hashlib.sha256(pair.der)

    assertion = pair.sign(claims(), alg=algorithm, **{name: _encode(digest.digest())})

    assert _ask(client, assertion).status_code == 200


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"aud": "https://login.microsoftonline.com/other/v2.0"}, 700023),
        ({"sub": "somebody"}, 700021),
        ({"iss": "somebody"}, 700021),
        ({"exp": 1}, 700024),
        ({"exp": None}, 700024),
        ({"nbf": 99_999_999_999}, 700024),
        ({"jti": None}, 50027),
    ],
)
def test_an_assertion_is_checked_claim_by_claim(
    client: Any, registered: Any, pair: Pair, claims: Any, changes: Any, number: int
) -> None:
    """A good signature does not help a wrong claim."""
    registered.objects["application"]  # the fixture's certificate is in place
    if changes.get("iss"):
        application = next(iter(registered.objects["application"].where("appId", registered.client_id)))
        registered.objects["application"].put(application["id"], {**application, "@sim.federated": []})
    thumbprint = _encode(hashlib.sha256(pair.der).digest())

    answer = _ask(client, pair.sign(claims(**changes), **{"x5t#S256": thumbprint}))

    assert (answer.status_code, answer.json()["error_codes"]) == (401, [number])


def test_a_certificate_must_be_registered_valid_and_the_signer(
    client: Any, registered: Any, pair: Pair, stranger: Pair, claims: Any
) -> None:
    """Another key, another's thumbprint, an expired registration, a chain without registration."""

    def number(signer: Pair, named: Pair, **header: Any) -> int:
        thumbprint = _encode(hashlib.sha256(named.der).digest())
        answer = _ask(client, signer.sign(claims(), **{"x5t#S256": thumbprint, **header}))
        return int(answer.json()["error_codes"][0])

    assert number(stranger, stranger) == 700027
    assert number(stranger, pair) == 700027
    assert number(stranger, stranger, x5c=["MII"]) == 700030
    add_certificate(registered, registered.client_id, stranger.pem, end="2026-01-01T00:00:00Z")
    assert number(stranger, stranger) == 700027
    assert _ask(client, pair.sign(claims(), alg="HS256")).json()["error_codes"] == [5002738]


def test_a_workload_signs_in_with_the_token_of_its_issuer(
    client: Any, registered: Any, pair: Pair, stranger: Pair, claims: Any
) -> None:
    """Issuer, subject and audience must be those of one credential, and the signature the issuer's."""

    def ask(signer: Pair = pair, **changes: Any) -> Any:
        known = {"iss": _ISSUER, "sub": "repo:a/b:ref:main", "aud": _EXCHANGE}
        return _ask(client, signer.sign(claims(**{**known, **changes})))

    assert ask().status_code == 200
    for changes, number in (
        ({"iss": "https://other.example"}, 700211),
        ({"sub": "repo:a/b:ref:dev"}, 700213),
        ({"sub": "REPO:a/b:ref:main"}, 7002131),
        ({"aud": "https://graph.microsoft.com"}, 700212),
        ({"iss": "https://sts.windows.net/x/"}, 700229),
        ({"signer": stranger}, 50013),
        ({"exp": 1}, 700024),
    ):
        assert ask(**changes).json()["error_codes"] == [number], changes


def _changed(tenant: Any, kind: str, app: str, **changes: Any) -> None:
    found = next(iter(tenant.objects[kind].where("appId", app)))
    tenant.objects[kind].put(found["id"], {**found, **changes})


_GRAPH = "00000003-0000-0000-c000-000000000000"
_OTHER = "c5393580-f805-4401-95e8-94b7a6ef2fc2"


@pytest.mark.parametrize(
    ("kind", "app", "changes", "number"),
    [
        ("servicePrincipal", "own", {"accountEnabled": False}, 7000112),
        ("application", "own", {"disabledByMicrosoftStatus": "DisabledDueToViolation"}, 70001),
        ("servicePrincipal", "own", {"@sim.blocked": "53003"}, 53003),
        ("servicePrincipal", "own", {"@sim.blocked": "530032"}, 530032),
        ("servicePrincipal", _GRAPH, {"accountEnabled": False}, 500014),
        ("servicePrincipal", _GRAPH, {"appId": "gone"}, 500011),
        (
            "application",
            "own",
            {
                "requiredResourceAccess": [
                    {"resourceAppId": _OTHER, "resourceAccess": [{"id": "x", "type": "Role"}]}
                ]
            },
            650057,
        ),
        (
            "application",
            "own",
            {"requiredResourceAccess": [{"resourceAppId": _GRAPH, "resourceAccess": []}]},
            650056,
        ),
    ],
)
def test_what_stands_in_the_directory_decides(
    client: Any, simulator: Any, kind: str, app: str, changes: Any, number: int
) -> None:
    """Disabled, blocked, missing or misconfigured: each has its number."""
    _changed(simulator.tenant, kind, simulator.tenant.client_id if app == "own" else app, **changes)

    assert client.token(client.tenant["graph_url"]).json()["error_codes"] == [number]


def test_an_expired_secret_is_told_from_a_wrong_one(client: Any, simulator: Any) -> None:
    """7000222 says: make a new one."""
    tenant = simulator.tenant
    add_secret(tenant, tenant.client_id, "k", "yesterday's", end="2026-03-01T00:00:00Z")
    add_secret(tenant, tenant.client_id, "l", "tomorrow's", end="2026-03-04T00:00:00Z")

    assert client.token(client.tenant["graph_url"], client_secret="yesterday's").json()["error_codes"] == [
        7000222
    ]
    assert client.token(client.tenant["graph_url"], client_secret="tomorrow's").status_code == 200


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, 65001),
        ({"scope": "https://graph.microsoft.com/.default https://manage.office.com/.default"}, 70011),
        ({"client_id": ""}, 900144),
        ({"tenant": "common"}, 50059),
        ({"client_assertion": "x", "client_assertion_type": "other"}, 900144),
    ],
)
def test_other_mistakes_in_the_form(client: Any, form: dict[str, str], number: int) -> None:
    """Each is told by its number."""
    assert client.token(client.tenant["graph_url"], **form).json()["error_codes"] == [number]


def test_a_body_that_is_no_form_is_malformed(client: Any) -> None:
    """9002313, whatever the bytes."""
    url = f"{client.tenant['authority']}/{client.tenant['tenant_id']}/oauth2/v2.0/token"

    for body, kind in ((b"{}", "application/json"), (b"\xff\xfe=1", "application/x-www-form-urlencoded")):
        answer = client.session.post(url, data=body, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error_codes"]) == (400, [9002313])


def test_a_client_that_loops_and_a_tenant_that_floods_are_stopped(start: Any, clock: Any) -> None:
    """50196 for the same request again and again, 90055 for the tenant as a whole, both for a minute."""
    _, client = start(strictness=Strictness(graph=GraphRules(token_loop=2, token_requests=4)))

    def number() -> Any:
        return client.token(client.tenant["graph_url"]).json().get("error_codes")

    assert [number() for _ in range(5)] == [None, None, [50196], [50196], [90055]]
    clock.advance(timedelta(minutes=1))
    assert number() is None


def test_each_cloud_has_its_authority(client: Any, simulator: Any) -> None:
    """The tenant's own cloud answers; another one says so, by discovery and for both versions."""
    tenant = client.tenant
    base = f"{tenant['authority']}/{{}}/{tenant['tenant_id']}"
    form = {
        "grant_type": "client_credentials",
        "client_id": tenant["client_id"],
        "client_secret": tenant["client_secret"],
        "scope": tenant["graph_url"] + "/.default",
        "resource": tenant["graph_url"],
    }

    def codes(host: str, operation: str) -> Any:
        return client.session.post(f"{base.format(host)}/{operation}", data=form).json().get("error_codes")

    assert codes("login.microsoftonline.com", "oauth2/v2.0/token") is None
    assert codes("login.microsoftonline.us", "oauth2/v2.0/token") == [900382]
    assert codes("login.partner.microsoftonline.cn", "oauth2/token") == [900432]
    found = client.session.get(
        f"{base.format('login.microsoftonline.us')}/v2.0/.well-known/openid-configuration"
    )
    assert found.json()["error_codes"] == [90038]
    simulator.tenant.row.doc["cloud"] = "usgov"
    assert codes("login.microsoftonline.us", "oauth2/v2.0/token") is None


def test_discovery_tells_where_tokens_are(client: Any) -> None:
    """For the tenant, for nobody's tenant, and of the instance."""
    base, tenant = client.tenant["authority"], client.tenant["tenant_id"]

    def get(path: str) -> Any:
        return client.session.get(f"{base}/{path}").json()

    assert (
        get(f"{tenant}/v2.0/.well-known/openid-configuration")["token_endpoint"]
        == f"{base}/{tenant}/oauth2/v2.0/token"
    )
    assert get("common/.well-known/openid-configuration")["issuer"].endswith("/{tenantid}/v2.0")
    instance = get(
        f"common/discovery/instance?authorization_endpoint={base}/{tenant}/oauth2/v2.0/authorize&api-version=1.1"
    )
    assert instance["tenant_discovery_endpoint"] == f"{base}/{tenant}/v2.0/.well-known/openid-configuration"
    assert get(f"{tenant}/discovery/v2.0/keys") == {"keys": []}


@pytest.mark.parametrize(
    ("who", "told"),
    [("", "admin_consent=True"), ("declines", "AADSTS65004"), ("member", "AADSTS90094")],
)
def test_the_consent_link_leads_back(client: Any, simulator: Any, who: str, told: str) -> None:
    """An administrator agrees, one declines, and a member may not."""
    tenant = client.tenant
    roles = [{"id": "1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9", "type": "Role"}]  # Application.ReadWrite.All
    wanted = [{"resourceAppId": _GRAPH, "resourceAccess": roles}]
    _changed(simulator.tenant, "application", tenant["client_id"], requiredResourceAccess=wanted)
    link = f"{tenant['authority']}/{tenant['tenant_id']}/v2.0/adminconsent"
    query = {"client_id": tenant["client_id"], "redirect_uri": "https://x.example/back", "state": "s"}

    answer = client.session.get(
        link, params={**query, "sim_user": who or "administrator"}, allow_redirects=False
    )

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("https://x.example/back?")
    assert told in answer.headers["Location"]
    assert "state=s" in answer.headers["Location"]
    token = client.token(tenant["graph_url"]).json()["access_token"].split(".")[1]
    granted = json.loads(base64.urlsafe_b64decode(token + "=="))["roles"]
    assert ("Application.ReadWrite.All" in granted) is (who == "")
