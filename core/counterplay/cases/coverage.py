"""How much of each playbook its cases have gone through."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from counterplay.cases.facts import branches_of
from counterplay.cases.seen import Fact
from counterplay.language import Playbook
from counterplay.language.findings import Finding
from counterplay.language.yaml_text import read
from counterplay.plugins import PluginHost


@dataclass(frozen=True, slots=True)
class Coverage:
    """The branches of one playbook: how many it has, and those that no case took, with their places."""

    playbook: str
    branches: int
    missing: tuple[Finding, ...]

    @property
    def taken(self) -> int:
        return self.branches - len(self.missing)


def coverage_of(
    playbook: Playbook, text: bytes, name: str, host: PluginHost, facts: Collection[Fact]
) -> Coverage:
    """What the cases cover of a playbook; `text` is its file, `name` how findings call it."""
    document = read(text, name)
    branches = list(branches_of(playbook, host))
    missing = [
        document.finding(one.path, f"not tested: {one}")
        for one in branches
        if (playbook.name, one.point, one.branch) not in facts
    ]
    return Coverage(playbook.name, len(branches), tuple(missing))


def whole(coverages: Collection[Coverage]) -> float:
    """The share of all branches that was taken, in percent."""
    branches = sum(one.branches for one in coverages)
    return 100.0 * sum(one.taken for one in coverages) / branches if branches else 100.0
