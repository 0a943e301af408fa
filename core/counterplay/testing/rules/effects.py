"""What an action promises about what it changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from counterplay.errors import RejectedError
from counterplay.modules import Action, BulkSink, Control
from counterplay.runtime.effects import NOT_AS_DECLARED
from counterplay.testing.case import Case
from counterplay.testing.killed import attempt_killed, attempt_resumed
from counterplay.testing.rules._rule import Broken, NotApplicable, rule

_LETTER = "\u0416".encode()


@rule()
def example_is_given(case: Case) -> None:
    """The bench knows how to show the module at work, and the example works."""
    kind = case.info.cls.connection
    if issubclass(case.info.cls, Control) or (kind is not None and kind not in case.host.modules):
        raise NotApplicable("it directs its run" if kind is None else f"there is no {kind}")
    if case.stage.lacks is not None:
        raise Broken(f"{case.stage.lacks}; the hook `pytest_counterplay_bench` gives both")
    if case.info.kind == "action" and case.failure is not None and NOT_AS_DECLARED not in case.failure:
        raise Broken(f"the run of the example ended otherwise: {case.failure}")
    states = case.journey.states if case.has_effect else {}
    if case.has_effect and not case.journey.run_writes and states["done"] == states["before"]:
        raise Broken("the example changes nothing, so it shows nothing: give one that does, or `first`")


@rule("action")
def result_is_as_declared(case: Case) -> None:
    """What an action returns is what `$defs/result` describes."""
    _need(case)
    if case.failure is not None and NOT_AS_DECLARED in case.failure:
        raise Broken(case.failure)
    if case.result is None:
        raise NotApplicable("its example does not succeed")


@rule("action")
def plan_sends_no_write(case: Case) -> None:
    """A plan leaves everything as it is, and lists just the writes that the run then sends."""
    _need(case)
    if not case.has_effect:
        _changes_nothing(case)
        return
    journey = case.journey
    if journey.planned_writes or journey.states["planned"] != journey.states["before"]:
        sent = (
            ", ".join(" ".join(one) for one in journey.planned_writes) or "no write that says that it is one"
        )
        raise Broken(f"planning it changed the service (sent: {sent})")
    (step,) = journey.plan.steps
    planned = [(call["method"], call["url"]) for call in step.calls or ()]
    if step.does == "changes" and step.calls is not None and planned != journey.run_writes:
        raise Broken(f"the plan lists {planned}, and the run sent {journey.run_writes}")
    effect = journey.ran.effect
    if step.calls is not None and effect is not None and list(step.calls) != effect.calls:
        raise Broken(f"the plan lists {list(step.calls)}, and the run sent {effect.calls}")


@rule("action")
def undo_restores(case: Case) -> None:
    """What says that it can be taken back leads to the state that was there before."""
    _need_effect(case)
    journey = case.journey
    action = case.stage.module()
    if type(action).inverse is Action.inverse:
        return
    if journey.states["done"] == journey.states["before"]:
        raise Broken(
            "`state` of the bench does not show what it changes, so nothing tells whether it is taken back"
        )
    if journey.undone is None:
        raise Broken(f"it says that it can be taken back, and its example cannot: {journey.not_undone}")
    if journey.undone.run.status != "succeeded" or (
        journey.undone.step is not None and journey.undone.step.status != "succeeded"
    ):
        step = journey.undone.step
        raise Broken(f"taking it back failed: {(step and step.error) or journey.undone.run.error}")
    if journey.states["undone"] != journey.states["before"]:
        raise Broken("after taking it back, the service is not as it was before")


@rule("action")
def repeat_is_as_declared(case: Case) -> None:
    """`repeat` is harmless, `read` tells what was done from what was not."""
    _need_effect(case)
    journey = case.journey
    action = case.stage.module()
    changed = journey.states["done"] != journey.states["before"]
    if action.settle == "repeat" and journey.states["again"] != journey.states["done"]:
        raise Broken("doing it twice is not the same as doing it once: settle it by reading, or ask")
    if action.settle == "read" and changed and journey.settled_before is not None:
        raise Broken("`settled` says that it was done before it was")
    if action.settle == "read" and journey.settled_after is None:
        raise Broken("`settled` says that it was not done after it was")


@rule("action")
def resume_after_kill(case: Case) -> None:
    """Killed around its first write, the step is settled as declared: nothing is lost, nothing doubled."""
    _need_effect(case)
    if not case.journey.run_writes:
        raise NotApplicable("its example sends nothing")
    for moment in ("kill before", "kill after"):
        stage = case.fresh()
        stage.prepare()
        sent = attempt_killed(stage, moment)
        if sent is None:
            raise Broken(f"the process was to be killed ({moment.split()[1]} the first write), and was not")
        found = attempt_resumed(stage)
        settle = stage.module().settle
        if settle == "ask":
            if found.effect != "unknown" or found.writes:
                raise Broken(f"settle is ask, and after a kill it went on by itself: {found.error or 'done'}")
            continue
        if found.effect != "done":
            raise Broken(
                f"{moment.replace('kill', 'killed')} the first write, it did not go on: {found.error}"
            )
        twice = [one for one in found.writes if one in sent and one[0] == "POST"]
        if settle == "read" and twice:
            raise Broken(f"killed after it was sent, {' '.join(twice[0])} was sent again by the next process")


@rule("transform")
def transform_invents_nothing(case: Case) -> None:
    """A transform gives back events that it was given, in their order, whatever it changed in them."""
    _need(case)
    given = [event.key for event in case.events()]
    with case.stage.context() as context:
        found = [event.key for event in case.stage.module().apply(context, case.events())]
    left = iter(given)
    if not all(key in left for key in found):
        raise Broken(f"of the events {given} it made {found}")


@rule("sink")
def receipt_for_each_record(case: Case) -> None:
    """A delivery that succeeds gives one receipt for each record."""
    _need(case)
    records = case.events()
    with case.stage.context() as context:
        receipts = case.stage.module().deliver(context, records)
    if len(receipts) != len(records):
        raise Broken(f"{len(records)} records were delivered, and {len(receipts)} receipts came back")


@rule("sink")
def encodes_early_as_promised(case: Case) -> None:
    """A sink that encodes early refuses what is not UTF-8, and encodes many as one, in any thread."""
    _need(case)
    sink = case.stage.module()
    if not isinstance(sink, BulkSink) or not sink.encodes_early:
        raise NotApplicable("it does not encode early")
    raws = [event.raw for event in case.events()]
    one_by_one = [sink.encode(raw) for raw in raws]
    slices = tuple(msgspec.Raw(raw) for raw in raws)
    with ThreadPoolExecutor(2) as pool:
        if any(found != one_by_one for found in pool.map(sink.encode_all, [slices] * 4)):
            raise Broken("`encode_all` gives other bytes than `encode`")
    text = next((one for raw in raws for one in _with_a_letter(raw) if _takes(sink, one)), None)
    if text is None:
        raise NotApplicable("none of its example's events has a text that may be another one")
    if _takes(sink, text.replace(_LETTER, b"\xff")):
        raise Broken(
            "`encode_all` takes what is not UTF-8, for which nobody looks where a sink encodes early"
        )


def _with_a_letter(raw: bytes) -> Iterator[bytes]:
    """The event with one more letter in one of its texts, for each of them."""
    data = json.loads(raw)
    for name, value in data.items():
        if isinstance(value, str):
            yield json.dumps({**data, name: value + _LETTER.decode()}, ensure_ascii=False).encode()


def _takes(sink: BulkSink, raw: bytes) -> bool:
    try:
        sink.encode_all([msgspec.Raw(raw)])
    except RejectedError:
        return False
    return True


def _changes_nothing(case: Case) -> None:
    stage = case.stage
    before, sent = stage.bench.state(), len(stage.watch.writes)
    if case.failure is None and (stage.bench.state() != before or stage.watch.writes[sent:]):
        raise Broken("it says that it has no effect, and changes something: set `effect = True`")


def _need(case: Case) -> None:
    if not case.shown:
        raise NotApplicable(str(case.hidden))


def _need_effect(case: Case) -> None:
    _need(case)
    if not case.has_effect:
        raise NotApplicable("it changes nothing")
    if case.journey.ran.effect is None or case.failure is not None:
        raise NotApplicable("its example does not succeed")
