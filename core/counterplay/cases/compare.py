"""Holds what came of a case against what was expected, and says every difference as people would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from counterplay.cases.seen import Seen, SeenLook, SeenRun, SeenStep
from counterplay.events import JsonObject
from counterplay.language.durations import parse_duration

_COUNTS = ("filtered", "duplicates", "suppressed", "quarantined")
OF_A_RUN = ("status", "error", "steps", "results", "effects", "questions", "looks")
"""What is expected of one run, and stands either beside `runs` or in it."""


def differences(expect: JsonObject, seen: Seen) -> list[str]:
    """Everything that is not as expected; nothing when the case passes."""
    return [*seen.trouble, *_differences(expect, seen)]


def _differences(expect: JsonObject, seen: Seen) -> Iterator[str]:
    for name in _COUNTS:
        if name in expect and seen.counts.get(name, 0) != expect[name]:
            yield f"{name}: expected {expect[name]}, was {seen.counts.get(name, 0)}"
    yield from _runs(expect, seen.runs)
    for uses, wanted in expect.get("sinks", {}).items():
        yield from _records(uses, wanted, seen)
    if "tenant" in expect:
        if seen.tenant is None:
            yield "tenant: nothing was simulated: give `tenant: {}`"
        else:
            yield from _within("tenant", expect["tenant"], seen.tenant)
    if "took" in expect and parse_duration(expect["took"]) != seen.took:
        yield f"took: expected {expect['took']}, was {seen.took}"


def _runs(expect: JsonObject, runs: Sequence[SeenRun]) -> Iterator[str]:
    wanted = expect.get("runs")
    if isinstance(wanted, list):
        if len(wanted) != len(runs):
            yield f"runs: expected {len(wanted)}, were {len(runs)}"
        for number, (one, run) in enumerate(zip(wanted, runs, strict=False)):
            yield from _run(f"runs[{number}].", one, run)
        return
    if isinstance(wanted, int) and wanted != len(runs):
        yield f"runs: expected {wanted}, were {len(runs)}"
        return
    single = [name for name in OF_A_RUN if name in expect]
    if single and len(runs) != 1:
        yield f"{single[0]}: expected one run, were {len(runs)}"
    elif single:
        yield from _run("", expect, runs[0])


def _run(where: str, expect: JsonObject, run: SeenRun) -> Iterator[str]:
    if "status" in expect and expect["status"] != run.status:
        because = f" ({run.error})" if run.error else ""
        yield f"{where}status: expected {expect['status']}, was {run.status}{because}"
    if "error" in expect and expect["error"] not in (run.error or ""):
        yield f"{where}error: expected {expect['error']!r} in it, was {run.error!r}"
    if "steps" in expect:
        yield from _steps(f"{where}steps", expect["steps"], run.steps)
    for name, wanted in expect.get("results", {}).items():
        step = run.steps.get(name)
        if step is None:
            yield f"{where}results.{name}: the step was not reached"
        else:
            yield from _within(f"{where}results.{name}", wanted, step.result)
    if "effects" in expect:
        yield from _effects(f"{where}effects", expect["effects"], run.effects)
    if "questions" in expect and expect["questions"] != list(run.questions):
        yield f"{where}questions: expected {_text(expect['questions'])}, were {_text(list(run.questions))}"
    if "looks" in expect:
        yield from _looks(f"{where}looks", expect["looks"], run.looks)


def _steps(where: str, wanted: Mapping[str, str], steps: Mapping[str, SeenStep]) -> Iterator[str]:
    for name, status in wanted.items():
        step = steps.get(name)
        if step is None:
            yield f"{where}.{name}: expected {status}, was not reached"
        elif step.status != status:
            because = f" ({step.error})" if step.error else ""
            yield f"{where}.{name}: expected {status}, was {step.status}{because}"
    for name, step in steps.items():
        if name not in wanted and not step.whole:
            yield f"{where}.{name}: not expected, was {step.status}"


def _effects(where: str, wanted: Sequence[JsonObject], effects: Sequence[JsonObject]) -> Iterator[str]:
    for number in range(max(len(wanted), len(effects))):
        place = f"{where}[{number}]"
        if number >= len(effects):
            yield f"{place}: expected one of the step {wanted[number]['step']}, was none"
            continue
        effect = effects[number]
        if number >= len(wanted):
            what = f"{effect['uses']} on {effect['target']} by the step {effect['step']}"
            yield f"{place}: not expected, was {what}"
            continue
        expected = {"status": "done", **wanted[number]}
        calls = expected.pop("calls", None)
        yield from _within(place, expected, effect)
        if calls is not None:
            yield from _calls(f"{place}.calls", calls, effect["calls"])


def _looks(where: str, wanted: Sequence[JsonObject], looks: Sequence[SeenLook]) -> Iterator[str]:
    for number in range(max(len(wanted), len(looks))):
        place = f"{where}[{number}]"
        if number >= len(looks):
            expected = wanted[number]
            yield f"{place}: expected one after {expected['after']} at the step {expected['step']}, was none"
            continue
        look = looks[number]
        if number >= len(wanted):
            yield f"{place}: not expected, was one after {look.after} at the step {look.step}"
            continue
        expected = dict(wanted[number])
        report = expected.pop("report", None)
        yield from _within(place, expected, {"step": look.step, "after": look.after, "held": look.held})
        if "report" in wanted[number] and not _is_said(report, look.report):
            yield f"{place}.report: expected {_text(report)}, was {_text(look.report)}"


def _is_said(wanted: str | None, report: str | None) -> bool:
    """A part of what is reported; None: nothing is."""
    return report is None if wanted is None else wanted in (report or "")


def _calls(where: str, wanted: Sequence[Any], calls: Sequence[JsonObject]) -> Iterator[str]:
    expected = [_call(one) for one in wanted]
    if len(expected) != len(calls):
        yield f"{where}: expected {len(expected)}, were {_text(list(map(_shown, calls)))}"
        return
    for number, (one, call) in enumerate(zip(expected, calls, strict=True)):
        same = one["method"] == call["method"] and _is_address(one["url"], str(call["url"]))
        if not same or ("body" in one and one["body"] != call["body"]):
            yield f"{where}[{number}]: expected {_shown(one)}, was {_shown(call)}"


def _call(value: Any) -> JsonObject:
    if isinstance(value, str):
        method, _, url = value.partition(" ")
        return {"method": method, "url": url}
    return dict(value)


def _is_address(wanted: str, url: str) -> bool:
    if not wanted.startswith("/"):
        return wanted == url
    parts = urlsplit(url)
    return wanted == parts.path + (f"?{parts.query}" if parts.query else "")


def _shown(call: JsonObject) -> str:
    body = f" {_text(call['body'])}" if call.get("body") is not None else ""
    return f"{call['method']} {call['url']}{body}"


def _records(uses: str, wanted: Any, seen: Seen) -> Iterator[str]:
    records = seen.records.get(uses, ())
    found = [orjson.loads(one) for one in records]
    if wanted == "events":
        if records != seen.given:
            yield f"sinks.{uses}: expected the given events as they are, were {_text(found)}"
        return
    yield from _within(f"sinks.{uses}", wanted, found)


def _within(where: str, wanted: Any, found: Any) -> Iterator[str]:
    """Every member that is named has to match; lists match element by element."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name, value in wanted.items():
            if name not in found:
                yield f"{where}.{name}: expected {_text(value)}, is missing"
            else:
                yield from _within(f"{where}.{name}", value, found[name])
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{where}: expected {len(wanted)} of them, were {len(found)}: {_text(found)}"
        for number, (value, other) in enumerate(zip(wanted, found, strict=False)):
            yield from _within(f"{where}[{number}]", value, other)
    elif wanted != found or (type(wanted) is not type(found) and not _are_numbers(wanted, found)):
        yield f"{where}: expected {_text(wanted)}, was {_text(found)}"


def _are_numbers(one: Any, other: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:297]}..."
