"""Does it still hold? Reads effects back later, and reports when something undid one.

A synchronisation from Active Directory, a colleague, an attacker with another session: what a playbook
changed may be changed back. `verify: {after: [5m, 1h, 24h]}` on a step says when to look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from counterplay.clock import now
from counterplay.errors import CounterplayError, InterruptedWork, StateError, as_work_error
from counterplay.modules import Action, StepContext
from counterplay.runtime.figures import Figures
from counterplay.runtime.guards import refuse_write
from counterplay.runtime.opening import Opener
from counterplay.store.database import Database
from counterplay.store.runs import RunStore, StoredEffect
from counterplay.store.watches import Watch, WatchStore

SWEEP = 5.0
ATTEMPTS = 5
"""How often a look that fails is tried, once a minute, before it is given up as not known."""
UNREADABLE = "it cannot be read: "
"""How the detail of a look begins whose target could not be read."""
_LATER = timedelta(minutes=1)

log = logging.getLogger("counterplay.holding")


class _Elsewhere(Exception):
    """The connection's name stands for another tenant than the one that was changed."""


class Watcher:
    """Makes the looks that are due. `sweep` once, or as a thread between `start` and the stop event.

    `report` is told of each look that people should know of; the figures and the log are unless it is given.
    """

    def __init__(
        self,
        database: Database,
        opener: Opener,
        figures: Figures,
        stop: threading.Event,
        report: Callable[[Watch, str], None] | None = None,
    ) -> None:
        self._database = database
        self._watches = WatchStore(database)
        self._runs = RunStore(database)
        self._opener = opener
        self._figures = figures
        self._stop = stop
        self._tell = report or self._notice
        self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Make every look that is due, unless another worker does. StateError: the store cannot be used."""
        with self._database.alone("watches", wait=False) as mine:
            for one in self._watches.due(now()) if mine else ():
                if self._stop.is_set():
                    return
                self.look(one)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self.sweep()
            except StateError as error:  # whoever works on runs meets it too, and ends the process
                log.error("%s", error)
                return
            except Exception:
                log.exception("a look at an effect failed")
            self._stop.wait(SWEEP)

    def look(self, one: Watch) -> None:
        """Make one look, whether it is due or not, and keep what it shows. StateError as for `sweep`."""
        effect = next((each for each in self._runs.effects(one.run_id) if each.step_id == one.step_id), None)
        if effect is None or effect.status != "done":
            self._watches.settle(one, None, "the effect did not take place")
            return
        try:
            held = self._held(effect)
        except InterruptedWork:
            return
        except _Elsewhere:
            self._watches.settle(one, None, f"{effect.connection} is the connection of another tenant now")
            return
        except StateError:
            raise
        except Exception as error:
            text = self._opener.secrets.mask(str(as_work_error(error, effect.uses)))
            if one.attempts + 1 < ATTEMPTS:
                self._watches.postpone(one, _LATER)
            else:
                self._watches.settle(one, None, f"{UNREADABLE}{text}")
                self._report(one, effect, f"cannot be read back: {text}")
            return
        if held is not False:
            self._watches.settle(one, held, "it holds" if held else "the action cannot tell")
            return
        by = self._watches.taken_back(one.run_id)
        if by is not None:
            self._watches.settle(one, False, f"taken back by {by}")
            return
        self._watches.settle(one, False, "it does not hold any more")
        self._figures.add("effects_not_held")
        self._report(one, effect, f"does not hold any more{self._foretold(effect)}")

    def _action(self, effect: StoredEffect) -> Action:
        action = self._opener.host.module(effect.uses).cls(effect.arguments)
        if not isinstance(action, Action):
            raise CounterplayError(f"{effect.uses} is no action any more")
        return action

    def _foretold(self, effect: StoredEffect) -> str:
        """What the plan cautioned about: a directory that owns the account, a machine that was away."""
        try:
            said = self._action(effect).caution(effect.before)
        except Exception as error:  # the look has its answer without it
            log.info("what %s cautions about cannot be told: %s", effect.uses, error)
            return ""
        return f" ({said})" if said else ""

    def _held(self, effect: StoredEffect) -> bool | None:
        action = self._action(effect)
        kind = action.connection
        connection = self._opener.connection(effect.connection, kind) if kind is not None else None
        if connection is not None and connection.tenant != effect.tenant:
            raise _Elsewhere
        with self._opener.wire(connection) as http:
            http.before_write = refuse_write
            context = StepContext(
                http=http,
                connection=connection,
                stop=self._stop,
                run_id=effect.run_id,
                step_id=effect.step_id,
                internal=self._opener.inside(connection),
            )
            return action.verify(context, effect.before, effect.result or {})

    def _report(self, one: Watch, effect: StoredEffect, what: str) -> None:
        whom = effect.subject or effect.target or effect.connection
        text = f"{effect.uses} on {whom}, made {one.after} ago by step {one.step_id}, {what}"
        self._tell(one, text)

    def _notice(self, one: Watch, text: str) -> None:
        self._figures.notice(f"run {one.run_id} {one.step_id}", f"{text}; `playbook runs show {one.run_id}`")
        log.warning("run %s: %s", one.run_id, text)
