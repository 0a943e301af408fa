"""What faults did: each one that was met, the events that it kept from the reader, and when it was over."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from counterplay_sim.clock import Clock
from counterplay_sim.faults import Fault
from counterplay_sim.store import Mishap, Store


class FaultRecord:
    """Writes mishaps into the store, and marks them when the same target is served again."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._open: dict[tuple[str, str], list[int]] = {}
        self._lock = threading.Lock()
        for row in store.tenants():
            for mishap in store.mishaps(row.id):
                if mishap.recovered is None:
                    self._open.setdefault((mishap.service, mishap.target), []).append(mishap.number)

    @property
    def idle(self) -> bool:
        """Whether nothing is waited for."""
        return not self._open

    def met(
        self,
        fault: Fault,
        service: str,
        target: str,
        *,
        tenant: str = "",
        content_type: str = "",
        since: int = 0,
        until: int = 0,
        events: Iterable[str] = (),
    ) -> None:
        """A request met a fault."""
        mishap = Mishap(
            self._clock.now_ns(), fault.name, service, target, content_type, since, until, tuple(events)
        )
        with self._lock:
            number = self._store.add_mishap(tenant, mishap)
            self._open.setdefault((service, target), []).append(number)

    def served(self, service: str, target: str) -> None:
        """A request was answered as it should be."""
        if not self._open:
            return
        with self._lock:
            numbers = self._open.pop((service, target), None)
            if numbers:
                self._store.recovered(numbers, self._clock.now_ns())
