"""The counts of one invocation, as the progress display and the closing summary show them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from counterplay.runtime.lags import BOUNDS, Histogram

_MOST_NOTICES = 500


class Figures:
    """Thread-safe counters by name, and notices for people (who is blocked, what failed).

    So many notices are kept that people can read; the ledger, the runs and the counts know of all.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._notices: dict[str, str] = {}
        self._under_way: dict[str, str] = {}
        self._lock = threading.Lock()
        self._feeds: dict[str, FeedFigures] = {}

    def of_feed(self, label: str) -> FeedFigures:
        """The counts of one feed, which are part of these. They outlive the feed, as counters have to."""
        with self._lock:
            if label not in self._feeds:
                self._feeds[label] = FeedFigures(self)
            return self._feeds[label]

    @property
    def feeds(self) -> dict[str, FeedFigures]:
        """By the feed's label."""
        with self._lock:
            return dict(self._feeds)

    def add(self, name: str, count: int = 1) -> None:
        if count:
            with self._lock:
                self._counts[name] += count

    def add_all(self, counts: Mapping[str, int]) -> None:
        """Several at once."""
        with self._lock:
            for name, count in counts.items():
                if count:
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

    def work(self, about: str, text: str | None) -> None:
        """Say what takes long at a thing, until it is over (None): all is well, and people see it."""
        with self._lock:
            self._under_way.pop(about, None)
            if text is not None:
                self._under_way[about] = text

    @property
    def under_way(self) -> dict[str, str]:
        with self._lock:
            return dict(self._under_way)

    @property
    def lines(self) -> dict[str, str]:
        """What people are told when it comes up: what is under way, and notices."""
        return {**{text: text for text in self.under_way.values()}, **self.notices}

    def to_dict(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._counts)


class FeedFigures(Figures):
    """The counts of one feed, each of them also counted in the whole; and how long its units took."""

    def __init__(self, whole: Figures) -> None:
        super().__init__()
        self._whole = whole
        self._lags: dict[tuple[str, str], Histogram] = {}

    def of_feed(self, label: str) -> FeedFigures:
        return self._whole.of_feed(label)

    def add(self, name: str, count: int = 1) -> None:
        super().add(name, count)
        self._whole.add(name, count)

    def add_all(self, counts: Mapping[str, int]) -> None:
        super().add_all(counts)
        self._whole.add_all(counts)

    def notice(self, about: str, text: str | None) -> None:
        self._whole.notice(about, text)

    @property
    def notices(self) -> dict[str, str]:
        return self._whole.notices

    def work(self, about: str, text: str | None) -> None:
        self._whole.work(about, text)

    @property
    def under_way(self) -> dict[str, str]:
        return self._whole.under_way

    def took(self, name: str, seconds: float, playbook: str = "") -> None:
        """A unit, or its first event, took so long; `name` is one of `lags.BOUNDS`."""
        with self._lock:
            histogram = self._lags.get((name, playbook))
            if histogram is None:
                histogram = self._lags[name, playbook] = Histogram(BOUNDS[name])
            histogram.observe(seconds)

    @property
    def lags(self) -> dict[tuple[str, str], Histogram]:
        """By name and playbook; the latter is empty where it is the same for all."""
        with self._lock:
            return dict(self._lags)


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
