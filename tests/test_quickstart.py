"""The quick start as a newcomer runs it, its figures held against what the tenant itself knows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from counterplay_sim.oracle import Oracle, Verdict

ROOT = Path(__file__).resolve().parents[1]


def quickstart(home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "counterplay", "run", "quickstart", "--json"],
        cwd=home,
        env={**os.environ, "HOME": str(home), "XDG_STATE_HOME": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def verdict(home: Path) -> Verdict:
    return Oracle(home / ".local" / "state" / "counterplay").verdict()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home: Path) -> tuple[dict[str, Any], Verdict]:
    """One quick start in an empty home: its summary and the tenant's verdict."""
    return quickstart(home), verdict(home)


def test_every_event_arrives_exactly_once_and_byte_equal(first: tuple[dict[str, Any], Verdict]) -> None:
    """Thousands of events of all five content types, some listed twice, none lost, doubled or changed."""
    summary, truth = first
    assert truth.events.offered > 3000
    assert truth.events.exact == truth.events.offered == truth.events.arrived
    assert truth.events.ok
    assert truth.events.listed_twice > 0
    assert summary["figures"]["duplicates"] >= truth.events.listed_twice
    assert truth.alerts_arrived == truth.alerts_offered > 1
    assert truth.alerts_duplicated == ()
    assert truth.others == 0


def test_the_figures_of_the_summary_are_the_tenants(first: tuple[dict[str, Any], Verdict]) -> None:
    """What the engine says it collected and delivered is what the tenant saw, to the last event."""
    figures, truth = first[0]["figures"], first[1]
    assert figures["delivered:office365-to-intake"] == truth.events.offered
    assert figures["delivered:alerts-to-intake"] == truth.alerts_offered
    assert figures["outcomes"] == truth.outcomes == 1
    # an alert is collected by one feed for each set of filters that playbooks ask for
    assert figures["collected"] - figures["duplicates"] >= truth.events.offered + truth.alerts_offered


def test_the_compromised_user_and_nobody_else_is_contained(first: tuple[dict[str, Any], Verdict]) -> None:
    """Blocked, without a session, the malicious rule off; harmless rules and other people are untouched."""
    summary, truth = first
    assert truth.victim.blocked
    assert truth.victim.sessions == 0
    assert truth.victim.malicious_rules_on == ()
    assert truth.harmless_rules_off == ()
    assert truth.touched == (truth.victim.upn,)
    assert list(summary["changed"]) == [truth.victim.upn]


def test_a_second_run_does_the_job_again(home: Path, first: tuple[dict[str, Any], Verdict]) -> None:
    """A finished quick start begins a new tenant, which is collected and contained like the first."""
    quickstart(home)
    second = verdict(home)
    assert second.tenant != first[1].tenant
    assert second.events.ok
    assert second.victim.contained


def test_the_readme_shows_what_the_quick_start_prints() -> None:
    """The README's sample has the lines of a real summary, and its two commands are marked for CI."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"quickstart: done in [\d.]+ s\n  collected +[\d,]+ events in [\d,]+ units", readme)
    assert "<!-- quickstart -->\n```sh\n" in readme
    assert "<!-- tests -->\n```sh\n" in readme
