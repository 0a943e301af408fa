"""Turns a run that ended into a case: what its modules gave are the answers, what it did is expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from counterplay.cases.model import Case, given_from
from counterplay.cases.play import seen_run
from counterplay.cases.redact import Redactor, arguments_of, closed_words, constants_of
from counterplay.cases.runner import Bench
from counterplay.cases.seen import Seen, SeenRun
from counterplay.clock import from_text
from counterplay.errors import ConfigError
from counterplay.events import Event, JsonObject
from counterplay.language import Playbook
from counterplay.language.build import all_steps, step_ids
from counterplay.modules import Action, Control
from counterplay.plugins import PluginHost
from counterplay.runtime.holding import UNREADABLE
from counterplay.runtime.terms import planned_name
from counterplay.store.approvals import ApprovalStore, StoredApproval
from counterplay.store.database import Database
from counterplay.store.runs import ENDED, RunStore, StoredEffect, StoredRun, StoredStep
from counterplay.store.watches import WatchStore

_OF_THE_HOST = ("feed", "connection", "tenant", "unit", "starter")


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of one case, and in what its play differs from the run: nothing means that it passes."""

    document: JsonObject
    wrong: tuple[str, ...]


def record(database: Database, run: StoredRun, bench: Bench, kept: tuple[str, ...] = ()) -> Recording:
    """The case of a run, without people, machines and tenants. `kept` texts stay as they are.

    ConfigError: the run has not ended, is a part of another one, or its playbook is no longer there.
    """
    if run.parent is not None:
        raise ConfigError(f"{run.id} is a part of another run", hint=f"record {run.id.partition('/')[0]}")
    if run.status not in ENDED or run.status == "cancelled":
        raise ConfigError(f"run {run.id} is {run.status}", hint="record a run that succeeded or failed")
    playbook = bench.find(run.playbook)
    assert isinstance(playbook, Playbook)
    runs = RunStore(database)
    words = {*arguments_of(run.document), *_closed(run, bench.host), *kept}
    redactor = Redactor(words, constants_of(run.document))
    watches = WatchStore(database)
    taken = _Taken(runs, ApprovalStore(database), watches, run, bench.host, redactor)
    given = taken.given()
    guarded = taken.guarded()
    refused = any(one.status == "refused" for one in runs.effects_within(run.id))
    if guarded or refused or run.outcome == "failed":
        guardrails = bench.workspace.guardrails
        if guardrails:
            given["guardrails"] = taken.redactor.value(guardrails)
    name = f"as recorded on {run.created[:10]}"
    seen = bench.play(Case(name, given_from({}, given), {}), playbook)
    if guarded and seen.trouble:  # a limit that it reached because of other runs: the case is alone
        alone = _without_approvals(given, guarded)
        again = bench.play(Case(name, given_from({}, alone), {}), playbook)
        if not again.trouble:
            given, seen = alone, again
    then = seen_run(runs, taken.approvals, watches, run, taken.name, {})
    wrong = [*seen.trouble, *_unlike(then, seen)]
    document = {
        "playbook": run.playbook,
        "cases": [{"name": name, "given": given, "expect": expected(seen, looks=taken.looked_at())}],
    }
    return Recording(document, tuple(wrong))


def _without_approvals(given: JsonObject, steps: set[str]) -> JsonObject:
    """The circumstances without what people said at these steps."""
    rest = {name: value for name, value in given.items() if name != "approvals"}
    said = {step: one for step, one in given["approvals"].items() if step not in steps}
    return {**rest, "approvals": said} if said else rest


def _closed(run: StoredRun, host: PluginHost) -> Iterator[str]:
    for step in all_steps(run.document):
        info = host.modules.get(step.get("uses", ""))
        if info is not None:
            yield from closed_words(info.schema)


class _Taken:
    """What is taken over from a run."""

    def __init__(
        self,
        runs: RunStore,
        approvals: ApprovalStore,
        watches: WatchStore,
        run: StoredRun,
        host: PluginHost,
        redactor: Redactor,
    ) -> None:
        self._runs = runs
        self.approvals = approvals
        self._looks = watches.of_run(run.id)
        self._run = run
        self._host = host
        self.redactor = redactor
        self._parts = {one.id: one for one in [run, *runs.within(run.id)]}

    def name(self, run_id: str, step_id: str) -> str:
        return planned_name(self._parts[run_id], step_id)

    def looked_at(self) -> bool:
        """Whether every later look at an effect has been made: what the others will show is not known."""
        return bool(self._looks) and all(one.checked is not None for one in self._looks)

    def guarded(self) -> set[str]:
        """Steps at which a guard asked, and somebody answered."""
        asked = [one for part in self._parts for one in self.approvals.of_run(part)]
        return {self.name(one.run_id, one.step_id) for one in asked if one.purpose == "guard" and one.answers}

    def given(self) -> JsonObject:
        """The circumstances, as they stand in a file."""
        run, redact = self._run, self.redactor.value
        given: JsonObject = {"now": f"{run.created[:19]}Z", "event": redact(Event(run.event).data)}
        inputs = redact(run.inputs)
        meta = {
            name: redact(value, name)
            for name, value in run.meta.items()
            if name not in _OF_THE_HOST and not name.startswith("_")  # such as the plan that it carried out
        }
        answers = {name: answer for part in self._parts.values() for name, answer in self._answers(part)}
        approvals = {
            self.name(part.id, one.step_id): said
            for part in self._parts.values()
            for one in self.approvals.of_run(part.id)
            if one.purpose != "plan"  # the test carries out none, so that nobody asks about it
            if (said := [self._saying(one, place) for place, _ in enumerate(one.answers)])
        }
        for member, value in (("inputs", inputs), ("meta", meta), ("answers", answers)):
            if value:
                given[member] = value
        if approvals:
            given["approvals"] = approvals
        return given

    def _answers(self, part: StoredRun) -> Iterator[tuple[str, Any]]:
        effects = {one.step_id: one for one in self._runs.effects(part.id)}
        failed: dict[str, list[JsonObject]] = {}
        for attempt in self._runs.attempts(part.id):
            if attempt.status == "failed":
                answer = {"error": self.redactor.prose(attempt.error or "it failed"), "kind": "retryable"}
                failed.setdefault(attempt.step_id, []).append(answer)
        steps = _steps_of(part)
        for row in self._runs.steps(part.id):
            info = self._host.modules.get(row.uses)
            if info is None or not issubclass(info.cls, Action) or issubclass(info.cls, Control):
                continue
            own = self._answer(row, effects.get(row.step_id), steps.get(row.step_id, {}))
            if own is not None and not (row.status == "failed" and failed.get(row.step_id)):
                failed.setdefault(row.step_id, []).append(own)
            if failed.get(row.step_id):
                several = failed[row.step_id]
                yield self.name(part.id, row.step_id), several if len(several) > 1 else several[0]

    def _answer(self, row: StoredStep, effect: StoredEffect | None, step: JsonObject) -> JsonObject | None:
        """What the last attempt gave; None when the module was not asked."""
        if row.arguments is None or row.ended is None:
            return None
        redact = self.redactor.value
        answer: JsonObject = {}
        if effect is not None and effect.before:
            answer["before"] = redact(effect.before)
        if row.status == "succeeded":
            answer["result"] = redact(row.result or {})
            if effect is not None and effect.verified is not None:
                answer["verified"] = effect.verified
            looks = dict(self._shown(effect)) if effect is not None else {}
            if looks:
                answer["looks"] = looks
        elif (row.error or "").startswith("timed out after") and "timeout" in step:
            answer["takes"] = step["timeout"]
        elif not (row.error or "").startswith("refused: "):
            answer["error"] = self.redactor.prose(row.error or "it failed")
            if effect is not None and effect.status == "unknown":
                answer["kind"] = "unknown"
        return answer

    def _shown(self, effect: StoredEffect) -> Iterator[tuple[str, bool | str]]:
        """What later looks at an effect showed; one that could not tell is left out."""
        for one in self._looks:
            if (one.run_id, one.step_id) != (effect.run_id, effect.step_id) or one.checked is None:
                continue
            if one.held is not None:
                yield one.after, one.held
            elif (one.detail or "").startswith(UNREADABLE):
                yield one.after, self.redactor.prose((one.detail or "").removeprefix(UNREADABLE))

    def _saying(self, one: StoredApproval, place: int) -> JsonObject:
        said = one.answers[place]
        found: JsonObject = {
            "say": "approve" if said.decision == "approve" else "deny",
            "by": self.redactor.person(said.person),
        }
        after = from_text(said.at) - from_text(one.created)
        if after >= timedelta(seconds=1):
            found["after"] = f"{int(after.total_seconds())}s"
        if said.form is not None:
            found["form"] = self.redactor.value(said.form)
        return found


def _steps_of(run: StoredRun) -> dict[str, JsonObject]:
    ids = step_ids(run.document)
    return {ids[id(step)]: step for step in all_steps(run.document)}


def _unlike(then: SeenRun, seen: Seen) -> Iterator[str]:
    """In what the case is not the run: names may differ, what happened may not."""
    if len(seen.runs) != 1:
        why = "the filter drops the event" if seen.counts.get("filtered") else "no run begins"
        yield f"the case starts {len(seen.runs)} runs: {why}; keep what the playbook looks at with --keep"
        return
    now = seen.runs[0]
    if now.status != then.status:
        yield f"the case ends as {now.status} ({now.error}), the run {then.status}"
    steps = {name: step.status for name, step in then.steps.items() if not step.whole}
    for name in dict.fromkeys((*steps, *(name for name, step in now.steps.items() if not step.whole))):
        status = now.steps[name].status if name in now.steps else "not reached"
        if status != steps.get(name, "not reached"):
            error = now.steps[name].error if name in now.steps else None
            because = f" ({error})" if error else ""
            yield f"step {name}: {status} in the case{because}, {steps.get(name, 'not reached')} in the run"
    had = [(one["step"], one["uses"], one["status"]) for one in then.effects]
    has = [(one["step"], one["uses"], one["status"]) for one in now.effects]
    if sorted(had) != sorted(has):
        yield f"the effects are {has} in the case, {had} in the run"


def expected(seen: Seen, *, looks: bool = False) -> JsonObject:
    """What the case comes to, as it stands in a file: the same words as in its circumstances.

    `looks`: what later looks show is expected, too.
    """
    if len(seen.runs) != 1:
        return {"runs": len(seen.runs)}
    run = seen.runs[0]
    expect: JsonObject = {
        "status": run.status,
        "steps": {name: step.status for name, step in run.steps.items() if not step.whole},
        "effects": [_effect(one) for one in run.effects],
    }
    if run.questions:
        expect["questions"] = list(run.questions)
    if looks:
        expect["looks"] = [{"step": one.step, "after": one.after, "held": one.held} for one in run.looks]
    if seen.records:
        expect["sinks"] = {uses: [{"status": run.status}] for uses in seen.records}
    return expect


def _effect(effect: JsonObject) -> JsonObject:
    found: JsonObject = {"step": effect["step"], "uses": effect["uses"]}
    if effect["status"] != "done":
        found["status"] = effect["status"]
    for member in ("target", "subject"):
        if effect[member] is not None:
            found[member] = effect[member]
    if effect["calls"]:
        found["calls"] = [
            {
                "method": call["method"],
                "url": _path(str(call["url"])),
                **({"body": call["body"]} if call["body"] is not None else {}),
            }
            for call in effect["calls"]
        ]
    return found


def _path(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "") or url
