"""What collecting costs, held against a bare client that does the same work without any promise.

`python benchmarks/ingest.py [--events N] [--only NAME ...] [--rounds N] [--json]`. Each scenario starts a
simulated tenant of its own and the client as a fresh process, on one core each where the machine has two.
CPU seconds are the client's, less those of a run with nothing to collect; "x ceiling" divides them by those
of the bare client of the same scenario in the same run. Times move with the neighbours, so the load is
printed too, and what is held against the bare client is measured in rounds, one client after the other: the
figures are those of the round with the median of "x ceiling", which is given for each. Exits with 1 when a
scenario lost or altered an event, or doubled more than its kills explain.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

BARE = Path(__file__).with_name("bare_client.py")
PER_SECOND = 50  # events that become available in the live scenario
DOUBLED = 1300  # events that a kill may double: four batches to a receiver
POSTS = 4 * 330 / 100  # batches that may be unrecorded at once, in blobs of 100 events
FIVE = (
    'event.Operation != "a" and event.Workload != "b" and event.UserId != "c"'
    ' and event.RecordType != 9999 and event.Id != "d"'
)
WHOLE = 'event is defined and event | length > 2 and event.Operation != "a"'


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    `kills`: how often the client is killed on its way. `parallel`: blobs that are fetched at once, of each
    content type. `content_types`: those that are collected, and that the oracle judges; none means all.
    `huge`: it is about the size of its units, so that of the largest is told.
    `live`: seconds in which events become available while the client follows the feed.
    """

    name: str
    filter: str = ""
    work: str = "slices"
    faults: tuple[dict[str, Any], ...] = ()
    strictness: dict[str, Any] = field(default_factory=dict)
    limit: int = 1_000_000
    events: int = 0
    ceiling: bool = True
    kills: int = 0
    parallel: int = 32
    content_types: tuple[str, ...] = ()
    latency: float = 0.0
    live: int = 0
    huge: bool = False


def _delay(seconds: float) -> tuple[dict[str, Any], ...]:
    return ({"service": "activity", "delay": seconds}, {"service": "intake", "delay": seconds})


def _with_latency(seconds: float, parallel: int) -> Scenario:
    """One content type alone, for one that has fewer blobs than others leaves its connections idle."""
    return Scenario(
        f"{seconds * 1000:.0f} ms a request",
        faults=_delay(seconds),
        latency=seconds,
        parallel=parallel,
        content_types=("Audit.Exchange",),
        ceiling=False,
    )


SCENARIOS = (
    Scenario("pass-through"),
    Scenario("filter on five fields", filter=FIVE, work="fields"),
    Scenario("every event as a dict", filter=WHOLE, work="dicts"),
    _with_latency(0.05, parallel=4),
    _with_latency(0.15, parallel=12),
    Scenario(
        "1,000 events a blob",
        strictness={"blob_events": 1000, "blob_span": 86_400},
        events=600_000,
        ceiling=False,
    ),
    Scenario(
        "a blob of 100 MB",
        strictness={"blob_events": 1_000_000, "blob_span": 86_400, "stored_blobs": True},
        events=160_000,
        content_types=("Audit.Exchange",),
        ceiling=False,
        huge=True,
    ),
    Scenario(
        "quota of 2,000",
        strictness={"requests_per_minute": 2000},
        limit=2000,
        events=400_000,
        ceiling=False,
    ),
    Scenario("live, asked each second", live=40, events=1, ceiling=False),
    Scenario(
        "faults and storm",
        faults=(
            {"kind": "AF50000", "probability": 0.03},
            {"kind": "html_503", "probability": 0.02},
            {"kind": "AF429", "probability": 0.002},
            {"service": "intake", "status": 503, "probability": 0.03},
            {"service": "activity", "path": "/audit/", "reset": "after", "probability": 0.02},
        ),
        ceiling=False,
    ),
    Scenario("kill -9", kills=5, ceiling=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="JSON", help=argparse.SUPPRESS)
    parser.add_argument("--oracle", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--since", metavar="TIME", help=argparse.SUPPRESS)
    parser.add_argument("--content-types", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(json.loads(options.serve))
        return
    if options.oracle:
        _judge(options.oracle, options.since, options.content_types)
        return
    with tempfile.TemporaryDirectory() as folder:
        idles = [_measured(Scenario("idle"), 1, Path(folder) / f"idle{one}", None) for one in range(3)]
        idle = sorted(idles, key=lambda one: float(one["cpu_s"]))[1]
        whole: float | None = None
        failures: list[str] = []
        for number, scenario in enumerate(SCENARIOS):
            if options.only and not any(one in scenario.name for one in options.only):
                continue
            results = [
                _measured(scenario, options.events, Path(folder) / f"{number}-{one}", idle, whole)
                for one in range(options.rounds if scenario.ceiling else 1)
            ]
            result = _median(results)
            if number == 0:
                whole = result["seconds"] - idle["seconds"]
            click.echo(json.dumps(result) if options.json else _line(result))
            failures += [one for each in results for one in _broken(each)]
    for failure in failures:
        click.echo(f"FAILED: {failure}", err=True)
    sys.exit(1 if failures else 0)


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The round in the middle, with what the others had."""
    if len(results) == 1:
        return results[0]
    ratios = [result["x_ceiling"] for result in results]
    middle = sorted(results, key=lambda result: float(result["x_ceiling"]))[len(results) // 2]
    return middle | {"x_ceiling_each": ratios}


def _broken(result: dict[str, Any]) -> list[str]:
    """What a scenario promised and did not keep."""
    most = result.get("kills", 0) * DOUBLED
    found = [
        f"{result[what]} of {result['events']} events {what}"
        for what in ("missing", "altered")
        if result[what]
    ]
    if result["doubled"] > most:
        found.append(f"{result['doubled']} events doubled, where the kills explain {most}")
    return [f"{result['scenario']}: {one}" for one in found]


def _measured(
    scenario: Scenario, events: int, folder: Path, idle: dict[str, Any] | None, whole: float | None = None
) -> dict[str, Any]:
    """`idle`: the result of a run with nothing to collect. `whole`: seconds of the run without faults."""
    bare = None
    if scenario.ceiling and idle is not None:
        with _simulator(scenario, events, folder / "bare") as info:
            words = [sys.executable, str(BARE), json.dumps(info), scenario.work]
            bare, _ = _timed(words, folder)
    with _simulator(scenario, events, folder / "sim") as info:
        workspace = _workspace(scenario, folder / "work", info)
        words = [sys.executable, "-m", "counterplay", "run", "collect", "--json", "--metrics", "metrics.txt"]
        killed = sum(_killed([*words, "--once"], workspace, 0.9 + 0.4 * one) for one in range(scenario.kills))
        if scenario.live:
            used, output = _timed(words, workspace, until=scenario.live + 8.0)
        else:
            used, output = _timed([*words, "--once"], workspace)
        figures = json.loads(output)
        oracle = _oracle(info, scenario)
    told, feed = oracle["events"], oracle["requests"]
    count = told["offered"]
    doubled = told["arrived"] - told["offered"] + told["missing"]
    result: dict[str, Any] = {
        "scenario": scenario.name,
        "events": count,
        "seconds": round(used["seconds"], 2),
        "cpu_s": round(used["cpu"], 2),
        "peak_mb": used["peak_mb"],
        "exit_code": figures["exit_code"],
        "requests": sum(number for name, number in feed.items() if name.startswith("activity")),
        "most_in_a_minute": oracle["most_in_a_minute"].get("activity", 0),
        "missing": told["missing"],
        "altered": told["altered"],
        "doubled": doubled,
        "load": round(os.getloadavg()[0], 1),
    }
    if scenario.huge:
        result["largest_unit_mb"] = round(_largest_unit(workspace) / 1e6, 1)
    if scenario.kills:
        result["kills"] = killed
        result["doubled_a_kill"] = round(doubled / max(1, killed))
    if idle is not None:
        seconds = max(0.01, used["seconds"] - idle["seconds"])
        result["events_s"] = round(count / seconds)
        result["mb_over_idle"] = round(used["peak_mb"] - idle["peak_mb"], 1)
        if not scenario.live:
            result["cpu_s_per_million"] = round((used["cpu"] - idle["cpu_s"]) / count * 1e6, 2)
        if scenario.limit < 100_000:
            result["x_arithmetic_limit"] = round(seconds / (result["requests"] / scenario.limit * 60), 3)
            result["refused"] = _throttles(workspace)
        if scenario.latency:
            at_once = min(scenario.parallel, POSTS)
            result["share_of_connections"] = round(count / seconds / (at_once * 100 / scenario.latency), 2)
        if scenario.faults and whole is not None and not scenario.latency:
            result["x_fault_free"] = round(seconds / whole, 2)
    if scenario.live:
        for share in (0.5, 0.99):
            result[f"lag_p{share * 100:.0f}_s"] = round(
                oracle["delays"][int(len(oracle["delays"]) * share)], 2
            )
    if bare is not None:
        result["ceiling_cpu_s_per_million"] = round(bare["own"] / count * 1e6, 2)
        result["x_ceiling"] = round(result["cpu_s_per_million"] / result["ceiling_cpu_s_per_million"], 2)
        result["ceiling_events_s"] = round(count / bare["own_seconds"])
    return result


def _largest_unit(workspace: Path) -> int:
    """Bytes, as the ledger has it."""
    words = [sys.executable, "-m", "counterplay", "ledger", "export"]
    lines = subprocess.run(words, cwd=workspace, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    return max(int(json.loads(one)["bytes"]) for one in lines)


def _throttles(workspace: Path) -> int:
    """How often a service said that it was asked too often."""
    lines = (workspace / "metrics.txt").read_text().splitlines()
    return round(
        sum(float(one.split()[-1]) for one in lines if one.startswith("counterplay_throttles_total"))
    )


def _line(result: dict[str, Any]) -> str:
    parts = [f"{name} {value}" for name, value in result.items() if name != "scenario"]
    return f"{result['scenario']}\n    {', '.join(parts)}"


# --- processes ------------------------------------------------------------------------------------------


def _core(number: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[number])] if len(cores) > 1 else []


def _timed(words: list[str], folder: Path, until: float | None = None) -> tuple[dict[str, Any], bytes]:
    """Resources of a process and what it printed; it is interrupted after `until` seconds."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*_core(0), *words], cwd=folder, stdout=output)
        if until is not None:
            time.sleep(until)
            process.send_signal(signal.SIGINT)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    used = {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
    }
    if text.startswith(b'{"own"'):
        used |= json.loads(text)
    return used, text


def _killed(words: list[str], folder: Path, after: float) -> int:
    process = subprocess.Popen([*_core(0), *words], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return 1
    return 0


def _workspace(scenario: Scenario, folder: Path, info: dict[str, Any]) -> Path:
    (folder / "playbooks").mkdir(parents=True)
    tenant = {"uses": "m365.tenant", **info["m365.tenant"], "requests_per_minute": scenario.limit}
    intake = {"uses": "intake.key", **info["intake.key"]}
    (folder / "counterplay.yaml").write_text(json.dumps({"connections": {"contoso": tenant, "siem": intake}}))
    playbook: dict[str, Any] = {
        "name": "collect",
        "description": "Forward the audit log.",
        "trigger": {
            "uses": "m365.audit_log",
            "connection": "contoso",
            "with": {"parallel": scenario.parallel, "poll_interval": "1s"}
            | ({"content_types": list(scenario.content_types)} if scenario.content_types else {}),
        },
        "steps": [],
        "sinks": [{"uses": "intake.forward", "connection": "siem"}],
    }
    if scenario.filter:
        playbook["filter"] = scenario.filter
    (folder / "playbooks" / "collect.yaml").write_text(json.dumps(playbook))
    return folder


@contextmanager
def _simulator(scenario: Scenario, events: int, folder: Path) -> Iterator[dict[str, Any]]:
    folder.mkdir(parents=True)
    strictness = {"requests_per_minute": 10**9, "blob_events": 100, **scenario.strictness}
    settings = {
        "folder": str(folder),
        "events": scenario.events or events,
        "faults": scenario.faults,
        "strictness": strictness,
        "live": scenario.live,
    }
    process = subprocess.Popen(
        [*_core(1), sys.executable, __file__, "--serve", json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _serve(settings: dict[str, Any]) -> None:
    from counterplay_sim.simulator import Simulator
    from counterplay_sim.strictness import Strictness

    given = dict(settings["strictness"])
    if "blob_span" in given:
        given["blob_span"] = timedelta(seconds=given["blob_span"])
    simulator = Simulator(
        settings["folder"],
        events=settings["events"],
        faults=settings["faults"],
        strictness=Strictness(**given),
    )
    with simulator:
        since = _to_come(simulator.tenants[0], settings["live"])
        click.echo(json.dumps({**simulator.info(), "folder": settings["folder"], "since": since}))
        sys.stdin.read()


def _to_come(tenant: Any, seconds: int) -> str:
    """Write events that become available one after the other, from 6 seconds on; returns when they begin."""
    begin = datetime.now(UTC) + timedelta(seconds=6)
    for number in range(seconds * PER_SECOND):
        at = begin + timedelta(seconds=number / PER_SECOND)
        event = {
            "Id": str(uuid.uuid4()),
            "CreationTime": at.strftime("%Y-%m-%dT%H:%M:%S"),
            "RecordType": 1,
            "Operation": "Set-Mailbox",
            "Workload": "Exchange",
            "UserId": "ada@contoso.com",
            "Parameters": [{"Name": "Identity", "Value": "x" * 1200}],
        }
        tenant.log("Audit.Exchange", event, round(at.timestamp() * 1e9))
    return begin.isoformat()


def _oracle(info: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """In a process of its own: what this one holds would count as memory of the next client."""
    time.sleep(1.0)  # the simulator writes its counts of requests twice a second
    words = [sys.executable, __file__, "--oracle", info["folder"], "--since", info["since"]]
    words += ["--content-types", ",".join(scenario.content_types)]
    verdict: dict[str, Any] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return verdict


def _judge(folder: str, since: str, content_types: str) -> None:
    from counterplay_sim.oracle import Oracle

    asked = {"content_types": content_types.split(",")} if content_types else {}
    told = Oracle(folder).verdict(**asked)
    delays = Oracle(folder).delays(datetime.fromisoformat(since))
    events = {
        "offered": told.events.offered,
        "arrived": told.events.arrived,
        "missing": len(told.events.missing),
        "altered": len(told.events.altered),
    }
    click.echo(
        json.dumps(
            {
                "events": events,
                "requests": told.requests,
                "most_in_a_minute": told.most_in_a_minute,
                "delays": delays,
            }
        )
    )


if __name__ == "__main__":
    main()
