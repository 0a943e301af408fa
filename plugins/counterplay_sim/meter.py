"""Counts requests by tenant, service, operation and second, for the oracle."""

from __future__ import annotations

import threading
from collections import Counter

from counterplay_sim.clock import NANOSECONDS, Clock
from counterplay_sim.store import Store

_EVERY = 0.5  # seconds between two writes; a killed simulator forgets at most so much


class Meter:
    """Counts in memory and writes every half second, so that counting costs a request nothing."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._counts: Counter[tuple[str, str, str, int]] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sim-meter", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def count(self, tenant: str, service: str, operation: str) -> None:
        """One more request."""
        key = (tenant, service, operation, self._clock.now_ns() // NANOSECONDS)
        with self._lock:
            self._counts[key] += 1

    def flush(self) -> None:
        """Write what was counted up to now."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if counts:
            self._store.add_requests((*key, count) for key, count in counts.items())

    def close(self) -> None:
        """Write for the last time."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            self.flush()
