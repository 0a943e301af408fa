"""What a trigger promises about its source: what it did not read, it does not pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from counterplay.errors import CounterplayError
from counterplay.events import Event, JsonObject
from counterplay.modules import FeedTrigger, PollTrigger, StepContext
from counterplay.testing.case import Case
from counterplay.testing.rules._rule import Broken, NotApplicable, rule
from counterplay.testing.watch import Fault

_REQUESTS = 5
"""The first so many requests of a call meet each fault in turn."""
_POLLS = 40
_BROKEN = (
    ("503", Fault("answer", status=503)),
    ("a broken connection", Fault("reset")),
)
_STRANGE = (
    ("a proxy's page instead of an answer", Fault("answer", status=200, body=b"<html>hello</html>")),
    (
        "an answer that lacks its members",
        Fault("answer", status=200, body=b"{}", content_type="application/json"),
    ),
)


@rule("trigger")
def cursor_is_honest_under_faults(case: Case) -> None:
    """Whatever a request meets, the trigger raises or reads on: no fault is taken for `nothing new`."""
    if not case.shown:
        raise NotApplicable(str(case.hidden))
    module = case.stage.module()
    with case.stage.context() as context:
        if isinstance(module, PollTrigger):
            _polls(case, module, context)
        elif isinstance(module, FeedTrigger):
            _lists(case, module, context)
        else:
            raise NotApplicable("it has no source that it asks")


def _polls(case: Case, module: PollTrigger, context: StepContext) -> None:
    since = case.window(module, context)[0]
    whole, requests = _counted(case, lambda: _drained(module, context, since))
    if requests == 0:
        raise NotApplicable("it asks no service")
    if not whole:
        raise Broken(
            "its example has no events, so it shows nothing: put some into the service, or give `since`"
        )
    if whole.count(whole[0]) == len(whole) > 1:
        raise Broken(
            f"its {len(whole)} events have one delivery key, {whole[0]!r}: "
            "all but the first would be dropped as duplicates"
        )
    for name, fault in _each(requests, (*_BROKEN, *_STRANGE)):
        with case.stage.watch.failing(fault):
            found = _drained(case.stage.module(), context, since)
        lost = [one for one in whole if one not in found]
        if lost:
            raise Broken(
                f"request {fault.at} met {name}, and {len(lost)} of {len(whole)} events were passed over: "
                "raise, and leave the cursor where it was"
            )


def _lists(case: Case, module: FeedTrigger, context: StepContext) -> None:
    start, end = case.window(module, context)
    module.prepare(context)
    units = list(module.discover(context, start, end))
    if not units:
        raise Broken("its example lists no units, so it shows nothing: put some into the service")
    whole, requests = _counted(case, lambda: [one.id for one in module.discover(context, start, end)])
    for name, fault in _each(requests, (*_BROKEN, *_STRANGE)):
        with case.stage.watch.failing(fault):
            found = _or_raised(lambda: [one.id for one in module.discover(context, start, end)])
        if found is not None and not set(whole) <= set(found):
            raise Broken(
                f"`discover` met {name} at request {fault.at} and listed {len(found)} of {len(whole)} units: "
                "raise, and the window is asked for again"
            )
    body, requests = _counted(case, lambda: bytes(module.fetch(context, units[0])))
    for name, fault in _each(requests, _BROKEN):
        with case.stage.watch.failing(fault):
            got = _or_raised(lambda: bytes(module.fetch(context, units[0])))
        if got is not None and got != body:
            raise Broken(f"`fetch` met {name} at request {fault.at} and gave {len(got)} of {len(body)} bytes")


def _drained(module: PollTrigger, context: StepContext, since: Any) -> list[str]:
    """The keys of everything that the trigger gives, polled as the host does: again from the same cursor."""
    cursor: JsonObject | None = None
    found: list[str] = []
    quiet = 0
    for _ in range(_POLLS):
        try:
            page = module.poll(context, cursor, since)
        except Exception:
            continue
        found += [_key(module, raw) for raw in page.events]
        cursor = json.loads(json.dumps(page.cursor))
        quiet = 0 if page.more or page.events else quiet + 1
        if quiet == 2:
            break
    return found


def _key(module: PollTrigger, raw: bytes) -> str:
    return module.delivery_key(Event(raw)) or raw.decode("utf-8", "replace")


def _counted(case: Case, work: Callable[[], Any]) -> tuple[Any, int]:
    """What it gives while nothing fails, and how many requests that took."""
    before = len(case.stage.watch.seen)
    found = work()
    return found, len(case.stage.watch.seen) - before


def _each(requests: int, faults: Iterable[tuple[str, Fault]]) -> Iterable[tuple[str, Fault]]:
    for number in range(1, min(requests, _REQUESTS) + 1):
        for name, fault in faults:
            yield (
                name,
                Fault(
                    fault.kind,
                    number,
                    status=fault.status,
                    body=fault.body,
                    content_type=fault.content_type,
                ),
            )


def _or_raised(work: Callable[[], Any]) -> Any:
    """None: it said that it failed."""
    try:
        return work()
    except CounterplayError:
        return None
    except Exception:
        return None
