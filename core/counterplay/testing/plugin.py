"""What pytest loads by itself where counterplay is installed: the option, the hook, the fixture."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from counterplay.testing._simulator import simulator

if TYPE_CHECKING:
    from counterplay.testing.bench import Bench

__all__ = ["simulator"]


class Hooks:
    """The hook that a `conftest.py` implements for the conformance kit."""

    @pytest.hookspec(firstresult=True)
    def pytest_counterplay_bench(self, plugin: str, folder: Path) -> Generator[Bench, None, None] | None:
        """Give the bench on which the modules of a plugin are seen at work: yield one, then clean up.

        Called often, each time for a bench of its own; `folder` does not exist yet and is removed later.
        """


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make the hook known."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that asks for the kit."""
    parser.getgroup("counterplay").addoption(
        "--counterplay-plugin",
        action="append",
        default=[],
        dest="counterplay_plugins",
        metavar="NAME",
        help="Hold each module of this plugin to the rules; NAME=PACKAGE where it is not installed.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the kit's own test file when it is asked for, besides what was named."""
    config.addinivalue_line("markers", "simulator(**options): options of the simulated tenant")
    if config.getoption("counterplay_plugins"):
        config.args.append(str(Path(__file__).with_name("conformance.py")))
