"""The third-party plugin and the service it talks to, without installing either."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from counterplay import Context, StepContext
from counterplay.plugins import PluginHost
from counterplay.wire import Wire

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def _importable() -> Iterator[None]:
    """Put plugin and service on the import path for these tests, and take them off again."""
    added = [str(FIXTURES), str(FIXTURES / "acme_plugin" / "src")]
    sys.path[:0] = added
    yield
    for entry in added:
        sys.path.remove(entry)
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("acme_")]:
        del sys.modules[name]


@pytest.fixture
def service(_importable: None) -> Iterator[Any]:
    """A running Acme."""
    from acme_service import AcmeService

    with AcmeService() as running:
        yield running


@pytest.fixture(scope="session")
def host(_importable: None) -> PluginHost:
    """A host that knows this plugin only."""
    return PluginHost.load([EntryPoint("acme", "acme_counterplay", "counterplay")])


@pytest.fixture
def context(service: Any, host: PluginHost) -> Iterator[Context]:
    """A step's context with a connection to the service."""
    settings = {"base_url": service.base_url, "api_key": service.api_key}
    account = host.module("acme.account").cls("acme", settings)
    with Wire(account, attempts=2, backoff=0.001) as http:
        yield StepContext(http=http, connection=account, run_id="run-1", playbook="close", step_id="s1")


@pytest.fixture
def make(host: PluginHost) -> Callable[..., Any]:
    """Build a module by its `uses` name."""
    return lambda uses, **arguments: host.module(uses).cls(arguments)
