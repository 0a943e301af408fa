"""Which branches a playbook has, and which of them a case took.

A branch is a way that the playbook's text tells apart: an event that the filter lets through or drops,
a step that its `when` allows or skips, an `on_error` that is needed, a loop without elements, and the
answers to a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from counterplay.cases.seen import Fact
from counterplay.events import JsonObject
from counterplay.language import Playbook
from counterplay.language.build import all_steps, step_ids
from counterplay.modules import Control
from counterplay.plugins import PluginHost
from counterplay.store.approvals import ApprovalStore
from counterplay.store.runs import RunStore, StoredRun, StoredStep

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One way through a playbook, and where its text says so."""

    point: str
    branch: str
    path: Path

    def __str__(self) -> str:
        return f"{self.point}: {_WORDS[self.branch]}"


_WORDS = {
    "reached": "no event comes through",
    "passed": "it lets no event through",
    "dropped": "it drops no event",
    "first": "no event opens a window",
    "held back": "it holds no event back",
    "taken": "it is never done",
    "skipped": "its `when` is never false",
    "failed": "it never fails, so `on_error` is not tried",
    "empty": "there are always elements",
    "approved": "nobody approves",
    "denied": "nobody denies",
    "timed out": "its time is never up",
}
"""What is missing where a branch is not taken."""


def branches_of(playbook: Playbook, host: PluginHost) -> Iterator[Branch]:
    """Every branch of a playbook, in the order of its text."""
    document = playbook.document
    yield Branch("trigger", "reached", ("trigger",))
    if "filter" in document:
        yield Branch("filter", "passed", ("filter",))
        yield Branch("filter", "dropped", ("filter",))
    if "once_per" in document:
        yield Branch("once_per", "first", ("once_per",))
        yield Branch("once_per", "held back", ("once_per",))
    ids = step_ids(document)
    for path, step in _placed(document, ()):
        point = f"step {ids[id(step)]}"
        yield Branch(point, "taken", path)
        if "when" in step:
            yield Branch(point, "skipped", (*path, "when"))
        if "for_each" in step:
            yield Branch(point, "empty", (*path, "for_each"))
        if step.get("on_error", "stop") != "stop":
            yield Branch(point, "failed", (*path, "on_error"))
        for branch in _answers_to(step, host):
            yield Branch(point, branch, path)


def _placed(document: JsonObject, path: Path) -> Iterator[tuple[Path, JsonObject]]:
    """Every step with its place, as `all_steps` goes through them."""
    for key in ("steps", "parallel", "on_error", "finally"):
        children = document.get(key)
        for number, child in enumerate(children if isinstance(children, list) else ()):
            here = (*path, key, number)
            yield here, child
            yield from _placed(child, here)


def _answers_to(step: JsonObject, host: PluginHost) -> Iterator[str]:
    """The answers that a step can get which puts a question to people."""
    info = host.modules.get(step.get("uses", ""))
    if info is None or not issubclass(info.cls, Control):
        return
    result = info.schema.get("$defs", {}).get("result", {}).get("properties", {})
    if not {"approved", "timed_out"} <= set(result):
        return
    yield from ("approved", "denied")
    if "timeout" in step.get("with", {}) or "default" in info.schema["properties"].get("timeout", {}):
        yield "timed out"


def facts_of(
    playbook: Playbook,
    events: Sequence[Mapping[str, Any]],
    runs: RunStore,
    approvals: ApprovalStore,
    suppressed: int,
) -> frozenset[Fact]:
    """The branches that were taken; `events` are the scopes that the filter saw."""
    name = playbook.name
    facts: set[Fact] = set()
    passed = 0
    for scope in events:
        facts.add((name, "trigger", "reached"))
        let_through = playbook.filter is None or playbook.filter.evaluate(scope).value
        passed += let_through
        facts.add((name, "filter", "passed" if let_through else "dropped"))
    if passed:
        facts.update((name, f"step {step.id}", "taken") for step in playbook.batch_steps)
    every = runs.newest(playbook=None, status=None, limit=100_000)
    if any(run.parent is None for run in every):
        facts.add((name, "once_per", "first"))
    if suppressed:
        facts.add((name, "once_per", "held back"))
    for run in every:
        facts.update(_of_run(run, runs.steps(run.id)))
    playbooks = {run.id: run.playbook for run in every}
    for one in approvals.listed(None):
        if one.purpose == "approval" and one.status in _ANSWERS:
            facts.add((playbooks[one.run_id], f"step {one.step_id}", _ANSWERS[one.status]))
    return frozenset(facts)


_ANSWERS = {"approved": "approved", "denied": "denied", "expired": "timed out"}


def _of_run(run: StoredRun, rows: Sequence[StoredStep]) -> Iterator[Fact]:
    ids = step_ids(run.document)
    documents = {ids[id(step)]: step for step in all_steps(run.document)}
    for row in rows:
        step = documents.get(row.step_id)
        if step is None:
            continue
        point = f"step {row.step_id}"
        element = run.origin.get("role") == "element" and run.parent_step == row.step_id
        if "for_each" in step and not element:
            if row.ended is not None and row.status == "succeeded" and row.result == []:
                yield (run.playbook, point, "empty")
            if row.status == "failed":
                yield (run.playbook, point, "failed")
            continue
        if row.status == "skipped" and "when" in step:
            yield (run.playbook, point, "skipped")
            continue
        yield (run.playbook, point, "taken")
        if row.status == "failed":
            yield (run.playbook, point, "failed")
