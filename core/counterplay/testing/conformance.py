"""The conformance tests: one for each module and rule. `pytest --counterplay-plugin NAME` collects this file.

A test file of one's own may do so, too: `from counterplay.testing.conformance import *` beside `PLUGINS`, the
names of plugins, and `bench`, a generator as the hook `pytest_counterplay_bench` describes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from counterplay.plugins import GROUP, ModuleInfo, PluginHost
from counterplay.testing.case import BenchSource, Case
from counterplay.testing.rules import RULES, Broken, NotApplicable, Rule

__all__ = ["_counterplay_cases", "counterplay_case", "pytest_generate_tests", "test_conformance"]


def host_for(names: list[str]) -> tuple[PluginHost, list[str]]:
    """A host with all installed plugins, and the names of those that are asked for.

    A name is an entry point's, a distribution's or a package's; `NAME=PACKAGE` is a plugin that is not
    installed. UsageError: there is no such plugin, or it cannot be used.
    """
    installed = list(entry_points(group=GROUP))
    chosen: list[str] = []
    for name in names:
        own, equals, package = name.partition("=")
        if equals:
            installed = [*(one for one in installed if one.name != own), EntryPoint(own, package, GROUP)]
            chosen.append(own)
            continue
        found = [
            one.name
            for one in installed
            if name in (one.name, one.module, one.dist.name if one.dist is not None else "")
        ]
        if not found:
            known = ", ".join(sorted({one.name for one in installed}))
            raise pytest.UsageError(f"no plugin {name!r} is installed; there are {known}")
        chosen += found
    host = PluginHost.load(installed, unagreed=True)
    for name in chosen:
        problem = host.plugins[name].problem
        if problem is not None:
            raise pytest.UsageError(f"the plugin {name} {problem}")
    return host, sorted(set(chosen))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each rule and each module that it holds for."""
    if metafunc.function is not test_conformance:
        return
    named = getattr(metafunc.module, "PLUGINS", None) or metafunc.config.getoption("counterplay_plugins", [])
    host, plugins = host_for(list(named))
    source = getattr(metafunc.module, "bench", None) or _hooked(metafunc.config)
    parameters = []
    for plugin in plugins:
        modules = [
            info for info in sorted(host.modules.values(), key=lambda one: one.uses) if info.plugin == plugin
        ]
        for number, info in enumerate(modules):
            for one in RULES.values():
                if info.kind in one.kinds and (one.scope == "module" or number == 0):
                    name = plugin if one.scope == "plugin" else info.uses
                    parameters.append(pytest.param((host, info, source), one, id=f"{name}-{one.name}"))
    metafunc.parametrize(("counterplay_case", "rule"), parameters, indirect=["counterplay_case"])


class _Cases:
    """Keeps the case of one module, because its rules follow one another and share what was seen."""

    def __init__(self) -> None:
        self._case: Case | None = None

    def of(
        self, host: PluginHost, info: ModuleInfo, source: BenchSource | None, make_folder: Callable[[], Path]
    ) -> Case:
        """The case of this module."""
        if self._case is None or self._case.info is not info:
            self.close()
            self._case = Case(host, info, source, make_folder())
        return self._case

    def close(self) -> None:
        """End the case that is kept."""
        if self._case is not None:
            self._case.close()
            shutil.rmtree(self._case.folder, ignore_errors=True)
            self._case = None


@pytest.fixture(scope="session")
def _counterplay_cases() -> Iterator[_Cases]:
    cases = _Cases()
    yield cases
    cases.close()


@pytest.fixture
def counterplay_case(
    request: pytest.FixtureRequest, _counterplay_cases: _Cases, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A module on its bench, for all the rules that it is held to."""
    host, info, source = request.param
    return _counterplay_cases.of(host, info, source, lambda: tmp_path_factory.mktemp("conformance"))


def test_conformance(counterplay_case: Case, rule: Rule) -> None:
    """The module keeps the rule."""
    __tracebackhide__ = True
    try:
        rule.check(counterplay_case)
        return
    except NotApplicable as reason:
        skipped, text = True, str(reason)
    except Broken as reason:
        skipped, text = False, f"{counterplay_case.info.uses}: {reason}\nThe rule: {rule.text}"
    if skipped:
        pytest.skip(text)
    pytest.fail(text, pytrace=False)


def _hooked(config: pytest.Config) -> BenchSource | None:
    """The bench that a `conftest.py` gives."""
    hook: Any = getattr(config.hook, "pytest_counterplay_bench", None)
    if hook is None or not hook.get_hookimpls():
        return None
    return lambda plugin, folder: hook(plugin=plugin, folder=folder)
