"""How a module fails, and how it reaches its service."""

from __future__ import annotations

from counterplay.errors import (
    BlockedError,
    CounterplayError,
    RetryableError,
    UnknownOutcomeError,
    WorkError,
)
from counterplay.modules import Connection
from counterplay.testing.case import Call, Case
from counterplay.testing.rules._rule import Broken, NotApplicable, rule
from counterplay.testing.watch import Fault

_FAULTS: tuple[tuple[str, Fault, tuple[type[WorkError], ...]], ...] = (
    ("503", Fault("answer", lasting=True, status=503), (RetryableError, UnknownOutcomeError)),
    ("401", Fault("answer", lasting=True, status=401), (BlockedError,)),
    ("a broken connection", Fault("reset", lasting=True), (RetryableError, UnknownOutcomeError)),
    ("404", Fault("answer", lasting=True, status=404), (WorkError,)),
)


@rule()
def no_session_of_its_own(case: Case) -> None:
    """All traffic goes through `context.http`; only a connection signs in by itself."""
    if not case.shown or issubclass(case.info.cls, Connection):
        raise NotApplicable(case.hidden or "a connection signs in by itself")
    with case.calls() as calls, case.stage.watch.strict():
        for call in calls:
            _try(call)
    if case.stage.watch.strays:
        raise Broken(f"it reached for the network beside `context.http`: {case.stage.watch.strays[0]}")


@rule()
def errors_of_the_right_kind(case: Case) -> None:
    """A service that fails becomes the error that says what happens next, and never a result."""
    if not case.shown:
        raise NotApplicable(str(case.hidden))
    with case.calls() as calls:
        for call in calls:
            for name, fault, expected in _FAULTS:
                sent = len(case.stage.watch.seen)
                with case.stage.watch.failing(fault):
                    error = _try(call)
                if len(case.stage.watch.seen) > sent:
                    _judge(case, call, name, error, expected)


def _judge(
    case: Case, call: Call, fault: str, error: BaseException | None, expected: tuple[type[WorkError], ...]
) -> None:
    if issubclass(case.info.cls, Connection):
        if error is not None:
            raise Broken(
                f"`check` says what does not work, it does not raise: {type(error).__name__}: {error}"
            )
        return
    if error is None:
        if expected == (WorkError,):
            return  # what is not there may be an answer, too
        raise Broken(f"`{call.name}` met {fault} and gave a result: a failure is never an empty result")
    if not isinstance(error, CounterplayError):
        raise Broken(f"`{call.name}` met {fault} and raised {type(error).__name__}: {error}")
    if isinstance(error, WorkError) and not isinstance(error, expected):
        wanted = " or ".join(one.__name__ for one in expected)
        raise Broken(f"`{call.name}` met {fault} and raised {type(error).__name__}, not {wanted}: {error}")


def _try(call: Call) -> BaseException | None:
    try:
        call.make()
    except (Exception, SystemExit) as error:
        return error
    return None
