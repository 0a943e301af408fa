"""For plugin authors: pytest fixtures. Import what a test needs into its `conftest.py`.

from counterplay.testing import pytest_configure, simulator  # noqa: F401
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from counterplay_sim.simulator import Simulator

__all__ = ["pytest_configure", "simulator"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `simulator`; in a `conftest.py` pytest calls it by itself."""
    config.addinivalue_line("markers", "simulator(**options): options of the simulated tenant")


@pytest.fixture
def simulator(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A simulated Microsoft 365 tenant with an intake, on loopback, in this process.

    Its connections are `simulator.m365_settings()` and `simulator.intake_settings()`, its verdict
    `simulator.oracle().verdict()`. A marker gives it other options, those of `Simulator`:
    `@pytest.mark.simulator(events=100, faults=[{"kind": "AF20050"}])`; `pytest_configure` registers it.
    Skipped when the plugin `sim` is not installed.
    """
    installed = pytest.importorskip("counterplay_sim.testing", reason="the plugin sim is not installed")
    marker = request.node.get_closest_marker("simulator")
    options = {"events": 400, **(marker.kwargs if marker is not None else {})}
    with installed.Simulator(tmp_path / "simulator", **options) as made:
        yield made
