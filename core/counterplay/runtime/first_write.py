"""The moment before an effect's first request: is the target still as it was captured?"""

from __future__ import annotations

import time
from collections.abc import Callable

import requests

from counterplay.errors import InterruptedWork, StateError
from counterplay.events import JsonObject
from counterplay.modules import Action, StepContext

TRUSTED = 5.0
"""Seconds that a captured state is taken for the present one; a wait for a rate limit can be longer."""


class TargetChanged(BaseException):
    """Somebody changed the target after its state was captured; nothing has been sent.

    No Exception: a module that catches all of those must not go on as if its write had been sent.
    """


class TargetUnread(BaseException):
    """The target could not be looked at again, because of `error`; nothing has been sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class BeforeWrite:
    """Called before each request of an effect that is no read: journals it with `add_call`.

    The first one goes out only onto the state that was `seen`. What was seen more than `trusted` seconds
    ago is read again. None: there is no state to hold it against.
    """

    def __init__(
        self,
        action: Action,
        context: StepContext,
        seen: JsonObject | None,
        trusted: float,
        add_call: Callable[[requests.PreparedRequest], None],
    ) -> None:
        self._action = action
        self._context = context
        self._seen = seen
        self._trusted_until = time.monotonic() + trusted
        self._add_call = add_call

    def __call__(self, request: requests.PreparedRequest) -> None:
        seen, self._seen = self._seen, None
        if seen is not None and time.monotonic() > self._trusted_until:
            self._look_again(seen)
        self._add_call(request)

    def _look_again(self, seen: JsonObject) -> None:
        try:
            present = self._action.capture(self._context)
        except (InterruptedWork, StateError):
            raise
        except Exception as error:
            raise TargetUnread(error) from error
        if present != seen:
            raise TargetChanged
