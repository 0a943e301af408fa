"""`playbook plugins new`, `import-sekoia`, `lock`, `check`."""

import json
import os
import signal
import sys
from typing import Any

import pytest

MODULE = {
    "manifest.json": {"name": "Weather", "slug": "weather", "configuration": {"properties": {}}},
    "action_ring.json": {
        "name": "Ring the bell",
        "arguments": {"properties": {"times": {"type": "integer"}}},
    },
}


def test_a_plugin_has_the_modules_that_were_asked_for(desk: Any) -> None:
    """And nothing that only other kinds need."""
    said = desk.playbook("plugins", "new", "bells", "--kind", "transform")
    assert said.code == 0, said.err
    made = {str(file.relative_to(desk.root)) for file in desk.root.rglob("*.py")}
    assert made == {
        "counterplay-bells/src/counterplay_bells/__init__.py",
        "counterplay-bells/src/counterplay_bells/tag.py",
        "counterplay-bells/tests/conftest.py",
        "counterplay-bells/tests/service.py",
        "counterplay-bells/tests/test_modules.py",
    }
    assert not [file for file in desk.root.rglob("*") if file.is_file() and b"@name@" in file.read_bytes()]


def test_nothing_that_is_there_is_written_over(desk: Any) -> None:
    """A second time is refused."""
    assert desk.playbook("plugins", "new", "bells").code == 0
    said = desk.playbook("plugins", "new", "bells")
    assert said.code == 2
    assert "counterplay-bells: it is there already; remove it, or choose another name" in said.err


@pytest.mark.parametrize("name", ["Bells", "a-b", "1a", "class", "a__b"])
def test_a_name_that_a_plugin_cannot_have_is_refused(desk: Any, name: str) -> None:
    """It becomes part of Python's and playbooks' names."""
    said = desk.playbook("plugins", "new", name)
    assert said.code == 2
    assert f"{name!r} is no name for a plugin" in said.err


def test_a_name_that_an_installed_plugin_has_is_refused(desk: Any) -> None:
    """Both would be out as soon as the new one is installed."""
    said = desk.playbook("plugins", "new", "m365")
    assert (said.code, said.err) == (
        2,
        "error: counterplay has a plugin 'm365', and of two that claim one name neither works;"
        " choose another name\n",
    )


def test_a_sekoia_module_is_imported_with_what_it_could_not_carry_over(desk: Any) -> None:
    """The name comes from the module's slug; notes go to stderr."""
    for name, document in MODULE.items():
        desk.write(f"Weather/{name}", json.dumps(document))
    said = desk.playbook("plugins", "import-sekoia", "Weather")
    assert said.code == 0, said.err
    assert "weather.ring: its result is not described" in said.err
    schema = json.loads(
        (desk.root / "counterplay-weather/src/counterplay_weather/schemas/ring.json").read_text()
    )
    assert schema["properties"] == {"times": {"type": "integer", "description": "Times."}}


def test_a_lock_is_made_and_checked(desk: Any) -> None:
    """What is pinned fits; what was pinned with other content does not, and nothing runs."""
    assert "pinned" in desk.playbook("plugins", "lock").out
    said = desk.playbook("plugins", "check")
    assert (said.code, said.err) == (0, "")
    assert "  permission: Microsoft Graph: User.Read.All" in said.out
    lock = json.loads((desk.root / "counterplay.lock").read_text())
    lock["plugins"]["std"]["sha256"] = "0" * 64
    desk.write("counterplay.lock", json.dumps(lock))
    assert desk.playbook("plugins", "check").code == 1
    desk.write("playbooks/p.yaml", "name: p\ntrigger: {uses: std.manual}\nsteps: [{uses: std.stop}]\n")
    refused = desk.playbook("run", "p", "--event", "-", stdin=b"{}")
    assert refused.code == 2
    assert "the plugin std has other files than counterplay.lock was made with" in refused.err


@pytest.fixture
def rings(desk: Any) -> dict[str, str]:
    """An environment in which the distribution `rings` is installed; each import of it leaves a file."""
    site = desk.root.parent / "site"
    (site / "rings_plugin").mkdir(parents=True)
    (site / "rings_plugin" / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from counterplay import Transform, hookimpl\n"
        "COUNTERPLAY_API = '1.0'\n"
        "COUNTERPLAY_HOSTS = ('rings.example',)\n"
        f"Path({str(desk.root / 'imported')!r}).touch()\n"
        "class Ring(Transform):\n"
        "    '''Ring.'''\n"
        "    name = 'ring'\n"
        "@hookimpl\n"
        "def counterplay_modules():\n"
        "    return [Ring]\n"
    )
    (site / "rings_plugin" / "schemas").mkdir()
    (site / "rings_plugin" / "schemas" / "ring.json").write_text('{"type": "object"}')
    info = site / "rings-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rings\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[counterplay]\nrings = rings_plugin\n")
    return {**os.environ, "PYTHONPATH": str(site)}


def test_a_plugin_outside_the_lock_is_shown_but_never_imported(desk: Any, rings: dict[str, str]) -> None:
    """`run` and `up` refuse; `plugins check` describes it from its files; `plugins lock` agrees to it."""
    desk.write("playbooks/p.yaml", "name: p\ntrigger: {uses: std.manual}\nsteps: [{uses: std.stop}]\n")
    assert desk.playbook("plugins", "lock").code == 0

    def said(*words: str) -> tuple[int, str, str]:
        with desk.start(*words, env=rings) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    refusal = "error: the plugin rings (rings 1.0) is not in counterplay.lock"
    for words in (("run", "p", "--once"), ("up", "--listen", "127.0.0.1:0"), ("plan", "p", "--live")):
        code, _, err = said(*words)
        assert (code, err.partition(";")[0]) == (2, refusal)
    code, out, err = said("plugins", "check")
    assert (code, err) == (1, f"{refusal}\n")
    assert "rings (rings 1.0, API 1.0), not loaded; its files say:\n  hosts: rings.example\n" in out
    code, _, err = said("list")
    warning = "warning: the plugin rings (rings 1.0) is not in counterplay.lock, so it was not loaded\n"
    assert (code, err) == (0, warning)
    assert not (desk.root / "imported").exists()

    assert said("plugins", "lock")[0] == 0
    assert (desk.root / "imported").exists()
    assert said("plugins", "check")[0] == 0


def test_a_service_introduces_new_plugins_too(desk: Any, rings: dict[str, str]) -> None:
    """What one may do and where it goes is on record before `up` uses it, once."""
    told = []
    for _ in range(2):
        with desk.start("up", "--listen", "127.0.0.1:0", env=rings) as process:
            told.append([])
            for line in process.stderr:
                told[-1].append(line)
                if line.startswith("listening"):
                    break
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert told[0][:2] == ["rings (rings 1.0, API 1.0)\n", "  hosts: rings.example\n"]
    assert not [line for line in told[1] if "rings" in line]


@pytest.mark.parametrize(
    ("schema", "said", "checked"),
    [
        ("{", "module rings.ring has no readable schema: Expecting property name", "has no readable schema"),
        (
            '{"type": "object", "properties": {"x": {"type": "any"}}}',
            None,
            "the schema of rings.ring is none: 'any' is not valid under any of the given schemas"
            " (at $.properties.x.type); tell those who make rings",
        ),
        (
            '{"type": "object", "properties": {"x": {"$ref": "#/$defs/y"}}}',
            None,
            "the schema of rings.ring is none: it refers to '/$defs/y', which is not there",
        ),
    ],
)
def test_a_schema_that_is_none_harms_only_what_uses_it(
    desk: Any, rings: dict[str, str], monkeypatch: Any, schema: str, said: str | None, checked: str
) -> None:
    """Other playbooks are listed and run; the one that uses the module has a finding at its place."""
    monkeypatch.syspath_prepend(rings["PYTHONPATH"])
    (desk.root.parent / "site" / "rings_plugin" / "schemas" / "ring.json").write_text(schema)
    desk.write("playbooks/a.yaml", "name: a\ntrigger: {uses: std.manual}\nsteps: [{uses: std.stop}]\n")
    steps = "[{uses: rings.ring, with: {x: 1}}, {uses: std.stop}]"
    desk.write("playbooks/b.yaml", f"name: b\ntrigger: {{uses: std.manual}}\nsteps: {steps}\n")
    try:
        found = desk.playbook("check")
        assert (found.code, found.out.startswith("playbooks/b.yaml:3:16: ")) == (2, True)
        assert checked in found.out
        assert desk.playbook("list").code == 0
        made = desk.playbook("schema")
        assert (made.code, '"rings.ring"' in made.out) == (0, said is None)
        assert (said or "") in made.err
        looked = desk.playbook("plugins", "check")
        assert (looked.code, (said or "") in looked.err) == (0 if said is None else 1, True)
    finally:
        sys.modules.pop("rings_plugin", None)
