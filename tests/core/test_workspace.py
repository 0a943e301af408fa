"""The workspace: where it is found, where it keeps its state, what its file may say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from counterplay.errors import ConfigError
from counterplay.language import PlaybookError
from counterplay.places import find_root, find_state_dir
from counterplay.plugins import PluginHost
from counterplay.runtime.opening import Opener
from counterplay.workspace import Workspace, example_config

TENANT = "6c2a8c5e-0d4b-4f0e-9a57-1f2b3c4d5e6f"
CONNECTIONS = f"""\
connections:
  contoso:
    uses: m365.tenant
    labels: [customer, gold]
    tenant_id: ${{env:CONTOSO_TENANT}}
    client_id: 91f0b7d2-5a3c-4e1d-8b6f-7a8b9c0d1e2f
    client_secret: ${{env:CONTOSO_SECRET}}
  fabrikam:
    uses: m365.tenant
    labels: [customer]
    tenant_id: {TENANT}
    client_id: 91f0b7d2-5a3c-4e1d-8b6f-7a8b9c0d1e2f
    client_secret: ${{file:keys/fabrikam}}
  siem:
    uses: intake.key
    url: https://intake.example.net
    intake_key: ${{keyring:siem/intake}}
"""


@pytest.fixture(scope="module")
def host() -> PluginHost:
    """All bundled plugins."""
    return PluginHost.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with no workspace around it and a home of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path / "here"


def workspace(host: PluginHost, folder: Path, text: str) -> Workspace:
    (folder / "counterplay.yaml").write_text(text)
    return Workspace(host)


def findings(host: PluginHost, folder: Path, text: str) -> list[str]:
    with pytest.raises(PlaybookError) as caught:
        _ = workspace(host, folder, text).config
    return [str(one) for one in caught.value.findings]


def test_the_nearest_root_upwards_is_the_workspace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace inside another one wins where one stands inside it."""
    inner = folder / "inner"
    (inner / "deep" / "er").mkdir(parents=True)
    (folder / "counterplay.yaml").touch()

    assert find_root(inner / "deep") == folder
    (inner / "counterplay.yaml").touch()
    assert find_root(inner / "deep" / "er") == inner
    monkeypatch.chdir(inner / "deep")
    assert find_state_dir() == inner / ".counterplay"


def test_without_a_workspace_state_lies_in_the_users_state_directory(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_STATE_HOME decides, else ~/.local/state; relative paths begin at the current directory."""
    home = Path(os.environ["HOME"])

    assert Workspace(host).root is None
    assert Workspace(host).store_url == f"sqlite:///{home}/.local/state/counterplay/state.db"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/somebody")
    assert Workspace(host).store_url == "sqlite:////var/lib/somebody/counterplay/state.db"
    assert Workspace(host).base == folder
    assert Workspace(host).names() == ["sim"]


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "\n  \n", example_config()])
def test_an_empty_file_is_a_workspace(host: PluginHost, folder: Path, text: str) -> None:
    """A file without content says only where the workspace is."""
    here = workspace(host, folder, text)

    assert here.config == {}
    assert here.store_url == f"sqlite:///{folder}/.counterplay/state.db"


@pytest.mark.parametrize(
    ("store", "path"),
    [
        ("sqlite:///state/my.db", "{here}/state/my.db"),
        ("sqlite:///../state.db", "{above}/state.db"),
        ("sqlite:////var/lib/counterplay/state.db", "/var/lib/counterplay/state.db"),
    ],
)
def test_a_relative_store_begins_at_the_file(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch, store: str, path: str
) -> None:
    """Wherever in the workspace one stands."""
    (folder / "playbooks").mkdir()
    here = workspace(host, folder, f"store: {store}\n")
    monkeypatch.chdir(folder / "playbooks")

    assert here.store_url == "sqlite:///" + path.format(here=folder, above=folder.parent)
    assert Workspace(host).store_url == here.store_url


@pytest.mark.parametrize(
    "store",
    [
        "{url: postgresql://soc@db.example.net:5433/cp, password: '${env:STORE_PASSWORD}'}",
        "${env:STORE_URL}",
    ],
)
def test_a_servers_password_is_a_reference(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Resolved when it is used, masked from then on, and not in what the audit log may have."""
    monkeypatch.setenv("STORE_PASSWORD", "p@ss/4711-long")
    monkeypatch.setenv("STORE_URL", "postgres://soc:p%40ss%2F4711-long@db.example.net:5433/cp")
    here = workspace(host, folder, f"store: {store}\n")

    url = make_url(here.store_url)

    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "soc", "p@ss/4711-long")
    assert (url.host, url.port, url.database) == ("db.example.net", 5433, "cp")
    assert here.secrets.mask("it is p@ss/4711-long") == "it is ***"
    assert "4711" not in str(here.config_without_secrets)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("postgresql://soc:secret-4711@db/cp", "1:8: the URL holds the password in clear"),
        ("postgresql://soc@db", "1:8: it is no store that this version knows"),
        ("postgresql://soc@db/", "1:8: it is no store that this version knows"),
        ("sqlite://state.db", "1:8: it is no store that this version knows"),
        ("7", "1:8: it is no store that this version knows"),
        ("[]", "1:8: it is no store that this version knows"),
        ("x${env:URL}", "1:8: ${env:URL} is not a reference that stands alone"),
        ("{url: postgresql://soc@db/cp}", "1:8: `password` is missing"),
        ("{url: postgresql://soc@db/cp, password: short}", "1:48: the secret has fewer than 8 characters"),
        ("{url: postgresql://soc@db/cp, password: '${env:A}', user: x}", "1:60: unknown key 'user'"),
        ("{url: sqlite:///x.db, password: '${env:A}'}", "1:14: a SQLite file has no password"),
    ],
)
def test_a_store_that_is_none_is_refused(host: PluginHost, folder: Path, store: str, said: str) -> None:
    """With its place, and without the password."""
    (found,) = findings(host, folder, f"store: {store}\n")

    assert found.startswith(f"counterplay.yaml:{said}")
    assert "4711" not in found


def test_a_reference_that_leads_to_no_store_is_refused(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is used, because only then anybody knows; what it leads to is not told."""
    monkeypatch.setenv("STORE_URL", "mysql://soc:secret-4711@db/cp")
    with pytest.raises(ConfigError, match=r"what \$\{env:STORE_URL\} stands for is no store") as refused:
        _ = workspace(host, folder, "store: ${env:STORE_URL}\n").store_url
    assert "4711" not in str(refused.value)


def test_everything_that_is_wrong_is_told_with_its_place(host: PluginHost, folder: Path) -> None:
    """Unknown keys, stores, kinds, settings and references, in one go and in order of their lines."""
    text = """\
stoer: sqlite:///x
store: mysql://db
connections:
  contoso:
    uses: m365.tenant
    tenant_id: 6c2a8c5e-0d4b-4f0e-9a57-1f2b3c4d5e6f
    clientid: abc
    client_id: abc
    client_secret: before ${env:SECRET}
  vault: {uses: m365.tennant}
  web: {uses: std.http}
"""
    found = findings(host, folder, text)

    assert sorted(found, key=lambda line: int(line.split(":")[1])) == [
        "counterplay.yaml:1:1: 'stoer' is not known here; did you mean 'store'?",
        "counterplay.yaml:2:8: it is no store that this version knows; "
        "write sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        "counterplay.yaml:7:5: 'clientid' is not known here; did you mean 'client_id'?",
        "counterplay.yaml:9:20: ${env:SECRET} is not a reference that stands alone; "
        "write the whole value as ${env:NAME}, ${file:PATH} or ${keyring:SERVICE/USER}",
        "counterplay.yaml:10:17: no module is called 'm365.tennant'; did you mean 'm365.tenant'?",
        "counterplay.yaml:11:15: std.http is an action, not a connection; "
        "name a kind of connection: intake.key, m365.tenant",
    ]


def test_what_is_inside_is_domains_and_networks(host: PluginHost, folder: Path) -> None:
    """Both are lists of what they are called after; an address is no domain."""
    right = "internal: {domains: [contoso.com], networks: [203.0.113.0/24, '2001:db8::/32']}\n"

    assert workspace(host, folder, right).internal["networks"] == ["203.0.113.0/24", "2001:db8::/32"]
    assert [one.partition(": ")[0] for one in findings(host, folder, "internal: {domains: [a@b.com]}\n")] == [
        "counterplay.yaml:1:22"
    ]
    assert findings(host, folder, "internal: {domain: [contoso.com]}\n") == [
        "counterplay.yaml:1:12: 'domain' is not known here; did you mean 'domains'?"
    ]


def test_connections_are_known_by_name_kind_and_labels(host: PluginHost, folder: Path) -> None:
    """Several labels have to be carried all; a name that is configured hides what plugins offer by it."""
    here = workspace(host, folder, CONNECTIONS + "  sim: {uses: intake.key, url: 'https://x.example', intake_key: '${env:K}'}\n")  # fmt: skip  # noqa: E501

    assert here.names() == ["contoso", "fabrikam", "siem", "sim"]
    assert here.kinds("contoso") == {"m365.tenant"}
    assert here.kinds("sim") == {"intake.key"}
    assert here.kinds("nobody") == set()
    assert here.labelled(["customer"], "m365.tenant") == ["contoso", "fabrikam"]
    assert here.labelled(["customer", "gold"], "m365.tenant") == ["contoso"]
    assert here.labelled(["customer"], "intake.key") == []


def test_references_of_all_kinds_open_a_connection(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment, file (relative to the workspace) and keyring; what they hold is masked from then on."""
    import keyring

    monkeypatch.setenv("CONTOSO_TENANT", TENANT)
    monkeypatch.setenv("CONTOSO_SECRET", "secret-from-the-environment")
    monkeypatch.setattr(keyring, "get_password", lambda service, user: f"{service}-{user}-secret")
    (folder / "keys").mkdir()
    (folder / "keys" / "fabrikam").write_text("secret-from-a-file\n")
    opener = Opener(workspace(host, folder, CONNECTIONS))

    contoso = opener.connection("contoso", "m365.tenant")
    fabrikam = opener.connection("fabrikam", "m365.tenant")
    siem = opener.connection("siem", "intake.key")

    assert contoso.tenant == TENANT
    assert contoso.secret("client_secret") == "secret-from-the-environment"
    assert fabrikam.secret("client_secret") == "secret-from-a-file"
    assert siem.secret("intake_key") == "siem-intake-secret"
    assert contoso.settings["client_secret"] == "${env:CONTOSO_SECRET}", "the secret itself is not kept"
    masked = opener.secrets.mask("secret-from-the-environment, secret-from-a-file, siem-intake-secret")
    assert masked == "***, ***, ***"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "CONTOSO_TENANT",
            None,
            "connections.contoso.tenant_id: the environment variable CONTOSO_TENANT is not set; "
            "export CONTOSO_TENANT=…",
        ),
        (
            "CONTOSO_SECRET",
            None,
            "connections.contoso.client_secret: the environment variable CONTOSO_SECRET is not set; "
            "export CONTOSO_SECRET=…",
        ),
        (
            "CONTOSO_SECRET",
            "short",
            "connections.contoso.client_secret: the secret has fewer than 8 characters, so it could not be "
            "masked; use a longer one",
        ),
    ],
)
def test_references_are_checked_when_the_connection_is_opened(
    host: PluginHost,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str | None,
    message: str,
) -> None:
    """What they resolve to has to be right; the message names the file and the setting."""
    monkeypatch.setenv("CONTOSO_TENANT", TENANT)
    monkeypatch.setenv("CONTOSO_SECRET", "long-enough-to-be-masked")
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    opener = Opener(workspace(host, folder, CONNECTIONS))

    with pytest.raises(ConfigError) as caught:
        opener.connection("contoso", "m365.tenant")

    assert str(caught.value) == f"counterplay.yaml: {message}"


def test_a_resolved_value_is_held_against_the_schema(
    host: PluginHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting by reference is checked as if it stood in the file."""
    monkeypatch.setenv("CONTOSO_TENANT", "contoso.com")
    monkeypatch.setenv("CONTOSO_SECRET", "long-enough-to-be-masked")
    opener = Opener(workspace(host, folder, CONNECTIONS))

    with pytest.raises(
        ConfigError, match=r"^counterplay\.yaml: connections\.contoso\.tenant_id: 'contoso\.com'"
    ):
        opener.connection("contoso", "m365.tenant")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("siem", "m365.tenant", "the connection 'siem' is of kind intake.key, not m365.tenant"),
        (
            "nobody",
            "m365.tenant",
            "there is no connection 'nobody' of kind m365.tenant; add it under `connections:` in "
            "counterplay.yaml, or run with `--connection nobody=sim`",
        ),
        ("sim", "std.http", "std.http is an action, not a connection"),
    ],
)
def test_a_connection_of_another_kind_is_refused(
    host: PluginHost, folder: Path, name: str, kind: str, message: str
) -> None:
    """The message says of what kind it is, or how to add it."""
    opener = Opener(workspace(host, folder, CONNECTIONS))

    with pytest.raises(ConfigError) as caught:
        opener.connection(name, kind)

    assert str(caught.value) == message


def test_playbooks_of_the_workspace_win_over_shipped_ones(host: PluginHost, folder: Path) -> None:
    """By name, from both endings; folders and other files are none."""
    (folder / "playbooks" / "sub").mkdir(parents=True)
    for name in ("own.yaml", "quickstart.yml", "notes.txt", "sub/deep.yaml"):
        (folder / "playbooks" / name).touch()
    here = workspace(host, folder, "")

    assert here.playbooks()["quickstart"] == folder / "playbooks" / "quickstart.yml"
    assert set(here.playbooks()) == {*here.shipped, "own"}
    with pytest.raises(ConfigError, match=r"^no playbook is called 'onw'; did you mean 'own'\?$"):
        here.playbook_file("onw")
    with pytest.raises(ConfigError, match=r"^gone/x\.yaml: there is no such file$"):
        here.playbook_file("gone/x.yaml")


def test_a_workspace_file_of_10_mb_is_refused(host: PluginHost, folder: Path) -> None:
    """It is not read to its end."""
    with pytest.raises(PlaybookError) as caught:
        _ = workspace(host, folder, "store: sqlite:///x\n" + "#" * 10_000_000).config

    assert "1,000,000 is the limit" in str(caught.value)


def test_limits_that_would_bound_nothing_are_findings(host: PluginHost, folder: Path) -> None:
    """A misspelt action or playbook under `guardrails` is told with its place, else it would fail open."""
    (folder / "playbooks").mkdir()
    (folder / "playbooks" / "contain.yaml").touch()
    made = workspace(
        host,
        folder,
        "guardrails:\n"
        "  effects_per_hour: {m365.blok_sign_in: 1, m365.block_sign_in: 1, m365.get_user: 1, '*': 9}\n"
        "  runs_per_hour: {contian: 1, contain: 1, undo-contain: 1, of-another-folder: 1, '*': 1}\n",
    )

    with pytest.raises(PlaybookError) as caught:
        made.config  # noqa: B018  # reading it is the test

    assert [str(one) for one in caught.value.findings] == [
        "counterplay.yaml:2:22: no module is called 'm365.blok_sign_in'; did you mean 'm365.block_sign_in'?",
        "counterplay.yaml:2:67: m365.get_user changes nothing, so that nothing counts; name an action that "
        "does, or `*` for all of them",
        "counterplay.yaml:3:19: no playbook is called 'contian'; did you mean 'contain'?",
    ]
