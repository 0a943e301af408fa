"""A small simulated tenant, and a client that knows the protocols but nothing of the product."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from counterplay_sim.testing import ManualClock, Simulator

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)


class Client:
    """A naive client: one session, tokens on demand."""

    def __init__(self, tenant: dict[str, Any], intake: dict[str, Any]) -> None:
        self.tenant = tenant
        self.intake = intake
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = tenant["ca_file"]
        self._tokens: dict[str, str] = {}

    @property
    def feed(self) -> str:
        return f"{self.tenant['activity_url']}/api/v1.0/{self.tenant['tenant_id']}/activity/feed"

    def token(self, resource: str, **form: str) -> requests.Response:
        """What the token end-point says to a client secret."""
        url = f"{self.tenant['authority']}/{form.pop('tenant', self.tenant['tenant_id'])}/oauth2/v2.0/token"
        wanted = {
            "grant_type": "client_credentials",
            "client_id": self.tenant["client_id"],
            "client_secret": self.tenant["client_secret"],
            "scope": f"{resource}/.default",
        }
        return self.session.post(url, data=wanted | form)

    def activity(self, method: str, operation: str, **query: str) -> requests.Response:
        """One call of the audit feed; `operation` may be a whole address."""
        url = operation if operation.startswith("https://") else f"{self.feed}/{operation}"
        return self.session.request(
            method, url, params=query, headers=self._bearer(self.tenant["activity_url"])
        )

    def graph(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: str
    ) -> requests.Response:
        """One call of Graph; `path` may be a whole address."""
        url = path if path.startswith("https://") else f"{self.tenant['graph_url']}/v1.0{path}"
        bearer = self._bearer(self.tenant["graph_url"])
        return self.session.request(method, url, params=query, json=body, headers=bearer | (headers or {}))

    def send(self, *events: str | bytes) -> requests.Response:
        """A batch for the intake."""
        jsons = [event if isinstance(event, str) else event.decode() for event in events]
        body = {"intake_key": self.intake["intake_key"], "jsons": jsons}
        return self.session.post(self.intake["url"] + "/batch", json=body)

    def window(self, content_type: str, start: str, end: str) -> list[dict[str, str]]:
        """Every item of a listing, over all its pages."""
        answer = self.activity(
            "GET", "subscriptions/content", contentType=content_type, startTime=start, endTime=end
        )
        items = answer.json()
        while "NextPageUri" in answer.headers:
            answer = self.activity("GET", answer.headers["NextPageUri"])
            items += answer.json()
        return list(items)

    def drain(self, start: str, end: str) -> dict[str, list[bytes]]:
        """Every event of a window, by content type, as often as blobs hold it, as the bytes that came."""
        found: dict[str, list[bytes]] = {}
        for content_type in (
            "Audit.AzureActiveDirectory",
            "Audit.Exchange",
            "Audit.SharePoint",
            "Audit.General",
            "DLP.All",
        ):
            self.activity("POST", "subscriptions/start", contentType=content_type)
            for item in self.window(content_type, start, end):
                body = self.activity("GET", item["contentUri"]).content
                found.setdefault(content_type, []).extend(_elements(body))
        return found

    def _bearer(self, resource: str) -> dict[str, str]:
        if resource not in self._tokens:
            self._tokens[resource] = self.token(resource).json()["access_token"]
        return {"Authorization": f"Bearer {self._tokens[resource]}"}


def _elements(body: bytes) -> list[bytes]:
    """The elements of a JSON array as the bytes between its commas."""
    text, decoder, found, position = body.decode(), json.JSONDecoder(), [], 1
    while position < len(text) and text[position] != "]":
        _, end = decoder.raw_decode(text, position)
        found.append(text[position:end].encode())
        position = end + (text[end] == ",")
    return found


Start = Callable[..., tuple[Simulator, Client]]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock(NOW)


@pytest.fixture
def start(tmp_path: Path, clock: ManualClock, connect: Callable[[Any], Client]) -> Iterator[Start]:
    """Starts a simulator with the given options, and gives it with a client."""
    with ExitStack() as stack:

        def started(state_dir: Path = tmp_path, **options: Any) -> tuple[Simulator, Client]:
            simulator = stack.enter_context(Simulator(state_dir, **{"events": 60, "clock": clock, **options}))
            return simulator, connect(simulator)

        yield started


@pytest.fixture
def simulator(start: Start) -> Simulator:
    """A small tenant in this process."""
    return start()[0]


@pytest.fixture
def connect() -> Iterator[Callable[[Any], Client]]:
    """Makes a client of anything that gives the settings of both connections."""
    with ExitStack() as stack:

        def connected(source: Any) -> Client:
            made = Client(source.m365_settings(), source.intake_settings())
            stack.callback(made.session.close)
            return made

        yield connected


@pytest.fixture
def client(simulator: Simulator, connect: Callable[[Any], Client]) -> Client:
    """A client of `simulator`."""
    return connect(simulator)
