"""Retention at work: deletes old runs, the engine's rows of them and old units, at once or each hour."""

from __future__ import annotations

import logging
import threading

from counterplay import audit
from counterplay.clock import now
from counterplay.errors import CounterplayError
from counterplay.store.database import Database, explained
from counterplay.store.retention import Pruned, delete_old
from counterplay.store.unit_retention import delete_old_units
from counterplay.workspace import Retention

EVERY = 3600.0

log = logging.getLogger("counterplay.retention")


def prune(database: Database, kept: Retention) -> Pruned:
    """Delete what is older than it is to be kept; the audit log says how much that was."""
    from counterplay.engine.forgetting import forget_ended

    moment = now()
    with explained(database.url):
        segments = forget_ended(database.engine, moment - kept.engine)
    units = delete_old_units(database, moment - kept.units)
    pruned = Pruned(delete_old(database, moment - kept.runs), segments, units)
    if pruned.runs or pruned.units:
        about = {
            "command": "prune",
            "runs": pruned.runs,
            "ended_before": str(moment - kept.runs),
            "units": pruned.units,
            "acknowledged_before": str(moment - kept.units),
        }
        audit.record(database, "command", about)
    return pruned


class Keeper:
    """Prunes when it starts and each hour from then on, until the stop event."""

    def __init__(self, database: Database, kept: Retention, stop: threading.Event) -> None:
        self._database = database
        self._kept = kept
        self._stop = stop
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with self._database.alone("retention", wait=False) as mine:
                    if mine:
                        prune(self._database, self._kept)
            except CounterplayError as error:  # what works on runs meets it too, and ends the process
                log.error("what is old is not deleted: %s", error)
            except Exception as error:  # and is tried again in an hour
                log.error("what is old is not deleted: %s: %s", type(error).__name__, error)
            self._stop.wait(EVERY)
