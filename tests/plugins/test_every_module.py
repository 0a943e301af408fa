"""Every bundled module keeps the rules that a third party's has to keep."""

from tests.plugins.bundled_bench import bench

from counterplay.plugins import PluginHost
from counterplay.testing.conformance import *  # noqa: F403  # the tests themselves

PLUGINS = ("intake", "m365", "std")
__all__ = ["bench"]


def test_every_plugin_takes_part() -> None:
    """No bundled plugin is out, and none with modules is left out here."""
    host = PluginHost.load()

    assert [(plugin.name, plugin.problem) for plugin in host.problems] == []
    assert {info.plugin for info in host.modules.values() if info.distribution == "counterplay"} == set(
        PLUGINS
    )


def test_roles_are_known() -> None:
    """`playbook doctor` can tell each role that a module of Microsoft 365 names."""
    from counterplay_m365.own_roles import ROLES

    modules = [one for one in PluginHost.load().modules.values() if one.plugin == "m365"]
    assert {name for one in modules for need in one.roles for name in need["any"]} <= set(ROLES)
