"""Carries out runs that a command made: in this process, or by the worker that holds the store already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from counterplay import audit
from counterplay.errors import BusyError
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import Session
from counterplay.store.database import open_database
from counterplay.store.retention import was_deleted
from counterplay.store.runs import ENDED, NewRun, RunStore, StoredRun

_LOOK = 0.2
_WAITING = ("waiting", "blocked")


@dataclass(frozen=True, slots=True)
class Carried:
    """How the runs stand when nothing more happens by itself.

    `over`: those of them that had ended before, so that nothing was done. `deleted`: those that are not
    among them, as they ended long ago and retention took them, and when it did.
    """

    runs: tuple[StoredRun, ...]
    over: frozenset[str] = frozenset()
    deleted: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: all succeeded; 1: one failed; 3: one waits for a person or a time."""
        if any(one.status in ("failed", "cancelled") for one in self.runs):
            return 1
        return 0 if all(one.status == "succeeded" for one in self.runs) else 3


def carry_out(
    opener: Opener, name: str, made: Sequence[NewRun], stop: threading.Event, told: Callable[[str], None]
) -> Carried:
    """Add the runs, see them through, and return how they stand. A run that exists already is not repeated;
    when all of them ended already, nothing is done at all.

    StateError: the store cannot be used.
    """
    identities = list(dict.fromkeys(one.id for one in made))
    with closing(open_database(opener.workspace.store_url)) as database:
        store = RunStore(database)
        with database.write() as connection:
            added = store.add(connection, made)
            for identity in added:
                audit.append(connection, "command", {"command": name}, run_id=identity)
        known = {one: store.get(one) for one in identities if one not in added}
        deleted = {one: was_deleted(database, one) or "" for one, run in known.items() if run is None}
    present = [run for run in known.values() if run is not None]
    over = frozenset(run.id for run in present if run.status in ENDED)
    if len(over) + len(deleted) == len(identities):
        return Carried(tuple(present), over, deleted)
    for run in present:
        if run.id not in over:
            told(f"the run {run.id} of {run.playbook} began with this at {run.created[:19]}Z; it goes on")
    try:
        Session(opener, name, [], once=True, stop=stop, command="carry out").run()
    except BusyError as error:
        told(f"{error.message}: that process carries it out")
    with closing(open_database(opener.workspace.store_url)) as database:
        return Carried(tuple(_settled(RunStore(database), identities, stop)), over, deleted)


def _settled(store: RunStore, identities: Sequence[str], stop: threading.Event) -> list[StoredRun]:
    """The runs once none of them works any more, or the process is asked to stop."""
    while True:
        found = [one for one in (store.get(identity) for identity in identities) if one is not None]
        if stop.is_set() or all(one.status in (*ENDED, *_WAITING) for one in found):
            return found
        time.sleep(_LOOK)
