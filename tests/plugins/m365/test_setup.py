"""`playbook connections setup m365.tenant`: as a new administrator would, on the simulated tenant."""

import json
import os
import queue
import re
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import click
import pytest
import requests
import responses
import yaml
from click.testing import CliRunner
from tests.fixtures.at_work import call
from tests.fixtures.setup_m365 import addresses, administrators_token

from counterplay import BlockedError, Context, Need
from counterplay.cli import playbook as command
from counterplay.errors import ConfigError
from counterplay.plugins import PluginHost
from counterplay.wire import Wire
from counterplay_m365 import setup
from counterplay_m365.entra import entra_session
from counterplay_m365.registration import device_code_token
from counterplay_m365.setup import least_permissions
from counterplay_m365.tenant import Tenant
from counterplay_sim.graph_rules import GraphRules
from counterplay_sim.testing import Plan, Simulator, Strictness, close_all

HOST = PluginHost.load()
TENANT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    made = Simulator(
        tmp_path / "tenant",
        seed=4,
        plan=Plan(events=60, users=8),
        strictness=Strictness(graph=GraphRules(throttle_scale=0)),
    )
    with made:
        yield made
    close_all()


def test_from_nothing_to_events_in_the_intake(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command registers the app, its printed lines go into counterplay.yaml, and events arrive."""
    monkeypatch.setenv("ADMIN_TOKEN", administrators_token(simulator))
    root = tmp_path / "workspace"
    root.mkdir()
    assert call(root, "init").exit_code == 0

    done = call(
        root,
        *("connections", "setup", "m365.tenant", "--create", "--admin-token-env", "ADMIN_TOKEN"),
        *("--playbook", "office365-to-intake", "--playbook", "alerts-to-intake", *addresses(simulator)),
    )

    assert done.exit_code == 0, done.output
    assert "  Microsoft Graph: LicenseAssignment.Read.All\n" in done.output
    assert "  Microsoft Graph: SecurityAlert.Read.All\n" in done.output
    assert "  Office 365 Management APIs: ActivityFeed.Read\n" in done.output
    assert "Consent is given." in done.output
    assert "first data may take up to 12 hours" in done.output
    assert "  m365.alerts: ok: works\n" in done.output
    assert os.environ["ADMIN_TOKEN"] not in done.output
    key = next((root / ".counterplay" / "certificates").iterdir())
    assert key.stat().st_mode & 0o077 == 0

    printed = done.output.partition("Add this to counterplay.yaml:\n\n")[2]
    siem = json.dumps({"uses": "intake.key", **simulator.info()["intake.key"]})
    (root / "counterplay.yaml").write_text(f"{printed}  siem: {siem}\n")
    ran = call(root, "run", "alerts-to-intake", "--once", "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["figures"]["delivered:alerts-to-intake"] >= 1


def test_a_new_administrator_signs_in_and_needs_nothing_but_what_is_printed(
    simulator: Simulator, tmp_path: Path
) -> None:
    """No app, no token, no workspace: a code to enter, lines to copy, and events arrive."""
    info = simulator.info()
    assert call(tmp_path, "init").exit_code == 0
    words = ["connections", "setup", "m365.tenant", "--create", *addresses(simulator)]
    command_line = [sys.executable, "-m", "counterplay", *words]
    printed = ""
    with subprocess.Popen(command_line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            asked = re.search(r"open the page (\S+) and enter the code (\w+)", line)
            if asked is not None:
                page = requests.get(
                    asked[1], {"user_code": asked[2]}, verify=info["m365.tenant"]["ca_file"], timeout=10
                )
                assert page.status_code == 200
    assert process.returncode == 0, printed
    assert "They take no role of Entra ID." in printed
    lines = printed.partition("Add this to counterplay.yaml:\n\n")[2]
    siem = json.dumps({"uses": "intake.key", **info["intake.key"]})
    (tmp_path / "counterplay.yaml").write_text(f"{lines}  siem: {siem}\n")

    for playbook in ("office365-to-intake", "alerts-to-intake"):
        ran = call(tmp_path, "run", playbook, "--once", "--json")
        assert ran.exit_code == 0, ran.output

    verdict = simulator.oracle().verdict()
    assert (verdict.events.missing, verdict.events.duplicated) == ((), ())
    assert verdict.events.arrived > 0
    (tenant,) = simulator._tenants.values()
    made = [one for one in tenant.objects["directoryAudit"].values() if one["initiatedBy"]["user"]]
    assert "Add application" in {one["activityDisplayName"] for one in made}


@pytest.mark.parametrize(("person", "said"), [("declines", "AADSTS65004"), ("member", "AADSTS90094")])
def test_who_may_not_or_will_not_register_an_app_is_told(
    simulator: Simulator, tmp_path: Path, person: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign-in ends, with what it takes."""
    ca_file = simulator.info()["m365.tenant"]["ca_file"]

    def enter(message: str = "", **_: object) -> None:
        asked = re.search(r"open the page (\S+) and enter the code (\w+)", message)
        if asked is not None:
            query = {"user_code": asked[2], "sim_user": person}
            assert requests.get(asked[1], query, verify=ca_file, timeout=10).status_code == 200

    monkeypatch.setattr(click, "echo", enter)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    words = ["connections", "setup", "m365.tenant", "--create", *addresses(simulator)]

    with pytest.raises(BlockedError, match=f"{said}: .*consent"):
        command.main(words, standalone_mode=False)
    assert not list(tmp_path.rglob("contoso*"))


def test_it_waits_until_consent_is_given(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed link is followed while it waits; then it goes on by itself."""
    info = simulator.info()["m365.tenant"]
    headers = {"Authorization": f"Bearer {administrators_token(simulator)}"}

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{info['graph_url']}/v1.0{path}"
        answer = requests.post(url, json=body, headers=headers, verify=info["ca_file"], timeout=10)
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    roles = ["b0afded3-3588-46d8-8b3d-9842eff778da", "e2f98668-2877-4f38-a2f4-8202e0717aa1"]
    access = [{"id": role, "type": "Role"} for role in roles]
    wanted = {"resourceAppId": "00000003-0000-0000-c000-000000000000", "resourceAccess": access}
    app = post("/applications", {"displayName": "by hand", "requiredResourceAccess": [wanted]})
    post("/servicePrincipals", {"appId": app["appId"]})
    secret = post(f"/applications/{app['id']}/addPassword", {"passwordCredential": {}})["secretText"]
    monkeypatch.setenv("APP_SECRET", secret)
    link = f"{info['authority']}/{info['tenant_id']}/adminconsent"

    def consent(_seconds: float) -> None:
        query = {"client_id": app["appId"], "redirect_uri": "https://localhost"}
        requests.get(link, query, verify=info["ca_file"], allow_redirects=False, timeout=10)

    monkeypatch.setattr(setup, "_pause", consent)
    done = call(
        tmp_path,
        *("connections", "setup", "m365.tenant", "--client-id", app["appId"], "--wait", "60"),
        *("--client-secret", "${env:APP_SECRET}", "--playbook", "sign-ins-to-intake", *addresses(simulator)),
    )

    assert done.exit_code == 0, done.output
    assert done.output.index("Waiting for consent") < done.output.index("Consent is given.")
    assert f"{link}?client_id={app['appId']}&" in done.output
    assert f"App registrations > {app['appId']} > API permissions" in done.output
    assert 'client_secret: "${env:APP_SECRET}"' in done.output
    assert secret not in done.output


def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong cloud or tenant, a secret in the clear, a file that is not there: by name, and at once."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "no.jwt").write_text("a password, perhaps")
    for words, said in (
        (["--create", "--tenant-id", TENANT, "--cloud", "mars"], "cloud: 'mars'"),
        (["--create", "--tenant-id", "contoso.com"], "tenant_id: 'contoso.com'"),
        (["--tenant-id", TENANT, "--client-id", "x", "--client-secret", "in-the-clear"], "takes a reference"),
        (["--tenant-id", TENANT, "--client-id", "x", "--certificate-file", "none.pem"], "no file none.pem"),
        (["--tenant-id", TENANT, "--workload-identity-file", "none.jwt"], "no file none.jwt"),
        (["--tenant-id", TENANT, "--workload-identity-file", "no.jwt"], "no token that names its issuer"),
        (["--tenant-id", TENANT, "--create", "--managed-identity", "system"], "add --principal-id"),
        (["--tenant-id", TENANT, "--create", "--client-secret", "${env:A}"], "makes no client secret"),
        (
            ["--tenant-id", TENANT, "--managed-identity", "system", "--client-secret", "${env:A}"],
            "--client-secret and --managed-identity are both given",
        ),
    ):
        done = call(tmp_path, "connections", "setup", "m365.tenant", *words)

        assert isinstance(done.exception, ConfigError), done.output
        assert said in str(done.exception)
        assert "in-the-clear" not in str(done.exception)
        assert "application permissions" not in done.output


def test_a_second_create_says_how_to_go_on_with_the_first(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second registration beside the one that is there; and that one lists where consent returns."""
    monkeypatch.setenv("ADMIN_TOKEN", administrators_token(simulator))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tenant,) = simulator._tenants.values()
    before = set(tenant.objects["application"])
    words = ["connections", "setup", "m365.tenant", "--create", "--admin-token-env", "ADMIN_TOKEN"]
    words += ["--playbook", "alerts-to-intake", *addresses(simulator)]
    assert call(tmp_path, *words).exit_code == 0

    again = call(tmp_path, *words)

    assert "--client-id ID --certificate-file" in str(again.exception)
    (made,) = set(tenant.objects["application"]) - before
    assert tenant.objects["application"][made]["web"]["redirectUris"] == ["https://localhost"]


def test_the_webhook_is_tried_and_given_and_what_is_printed_takes_its_notifications(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Microsoft's trial is answered by the command itself; then the service listens at the same place."""
    monkeypatch.setenv("ADMIN_TOKEN", administrators_token(simulator))
    assert call(tmp_path, "init").exit_code == 0
    (tenant,) = simulator._tenants.values()
    with Front(simulator.folder / "server.pem") as front:
        listen = ("--listen", f"127.0.0.1:{front.behind}")
        done = call(
            tmp_path,
            *("connections", "setup", "m365.tenant", "--create", "--admin-token-env", "ADMIN_TOKEN"),
            *("--playbook", "office365-to-intake", *addresses(simulator), "--webhook", front.url, *listen),
        )
        assert done.exit_code == 0, done.output
        assert "  webhook for Audit.Exchange: given\n" in done.output
        given = {
            (one["webhook"]["address"], one["webhook"]["status"]) for one in tenant.subscriptions.values()
        }
        assert given == {(f"{front.url}/push/m365.audit_webhook/contoso", "enabled")}
        assert "authId" not in done.output
        assert all(one["webhook"]["authId"] not in done.output for one in tenant.subscriptions.values())
        lines = done.output.partition("counterplay.yaml:\n\n")[2]
        config, _, playbook = lines.partition(
            "\nand this as playbooks/audit-webhook.yaml, then run `playbook up`:\n"
        )
        (tmp_path / "counterplay.yaml").write_text(config)
        (tmp_path / "playbooks" / "audit-webhook.yaml").write_text(textwrap.dedent(playbook.lstrip("\n")))
        words = [sys.executable, "-m", "counterplay", "run", "audit-webhook", *listen]
        with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "/push/" in line:
                    break
            event = {"CreationTime": "2026-03-02T10:00:00", "Id": "00000000-0000-4000-8000-000000000001"}
            tenant.log("Audit.Exchange", event, tenant.clock.now_ns())
            body, status = front.answered.get(timeout=60)
            process.terminate()
            process.stderr.read()

    assert status == 200
    call(tmp_path, "run", "audit-webhook", "--once")
    written = (tmp_path / ".counterplay" / "audit-webhook.jsonl").read_text()
    assert json.loads(body)[0]["contentId"] in written


def test_a_webhook_that_nobody_answers_is_not_given(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscriptions are started without it, and the exit code says that not all worked."""
    monkeypatch.setenv("ADMIN_TOKEN", administrators_token(simulator))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done = call(
        tmp_path,
        *("connections", "setup", "m365.tenant", "--create", "--admin-token-env", "ADMIN_TOKEN"),
        *("--playbook", "office365-to-intake", *addresses(simulator)),
        *("--webhook", "https://127.0.0.1:9", "--listen", "127.0.0.1:0"),
    )

    assert done.exit_code == 1, done.output
    assert re.search(r"webhook for Audit.General: .*AF20021", done.output)
    assert "The audit subscriptions are started;" in done.output
    refused = call(tmp_path, "connections", "setup", "m365.tenant", "--webhook", "http://x.example", *addresses(simulator))  # fmt: skip  # noqa: E501
    assert "http://x.example is not an HTTPS address" in refused.stdout


class Front:
    """A TLS proxy before a listener, as it stands on the internet."""

    def __init__(self, certificate: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.behind: int = probe.getsockname()[1]
        self.answered: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _forwarding(self.behind, self.answered))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _forwarding(port: int, answered: queue.SimpleQueue[tuple[bytes, int]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            answer = requests.post(
                f"http://127.0.0.1:{port}{self.path}", data=body, headers=headers, timeout=10
            )
            if "Webhook-ValidationCode" not in self.headers:
                answered.put((body, answer.status_code))
            self.send_response(answer.status_code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def test_the_registration_has_what_the_playbooks_need_and_no_more(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission beyond the list, and no client secret anywhere."""
    monkeypatch.setenv("ADMIN_TOKEN", administrators_token(simulator))
    done = call(
        tmp_path,
        *("connections", "setup", "m365.tenant", "--create", "--admin-token-env", "ADMIN_TOKEN"),
        *("--playbook", "directory-audit-to-intake", "--certificate-file", str(tmp_path / "app.pem")),
        *addresses(simulator),
    )

    assert done.exit_code == 0, done.output
    made = re.search(r"Made the registration (\S+);", done.output)
    assert made is not None
    (tenant,) = simulator._tenants.values()
    settings = yaml.safe_load(done.output.partition("counterplay.yaml:\n\n")[2])["connections"]["contoso"]
    connection = Tenant("contoso", {name: value for name, value in settings.items() if name != "uses"})
    assert connection.granted("Microsoft Graph") == ("AuditLog.Read.All", "LicenseAssignment.Read.All")
    application = next(iter(tenant.objects["application"].where("appId", made[1])))
    assert not application.get("passwordCredentials")


def test_without_consent_it_waits_and_says_what_is_missing(simulator: Simulator, tmp_path: Path) -> None:
    """Exit code 3: run it again when the administrator has agreed."""
    (tenant,) = simulator._tenants.values()
    tenant.grants["graph"] = ["LicenseAssignment.Read.All"]
    info = simulator.info()["m365.tenant"]
    secret = tmp_path / "secret"
    secret.write_text(info["client_secret"])

    done = call(
        tmp_path,
        *("connections", "setup", "m365.tenant", "--client-id", info["client_id"], "--wait", "0"),
        *("--client-secret", f"${{file:{secret}}}", "--playbook", "sign-ins-to-intake"),
        *addresses(simulator),
    )

    assert done.exit_code == 3, done.output
    assert "still missing: Microsoft Graph: AuditLog.Read.All" in done.output
    assert f"/{info['tenant_id']}/adminconsent?client_id={info['client_id']}&redirect_uri=" in done.output
    assert info["client_secret"] not in done.output


def test_a_registration_by_hand_is_asked_for(simulator: Simulator, tmp_path: Path) -> None:
    """Who has none yet gets the steps, then the questions."""
    done = CliRunner().invoke(
        command,
        ["connections", "setup", "m365.tenant", "--playbook", "sign-ins-to-intake", *addresses(simulator)],
        input="\n",
    )

    assert "App registrations > New registration" in done.output
    assert "     Microsoft Graph: AuditLog.Read.All, LicenseAssignment.Read.All\n" in done.output
    assert "Application (client) ID: " in done.output


@pytest.mark.parametrize(
    ("given", "question", "how"),
    [
        ((), "Directory (tenant) ID", "add --tenant-id ID"),
        (("--tenant-id", TENANT), "Application (client) ID", "register the app, then add --client-id ID"),
        (
            ("--tenant-id", TENANT, "--client-id", TENANT),
            "File with the app's certificate and private key",
            "add --certificate-file FILE, or --client-secret, --workload-identity-file or --managed-identity",
        ),
    ],
)
def test_without_a_terminal_it_says_which_answer_is_missing(
    tmp_path: Path, given: tuple[str, ...], question: str, how: str
) -> None:
    """And how to give it: a script that reads nothing gets no silent end."""
    done = call(tmp_path, "connections", "setup", "m365.tenant", *given)

    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"no answer to `{question}`: the input has ended; {how}"


def test_a_kind_without_a_guide_is_told() -> None:
    """What can be set up with guidance is named."""
    done = call(Path.cwd(), "connections", "setup", "intake.key")

    assert "there is no guided set-up for 'intake.key'; there is one for: m365.tenant" in done.stdout


def test_the_guide_has_a_help_of_its_own() -> None:
    """Its options stand there, not those of the command that leads to it."""
    done = call(Path.cwd(), "connections", "setup", "m365.tenant", "--help")

    assert done.exit_code == 0
    assert "--admin-token-env VARIABLE" in done.output


def test_the_least_permissions_are_found() -> None:
    """The first of the alternatives, and none for what another one covers."""

    def need(*permissions: tuple[str, ...]) -> Need:
        return Need("x", {}, tuple({"resource": "Microsoft Graph", "any": one} for one in permissions))

    found = least_permissions(
        [need(("MailboxSettings.Read", "MailboxSettings.ReadWrite")), need(("MailboxSettings.ReadWrite",))]
    )

    assert found == {"Microsoft Graph": ["LicenseAssignment.Read.All", "MailboxSettings.ReadWrite"]}


@pytest.mark.parametrize("granted", [True, False])
def test_an_administrator_signs_in_by_device_code(wire: responses.RequestsMock, granted: bool) -> None:
    """The code is shown, the token comes when the administrator has entered it; a refusal is explained."""
    authority = f"https://login.microsoftonline.com/{TENANT}"
    wire.get(
        f"{authority}/v2.0/.well-known/openid-configuration",
        json={
            "issuer": f"{authority}/v2.0",
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{authority}/oauth2/v2.0/devicecode",
        },
    )
    message = "To sign in, open https://microsoft.com/devicelogin and enter the code ABCD"
    wire.post(
        f"{authority}/oauth2/v2.0/devicecode",
        json={
            "user_code": "ABCD",
            "device_code": "d",
            "verification_uri": "https://microsoft.com/devicelogin",
            "expires_in": 900,
            "interval": 0,
            "message": message,
        },
    )
    pending = {"error": "authorization_pending", "error_description": "AADSTS70016: wait"}
    wire.post(f"{authority}/oauth2/v2.0/token", status=400, json=pending)
    if granted:
        wire.post(
            f"{authority}/oauth2/v2.0/token",
            json={"token_type": "Bearer", "expires_in": 3599, "access_token": "of-the-administrator"},
        )
    else:
        refusal = {"error": "access_denied", "error_description": "AADSTS65004: no", "error_codes": [65004]}
        wire.post(f"{authority}/oauth2/v2.0/token", status=400, json=refusal)
    told: list[str] = []

    def sign_in() -> str:
        session = entra_session("contoso", None)
        return device_code_token(authority, "https://graph.microsoft.com", told.append, session)

    if granted:
        assert sign_in() == "of-the-administrator"
    else:
        with pytest.raises(BlockedError, match="AADSTS65004: consent was declined"):
            sign_in()
    assert told == [message]


def test_a_webhook_is_given_to_the_subscription(context: Context, wire: responses.RequestsMock) -> None:
    """The address and the id that Microsoft shall send."""
    from counterplay_m365.activity import ActivityFeed

    url = f"https://manage.office.com/api/v1.0/{TENANT}/activity/feed/subscriptions/start"
    wire.post(url, json={})
    assert isinstance(context.http, Wire)

    ActivityFeed(context).start("Audit.General", webhook=("https://hook.example/x", "the-id"))

    assert json.loads(wire.calls[-1].request.body) == {  # type: ignore[arg-type]  # bytes here
        "webhook": {"address": "https://hook.example/x", "authId": "the-id", "expiration": ""}
    }
