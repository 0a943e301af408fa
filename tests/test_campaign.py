"""The short form of the fault campaigns; `campaign.py` and `graph_campaign.py` of `benchmarks/` run long."""

import os
import random
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SEED = os.environ.get("COUNTERPLAY_SEED", str(random.SystemRandom().randrange(10**6)))


def campaign(name: str, *options: str) -> None:
    words = [sys.executable, str(BENCHMARKS / name), "--seed", SEED, *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_faults_and_kills_lose_nothing_and_what_is_lost_is_named() -> None:
    """COUNTERPLAY_SEED replays a failure; it stands in the output."""
    campaign("campaign.py", "--rounds", "3", "--events", "800")


def test_faults_and_kills_lose_nothing_of_any_feed_of_graph_nor_of_the_webhook() -> None:
    """Each record arrives in its last state, each notification that was answered, and the ledger balances."""
    campaign("graph_campaign.py", "--rounds", "1", "--notifications", "10", "--webhook-kills", "2")
