"""PluginHost: what it makes of the plugins it finds, the broken ones included."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from counterplay import ConfigError, PluginLoadError
from counterplay.plugins import PluginHost

GOOD = '''
from counterplay import Trigger, Transform, hookimpl

class Ping(Trigger):
    """Emit a ping.

    More about it.
    """
    name = "ping"

class Upper(Transform):
    """Write in capitals."""
    name = "upper"

@hookimpl
def counterplay_modules():
    return [Ping, Upper]

@hookimpl
def counterplay_template_filters():
    return {"acme_twice": lambda value: value * 2}
'''
HOOK = "from counterplay import Trigger, hookimpl\n@hookimpl\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("COUNTERPLAY_DISABLE", raising=False)
    yield tmp_path
    written = {entry.stem for entry in tmp_path.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in written]:
        del sys.modules[name]


@pytest.fixture
def install(folder: Path) -> Callable[..., EntryPoint]:
    """Write a package and the metadata of the distribution that brings it, as pip would."""

    def add(
        code: str, name: str = "acme", package: str = "acme_pkg", distribution: str = "counterplay-acme"
    ) -> EntryPoint:
        (folder / package / "schemas").mkdir(parents=True, exist_ok=True)
        (folder / package / "__init__.py").write_text(code)
        info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[counterplay]\n{name} = {package}\n")
        (point,) = Distribution.at(info).entry_points
        return point

    return add


def test_a_plugin_is_loaded_and_its_modules_are_named_after_it(folder, install) -> None:
    """The entry point's name stands before the dot."""
    (folder / "acme_pkg" / "schemas").mkdir(parents=True)
    (folder / "acme_pkg" / "schemas" / "ping.json").write_text('{"x-permissions": [{"any": ["A"]}]}')
    host = PluginHost.load([install(GOOD)])
    assert host.problems == []
    info = host.plugins["acme"]
    assert (info.distribution, info.version, info.modules) == (
        "counterplay-acme",
        "1.2",
        ("acme.ping", "acme.upper"),
    )
    module = host.module("acme.ping")
    assert (module.kind, module.summary, module.distribution) == (
        "trigger",
        "Emit a ping.",
        "counterplay-acme",
    )
    assert module.permissions == [{"any": ["A"]}]
    assert host.template_filters["acme_twice"](2) == 4


def test_a_filter_that_could_stand_in_for_anothers_is_refused(install) -> None:
    """Its name does not begin with its plugin's."""
    host = PluginHost.load([install(GOOD.replace("acme_twice", "m365_users"))])
    with pytest.raises(ConfigError, match=r"^the plugin acme offers the filter 'm365_users', whose name"):
        host.template_filters  # noqa: B018


def test_the_bundled_plugins_are_found_as_any_other() -> None:
    """They are registered through entry points too."""
    host = PluginHost.load()
    assert {"std", "m365", "intake", "sim"} <= set(host.plugins)
    assert host.plugins["std"].distribution == "counterplay"
    assert host.plugins["std"].problem is None


def test_two_distributions_that_claim_one_name_are_both_out(install) -> None:
    """Neither can stand in for the other unnoticed; whoever needs one of them learns of both."""
    first = install(GOOD)
    second = install(GOOD, package="other_pkg", distribution="acme-fork")
    host = PluginHost.load([first, second])
    assert host.modules == {}
    (problem,) = host.problems
    assert (
        problem.problem
        == "is claimed by counterplay-acme and acme-fork, so both are out: uninstall one of them"
    )
    with pytest.raises(
        ConfigError, match=r"'acme\.ping': the plugin acme is claimed by counterplay-acme and"
    ):
        host.module("acme.ping")


def test_two_distributions_that_bring_the_same_package_clash_too(install) -> None:
    """A fork that keeps the import name overwrites the files of the other: nobody knows which ran."""
    points = [install(GOOD), install(GOOD, distribution="acme-fork")]
    assert "counterplay-acme and acme-fork" in str(PluginHost.load(points).plugins["acme"].problem)


def test_one_distribution_found_twice_is_no_clash(install) -> None:
    """A path that stands twice on `sys.path` shows the same distribution twice."""
    point = install(GOOD)
    assert PluginHost.load([point, point]).problems == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError: "),
        ("raise BaseException('two\\nlines')", "BaseException: two lines"),
        ("import sys; sys.modules[__name__] = None", "ModuleNotFoundError: "),
        (HOOK + "def counterplay_modules(config): return []", "PluginValidationError: .*config"),
        (HOOK + "def counterplay_modulez(): return []", "PluginValidationError: .*counterplay_modulez"),
        (HOOK + "def counterplay_modules(): return 7", "TypeError: 'int' object is not iterable"),
        (HOOK + "def counterplay_modules(): return [7]", "counterplay_modules gave 7; give classes derived"),
        (HOOK + "def counterplay_modules(): return [int]", "counterplay_modules gave <class 'int'>"),
        (
            HOOK + "def counterplay_modules(): return [type('X', (Trigger,), {})]",
            "the module X has no usable name; set `name` to one identifier",
        ),
        (
            HOOK + "def counterplay_modules(): return [type('X', (Trigger,), {'name': 'a.b'})]",
            "the module X has no usable name",
        ),
        (
            HOOK + "def counterplay_modules(): return [type('X', (Trigger,), {'name': 'x'})] * 2",
            r"it names acme\.x twice",
        ),
    ],
)
def test_a_broken_plugin_takes_itself_out_and_nothing_else(install, code: str, problem: str) -> None:
    """Whatever it raises becomes one line that names its distribution; the others work."""
    broken = install(code)
    good = install(
        GOOD.replace("acme_twice", "good_twice"),
        name="good",
        package="good_pkg",
        distribution="counterplay-good",
    )
    host = PluginHost.load([broken, good])
    (info,) = host.problems
    assert "\n" not in str(info.problem)
    assert str(info.problem).startswith("(counterplay-acme) cannot be used: ")
    with pytest.raises(
        ConfigError, match=rf"the plugin acme \(counterplay-acme\) cannot be used: .*{problem}"
    ):
        host.module("acme.x")
    assert host.module("good.ping")
    assert set(host.template_filters) == {"good_twice"}
    assert [module for module in host.modules if module.startswith("acme.")] == []


def test_ctrl_c_while_loading_is_no_broken_plugin(install) -> None:
    """The person who asked wants the process to end."""
    with pytest.raises(KeyboardInterrupt):
        PluginHost.load([install("raise KeyboardInterrupt")])


def test_a_disabled_plugin_is_not_even_imported(install, monkeypatch) -> None:
    """COUNTERPLAY_DISABLE takes plugins out by name; it is no problem, but it explains what is missing."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "std, acme ,")
    host = PluginHost.load([install("raise SystemExit")])
    assert "acme_pkg" not in sys.modules
    assert host.problems == []
    assert host.plugins["acme"].problem == "disabled"
    with pytest.raises(
        ConfigError, match=r"'acme\.ping': the plugin acme is disabled by COUNTERPLAY_DISABLE$"
    ):
        host.module("acme.ping")


def test_one_of_two_clashing_plugins_can_be_silenced_by_disabling_the_name(install, monkeypatch) -> None:
    """Disabled comes before claimed twice: the person has decided already."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "acme")
    points = [install(GOOD), install(GOOD, package="other_pkg", distribution="acme-fork")]
    assert PluginHost.load(points).problems == []


def test_a_misspelt_module_gets_a_suggestion(install) -> None:
    """The nearest name, or where to look when there is none."""
    host = PluginHost.load([install(GOOD)])
    with pytest.raises(ConfigError, match=r"no module is called 'acme\.pnig'; did you mean 'acme\.ping'\?$"):
        host.module("acme.pnig")
    with pytest.raises(ConfigError, match=r"'quux'; `playbook modules` lists them$"):
        host.module("quux")


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_a_schema_that_cannot_be_read_names_module_and_distribution(
    folder, install, content: bytes | None
) -> None:
    """Missing, broken or no object: the plugin is installed wrongly."""
    host = PluginHost.load([install(GOOD)])
    if content is not None:
        (folder / "acme_pkg" / "schemas" / "ping.json").write_bytes(content)
    with pytest.raises(
        PluginLoadError,
        match=r"^module acme\.ping has no readable schema: .*; reinstall counterplay-acme$",
    ):
        _ = host.module("acme.ping").schema


def test_a_plugin_may_be_a_single_file(folder) -> None:
    """A guard or a vault needs no package and no schema."""
    (folder / "acme_vault.py").write_text(
        "from counterplay import hookimpl\n"
        "@hookimpl\n"
        "def counterplay_secret(scheme, reference):\n"
        "    return reference.upper() if scheme == 'acme' else None\n"
    )
    host = PluginHost.load([EntryPoint("acme", "acme_vault", "counterplay")])
    assert host.problems == []
    assert host.hook.counterplay_secret(scheme="acme", reference="key") == "KEY"


def test_a_plugin_may_be_an_object(folder) -> None:
    """An entry point may name an object in a module of the package, whose schemas then count."""
    (folder / "acme_obj" / "schemas").mkdir(parents=True)
    (folder / "acme_obj" / "__init__.py").write_text("")
    (folder / "acme_obj" / "schemas" / "x.json").write_text('{"title": "X"}')
    (folder / "acme_obj" / "plugin.py").write_text(
        "from counterplay import Trigger, hookimpl\n"
        "class Plugin:\n"
        "    @hookimpl\n"
        "    def counterplay_modules(self):\n"
        "        return [type('X', (Trigger,), {'name': 'x'})]\n"
        "plugin = Plugin()\n"
    )
    host = PluginHost.load([EntryPoint("acme", "acme_obj.plugin:plugin", "counterplay")])
    assert host.module("acme.x").schema == {"title": "X"}
