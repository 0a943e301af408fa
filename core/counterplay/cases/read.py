"""Reads a file of cases and checks it as playbooks are checked: every finding with its line and column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path as File
from typing import Any

from counterplay._data_files import core_schemas
from counterplay.cases.compare import OF_A_RUN
from counterplay.cases.lenient import lenient
from counterplay.cases.model import Case, TestFile, given_from
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language import Playbook, PlaybookError, PlaybookSet
from counterplay.language.arguments import problems
from counterplay.language.build import all_steps, step_ids
from counterplay.language.findings import Finding, did_you_mean
from counterplay.language.yaml_text import MAX_BYTES, Document, read
from counterplay.modules import Control
from counterplay.plugins import PluginHost
from counterplay.workspace import with_article

Path = tuple[str | int, ...]
Find = Callable[[str], Playbook | PlaybookSet]
"""Finds a playbook by name or file. ConfigError: there is none, or it is wrong."""


@cache
def cases_schema() -> JsonObject:
    """The JSON Schema of files of cases, as editors use it."""
    schema: JsonObject = json.loads((core_schemas() / "playbook-test.json").read_text("utf-8"))
    return schema


def read_cases(path: File | Traversable, name: str, host: PluginHost, find: Find) -> TestFile:
    """Read and check a file; `name` is how findings call it.

    PlaybookError has all findings; ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the test: {error.strerror or error}", path=name) from error
    document = read(text, name, "`playbook:` and `cases:`; `playbook new` writes one")
    wrong = [
        document.finding(p.path, p.message, p.hint, key=p.at_key)
        for p in problems(document.data, cases_schema())
    ]
    if wrong:  # what follows relies on the form
        raise PlaybookError(wrong)
    data = document.data
    try:
        playbook = find(data["playbook"])
    except PlaybookError as error:
        reason = f"the playbook {data['playbook']} is wrong: {error.findings[0]}"
        raise PlaybookError([document.finding(("playbook",), reason)]) from error
    except ConfigError as error:
        raise PlaybookError([document.finding(("playbook",), error.message, error.hint or "")]) from error
    if isinstance(playbook, PlaybookSet):
        hint = f"test {', '.join(playbook.playbooks)} instead"
        reason = f"{playbook.name} is a set, which has no steps of its own"
        raise PlaybookError([document.finding(("playbook",), reason, hint)])
    wrong = sorted(_Checker(document, playbook, host).findings())
    if wrong:
        raise PlaybookError(wrong)
    return TestFile(
        name,
        data["playbook"],
        tuple(
            Case(
                case["name"],
                given_from(data.get("given", {}), case.get("given", {})),
                case["expect"],
                document.place(("cases", number))[0],
            )
            for number, case in enumerate(data["cases"])
        ),
    )


def named_playbook(path: File | Traversable) -> str:
    """The playbook that a file of cases names, whatever else is wrong with it.

    CounterplayError: it cannot be told.
    """
    text = path.read_bytes()
    about = read(text, path.name).data.get("playbook")
    if not isinstance(about, str):
        raise ConfigError("it names no playbook", path=path.name)
    return about


class _Checker:
    """What the schema of the format cannot say: whether steps, inputs and sinks are the playbook's."""

    def __init__(self, document: Document, playbook: Playbook, host: PluginHost) -> None:
        self._document = document
        self._playbook = playbook
        self._host = host
        ids = step_ids(playbook.document)
        self._steps = {ids[id(step)]: step for step in all_steps(playbook.document)}
        self._sinks = {sink.uses for sink in playbook.sinks} | {
            str(step["uses"]) for step in self._steps.values() if self._kind(step) == "sink"
        }

    def _kind(self, step: JsonObject) -> str | None:
        info = self._host.modules.get(step.get("uses", ""))
        return info.kind if info is not None else None

    def findings(self) -> Iterator[Finding]:
        data = self._document.data
        yield from self._given(("given",), data.get("given", {}))
        names: dict[str, int] = {}
        for number, case in enumerate(data["cases"]):
            here: Path = ("cases", number)
            if case["name"] in names:
                line, _ = self._document.place(("cases", names[case["name"]]))
                reason = f"a case of that name stands in line {line}"
                yield self._document.finding((*here, "name"), reason, "say what is different")
            names.setdefault(case["name"], number)
            whole = {**data.get("given", {}), **case.get("given", {})}
            if "meanwhile" in whole and "tenant" not in whole:
                own = "meanwhile" in case.get("given", {})
                place: Path = (*here, "given", "meanwhile") if own else ("given", "meanwhile")
                reason = f"no tenant is simulated in the case {case['name']!r}"
                yield self._document.finding(place, reason, "give `tenant: {}`", key=True)
            yield from self._given((*here, "given"), case.get("given", {}))
            yield from self._expected((*here, "expect"), case["expect"])

    def _given(self, here: Path, given: JsonObject) -> Iterator[Finding]:
        if "event" in given and "events" in given:
            yield self._document.finding(
                (*here, "event"), "both `event` and `events`", "give one of them", key=True
            )
        if "now" in given:
            try:
                datetime.fromisoformat(given["now"])
            except ValueError:
                yield self._document.finding((*here, "now"), f"{given['now']!r} is no such time")
        for name, value in given.get("inputs", {}).items():
            place = (*here, "inputs", name)
            if name not in self._playbook.inputs:
                hint = did_you_mean(name, self._playbook.inputs)
                reason = f"the playbook has no input {name!r}"
                yield self._document.finding(place, reason, hint, key=True)
                continue
            for problem in problems(value, self._playbook.inputs[name]):
                yield self._document.finding((*place, *problem.path), problem.message, problem.hint)
        yield from self._named_steps((*here, "approvals"), given.get("approvals", {}))
        yield from self._named_steps((*here, "answers"), given.get("answers", {}))
        for step, answers in given.get("answers", {}).items():
            yield from self._answerable((*here, "answers", step), step)
            several = isinstance(answers, list)
            for number, answer in enumerate(answers if several else [answers]):
                place = (*here, "answers", step, *((number,) if several else ()))
                yield from self._result((*place, "result"), step, answer.get("result"))
                for after in answer.get("looks", {}):
                    yield from self._look((*place, "looks", after), step, after, key=True)
                if "result" in answer and "error" in answer:
                    reason = "an attempt that fails has no result"
                    yield self._document.finding((*place, "error"), reason, "give one of them", key=True)
        yield from self._as_configured(here, given)

    def _look(self, here: Path, step: str, after: str, *, key: bool = False) -> Iterator[Finding]:
        """A later look is told by the time as the step writes it."""
        document = self._steps.get(step.partition("[")[0])
        if "/" in step or document is None:
            return
        verify = document.get("verify")
        times = verify["after"] if isinstance(verify, dict) else []
        if after not in times:
            hint = f"its looks: {', '.join(times)}" if times else "give it `verify: {after: [...]}`"
            yield self._document.finding(
                here, f"the step {step} is not looked at after {after}", hint, key=key
            )

    def _answerable(self, here: Path, step: str) -> Iterator[Finding]:
        """Only actions are answered for: everything else really runs in a case."""
        info = self._host.modules.get(self._steps.get(step.partition("[")[0], {}).get("uses", ""))
        if info is None or "/" in step or (info.kind == "action" and not issubclass(info.cls, Control)):
            return
        what = "directs the run" if info.kind == "action" else f"is {with_article(info.kind)}"
        yield self._document.finding(
            here,
            f"{info.uses} {what}, so that it takes no answer",
            "what people say stands under `approvals`, what a sink takes under `expect`",
            key=True,
        )

    def _as_configured(self, here: Path, given: JsonObject) -> Iterator[Finding]:
        """What stands as it would in `counterplay.yaml`."""
        workspace = json.loads((core_schemas() / "workspace.json").read_text("utf-8"))
        for name in ("guardrails", "internal"):
            for problem in problems(given.get(name, {}), workspace["properties"][name]):
                yield self._document.finding(
                    (*here, name, *problem.path), problem.message, problem.hint, key=problem.at_key
                )

    def _expected(self, here: Path, expect: JsonObject) -> Iterator[Finding]:
        runs = expect.get("runs")
        for place, run in [(here, expect), *_places((*here, "runs"), runs if isinstance(runs, list) else [])]:
            for part in ("steps", "results"):
                yield from self._named_steps((*place, part), run.get(part, {}))
            for number, effect in enumerate(run.get("effects", [])):
                yield from self._named_step((*place, "effects", number, "step"), effect["step"])
            for number, look in enumerate(run.get("looks", [])):
                yield from self._named_step((*place, "looks", number, "step"), look["step"])
                yield from self._look((*place, "looks", number, "after"), look["step"], look["after"])
        for name in expect.get("sinks", {}):
            if name not in self._sinks:
                known = ", ".join(sorted(self._sinks)) or "none"
                hint = did_you_mean(name, self._sinks, f"its sinks: {known}")
                reason = f"the playbook has no sink {name!r}"
                yield self._document.finding((*here, "sinks", name), reason, hint, key=True)
        single = [name for name in OF_A_RUN if name in expect]
        if isinstance(runs, list) and single:
            yield self._document.finding(
                (*here, single[0]),
                f"both `runs` and `{single[0]}`",
                f"put `{single[0]}` into `runs`",
                key=True,
            )
        if isinstance(runs, int) and runs != 1 and single:
            yield self._document.finding(
                (*here, single[0]), f"`{single[0]}` is about one run, not {runs}", "list the `runs`", key=True
            )

    def _named_steps(self, here: Path, names: Iterable[str]) -> Iterator[Finding]:
        for name in names:
            yield from self._named_step((*here, name), name, key=True)

    def _named_step(self, here: Path, name: str, *, key: bool = False) -> Iterator[Finding]:
        """Steps of playbooks that are called are theirs; only this playbook's are known here."""
        own = name.partition("/")[0].partition("[")[0]
        if own not in self._steps:
            hint = did_you_mean(own, self._steps, f"its steps: {', '.join(self._steps) or 'none'}")
            yield self._document.finding(here, f"the playbook has no step {own!r}", hint, key=key)

    def _result(self, here: Path, step: str, result: Any) -> Iterator[Finding]:
        """An answer that the module would never give proves nothing."""
        info = self._host.modules.get(self._steps.get(step.partition("[")[0], {}).get("uses", ""))
        if result is None or info is None or "/" in step:
            return
        if info.result_schema is None:
            return
        for problem in problems(result, lenient(info.result_schema)):
            yield self._document.finding(
                (*here, *problem.path),
                f"{info.uses} gives no such result: {problem.message}",
                problem.hint,
                key=problem.at_key,
            )


def _places(here: Path, items: list[JsonObject]) -> Iterator[tuple[Path, JsonObject]]:
    for number, item in enumerate(items):
        yield (*here, number), item
