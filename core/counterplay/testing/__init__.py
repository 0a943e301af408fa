"""For plugin authors: the conformance kit, and a simulated tenant; `pip install 'counterplay[testing]'`.

`pytest --counterplay-plugin NAME` holds every module of a plugin to the rules in `rules/`. A `Bench`,
given by the hook `pytest_counterplay_bench` in a `conftest.py`, says how the modules are seen at work.
"""

from counterplay.testing._simulator import pytest_configure, simulator
from counterplay.testing.bench import Bench, Example

__all__ = ["Bench", "Example", "pytest_configure", "simulator"]
