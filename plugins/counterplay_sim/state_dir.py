"""Where the state lies when nobody says: the workspace's, else the user's."""

from __future__ import annotations

import os
from pathlib import Path


def default_state_dir() -> Path:
    """`.counterplay` beside the nearest `counterplay.yaml` upwards, else the user's state directory."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "counterplay.yaml").is_file():
            return folder / ".counterplay"
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "counterplay"
