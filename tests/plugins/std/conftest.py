"""What every module of the plugin needs to work: a context, and its schema."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from counterplay import ConfigError, StepContext
from counterplay.plugins import PluginHost
from counterplay.wire import Wire


@pytest.fixture
def context() -> StepContext:
    """A context without a connection, whose wire gives up after the second failure and never waits long."""
    return StepContext(
        http=Wire(attempts=2, backoff=0.001), run_id="run-1", playbook="notify", step_id="call"
    )


@pytest.fixture(scope="session")
def host() -> PluginHost:
    """The installed plugins."""
    return PluginHost.load()


@pytest.fixture
def accept(host: PluginHost) -> Callable[[str, Any], None]:
    """Check arguments against a module's schema, as the checker does."""

    def check(uses: str, arguments: Any) -> None:
        schema = host.module(uses).schema
        jsonschema.Draft202012Validator.check_schema(schema)
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(arguments))
        if errors:
            raise ConfigError(errors[0].message)

    return check
