"""What each command prints, how it ends, and that `--json` is JSON."""

import os
import re
from typing import Any

import pytest

from counterplay.plugins import PluginHost

MODULES = sorted(PluginHost.load().modules)
GREET = """\
name: greet
description: Writes each event to a file. And more.
inputs:
  level: {type: integer}
  loud: {type: boolean, default: false}
  names: {type: array, items: {type: string}, default: []}
  text: {type: string, default: ""}
trigger: {uses: std.manual}
filter: event.level >= inputs.level
sinks:
  - uses: std.jsonl
    with: {path: "out-{{ inputs.level }}.jsonl"}
"""


def test_the_version_is_the_distributions(desk: Any) -> None:
    """One line on stdout."""
    from importlib.metadata import version

    said = desk.playbook("--version")

    assert (said.code, said.out, said.err) == (0, f"playbook, version {version('counterplay')}\n", "")


def test_help_lists_every_command_with_its_line(desk: Any) -> None:
    """Our own in the order of use, then those of plugins, read from their files."""
    said = desk.playbook("--help")

    words = [line.split()[0] for line in said.out.partition("Commands:")[2].strip().splitlines()]
    assert (said.code, said.err) == (0, "")
    assert words[:3] == ["run", "up", "plan"]
    assert re.search(r"\n  sim +Run the simulated tenant and its intake until Ctrl-C\.\n", said.out)
    assert "130 interrupted" in said.out


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (("rnu",), "Error: No such command 'rnu'. Did you mean 'run'?"),
        (("xyzzy",), "Error: No such command 'xyzzy'."),
        (("run",), "Error: Missing argument 'NAME'."),
        (("run", "onw"), "error: no playbook is called 'onw'; `playbook list` shows what there is"),
        (("run", "quickstar"), "error: no playbook is called 'quickstar'; did you mean 'quickstart'?"),
        (("show", "quickstar"), "error: no playbook is called 'quickstar'; did you mean 'quickstart'?"),
        (("show", "gone.yaml"), "gone.yaml: there is no such file"),
        (("modules", "std.htp"), "error: no module is called 'std.htp'; did you mean 'std.http'?"),
        (("connections", "check", "contoso"), "error: there is no connection 'contoso'; there are: sim"),
        (("runs", "show", "r-1"), "error: there is no run 'r-1'; `playbook runs list` shows them"),
    ],
)
def test_a_wrong_word_is_told_with_what_was_meant(desk: Any, arguments: tuple[str, ...], last: str) -> None:
    """Exit code 2, nothing on stdout, and the nearest name where there is one."""
    said = desk.playbook(*arguments)

    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines()[-1] == last


def test_a_wrong_option_is_told_with_what_was_meant(desk: Any) -> None:
    """In the words of the library that reads the command line."""
    said = desk.playbook("run", "quickstart", "--onse")

    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines()[-1].startswith("Error: No such option")
    assert "--once" in said.err.splitlines()[-1]


def test_init_makes_a_workspace_that_checks_and_runs(desk: Any) -> None:
    """What it proposes to type works; a second time it changes nothing."""
    (desk.root / "counterplay.yaml").unlink()

    first = desk.playbook("init")
    before = {file: file.read_bytes() for file in desk.root.rglob("*") if file.is_file()}
    second = desk.playbook("init")
    checked = desk.playbook("check")
    run = desk.playbook("run", "my-first-playbook", "--event", "-", stdin=b'{"hello": "world"}')

    assert first.out == (
        "made    counterplay.yaml\nmade    playbooks/my-first-playbook.yaml\n"
        "made    playbooks/tests/my-first-playbook.yaml\n"
        "made    .counterplay/playbook.schema.json\nmade    .counterplay/playbook-test.schema.json\n"
        "made    .counterplay/.gitignore\n\n"
        'Try: echo \'{"hello": "world"}\' | playbook run my-first-playbook --event -\n'
    )
    assert second.out == first.out.replace("made", "kept")
    assert {file: file.read_bytes() for file in before} == before
    assert checked.out == "1 playbook checked, nothing is wrong\n"
    assert desk.playbook("test", "--fail-under", "100").code == 0
    assert (run.code, (desk.root / "greetings.jsonl").read_text()) == (0, '{"hello": "world"}\n')
    assert (desk.root / ".counterplay").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_init_says_what_it_may_not_write(desk: Any) -> None:
    """The file and the reason."""
    (desk.root / "counterplay.yaml").unlink()
    desk.root.chmod(0o500)
    try:
        said = desk.playbook("init")
    finally:
        desk.root.chmod(0o700)

    assert (said.code, said.err) == (2, f"{desk.root}/counterplay.yaml: cannot write: Permission denied\n")


def test_modules_lists_every_module_in_one_line(desk: Any) -> None:
    """Name, kind and the first line of its description."""
    said = desk.playbook("modules")

    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == MODULES
    assert [one["uses"] for one in desk.playbook("modules", "--json").data] == MODULES


@pytest.mark.parametrize("uses", MODULES)
def test_a_module_is_explained_from_its_schema(desk: Any, uses: str) -> None:
    """Kind, description, each argument with its type and what it is for, permissions, promises."""
    said = desk.playbook("modules", uses)
    about = desk.playbook("modules", uses, "--json").data

    assert said.code == 0
    assert said.out.startswith(f"{uses} ({about['kind']} of counterplay)\n\n{about['summary']}")
    for name, described in about["schema"].get("properties", {}).items():
        assert f"\n  {name} (" in said.out
        assert " ".join(described["description"].split()) in said.out
    for need in about["schema"].get("x-permissions", []):
        assert f"{need['resource']}: {' or '.join(need['any'])}" in said.out
    for title, text in about["promises"].items():
        assert f"\n{title}: {text}\n" in said.out


def test_plugins_shows_what_works_and_what_is_disabled(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a plugin; COUNTERPLAY_DISABLE is named as the reason."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "m365")

    rows = {line.split()[0]: line.split()[-1] for line in desk.playbook("plugins").out.splitlines()[1:]}
    data = {one["name"]: one["problem"] for one in desk.playbook("plugins", "--json").data}

    assert rows["m365"] == data["m365"] == "disabled"
    assert (rows["std"], data["std"]) == ("works", None)


def test_the_rest_works_without_a_plugin_and_check_says_why(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs the plugin names it; what does not need it runs."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "m365")
    desk.write("playbooks/greet.yaml", GREET)
    why = "no module is called 'm365.audit_log': the plugin m365 is disabled by COUNTERPLAY_DISABLE"

    checked = desk.playbook("check", "office365-to-intake")
    run = desk.playbook("run", "quickstart")
    own = desk.playbook("run", "greet", "--input", "level=1", "--event", "-", stdin=b'{"level": 2}')
    listed = {one["name"]: one["kind"] for one in desk.playbook("list", "--json").data}

    assert checked.code == run.code == 2
    assert checked.out.endswith(f"office365-to-intake.yaml:9:9: {why}\n")
    assert run.err.endswith(f"office365-to-intake.yaml:9:9: {why}\n")
    assert own.code == 0
    assert (listed["greet"], listed["office365-to-intake"]) == ("playbook", "invalid")
    assert [one["kind"] for one in desk.playbook("connections", "--json").data] == ["intake.key"]


def test_a_command_of_a_disabled_plugin_says_so(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is not simply unknown."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "sim")

    said = desk.playbook("sim")
    run = desk.playbook("run", "quickstart")

    assert said.err.splitlines()[-1] == (
        "Error: No such command 'sim': the plugin sim is disabled by COUNTERPLAY_DISABLE"
    )
    assert (said.code, "(from the plugin" in desk.playbook("--help").out) == (2, False)
    assert (run.code, run.err) == (
        2,
        "error: the set 'quickstart' uses 'sim' as 'contoso', and there is no connection 'sim'; "
        "there are: none\n",
    )


def test_connections_lists_what_is_configured_and_what_is_offered(desk: Any) -> None:
    """Name, kind, labels and where each comes from."""
    desk.write(
        "counterplay.yaml",
        "connections:\n  siem: {uses: intake.key, url: 'https://i.example', intake_key: '${env:NO_SUCH}',"
        " labels: [a, b]}\n",
    )

    rows = [line.split() for line in desk.playbook("connections").out.splitlines()]

    assert rows[1] == ["siem", "intake.key", "a,", "b", "counterplay.yaml"]
    assert [row[:2] for row in rows[2:]] == [["sim", "m365.tenant"], ["sim", "intake.key"]]


def test_the_simulated_connection_passes_its_check(desk: Any) -> None:
    """Both kinds of `sim`, each line ok, and none of their secrets on the screen."""
    said = desk.playbook("connections", "check", "sim")

    rows = said.out.splitlines()[1:]
    assert said.code == 0
    assert {row.split()[0] for row in rows} == {"m365.tenant", "intake.key"}
    assert all(" ok " in row for row in rows)


def test_check_looks_at_the_configuration_of_playbooks_without_connections_too(desk: Any) -> None:
    """Every run reads counterplay.yaml, so a mistake in it is told before; and told once."""
    desk.playbook("init")
    desk.write("counterplay.yaml", "guardrails: {read_onyl: true}\n")
    said = desk.playbook("check", "my-first-playbook")
    assert (said.code, said.out.count("counterplay.yaml:1:14: 'read_onyl' is not known here")) == (2, 1), said
    assert len(desk.playbook("check", "--json").data["findings"]) == 1


def test_check_finds_a_call_of_a_playbook_that_is_not_there(desk: Any) -> None:
    """Else the run would find out at that step; what an expression or a path names cannot be told before."""
    desk.playbook("init")
    step = "  - {uses: std.run_playbook, with: {playbook: NAME}}\n"
    names = ("my-first-playbok", "my-first-playbook", "'{{ event.x }}'", "elsewhere/one.yaml")
    head = "name: caller\ntrigger: {uses: std.manual}\nsteps:\n"
    desk.write("playbooks/caller.yaml", head + "".join(step.replace("NAME", name) for name in names))
    said = desk.playbook("check", "caller")
    text = "no playbook is called 'my-first-playbok'; did you mean 'my-first-playbook'?\n"
    assert (said.code, said.out) == (2, f"playbooks/caller.yaml:4:47: {text}"), said


def test_check_without_a_name_means_ones_own(desk: Any) -> None:
    """The workspace's playbooks, with `--all` the shipped ones too, and only those where it has none."""
    shipped = len(desk.playbook("list", "--json").data)

    assert desk.playbook("check").out == f"{shipped} playbooks checked, nothing is wrong\n"
    desk.write("playbooks/greet.yaml", GREET)
    assert desk.playbook("check").out == "1 playbook checked, nothing is wrong\n"
    assert desk.playbook("check", "--all").out == f"{shipped + 1} playbooks checked, nothing is wrong\n"
    assert desk.playbook("check", "--json").data == {"checked": ["greet"], "findings": []}
    assert desk.playbook("check", "playbooks/greet.yaml", "greet", "nope").code == 2


def test_list_shows_a_sentence_of_each(desk: Any) -> None:
    """Own and shipped playbooks, sets, and what is invalid with its first finding."""
    desk.write("playbooks/greet.yaml", GREET)
    desk.write("playbooks/broken.yaml", "name: broken\n\tx: 1\n")

    lines = {line.split()[0]: line for line in desk.playbook("list").out.splitlines()[1:]}

    assert lines["greet"].split(maxsplit=3)[1:] == ["playbook", "workspace", "Writes each event to a file."]
    assert lines["quickstart"].split()[1:3] == ["set", "shipped"]
    assert lines["broken"].split()[1:4] == ["invalid", "workspace", "playbooks/broken.yaml:2:1:"]


SHOWN = {
    "office365-to-intake": [
        "  trigger  m365.audit_log on contoso - ",
        "  sink     intake.forward on siem - ",
    ],
    "alerts-to-intake": [
        "  trigger  m365.alerts on contoso - ",
        "  sink     intake.forward on siem - ",
    ],
    "contain-compromised-account": [
        '  filter   event.status != "resolved"',
        "  ── each event that is left becomes a durable run ──",
        "  ├─ user: m365.get_user - ",
        "  ├─ block: m365.block_sign_in [changes something] - ",
        "  ├─ revoke: m365.revoke_sessions [changes something] - ",
        "  sink     intake.forward on siem - ",
    ],
    "quickstart": [
        "quickstart: a set, ends by itself",
        "office365-to-intake",
        "  with connection contoso = sim",
        "  with connection siem = sim",
        "alerts-to-intake",
        "contain-compromised-account",
    ],
}


@pytest.mark.parametrize("name", SHOWN)
def test_show_says_what_a_shipped_playbook_does(desk: Any, name: str) -> None:
    """Trigger, filter, where the run begins, which steps change something, and the sinks, in order."""
    said = desk.playbook("show", name)
    lines = said.out.splitlines()

    assert said.code == 0
    places = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in SHOWN[name]]
    assert places == sorted(places)
    assert desk.playbook("show", name, "--json").data["name"] == name


def test_show_tells_inputs_and_conditions_of_an_own_playbook(desk: Any) -> None:
    """Types, defaults and what has to be given."""
    desk.write("playbooks/greet.yaml", GREET)

    assert desk.playbook("show", "greet").out.splitlines()[2:8] == [
        "  input    level (integer, required)",
        "  input    loud (boolean, default False)",
        "  input    names (array, default [])",
        "  input    text (string, default '')",
        "  trigger  std.manual - " + desk.playbook("modules", "std.manual", "--json").data["summary"],
        "  filter   event.level >= inputs.level",
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((), "error: the input 'level' is missing; give it with --input level=..."),
        (("level",), "error: --input level: not NAME=VALUE; write --input NAME=VALUE"),
        (("=3",), "error: --input =3: not NAME=VALUE; write --input NAME=VALUE"),
        (("level=3", "level=4"), "error: --input level=4: 'level' is given twice; give it once"),
        (("level=x",), "error: the input 'level' has to be a whole number; write --input level=3"),
        (("level=3", "loud=yes"), "error: the input 'loud' has to be true or false; write --input loud=true"),
        (
            ("level=3", "names=[1]"),
            "error: the input 'names' is not right: this has to be a text, not a whole number; "
            'write --input names=\'["a", "b"]\'',
        ),
        (
            ("level=3", "zz=red"),
            "error: the playbook greet has no input 'zz'; it has: level, loud, names, text",
        ),
    ],
)
def test_a_wrong_input_is_refused_before_anything_runs(desk: Any, given: tuple[str, ...], line: str) -> None:
    """The input, what is wrong with it, and how to write it."""
    desk.write("playbooks/greet.yaml", GREET)
    words = [word for one in given for word in ("--input", one)]

    said = desk.playbook("run", "greet", "--event", "-", *words, stdin=b"{}")

    assert (said.code, said.out, said.err) == (2, "", line + "\n")
    assert not (desk.root / ".counterplay").exists()


def test_inputs_become_what_they_are_declared_as(desk: Any) -> None:
    """A number, a truth value, a list and a text, from words of the command line."""
    desk.write("playbooks/greet.yaml", GREET)
    words = ["level=3", "loud=true", 'names=["a"]', "text=3"]

    said = desk.playbook(
        "run", "greet", "--event", "-", *(word for one in words for word in ("--input", one)),
        stdin=b'[{"level": 3}, {"level": 2}]',
    )  # fmt: skip

    assert (said.code, (desk.root / "out-3.jsonl").read_text()) == (0, '{"level": 3}\n')


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("contoso", "error: --connection contoso: not NAME=OTHER; write --connection NAME=OTHER"),
        ("contoso=nope", "error: --connection contoso=nope: there is no connection 'nope'; there are: sim"),
        ("contoso=sum", "error: --connection contoso=sum: there is no connection 'sum'; did you mean 'sim'?"),
        (
            "bogus=sim",
            "error: --connection bogus=sim: nothing here names a connection 'bogus'; "
            "the names are: contoso, siem, sim",
        ),
    ],
)
def test_a_wrong_connection_is_refused_before_anything_runs(desk: Any, given: str, line: str) -> None:
    """A name that nothing uses is as wrong as one that does not exist."""
    said = desk.playbook("run", "quickstart", "--connection", given)

    assert (said.code, said.out, said.err) == (2, "", line + "\n")


def test_a_playbook_runs_on_the_simulated_tenant_by_connection(desk: Any) -> None:
    """`--connection contoso=sim` puts the simulator where the playbook names a tenant."""
    sim = ("--connection", "contoso=sim", "--connection", "siem=sim")

    missing = desk.playbook("run", "alerts-to-intake", "--once", "--connection", "siem=sim")
    said = desk.playbook("run", "alerts-to-intake", "--once", *sim)

    assert missing.code == 2
    assert "no connection is called 'contoso'" in missing.err
    assert said.code == 0
    assert "  6 of 6 alerts arrived.\n" in said.out


@pytest.mark.parametrize("address", ["8787", ":8787", "localhost", "localhost:http", "localhost:99999"])
def test_a_bad_address_to_listen_on_is_refused(desk: Any, address: str) -> None:
    """Whether the playbook needs it or not, and before anything runs."""
    said = desk.playbook("run", "quickstart", "--listen", address)

    assert (said.code, said.err) == (
        2,
        f"error: --listen {address}: not HOST:PORT; write --listen 127.0.0.1:8787\n",
    )


def test_runs_are_listed_and_shown_with_steps_and_effects(desk: Any) -> None:
    """After the containment ran on the simulated tenant: newest first, by short id, as JSON too."""
    sim = ("--connection", "contoso=sim", "--connection", "siem=sim")
    nothing = desk.playbook("runs", "list")

    ran = desk.playbook("run", "contain-compromised-account", "--once", *sim)
    [run] = desk.playbook("runs", "list", "--json").data
    table = desk.playbook("runs").out.splitlines()
    shown = desk.playbook("runs", "show", run["id"][:8])
    data = desk.playbook("runs", "show", run["id"], "--json").data
    none = desk.playbook("runs", "list", "--status", "failed", "--json").data

    assert nothing.out == "RUN  PLAYBOOK  STATUS  CREATED  ERROR\n"
    assert (ran.code, run["status"]) == (0, "succeeded")
    assert table[1].split()[:3] == [run["id"], "contain-compromised-account", "succeeded"]
    assert shown.code == 0
    steps = ["user", "block", "revoke", "rules", "methods", "remove_methods", "devices", "disable_devices"]
    steps += ["not_blocked", "sink:1"]
    assert [step["step_id"] for step in data["steps"]] == steps
    assert {effect["status"] for effect in data["effects"]} == {"done"}
    assert "Z  block  m365.block_sign_in  succeeded in " in shown.out
    assert "\n      effect: done, read back: it holds on " in shown.out
    assert none == []
