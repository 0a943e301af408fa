"""Figures for Prometheus: in a file or over HTTP, in the format that it reads."""

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from counterplay.budgets import Budgets
from counterplay.errors import BlockedError, ConfigError
from counterplay.runtime import metrics
from counterplay.runtime.figures import Figures
from counterplay.runtime.lags import BOUNDS, LONG, SHORT, Histogram
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


def test_a_file_that_cannot_be_written_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and written again as soon as that works; the session's end is its own."""
    monkeypatch.setattr(metrics, "_FILE_EVERY", 0.001)
    file = tmp_path / "folder" / "counterplay.prom"
    file.parent.mkdir()
    asked = threading.Semaphore(0)

    def made() -> str:
        asked.release()
        return "text\n"

    with metrics.Exporter(str(file), made):
        file.parent.rename(tmp_path / "gone")
        for _ in range(8):
            assert asked.acquire(timeout=10)
        file.parent.mkdir()
        for _ in range(8):
            assert asked.acquire(timeout=10)
        assert file.read_text() == "text\n"
        file.parent.rename(tmp_path / "gone too")
    told = [one.message for one in caplog.records]
    assert len(told) == 2
    assert all(f"cannot write metrics to {file}: No such file" in one for one in told)


def test_a_place_that_cannot_be_used_is_said_before_anything_runs(tmp_path: Path) -> None:
    """A folder that is not there, a port that is taken."""
    with pytest.raises(ConfigError, match="cannot write metrics"):
        metrics.Exporter(str(tmp_path / "no" / "file"), some_text)
    with metrics.Exporter("127.0.0.1:0", some_text) as taken:
        port = taken.url.rsplit(":", 1)[1].split("/")[0]
        with pytest.raises(ConfigError, match="cannot serve metrics"):
            metrics.Exporter(f"127.0.0.1:{port}", some_text)


def samples(text: str) -> dict[str, float]:
    """Series and their values."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return {series.removeprefix("counterplay_"): float(value) for series, value in pairs}


def test_each_feed_tells_how_long_its_units_took(bench, lab, put, tmp_path: Path, monkeypatch) -> None:
    """One observation a unit and step, and for each playbook what it had to wait for."""
    from lab_plugin import Source

    monkeypatch.setattr(Source, "id_field", "id")
    monkeypatch.setattr(Source, "time_field", "at")
    made = put("u1", b"[]")
    happened = (made - timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%S")
    lab.units["u1"] = (made, [json.dumps([{"id": "a", "at": happened}, {"id": "b"}]).encode()])
    put("u2", b'[{"id": "c", "at": "yesterday"}]', minutes_ago=30)
    sink = [{"uses": "lab.store", "with": {"to": "taken"}}]
    playbooks = [bench.playbook(name, trigger={"uses": "lab.source"}, sinks=sink) for name in ("one", "two")]
    file = tmp_path / "counterplay.prom"
    assert bench.run(*playbooks, metrics_at=str(file)).exit_code == 0
    text = file.read_text()
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
    found = samples(text)

    def counted(name: str, le: str = "+Inf", **labels: str) -> float:
        about = "".join(f'{key}="{value}",' for key, value in {"feed": "lab.source", **labels}.items())
        return found[f'{name}_seconds_bucket{{{about}le="{le}"}}']

    assert (counted("event_available", "900"), counted("event_available", "1800")) == (0, 1)
    assert counted("event_available") == 1, "a text that is no time says nothing"
    assert (counted("unit_listed", "1800"), counted("unit_listed", "3600")) == (0, 1)
    assert (counted("unit_listed", "7200"), counted("unit_fetched", "300")) == (2, 2)
    for name in ("one", "two"):
        assert counted("unit_acknowledged", "300", playbook=name) == 2
        assert counted("event_acknowledged", "7200", playbook=name) == 1
        assert counted("event_acknowledged", "3600", playbook=name) == 0
    assert found['unit_listed_seconds_count{feed="lab.source"}'] == 2
    assert 7000 < found['unit_listed_seconds_sum{feed="lab.source"}'] < 7500
    assert found['units_fetched_total{feed="lab.source"}'] == 2
    assert found['events_duplicate_total{feed="lab.source"}'] == 0
    assert 1700 < found['feed_newest_age_seconds{feed="lab.source"}'] < 2100
    assert found['feed_lag_seconds{feed="lab.source"}'] < 300


def test_a_unit_that_is_fetched_again_is_measured_once(bench, lab, put, tmp_path: Path) -> None:
    """A playbook that catches up says how long it waited; the source is not said to be late for it."""
    put("u1", b'[{"id": "a"}]')
    sink = [{"uses": "lab.store", "with": {"to": "taken"}}]
    playbook = bench.playbook("one", trigger={"uses": "lab.source"}, sinks=sink)
    lab.refusals["taken"].append(BlockedError("401"))
    file = tmp_path / "counterplay.prom"
    assert bench.run(playbook, metrics_at=str(file)).exit_code == 3
    found = samples(file.read_text())
    assert found['unit_fetched_seconds_count{feed="lab.source"}'] == 1
    assert 'unit_acknowledged_seconds_count{feed="lab.source",playbook="one"}' not in found
    assert bench.run(playbook, metrics_at=str(file)).exit_code == 0
    found = samples(file.read_text())
    assert lab.fetched == ["u1", "u1"]
    assert 'unit_fetched_seconds_count{feed="lab.source"}' not in found
    assert found['unit_acknowledged_seconds_count{feed="lab.source",playbook="one"}'] == 1


def test_a_histogram_counts_what_took_at_most_so_long() -> None:
    """A bound counts itself, and a clock that is behind takes nothing away."""
    histogram = Histogram((1.0, 5.0))
    for seconds in (-3.0, 1.0, 1.5, 5.0, 90.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [(1.0, 2), (5.0, 4), (float("inf"), 5)]
    assert histogram.sum == 97.5


def test_tokens_are_told_by_connection_and_service() -> None:
    """With their age in seconds."""
    told = metrics.text(Figures(), [], Budgets(), tokens=[("contoso", "Microsoft Graph", 61.4)])

    assert 'counterplay_token_age_seconds{connection="contoso",service="Microsoft Graph"} 61\n' in told


def test_the_guide_names_what_there_is() -> None:
    """Each metric in it exists, each histogram is in it with its bounds."""
    guide = " ".join(
        (Path(__file__).parents[3] / "docs" / "howto" / "watch-it.md").read_text("utf-8").split()
    )
    text = metrics.text(Figures(), [], Budgets(), Unfinished({}, 0), [("a", "b", 1.0)]) + metrics.service(
        reloads=0, working=True, refused=False, invalid=0
    )
    kinds = dict(re.findall(r"# TYPE (counterplay_\w+) (\w+)", text))
    named = {name.removesuffix("_bucket") for name in re.findall(r"counterplay_\w+", guide)}
    assert named <= set(kinds)
    assert {name for name, kind in kinds.items() if kind == "histogram"} <= named
    assert {f"counterplay_{name}_seconds" for name in BOUNDS} <= named
    for bounds in (LONG, SHORT):
        assert ", ".join(f"{one:g}" for one in bounds) in guide
