"""The crash campaign, short: every form of step, killed at random, ends as if nothing had happened.

`python benchmarks/crash.py [--postgres] 300` is the long one. COUNTERPLAY_SEED, in the message, repeats a
failure.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SEED = int(os.environ.get("COUNTERPLAY_SEED", random.SystemRandom().randrange(10**6)))
KILLS = 5


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "crash.py"
    spec = importlib.util.spec_from_file_location("crash_campaign", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def calm(campaign: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """How an uninterrupted run ends, whatever the store."""
    ending = campaign.calm_ending(tmp_path_factory.mktemp("calm") / "calm")
    assert set(ending.runs) == {"succeeded"}
    assert ending.done == {"revoke_sessions": 1, "update_rule": 1, "update_user": 1}
    return ending


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(
    campaign: ModuleType, calm: Any, tmp_path: Path
) -> None:
    """Same runs, same answers, the same tenant, and no effect twice that is not repeatable."""
    kills = 0
    for number in range(2):
        ending = campaign.Series(tmp_path / f"s{number}").run(random.Random(SEED + number), KILLS)
        assert campaign.differences(ending, calm) == [], f"COUNTERPLAY_SEED={SEED}"
        kills += ending.kills
    assert kills > 0


def test_on_postgresql_it_ends_so_too(
    campaign: ModuleType, calm: Any, tmp_path: Path, server_store: str
) -> None:
    """Where the next process has to find out first that the killed one is dead."""
    store = server_store.replace("postgresql+psycopg://", "postgresql://")
    ending = campaign.Series(tmp_path / "series", store).run(random.Random(SEED), 3)
    assert campaign.differences(ending, calm) == [], f"COUNTERPLAY_SEED={SEED}"
    assert ending.kills > 0
