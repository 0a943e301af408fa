"""One attempt of an action: its effect is guarded, captured, journalled, sent, recorded, read back."""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import requests

from counterplay.errors import (
    InterruptedWork,
    PermanentError,
    RetryableError,
    StateError,
    UnknownOutcomeError,
    WorkError,
    as_work_error,
)
from counterplay.events import JsonObject
from counterplay.hookspecs import EffectIntent
from counterplay.language.arguments import problems
from counterplay.modules import Action, StepContext
from counterplay.plugins import PluginHost
from counterplay.runtime.first_write import TRUSTED, BeforeWrite, TargetChanged, TargetUnread
from counterplay.runtime.guards import Guards, refuse_write
from counterplay.runtime.planning_wire import described
from counterplay.runtime.results import Outcome
from counterplay.runtime.terms import Terms
from counterplay.store.database import Database
from counterplay.store.runs import EffectEnd, Lease, RunStore, StoredEffect

log = logging.getLogger("counterplay.runs")


NOT_AS_DECLARED = "what it returned is not what its schema says"
_STARTS = 3
"""How often an effect begins anew because the target changes before its first write."""
_CLOSED = ("failed", "refused")
"""An effect that came to this changed nothing: the next attempt is a new one."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What an attempt stands on: the state to undo to, the present one, whether a part may be done already.

    `seen` is None where the present state was not read.
    """

    before: JsonObject
    seen: JsonObject | None
    begun: bool


class Targets:
    """Effects on one target (tenant, object) happen one after the other, whichever worker makes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    @contextmanager
    def alone(self, tenant: str, target: str | None) -> Iterator[None]:
        if target is None:
            yield
            return
        with self._guard:
            lock = self._locks[tenant, target]
        with lock, self._database.alone(f"target {tenant} {target}"):
            yield


class EffectRunner:
    """Runs actions. Reads are simply run; effects go through the journal."""

    def __init__(
        self,
        host: PluginHost,
        runs: RunStore,
        targets: Targets,
        mask_json: Callable[[Any], Any],
        guardrails: Mapping[str, Any] | None = None,
        trusted: float = TRUSTED,
    ) -> None:
        """`trusted`: for how many seconds a captured state is written onto without another look."""
        self._trusted = trusted
        self._guards = Guards(host, runs.database, guardrails or {})
        self._host = host
        self._runs = runs
        self._targets = targets
        self._mask_json = mask_json

    def attempt(
        self,
        uses: str,
        action: Action,
        context: StepContext,
        lease: Lease,
        tenant: str,
        known: StoredEffect | None,
        terms: Terms | None = None,
    ) -> Outcome:
        """Run the action once. `known` is the journal's entry when an earlier attempt left one.

        `lease`: nothing is journalled, and so nothing sent, once the run goes on under another one.
        `terms` are what was agreed about the run beforehand: the plan that it carries out, or the
        effect that it takes back.
        """
        try:
            if not action.effect:
                context.http.before_write = refuse_write
                return Outcome("succeeded", self._json_result(uses, action.run(context)))
            # Of what an earlier attempt sent a part may have landed: an undo goes back to before that one.
            begun = known is not None and known.status not in _CLOSED
            unsent = "unknown" if begun else "failed"
            with self._targets.alone(tenant, action.target()):
                for _ in range(_STARTS):
                    try:
                        return self._effect(uses, action, context, lease, tenant, known, terms)
                    except TargetChanged:
                        if not begun:
                            self._begins_anew(lease, context.step_id)
                            known = None
                    except TargetUnread as unread:
                        return failed(as_work_error(unread.error, uses), effect=unsent)
            return failed(
                RetryableError("others keep changing the target, so nothing was sent"), effect=unsent
            )
        except (InterruptedWork, StateError):
            raise
        except (Exception, SystemExit) as error:
            return failed(as_work_error(error, uses))

    def _effect(
        self,
        uses: str,
        action: Action,
        context: StepContext,
        lease: Lease,
        tenant: str,
        known: StoredEffect | None,
        terms: Terms | None,
    ) -> Outcome:
        ground = self._ground(uses, action, context, known)
        if isinstance(ground, Outcome):
            return ground
        before = ground.before
        intent = EffectIntent(
            run_id=context.run_id,
            playbook=context.playbook,
            step_id=context.step_id,
            uses=uses,
            connection=context.connection.label if context.connection else "",
            tenant=tenant,
            target=action.target(),
            before=before,
            arguments=self._mask_json(action.arguments),
            subject=action.subject(before),
        )
        if terms is not None and (known is None or known.status in _CLOSED):
            given = terms.check(action, context, before)
            if given is not None:
                return _named(given, intent)
        with self._guards.asked(intent, context) as verdict:
            if verdict is not None and verdict.ask and context.consent is not None:
                verdict = None  # somebody agreed
            if verdict is not None and verdict.ask:
                return _named(Outcome("paused", error=verdict.reason, asks="guard"), intent)
            self._intend(lease, intent)
        if verdict is not None:
            outcome = Outcome("failed", error=f"refused: {verdict.reason}", effect="refused")
        else:
            outcome = self._act(uses, action, context, lease, ground)
        try:
            self._host.hook.counterplay_after_effect(
                intent=intent, outcome={"status": outcome.effect, "error": outcome.error}
            )
        except Exception as error:  # a listener's fault does not change what happened
            log.warning("the hook counterplay_after_effect failed: %s: %s", type(error).__name__, error)
        return outcome

    def _ground(
        self, uses: str, action: Action, context: StepContext, known: StoredEffect | None
    ) -> _Ground | Outcome:
        """The state before; or how an earlier attempt ended whose outcome was not on record."""
        if known is None or known.status in _CLOSED:
            before = action.capture(context)
            return _Ground(before, before, begun=False)
        settled = self._settle(uses, action, context, known)
        if settled is not None:
            return settled
        if action.settle != "read":
            return _Ground(known.before, None, begun=True)
        try:
            present = action.capture(context)
        except (InterruptedWork, StateError):
            raise
        except Exception as unread:
            return _unsettled("the process stopped before an answer came, and reading back failed", unread)
        if self._mask_json(present) == known.before:
            return _Ground(present, present, begun=False)
        return _Ground(action.rebased(known.before, present), present, begun=True)

    def _intend(self, lease: Lease, intent: EffectIntent) -> None:
        self._runs.intend(
            lease,
            intent.step_id,
            {
                "uses": intent.uses,
                "tenant": intent.tenant,
                "connection": intent.connection,
                "target": self._mask_json(intent.target),
                "subject": self._mask_json(intent.subject),
                "arguments": intent.arguments,
                "before": self._mask_json(intent.before),
            },
        )

    def _begins_anew(self, lease: Lease, step_id: str) -> None:
        """Nothing was sent; the journal and the audit log know why what was intended did not take place."""
        error = "somebody changed the target before the first write: it begins anew, from what is there now"
        with self._runs.leased(lease) as connection:
            self._runs.end_effect(connection, lease.run_id, step_id, EffectEnd("failed", error=error))

    def _act(self, uses: str, action: Action, context: StepContext, lease: Lease, ground: _Ground) -> Outcome:
        http, before = context.http, ground.before
        landed, doubtful = http.landed, http.doubtful
        journal = self._journal(lease, context.step_id)
        http.before_write = BeforeWrite(action, context, ground.seen, self._trusted, journal)
        try:
            given = action.run(context)
        except (InterruptedWork, StateError):
            raise
        except UnknownOutcomeError as error:
            return self._after_lost_answer(uses, action, context, ground, error, http.landed > landed)
        except WorkError as error:
            if http.landed == landed and http.doubtful == doubtful and not ground.begun:
                return failed(error, effect="failed")  # whatever was sent was refused
            # a part may have taken effect
            return self._after_lost_answer(uses, action, context, ground, error, http.landed > landed)
        except (Exception, SystemExit) as error:
            # A fault of the plugin: what it had done by then, on the wire or beside it, nobody can tell.
            fault = as_work_error(error, uses)
            return self._after_lost_answer(uses, action, context, ground, fault, http.landed > landed)
        finally:
            context.http.before_write = None
        try:
            result = self._json_result(uses, given)
        except PermanentError as error:
            return _unkept(error)
        verified = _verified(action, context, before, result)
        after = self._after(action, context)
        return Outcome("succeeded", result, effect="done", verified=verified, after=after)

    def _after(self, action: Action, context: StepContext) -> JsonObject | None:
        """The target's state afterwards, for evidence; that it cannot be read says nothing of the effect."""
        if type(action).capture is Action.capture:
            return None
        try:
            after: JsonObject = self._mask_json(action.capture(context))
        except (InterruptedWork, StateError):
            return None
        except Exception as error:
            log.info("the state after %s cannot be read: %s", context.step_id, error)
            return None
        return after

    def _after_lost_answer(
        self,
        uses: str,
        action: Action,
        context: StepContext,
        ground: _Ground,
        error: WorkError,
        partly: bool,
    ) -> Outcome:
        """`partly`: a part of it was answered as done before the rest failed."""
        passing = isinstance(error, (RetryableError, UnknownOutcomeError))
        if action.settle != "read":
            again = passing and action.settle == "repeat"
            return Outcome("failed", error=str(error), effect="unknown", passing=again)
        try:
            result = action.settled(context, ground.before)
        except (InterruptedWork, StateError):
            raise
        except Exception as unread:
            return _unsettled(f"{error.message}, and reading it back failed", unread)
        if result is None:
            text = f"{error}; reading it back does not show the effect"
            nothing = passing and not partly and not ground.begun
            return Outcome("failed", error=text, effect="failed" if nothing else "unknown", passing=passing)
        return self._read_back(uses, result, "the answer was lost; read back")

    def _settle(self, uses: str, action: Action, context: StepContext, known: StoredEffect) -> Outcome | None:
        """What a journalled intent without an outcome became; None: it has to be done (again)."""
        if action.settle == "repeat":
            return None
        if action.settle == "read":
            try:
                result = action.settled(context, known.before)
            except (InterruptedWork, StateError):
                raise
            except Exception as unread:
                return _unsettled(
                    "the process stopped before an answer came, and reading back failed", unread
                )
            if result is None:
                return None
            return self._read_back(uses, result, "read back after a stop")
        # Without a request on record it may still have acted beside `context.http`, all that is journalled.
        last = _call(known.calls[-1]) if known.calls else "no request is on record"
        lost = f"the process stopped between a request and its answer ({last})"
        return Outcome(
            "failed",
            error=f"{lost}; look at the target: it may or may not have taken effect",
            effect="unknown",
        )

    def _read_back(self, uses: str, result: object, how: str) -> Outcome:
        """The effect that `settled` found, with a result as its schema says; else as after an attempt."""
        try:
            kept = self._json_result(uses, result)
        except PermanentError as error:
            return _unkept(error)
        return Outcome("succeeded", kept, effect="done", verified=True, settled=how)

    def _journal(self, lease: Lease, step_id: str) -> Callable[[requests.PreparedRequest], None]:
        def before_write(request: requests.PreparedRequest) -> None:
            self._runs.add_call(lease, step_id, self._mask_json(described(request)))

        return before_write

    def _json_result(self, uses: str, result: object) -> JsonObject:
        try:
            if not isinstance(result, dict):
                raise TypeError(f"it returned {type(result).__name__}, not a JSON object")
            copy: JsonObject = json.loads(json.dumps(result, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise PermanentError(f"{uses}: {error}", hint=self._report(uses)) from error
        described = self._host.module(uses).result_schema
        if described is not None:
            for wrong in problems(copy, described):
                where = ".".join(("result", *map(str, wrong.path)))
                raise PermanentError(
                    f"{uses}: {NOT_AS_DECLARED}: {where}: {wrong.message}",
                    hint=self._report(uses),
                )
        masked: JsonObject = self._mask_json(copy)
        return masked

    def _report(self, uses: str) -> str:
        plugin = self._host.module(uses).distribution
        return f"this is a fault of the plugin: update {plugin}, or report it to its authors"


def _named(outcome: Outcome, intent: EffectIntent) -> Outcome:
    """A pause says whom the effect would touch: a person is asked about it."""
    if outcome.status != "paused":
        return outcome
    whom = intent.subject or intent.target or intent.connection
    return replace(outcome, error=f"{intent.uses} on {whom}: {outcome.error}")


def failed(error: WorkError, effect: str | None = None) -> Outcome:
    """The outcome of an attempt that raised."""
    passing = isinstance(error, RetryableError)
    after = error.retry_after if isinstance(error, RetryableError) else None
    return Outcome("failed", error=str(error), effect=effect, passing=passing, retry_after=after)


def _unkept(error: PermanentError) -> Outcome:
    """The effect happened; only what the action says about it cannot be kept."""
    return Outcome("failed", error=str(error), effect="unknown")


def _unsettled(what: str, error: Exception) -> Outcome:
    """The journal must not keep an intent whose outcome nobody will look for any more."""
    return Outcome("failed", error=f"{what}: {as_work_error(error, 'the action')}", effect="unknown")


def _verified(action: Action, context: StepContext, before: JsonObject, result: JsonObject) -> bool | None:
    """Read the effect back; that the reading failed says nothing about the effect."""
    try:
        return action.verify(context, before, result)
    except Exception:
        return None


def _call(call: JsonObject) -> str:
    return f"{call.get('method')} {call.get('url')}"
