"""Where a workspace is, and where state is kept: found without reading either."""

from __future__ import annotations

import os
from pathlib import Path

FILE = "counterplay.yaml"
STATE = ".counterplay"


def find_root(start: Path | None = None) -> Path | None:
    """The nearest folder with a `counterplay.yaml`, from `start` (the current directory) upwards."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / FILE).is_file()), None)


def find_state_dir(start: Path | None = None) -> Path:
    """Where state is kept: the workspace's `.counterplay`, else the user's state directory."""
    root = find_root(start)
    if root is not None:
        return root / STATE
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "counterplay"
