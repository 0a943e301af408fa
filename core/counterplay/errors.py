"""Every error the framework or a plugin raises on purpose, grouped by what happens next.

* CounterplayError
  + ConfigError          fix the file named in the message; nothing has run (exit code 2)
  + PluginLoadError      fix or uninstall the distribution named in the message
  + StateError           the state file cannot be used as it is; nothing was changed
    - NoStateError         there is none yet: nothing has run here (exit code 2)
    - BusyError            another worker holds it
    - ContendedError       another worker changed the same at once; this change can be made again
  + InterruptedWork      the process was asked to end; the piece of work is as it was before
  + WorkError            one piece of work (a step, a unit, a batch) did not succeed
    - RetryableError       the same piece is tried again, after `retry_after` seconds when given
    - BlockedError         a person has to act (a secret, a permission); tried again each minute and reported
      . UnavailableError     the service does not offer this here (a licence); a feed asks again each day
    - UnknownOutcomeError  the request went out and no answer came: it may or may not have taken effect
    - PermanentError       this piece can never succeed as it is
      . GoneError            what it is about no longer exists (a unit is recorded as lost)
      . RejectedError        the receiver refuses this content (a batch is halved down to the bad record)

One family serves steps, feeds and sinks, because the wire raises it and does not know which of them asked.
"""

from __future__ import annotations

from pathlib import Path


class CounterplayError(Exception):
    """The place, the fact and the next step, in one line.

    `str(error)` is `path:line:column: message; hint`, each part only when it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = "".join(f"{part}:" for part in (self.path, self.line, self.column) if part is not None)
        text = f"{place} {self.message}" if place else self.message
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(CounterplayError):
    """A file, an option or a playbook is wrong; nothing has run."""


class PluginLoadError(CounterplayError):
    """A plugin cannot be used; the message names its distribution."""


class StateError(CounterplayError):
    """The state file cannot be used as it is (locked, unreadable, corrupt, disk full)."""


class NoStateError(StateError):
    """Nothing has run here yet, so what is asked for cannot be there."""

    def __init__(self, place: Path | str | None = None) -> None:
        where = f" at {place}" if place is not None else ""
        super().__init__(f"there is no state{where} yet", hint="`playbook run NAME` creates it")


class BusyError(StateError):
    """Another worker holds the state file; it is named in the message."""


class ContendedError(StateError):
    """Two workers changed the same at once, and this change was undone: it can be made again."""


class InterruptedWork(CounterplayError):
    """The process was asked to end while this piece of work waited; it is as it was before."""


class WorkError(CounterplayError):
    """One piece of work did not succeed; the subclass says what happens next.

    `code` and `request_id` are the remote service's own, when it gave them; `status` is the HTTP status.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.request_id = request_id


class RetryableError(WorkError):
    """Try the same piece again, after `retry_after` seconds when that is known."""

    def __init__(self, message: str, *, retry_after: float | None = None, **rest: object) -> None:
        super().__init__(message, **rest)  # type: ignore[arg-type]  # the keywords of WorkError, unchanged
        self.retry_after = retry_after


class BlockedError(WorkError):
    """A person has to act: credentials or permissions are refused. Tried again each minute."""


class UnavailableError(BlockedError):
    """The service does not offer this here, such as a feature that no licence of the tenant includes.

    The message says what is needed: `needs Entra ID P2`. A feed reports it once and asks again each
    day; it holds back no other feed.
    """


class UnknownOutcomeError(WorkError):
    """A request went out and its answer never came: it may or may not have taken effect."""


class PermanentError(WorkError):
    """This piece can never succeed as it is; repeating it changes nothing."""


class GoneError(PermanentError):
    """What this piece is about no longer exists at the remote service."""


class RejectedError(PermanentError):
    """The receiver refuses this content (400, 413); a batch is halved until the bad record stands alone."""


def as_work_error(error: BaseException, who: str) -> WorkError:
    """The error itself when it was raised on purpose, else one that names whose fault it is."""
    if isinstance(error, WorkError):
        return error
    if isinstance(error, CounterplayError):
        return BlockedError(str(error))
    failure = PermanentError(
        f"{who} failed: {type(error).__name__}: {error}",
        hint="this is a fault of the plugin; `--debug` shows where",
    )
    failure.__cause__ = error
    return failure
