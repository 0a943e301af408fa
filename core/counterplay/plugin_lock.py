"""counterplay.lock: which plugins a workspace was agreed with, by version and content."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.plugins import PluginHost, PluginInfo

LOCK = "counterplay.lock"
_VERSION = 1
_OWN = "counterplay"
_SEEN = "plugins-seen.json"
_SKIPPED = ("__pycache__",)
_HINT = "look at `playbook plugins check`; `playbook plugins lock` agrees to what is installed"


def locked(host: PluginHost) -> dict[str, JsonObject]:
    """What the lock holds of each plugin that works: distribution, version, API and a hash of its files."""
    return {
        one.name: {
            "distribution": one.distribution,
            "version": one.version,
            "api": one.api,
            "sha256": content_hash(one),
        }
        for one in host.plugins.values()
        if one.problem is None
    }


def content_hash(plugin: PluginInfo) -> str:
    """One hash over every file of the plugin's package, as they are on disk now."""
    module = sys.modules.get(plugin.module) or import_module(plugin.module)
    file = Path(str(module.__file__))
    files = sorted(_files(file.parent)) if hasattr(module, "__path__") else [file]
    whole = hashlib.sha256()
    for one in files:
        whole.update(one.relative_to(file.parent).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(one.read_bytes()).digest())
    return whole.hexdigest()


def write_lock(root: Path, entries: dict[str, JsonObject]) -> None:
    """Write the lock of a workspace."""
    text = json.dumps({"version": _VERSION, "plugins": entries}, indent=2, sort_keys=True) + "\n"
    (root / LOCK).write_text(text, "utf-8")


def read_lock(root: Path) -> dict[str, JsonObject] | None:
    """What the workspace was agreed with; None without a lock. ConfigError: it cannot be read."""
    path = root / LOCK
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read it: {error}", path=path, hint="make it again") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ConfigError(
            "this is no lock of this version", path=path, hint="make it again with `playbook plugins lock`"
        )
    found: dict[str, JsonObject] = document["plugins"]
    return found


def differences(host: PluginHost, root: Path) -> list[str]:
    """Where the installed plugins are not those of the lock; empty without one."""
    agreed = read_lock(root)
    if agreed is None:
        return []
    found = []
    present = locked(host)
    for name, entry in present.items():
        if name not in agreed:
            found.append(f"the plugin {name} ({entry['distribution']} {entry['version']}) is not in {LOCK}")
            continue
        for key, what in (
            ("distribution", "comes from"),
            ("version", "has the version"),
            ("api", "has the API"),
        ):
            if entry[key] != agreed[name].get(key):
                found.append(
                    f"the plugin {name} {what} {entry[key]}, and {LOCK} says {agreed[name].get(key)}"
                )
                break
        else:
            if entry["sha256"] != agreed[name].get("sha256"):
                found.append(f"the files of the plugin {name} are other ones than {LOCK} was made with")
    found += [f"the plugin {name} of {LOCK} is not there" for name in sorted(set(agreed) - set(present))]
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
        seen = {}
    others = {
        one.name: f"{one.distribution} {one.version}"
        for one in host.plugins.values()
        if one.problem is None and one.distribution != _OWN and one.modules
    }
    new = [name for name, version in others.items() if seen.get(name) != version]
    if new:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps({**seen, **others}, indent=2), "utf-8")
    return new


def _files(folder: Path) -> list[Path]:
    return [
        one
        for one in folder.rglob("*")
        if one.is_file() and not any(part in _SKIPPED for part in one.relative_to(folder).parts)
    ]
