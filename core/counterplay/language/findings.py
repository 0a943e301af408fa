"""What `check` finds: each finding has its place, the fact and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from counterplay.errors import ConfigError


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong. `line` and `column` count from 1."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}:{self.line}:{self.column}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class PlaybookError(ConfigError):
    """A playbook is wrong; `findings` holds everything that was found, in the order of the file."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(set(findings)))
        first = self.findings[0]
        super().__init__(
            first.message, hint=first.hint or None, path=first.path, line=first.line, column=first.column
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the nearest known word, else the given text."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
