"""The counts of one invocation, as the progress display and the closing summary show them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

_MOST_NOTICES = 500


class Figures:
    """Thread-safe counters by name, and notices for people (who is blocked, what failed).

    So many notices are kept that people can read; the ledger, the runs and the counts know of all.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._notices: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> None:
        if count:
            with self._lock:
                self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def notice(self, about: str, text: str | None) -> None:
        """Say something about a thing until it is taken back with None."""
        with self._lock:
            self._notices.pop(about, None)
            if text is not None:
                self._notices[about] = text  # at the end: the oldest goes first
                if len(self._notices) > _MOST_NOTICES:
                    del self._notices[next(iter(self._notices))]

    @property
    def notices(self) -> dict[str, str]:
        with self._lock:
            return dict(self._notices)

    def to_dict(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._counts)


def told(notices: Mapping[str, str]) -> list[str]:
    """Notices as lines: what is true of several things (feeds that one secret opens) is said once."""
    about: dict[str, list[str]] = {}
    for name, text in sorted(notices.items()):
        about.setdefault(text, []).append(name)
    return [text if names[0] in text else f"{_listed(names)}: {text}" for text, names in about.items()]


def _listed(names: list[str]) -> str:
    if len(names) < 3:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} others"
