"""Makes docs/quickstart.svg from a real run of the quick start: `python docs/picture.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def main() -> None:
    """Run it in an empty home, and draw what it says."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-m", "counterplay", "run", "quickstart"],
            cwd=home,
            env={**os.environ, "HOME": home, "XDG_STATE_HOME": ""},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=110, file=nowhere, highlight=False)
        console.print(Text.assemble(("$ ", "bold green"), ("playbook run quickstart", "bold")))
        first, *rest = done.stdout.splitlines()
        console.print(Text(first, "bold"))
        for line in rest:
            console.print(Text(line, "cyan" if "tenant" in line or "Blocked" in line else ""))
        svg = console.export_svg(title="counterplay", theme=MONOKAI)
    Path(__file__).with_name("quickstart.svg").write_text(svg, "utf-8")


if __name__ == "__main__":
    main()
