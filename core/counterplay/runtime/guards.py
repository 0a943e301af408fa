"""Asks the guards of all plugins about an effect, with what they may look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import requests

from counterplay.errors import PermanentError
from counterplay.hookspecs import EffectIntent, EffectJournal, EffectVerdict
from counterplay.modules import StepContext
from counterplay.plugins import PluginHost
from counterplay.store.database import Database
from counterplay.store.journal import Journal


class Guards:
    """The hook `counterplay_before_effect`: one effect at a time is asked about."""

    def __init__(self, host: PluginHost, database: Database | None, guardrails: Mapping[str, Any]) -> None:
        self._host = host
        self._database = database
        self._journal: EffectJournal = Journal(database) if database is not None else _Nothing()
        self._guardrails = guardrails
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def asked(self, intent: EffectIntent, context: StepContext) -> Iterator[EffectVerdict | None]:
        """What the guards say. Journal the intent inside the block.

        Where a guard counted in the journal, the next effect is asked about only after the block, so that
        two do not pass one limit.
        """
        with ExitStack() as turn:
            turn.enter_context(self._one_at_a_time)
            counting = _Counting(self._journal, lambda: self._alone(turn))
            verdict = self._verdict(intent, context, counting)
            if not counting.asked:
                turn.close()
            yield verdict

    def _alone(self, turn: ExitStack) -> None:
        """Nor does a guard of another worker count meanwhile."""
        if self._database is not None:
            turn.enter_context(self._database.alone("guards"))

    def verdict(self, intent: EffectIntent, context: StepContext) -> EffectVerdict | None:
        """The same for an effect that is only planned."""
        return self._verdict(intent, context, self._journal)

    def _verdict(
        self, intent: EffectIntent, context: StepContext, journal: EffectJournal
    ) -> EffectVerdict | None:
        """The first refusal, else the first that wants a person asked, else None."""
        before = context.http.before_write
        context.http.before_write = refuse_write
        if self._guardrails and not self._enforced:
            return EffectVerdict(True, _NOBODY)
        try:
            given = self._host.hook.counterplay_before_effect(
                intent=intent, context=context, guardrails=self._guardrails, journal=journal
            )
            refusal = next((one for one in given if one.refuse), None)
            return refusal or next((one for one in given if one.ask), None)
        except Exception as error:  # a guard that cannot answer has not agreed
            return EffectVerdict(True, f"a guard failed: {type(error).__name__}: {error}")
        finally:
            context.http.before_write = before

    @property
    def _enforced(self) -> bool:
        known = self._host.plugins.get("guard")
        return known is not None and known.problem is None


_NOBODY = (
    "counterplay.yaml sets `guardrails`, and the plugin `guard`, which enforces them, takes no part: "
    "`playbook plugins` says why"
)


class _Counting:
    """A journal that calls `first` before it is asked for the first time, and remembers that it was."""

    def __init__(self, journal: EffectJournal, first: Callable[[], None]) -> None:
        self._journal = journal
        self._first = first
        self.asked = False

    def effects(self, since: datetime, **rest: Any) -> int:
        self._note()
        return self._journal.effects(since, **rest)

    def runs_with_effects(self, since: datetime, playbook: str, **rest: Any) -> int:
        self._note()
        return self._journal.runs_with_effects(since, playbook, **rest)

    def _note(self) -> None:
        if not self.asked:
            self.asked = True
            self._first()


class _Nothing:
    """The journal of a workspace in which nothing has run yet."""

    def effects(self, since: object, **_: object) -> int:
        return 0

    def runs_with_effects(self, since: object, playbook: str, **_: object) -> int:
        return 0


def refuse_write(request: requests.PreparedRequest) -> None:
    """Plans and guards rely on it: what says that it changes nothing cannot change anything."""
    raise PermanentError(
        f"refused to send {request.method} {request.url}: the module says that it changes nothing",
        hint="this is a fault of the plugin: an action that writes sets `effect = True`; "
        "for a query that needs POST, pass `reads=True`",
    )
