"""Plugins pinned in a workspace, and the API that they were written for."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from counterplay.errors import ConfigError
from counterplay.plugin_files import Declaration, content_hash, declaration
from counterplay.plugin_lock import LOCK, differences, locked, newcomers, refuse_others, write_lock
from counterplay.plugins import PluginHost

CODE = """
from counterplay import Transform, hookimpl

class Upper(Transform):
    \"\"\"Write in capitals.\"\"\"
    name = "upper"

@hookimpl
def counterplay_modules():
    return [Upper]
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], PluginHost]]:
    """Load a plugin with this code."""
    monkeypatch.syspath_prepend(tmp_path)

    def _load(code: str = CODE) -> PluginHost:
        (tmp_path / "lockable").mkdir(exist_ok=True)
        (tmp_path / "lockable" / "__init__.py").write_text(code)
        sys.modules.pop("lockable", None)
        return PluginHost.load([EntryPoint("lockable", "lockable", "counterplay")])

    yield _load
    sys.modules.pop("lockable", None)


def test_what_was_agreed_runs(load, tmp_path: Path) -> None:
    """Without a lock anything does; with one, what it was made with."""
    host = load()
    refuse_others(host, None)
    refuse_others(host, tmp_path)
    write_lock(tmp_path, locked(host))
    refuse_others(host, tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["plugins"]["lockable"]["distribution"] == "lockable"


def test_other_content_is_refused(load, tmp_path: Path) -> None:
    """A changed file is another plugin, whatever its version says."""
    host = load()
    write_lock(tmp_path, locked(host))
    load(CODE + "# more\n")
    with pytest.raises(ConfigError, match=r"lockable has other files than .*plugins check"):
        refuse_others(host, tmp_path)


def test_a_plugin_that_is_new_or_gone_is_named(load, tmp_path: Path) -> None:
    """Both ways."""
    host = load()
    write_lock(tmp_path, {"other": {"distribution": "x", "version": "1", "api": "", "sha256": ""}})
    assert differences(host, tmp_path) == [
        "the plugin lockable (lockable ) is not in counterplay.lock",
        "the plugin other of counterplay.lock is not there",
    ]


def test_another_version_is_named(load, tmp_path: Path) -> None:
    """The message says both."""
    host = load()
    write_lock(tmp_path, {"lockable": {**locked(host)["lockable"], "version": "9"}})
    assert differences(host, tmp_path) == [
        "the plugin lockable has the version , and counterplay.lock says 9"
    ]


def test_a_broken_lock_is_no_agreement(load, tmp_path: Path) -> None:
    """It is refused, not ignored."""
    for text in ("{", "[]", '{"version": 7}', '{"version": 1, "plugins": []}'):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ConfigError, match=LOCK):
            refuse_others(load(), tmp_path)


@pytest.fixture
def locked_out(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PluginHost]:
    """Load other code in a workspace that has agreed to the plugin as it was."""
    (tmp_path / "counterplay.yaml").touch()
    write_lock(tmp_path, locked(load()))
    monkeypatch.chdir(tmp_path)
    return load  # type: ignore[no-any-return]


def test_what_the_lock_does_not_hold_is_not_imported(locked_out, tmp_path: Path) -> None:
    """Its first line would run otherwise, before anybody is asked; the rest of the host works."""
    host = locked_out("raise SystemExit('it was imported')\n")
    info = host.plugins["lockable"]
    assert info.refused
    assert info.problem == "has other files than counterplay.lock was made with, so it was not loaded"
    with pytest.raises(ConfigError, match="the plugin lockable has other files"):
        host.module("lockable.upper")
    with pytest.raises(ConfigError, match="lockable has other files than"):
        refuse_others(host, tmp_path)
    assert not locked_out(CODE).plugins["lockable"].problem


def test_an_unknown_plugin_is_not_imported_where_a_lock_is(locked_out, tmp_path: Path) -> None:
    """A lock of other plugins is no agreement to this one."""
    write_lock(tmp_path, {})
    info = locked_out("raise SystemExit('it was imported')\n").plugins["lockable"]
    assert info.problem == "(lockable ) is not in counterplay.lock, so it was not loaded"
    agreed = PluginHost.load([info.point], unagreed=True).plugins["lockable"]
    assert agreed.problem == "(lockable) cannot be used: SystemExit: it was imported"


def test_a_plugin_in_a_package_is_hashed_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of the outermost package counts, byte code not."""
    package = tmp_path / "site" / "boxed"
    inner = package / "inner"
    (inner / "schemas").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    (inner / "__init__.py").write_text("COUNTERPLAY_HOSTS = ('a.example',)\nCOUNTERPLAY_API = '1.0'\n")
    need = {"resource": "Boxes", "any": ["Box.Read"], "for": "reading"}
    (inner / "schemas" / "open.json").write_text(json.dumps({"x-permissions": [need]}))
    monkeypatch.syspath_prepend(tmp_path / "site")
    point = EntryPoint("boxed", "boxed.inner", "counterplay")

    before = content_hash(point)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert content_hash(point) == before
    (package / "other.py").write_text("")
    assert content_hash(point) != before
    assert declaration(point) == Declaration("1.0", ("a.example",), ("boxed.open",), ("Boxes: Box.Read",))
    assert "boxed" not in sys.modules


def test_everything_that_a_distribution_installed_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second package of it, too; not what differs from machine to machine."""
    site = tmp_path / "site"
    (site / "two_plugin").mkdir(parents=True)
    (site / "two_plugin" / "__init__.py").write_text("")
    (site / "two_client.py").write_text("ONE = 1\n")
    info = site / "two-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[counterplay]\ntwo = two_plugin\n")
    listed = ("two_plugin/__init__.py", "two_client.py", "two.pth", "../../bin/two", f"{info.name}/RECORD")
    (info / "RECORD").write_text("".join(f"{one},,\n" for one in listed))
    (site / "two.pth").write_text("/somewhere\n")
    monkeypatch.syspath_prepend(site)
    (point,) = (one for one in entry_points(group="counterplay") if one.name == "two")

    before = content_hash(point)
    (site / "two.pth").write_text("/elsewhere\n")
    assert content_hash(point) == before
    (site / "two_client.py").write_text("ONE = 2\n")
    assert content_hash(point) != before


def test_a_plugin_is_introduced_once(load, tmp_path: Path) -> None:
    """At its first use in a workspace."""
    host = load()
    assert newcomers(host, tmp_path / "state") == ["lockable"]
    assert newcomers(host, tmp_path / "state") == []


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("1.0", None),
        ("0.9", "it was written for the plugin API 0.9, and this counterplay has 1.0; upgrade the plugin"),
        ("1.1", "it was written for the plugin API 1.1, and this counterplay has 1.0; upgrade counterplay"),
        ("2.0", "it was written for the plugin API 2.0, and this counterplay has 1.0; upgrade counterplay"),
        ("one", "COUNTERPLAY_API is 'one', which is no version like 1.0"),
    ],
)
def test_a_plugin_for_another_api_takes_itself_out(load, said: str, problem: str | None) -> None:
    """With a message that says what to do."""
    info = load(CODE + f"COUNTERPLAY_API = {said!r}\nCOUNTERPLAY_HOSTS = ('a.example',)\n").plugins[
        "lockable"
    ]
    if problem is None:
        assert (info.problem, info.api, info.hosts) == (None, "1.0", ("a.example",))
    else:
        assert info.problem == f"(lockable) cannot be used: {problem}"
