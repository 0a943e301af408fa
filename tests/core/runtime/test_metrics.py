"""Figures for Prometheus: in a file or over HTTP, in the format that it reads."""

import re
from pathlib import Path
from urllib.request import urlopen

import pytest

from counterplay.budgets import Budgets
from counterplay.errors import ConfigError
from counterplay.runtime import metrics
from counterplay.runtime.figures import Figures
from counterplay.store.figures import Unfinished

LINE = re.compile(r'(# (HELP|TYPE) \w+ .+|counterplay_\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? -?[0-9.]+)')


def some_text() -> str:
    figures, budgets = Figures(), Budgets()
    figures.add("delivered", 7)
    budgets.of('contoso "x"@https://manage.office.com', 2000).take()
    budgets.of('contoso "x"@https://manage.office.com').refused(1.0)
    return metrics.text(figures, [], budgets)


def test_every_line_is_in_the_exposition_format() -> None:
    """Counters end in `_total`, labels are escaped."""
    lines = some_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert "counterplay_records_delivered_total 7" in lines
    service = r'{service="contoso \"x\"@https://manage.office.com"}'
    assert f"counterplay_throttles_total{service} 1" in lines
    assert f"counterplay_requests_limit{service} 1400" in lines
    assert f"counterplay_requests_last_minute{service} 1" in lines


def test_effects_runs_and_questions_are_counted_by_label() -> None:
    """Every outcome and status is there from the first scrape on, so that an alert can be written on it."""
    figures = Figures()
    figures.add("effects_done", 3)
    open_now = Unfinished({"queued": 0, "running": 1, "waiting": 2, "blocked": 0}, approvals=2)
    lines = metrics.text(figures, [], Budgets(), open_now).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert 'counterplay_effects_total{outcome="done"} 3' in lines
    assert 'counterplay_effects_total{outcome="unknown"} 0' in lines
    assert 'counterplay_runs{status="waiting"} 2' in lines
    assert 'counterplay_runs{status="blocked"} 0' in lines
    assert "counterplay_approvals_waiting 2" in lines


def test_a_run_that_waits_for_an_answer_shows(bench, lab, tmp_path: Path) -> None:
    """What the store holds is told with what this process counted; runs inside a run are not counted."""
    lab.act = lambda _context, _arguments: {}
    ask = {"uses": "std.approval", "with": {"question": "Go on?"}}
    steps = [
        {"id": "press", "uses": "lab.press", "with": {"what": "ask"}},
        {"parallel": [{"id": "one", **ask}, {"id": "two", **ask}]},
    ]
    playbook = bench.playbook("respond", trigger={"uses": "lab.source"}, steps=steps)
    file = tmp_path / "counterplay.prom"
    assert bench.run(playbook, events=[b'{"id": "e1"}'], metrics_at=str(file)).exit_code == 3
    lines = file.read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert 'counterplay_runs{status="waiting"} 1' in lines
    assert "counterplay_approvals_waiting 2" in lines
    assert 'counterplay_effects_total{outcome="done"} 1' in lines
    assert "counterplay_runs_started_total 1" in lines
    assert "counterplay_runs_succeeded_total 0" in lines


def test_they_are_served_on_demand() -> None:
    """Each request gets the figures of its moment; other paths are not found."""
    with metrics.Exporter("127.0.0.1:0", some_text) as exporter, urlopen(exporter.url) as answer:
        assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
        assert answer.read().decode() == some_text()


def test_a_file_is_there_from_the_beginning_and_up_to_date_at_the_end(tmp_path: Path) -> None:
    """It is replaced as a whole, never half written."""
    file = tmp_path / "counterplay.prom"
    texts = iter(["first\n", "last\n"])
    with metrics.Exporter(str(file), lambda: next(texts)):
        assert file.read_text() == "first\n"
    assert file.read_text() == "last\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_used_is_said_before_anything_runs(tmp_path: Path) -> None:
    """A folder that is not there, a port that is taken."""
    with pytest.raises(ConfigError, match="cannot write metrics"):
        metrics.Exporter(str(tmp_path / "no" / "file"), some_text)
    with metrics.Exporter("127.0.0.1:0", some_text) as taken:
        port = taken.url.rsplit(":", 1)[1].split("/")[0]
        with pytest.raises(ConfigError, match="cannot serve metrics"):
            metrics.Exporter(f"127.0.0.1:{port}", some_text)
