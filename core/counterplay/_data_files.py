"""Where shipped data lies: in a wheel inside its package, in a checkout at the top level."""

from __future__ import annotations

import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def schemas_of(package: str, plugin: str) -> Traversable:
    """The folder with a plugin's schemas: `<package>/schemas`, else the checkout's `schemas/<plugin>`.

    `package` may also be an imported module inside one, or one that stands alone (then its schemas
    lie in a `schemas` beside it).
    """
    module = sys.modules.get(package)
    if module is not None and not hasattr(module, "__path__"):
        if not module.__package__:
            return Path(getattr(module, "__file__", None) or "").parent / "schemas"
        package = module.__package__
    inside = resources.files(package).joinpath("schemas")
    return inside if inside.is_dir() else _CHECKOUT / "schemas" / plugin


def core_schemas() -> Traversable:
    """The folder with the schema of the playbook language and of the workspace file."""
    return schemas_of("counterplay", "core")


def shipped_playbooks() -> Traversable:
    """The folder with the playbooks that counterplay ships."""
    inside = resources.files("counterplay").joinpath("playbooks")
    return inside if inside.is_dir() else _CHECKOUT / "playbooks"
