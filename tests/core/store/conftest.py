"""A fresh store in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from counterplay.store.database import Database, open_database
from counterplay.store.feeds import FeedKey, FeedStore
from counterplay.store.runs import RunStore

KEY = FeedKey("acme.exports", "acme", "tenant-1", "{}")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def feeds(database: Database) -> FeedStore:
    return FeedStore(database)


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database)


@pytest.fixture
def key() -> FeedKey:
    return KEY
