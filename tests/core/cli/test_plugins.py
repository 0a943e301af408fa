"""`playbook plugins new`, `import-sekoia`, `lock`, `check`."""

import json
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
    assert "the files of the plugin std are other ones than counterplay.lock was made with" in refused.err
