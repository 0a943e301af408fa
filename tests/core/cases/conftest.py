"""Cases that are read from text and played with the real plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from counterplay.cases.runner import Bench, Verdict
from counterplay.plugins import PluginHost
from counterplay.workspace import Workspace


@pytest.fixture(scope="session")
def host() -> PluginHost:
    return PluginHost.load()


@pytest.fixture
def bench(tmp_path: Path, host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A workspace without playbooks, and cases about those that are written into it."""
    (tmp_path / "counterplay.yaml").touch()
    (tmp_path / "playbooks" / "tests").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with Bench(Workspace(host, tmp_path)) as opened:
        yield opened


Try = Callable[..., Verdict]


@pytest.fixture
def try_case(bench: Bench, tmp_path: Path) -> Try:
    """Play one case of a playbook: `try_case({"steps": ...}, given={...}, expect={...})`."""

    def _try(playbook: dict[str, object], **case: object) -> Verdict:
        document = {"name": "tried", "trigger": {"uses": "std.manual"}, **playbook}
        (tmp_path / "playbooks" / "tried.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        file = tmp_path / "playbooks" / "tests" / "tried.yaml"
        cases = {"playbook": "tried", "cases": [{"name": "it", **case}]}
        file.write_text(yaml.safe_dump(cases, sort_keys=False))
        bench._playbooks.clear()
        read = bench.read(file)
        return bench.try_case(file, read, read.cases[0])

    return _try
