"""The tutorial's commands, executed in order in a clean folder, say what the tutorial shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """(`file`, its path, its content) and (`run`, commands, what they say), in order."""
    blocks = list(BLOCK.findall(text))
    for number, (language, title, content) in enumerate(blocks):
        if title:
            yield "file", title, content
        elif language == "sh":
            following = blocks[number + 1]
            assert following[0] == "text", f"no output is shown behind {content!r}"
            yield "run", content, following[2]


#: What a run of more than ten seconds says on its way, as on a busy machine.
PROGRESS = re.compile(r"^\S+: [\d,]+ events? in [\d,]+ units?, .*\n", re.MULTILINE)


def fits(shown: str, said: str) -> bool:
    """Is it the output that is shown? `…` stands for anything in a line, a line of it for any lines."""
    parts = []
    for line in shown.rstrip("\n").split("\n"):
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(re.escape(part) for part in line.split("…")) + r"\n")
    return re.fullmatch("".join(parts), said.rstrip("\n") + "\n") is not None


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """Each block of commands gives the output behind it, volatile parts aside."""
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COUNTERPLAY_"))
        },
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    count = 0
    for kind, first, second in steps((DOCS / "tutorial.md").read_text()):
        if kind == "file":
            (work / first).write_text(second)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", first],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{first}\n{done.stdout}"
        said = PROGRESS.sub("", done.stdout)
        assert fits(second, said), f"{first}\nshown:\n{second}\nsaid:\n{said}"
        count += 1
    assert count >= 8


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        ("a … c", "a b c", True),
        ("a … c", "a b d", False),
        ("a\n…\nz", "a\nb\nc\nz", True),
        ("a\n…\nz", "a\nz", True),
        ("a", "a\nb", False),
        ("a.b", "axb", False),
    ],
)
def test_outputs_are_compared_beside_what_is_volatile(shown: str, said: str, same: bool) -> None:
    """The comparison itself can fail."""
    assert fits(shown, said) is same
