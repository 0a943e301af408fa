"""The guided set-up with each kind of credential, and after something went wrong half-way."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.fixtures.at_work import call
from tests.fixtures.setup_m365 import addresses, administrators_token

from counterplay import BlockedError
from counterplay_m365 import setup
from counterplay_m365.tenant import Tenant
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness, close_all

SETUP = ("connections", "setup", "m365.tenant")
SIGNED_IN = ("--admin-token-env", "ADMIN_TOKEN", "--playbook", "alerts-to-intake")
REFUSED = json.dumps(
    {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
)
ALERTS = ("LicenseAssignment.Read.All", "SecurityAlert.Read.All")


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A tenant, and the token of its administrator in ADMIN_TOKEN."""
    made = Simulator(
        tmp_path / "tenant",
        seed=4,
        plan=Plan(events=60, users=8),
        strictness=Strictness(graph=GraphRules(throttle_scale=0)),
    )
    with made:
        monkeypatch.setenv("ADMIN_TOKEN", administrators_token(made))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield made
    close_all()


def connection_of(printed: str) -> Tenant:
    """The connection that the printed lines of counterplay.yaml make."""
    settings = yaml.safe_load(printed.partition("counterplay.yaml:\n\n")[2])["connections"]["contoso"]
    return Tenant("contoso", {name: value for name, value in settings.items() if name != "uses"})


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def test_a_registration_that_stopped_half_way_is_completed(simulator: Simulator, tmp_path: Path) -> None:
    """The refusal names the app and what to run; that makes no second app, and everything works."""
    (tenant,) = simulator._tenants.values()
    before = set(tenant.objects["application"])
    simulator.faults.add(
        {"service": "graph", "method": "POST", "path": "appRoleAssignedTo$", "status": 403, "body": REFUSED}
    )
    words = [*SETUP, *SIGNED_IN, *addresses(simulator)]

    broken = call(tmp_path, *words, "--create")

    (made,) = set(tenant.objects["application"]) - before
    client_id = tenant.objects["application"][made]["appId"]
    assert isinstance(broken.exception, BlockedError)
    assert broken.exception.message.startswith(f"the registration {client_id} is there, but not complete: ")
    again = str(broken.exception.hint).partition("run this again with ")[2].split()
    assert again[:3] == ["--create", "--client-id", client_id]

    simulator.faults.clear()
    done = call(tmp_path, *words, *again)

    assert done.exit_code == 0, done.output
    assert "  m365.alerts: ok: works\n" in done.output
    assert set(tenant.objects["application"]) - before == {made}
    assert connection_of(done.output).granted("Microsoft Graph") == ALERTS


def test_an_app_that_is_there_is_given_what_more_playbooks_need(simulator: Simulator, tmp_path: Path) -> None:
    """What it lists and what it was granted stays; the new permission is added to both."""
    words = [*SETUP, *SIGNED_IN, *addresses(simulator)]
    key = tmp_path / "app.pem"
    first = call(tmp_path, *words, "--create", "--certificate-file", "app.pem")
    assert first.exit_code == 0, first.output
    client_id = str(connection_of(first.output).settings["client_id"])

    done = call(
        tmp_path,
        *(*words, "--playbook", "sign-ins-to-intake", "--create", "--client-id", client_id),
        *("--certificate-file", "app.pem"),
    )

    assert done.exit_code == 0, done.output
    assert f'certificate_file: "{key}"' in done.output
    assert connection_of(done.output).granted("Microsoft Graph") == ("AuditLog.Read.All", *ALERTS)
    (tenant,) = simulator._tenants.values()
    (app,) = tenant.objects["application"].where("appId", client_id)
    assert [len(one["resourceAccess"]) for one in app["requiredResourceAccess"]] == [3]


def test_an_app_that_is_not_there_is_told(simulator: Simulator, tmp_path: Path) -> None:
    """A client id with a typing error makes nothing."""
    stranger = "99999999-2222-4333-8444-555555555555"

    done = call(
        tmp_path,
        *(*SETUP, *SIGNED_IN, *addresses(simulator)),
        *("--create", "--client-id", stranger, "--client-secret", "${env:ADMIN_TOKEN}"),
    )

    assert f"the tenant has no app registration with the client id {stranger}" in str(done.exception)


def test_a_federated_credential_is_made_of_what_the_token_says(simulator: Simulator, tmp_path: Path) -> None:
    """Issuer, subject and audience come from the platform's file; no key is made, and events can come."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer = "https://cluster.example"
    claims = {
        "iss": issuer,
        "sub": "system:serviceaccount:soc:counterplay",
        "aud": ["api://AzureADTokenExchange"],
        "exp": int(time.time()) + 600,
    }
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    token = tmp_path / "token"
    token.write_text(f"{signed}.{encoded(signature)}\n")
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tenant,) = simulator._tenants.values()
    tenant.objects["issuer"].put(issuer, {"id": issuer, "pem": pem.decode()})
    words = [*SETUP, *SIGNED_IN, *addresses(simulator), "--workload-identity-file", "token"]

    by_hand = call(tmp_path, *words)
    done = call(tmp_path, *words, "--create")

    assert f"issuer {issuer}, subject {claims['sub']}, audience api://AzureADTokenExchange" in by_hand.output
    assert done.exit_code == 0, done.output
    assert "private key" not in done.output
    assert connection_of(done.output).granted("Microsoft Graph") == ALERTS


def test_a_managed_identity_is_granted_what_it_lacks(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No registration and no consent belong to it: Graph gives it the permissions, and events can come."""
    info = simulator.info()["m365.tenant"]
    (tenant,) = simulator._tenants.values()
    (principal,) = tenant.objects["servicePrincipal"].where("appId", info["client_id"])
    identity = Tenant("identity", info)
    words = [*SETUP, *SIGNED_IN, *addresses(simulator), "--managed-identity", "system"]

    with azure_machine(identity) as address:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
        tenant.grants["graph"] = []
        without = call(tmp_path, *words, "--wait", "0")
        tenant.grants["graph"] = list(ALERTS)
        done = call(tmp_path, *words, "--create", "--principal-id", principal["id"])

    assert without.exit_code == 3
    assert "a managed identity takes no consent" in without.output.lower()
    assert "run this again with --managed-identity system when" in without.output
    assert done.exit_code == 0, done.output
    assert "adminconsent" not in done.output
    assert 'managed_identity: "system"' in done.output
    assert "client_id" not in done.output.partition("counterplay.yaml")[2]
    assigned = [
        one["appRoleId"]
        for one in tenant.objects["appRoleAssignment"].where("principalId", principal["id"])
        if one["resourceDisplayName"] == "Microsoft Graph"
    ]
    assert len(set(assigned)) == len(assigned) >= 2


@contextmanager
def azure_machine(identity: Tenant) -> Iterator[str]:
    """The metadata service of a machine in Azure, with an identity of the simulated tenant."""

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            identity.forget_tokens()
            resource = "https://manage.office.com" if "manage.office" in self.path else GRAPH_RESOURCE
            token = identity._token_source().bearer(resource)
            body = json.dumps({"access_token": token, "expires_in": "3600", "resource": resource}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


GRAPH_RESOURCE = "https://graph.microsoft.com"


def test_a_wrong_secret_is_told_at_once(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No consent cures it, so nobody waits for one."""

    def never(_seconds: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(setup, "_pause", never)
    monkeypatch.setenv("APP_SECRET", "not the secret")
    info = simulator.info()["m365.tenant"]

    done = call(
        tmp_path,
        *(*SETUP, "--client-id", info["client_id"], "--client-secret", "${env:APP_SECRET}"),
        *("--playbook", "alerts-to-intake", *addresses(simulator)),
    )

    assert isinstance(done.exception, BlockedError)
    assert "AADSTS7000215: the client secret is wrong" in str(done.exception)
