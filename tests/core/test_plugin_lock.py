"""Plugins pinned in a workspace, and the API that they were written for."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from counterplay.errors import ConfigError
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
    with pytest.raises(ConfigError, match=r"files of the plugin lockable are other ones.*plugins check"):
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
    for text in ("{", "[]", '{"version": 7}'):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ConfigError, match=LOCK):
            refuse_others(load(), tmp_path)


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
