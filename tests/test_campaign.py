"""The short form of the fault campaign; `benchmarks/campaign.py` runs it long."""

import os
import random
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).resolve().parents[1] / "benchmarks" / "campaign.py"
SEED = os.environ.get("COUNTERPLAY_SEED", str(random.SystemRandom().randrange(10**6)))


def test_faults_and_kills_lose_nothing_and_what_is_lost_is_named() -> None:
    """COUNTERPLAY_SEED replays a failure; it stands in the output."""
    words = [sys.executable, str(CAMPAIGN), "--seed", SEED, "--rounds", "3", "--events", "800"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout.decode()
