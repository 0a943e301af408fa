"""counterplay.lock: which plugins a workspace was agreed with, by version and content.

While it is there, a plugin that it does not hold, or holds otherwise, is not even imported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.places import find_root
from counterplay.plugin_files import content_hash

if TYPE_CHECKING:
    from counterplay.plugins import PluginHost

LOCK = "counterplay.lock"
_VERSION = 1
_OWN = "counterplay"
_SEEN = "plugins-seen.json"
_HINT = "look at `playbook plugins check`; `playbook plugins lock` agrees to what is installed"


@dataclass(frozen=True, slots=True)
class Lock:
    """What a workspace was agreed with: of each plugin, by name, what `locked` says."""

    plugins: dict[str, JsonObject]

    def refusal(self, point: EntryPoint) -> str | None:
        """Why a plugin must not be loaded, to go on from its name; None: it is what was agreed."""
        agreed = self.plugins.get(point.name)
        distribution, version = distribution_of(point)
        if agreed is None:
            return f"({distribution} {version}) is not in {LOCK}"
        for key, what, present in (
            ("distribution", "comes from", distribution),
            ("version", "has the version", version),
        ):
            if present != agreed.get(key):
                return f"{what} {present}, and {LOCK} says {agreed.get(key)}"
        if content_hash(point) != agreed.get("sha256"):
            return f"has other files than {LOCK} was made with"
        return None

    def refusal_of_command(self, command: EntryPoint, plugins: list[EntryPoint]) -> str | None:
        """Why a command must not be loaded; it is agreed to with a plugin of its distribution."""
        distribution, _ = distribution_of(command)
        beside = [one for one in plugins if distribution_of(one)[0] == distribution]
        package = command.module.partition(".")[0]
        own = [one for one in beside if one.module.partition(".")[0] == package] or beside
        if not own:
            return f"{distribution} has no plugin, and so no place in {LOCK}"
        return next((f"the plugin {one.name} {why}" for one in own if (why := self.refusal(one))), None)


def distribution_of(point: EntryPoint) -> tuple[str, str]:
    """The name and version of the distribution that an entry point comes from."""
    if point.dist is None:
        return point.value, ""
    return point.dist.name, point.dist.version


def locked(host: PluginHost) -> dict[str, JsonObject]:
    """What the lock holds of each plugin that works: distribution, version, API and a hash of its files."""
    return {
        one.name: {
            "distribution": one.distribution,
            "version": one.version,
            "api": one.api,
            "sha256": content_hash(one.point),
        }
        for one in host.plugins.values()
        if one.problem is None
    }


def write_lock(root: Path, entries: dict[str, JsonObject]) -> None:
    """Write the lock of a workspace."""
    text = json.dumps({"version": _VERSION, "plugins": entries}, indent=2, sort_keys=True) + "\n"
    (root / LOCK).write_text(text, "utf-8")


def read_lock(root: Path) -> Lock | None:
    """What the workspace was agreed with; None without a lock. ConfigError: it cannot be read."""
    path = root / LOCK
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read it: {error}", path=path, hint="make it again with `playbook plugins lock`"
        ) from error
    plugins = document.get("plugins") if isinstance(document, dict) else None
    if not isinstance(plugins, dict) or document.get("version") != _VERSION:
        raise ConfigError(
            "this is no lock of this version", path=path, hint="make it again with `playbook plugins lock`"
        )
    return Lock({name: one for name, one in plugins.items() if isinstance(one, dict)})


def lock_here() -> Lock | None:
    """The lock of the workspace of the current directory. ConfigError as for `read_lock`."""
    root = find_root()
    return read_lock(root) if root is not None else None


def differences(host: PluginHost, root: Path) -> list[str]:
    """Where the installed plugins are not those of the lock; empty without one."""
    lock = read_lock(root)
    if lock is None:
        return []
    there = [one for one in host.plugins.values() if one.problem is None or one.refused]
    found = [f"the plugin {one.name} {why}" for one in there if (why := lock.refusal(one.point))]
    for name in sorted(set(lock.plugins) - {one.name for one in there}):
        why = host.plugins[name].problem if name in host.plugins else "is not there"
        found.append(f"the plugin {name} of {LOCK} {'is disabled' if why == 'disabled' else why}")
    return found


def refuse_others(host: PluginHost, root: Path | None) -> None:
    """ConfigError: a lock is there, and the installed plugins are not those of it."""
    wrong = differences(host, root) if root is not None else []
    if wrong:
        raise ConfigError("; ".join(wrong), hint=_HINT)


def newcomers(host: PluginHost, state_dir: Path) -> list[str]:
    """Third parties' plugins that were not used here before in this version; from now on they were."""
    path = state_dir / _SEEN
    try:
        seen = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        seen = None
    known = seen if isinstance(seen, dict) else {}
    others = {
        one.name: f"{one.distribution} {one.version}"
        for one in host.plugins.values()
        if one.problem is None and one.distribution != _OWN and one.modules
    }
    new = [name for name, version in others.items() if known.get(name) != version]
    if new:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps({**known, **others}, indent=2), "utf-8")
    return new
