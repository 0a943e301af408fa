"""An intake that is faked on the wire."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import responses

from counterplay import Context
from counterplay.wire import Wire
from counterplay_intake.key import IntakeKey


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    """The network: only what a test put there answers."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def make() -> Callable[..., Context]:
    """A context on a connection with the given settings, which repeats failures at once."""

    def context(**settings: Any) -> Context:
        connection = IntakeKey(
            "siem", {"url": "https://intake.example.net", "intake_key": "key-of-the-intake", **settings}
        )
        return Context(http=Wire(connection, attempts=2, backoff=0), connection=connection)

    return context


@pytest.fixture
def context(make: Callable[..., Context]) -> Context:
    """A context on the intake."""
    return make()
