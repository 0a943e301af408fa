"""What collecting costs, held against a bare client that does the same work without any promise.

`python benchmarks/ingest.py [--events N] [--only NAME ...] [--json]`. Each scenario starts a simulated
tenant of its own and the client as a fresh process, on one core each where the machine has two. CPU
seconds are the client's, less those of a run with nothing to collect; "x ceiling" divides them by those
of the bare client of the same scenario in the same run. Times move with the neighbours, so the load is
printed too.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

BATCH = 524_288
FIVE = (
    'event.Operation != "a" and event.Workload != "b" and event.UserId != "c"'
    ' and event.RecordType != 9999 and event.Id != "d"'
)
WHOLE = 'event is defined and event | length > 2 and event.Operation != "a"'


@dataclass(frozen=True)
class Scenario:
    """One line of the table. `kills`: how often the client is killed on its way."""

    name: str
    filter: str = ""
    work: str = "slices"
    faults: tuple[dict[str, Any], ...] = ()
    strictness: dict[str, Any] = field(default_factory=dict)
    limit: int = 1_000_000
    events: int = 0
    ceiling: bool = True
    kills: int = 0


def _delay(seconds: float) -> tuple[dict[str, Any], ...]:
    return ({"service": "activity", "delay": seconds}, {"service": "intake", "delay": seconds})


SCENARIOS = (
    Scenario("pass-through"),
    Scenario("filter on five fields", filter=FIVE, work="fields"),
    Scenario("every event as a dict", filter=WHOLE, work="dicts"),
    Scenario("50 ms a request", faults=_delay(0.05), ceiling=False),
    Scenario("150 ms a request", faults=_delay(0.15), ceiling=False),
    Scenario("1,000 events a blob", strictness={"blob_events": 1000, "blob_span": 86_400}, ceiling=False),
    Scenario("quota of 2,000", strictness={"requests_per_minute": 2000}, limit=2000, ceiling=False),
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
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="JSON", help=argparse.SUPPRESS)
    parser.add_argument("--oracle", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--ceiling", nargs=2, metavar=("INFO", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(json.loads(options.serve))
        return
    if options.oracle:
        _judge(options.oracle)
        return
    if options.ceiling:
        _ceiling(json.loads(options.ceiling[0]), options.ceiling[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        idle = _measured(Scenario("idle"), 1, Path(folder) / "idle", None)
        for number, scenario in enumerate(SCENARIOS):
            if options.only and not any(one in scenario.name for one in options.only):
                continue
            result = _measured(scenario, options.events, Path(folder) / str(number), idle)
            click.echo(json.dumps(result) if options.json else _line(result))


def _measured(scenario: Scenario, events: int, folder: Path, idle: dict[str, Any] | None) -> dict[str, Any]:
    bare = None
    if scenario.ceiling and idle is not None:
        with _simulator(scenario, events, folder / "bare") as info:
            words = [sys.executable, __file__, "--ceiling", json.dumps(info), scenario.work]
            bare, _ = _timed(words, folder)
    with _simulator(scenario, events, folder / "sim") as info:
        workspace = _workspace(scenario, folder / "work", info)
        words = [sys.executable, "-m", "counterplay", "run", "collect", "--once", "--json"]
        killed = 0
        for number in range(scenario.kills):
            killed += _killed(words, workspace, 0.9 + 0.4 * number)
        used, output = _timed(words, workspace)
        figures = json.loads(output)
        oracle = _oracle(info)
    told, feed = oracle["events"], oracle["requests"]
    count = told["offered"]
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
        "doubled": told["arrived"] - count + told["missing"],
        "kills": killed,
        "load": os.getloadavg()[0],
    }
    if idle is not None:
        seconds = max(0.01, used["seconds"] - idle["seconds"])
        result["events_s"] = round(count / seconds)
        result["cpu_s_per_million"] = round((used["cpu"] - idle["cpu_s"]) / count * 1e6, 2)
        result["mb_over_idle"] = round(used["peak_mb"] - idle["peak_mb"], 1)
        if scenario.limit < 100_000:
            result["x_arithmetic_limit"] = round(seconds / (result["requests"] / scenario.limit * 60), 3)
    if bare is not None:
        result["ceiling_cpu_s_per_million"] = round(bare["own"] / count * 1e6, 2)
        result["x_ceiling"] = round(result["cpu_s_per_million"] / result["ceiling_cpu_s_per_million"], 2)
        result["ceiling_events_s"] = round(count / bare["own_seconds"])
    return result


def _line(result: dict[str, Any]) -> str:
    parts = [f"{name} {value}" for name, value in result.items() if name != "scenario"]
    return f"{result['scenario']}\n    {', '.join(parts)}"


# --- processes ------------------------------------------------------------------------------------------


def _core(number: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[number])] if len(cores) > 1 else []


def _timed(words: list[str], folder: Path) -> tuple[dict[str, Any], bytes]:
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*_core(0), *words], cwd=folder, stdout=output)
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
        "trigger": {"uses": "m365.audit_log", "connection": "contoso"},
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
        click.echo(json.dumps({**simulator.info(), "folder": settings["folder"]}))
        sys.stdin.read()


def _oracle(info: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: what this one holds would count as memory of the next client."""
    time.sleep(1.0)  # the simulator writes its counts of requests twice a second
    words = [sys.executable, __file__, "--oracle", info["folder"]]
    verdict: dict[str, Any] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return verdict


def _judge(folder: str) -> None:
    from counterplay_sim.oracle import Oracle

    told = Oracle(folder).verdict()
    events = {
        "offered": told.events.offered,
        "arrived": told.events.arrived,
        "missing": len(told.events.missing),
        "altered": len(told.events.altered),
    }
    click.echo(
        json.dumps({"events": events, "requests": told.requests, "most_in_a_minute": told.most_in_a_minute})
    )


# --- the bare client ------------------------------------------------------------------------------------


def _ceiling(info: dict[str, Any], work: str) -> None:
    """List, fetch, slice, do the work on the events, post: urllib3 with TLS, and nothing else."""
    import msgspec
    import orjson
    import urllib3

    tenant, intake = info["m365.tenant"], info["intake.key"]
    pool = urllib3.PoolManager(ca_certs=tenant["ca_file"], maxsize=2)
    feed = f"{tenant['activity_url']}/api/v1.0/{tenant['tenant_id']}/activity/feed"
    form = {
        "grant_type": "client_credentials",
        "client_id": tenant["client_id"],
        "client_secret": tenant["client_secret"],
        "scope": "https://manage.office.com/.default",
    }
    token = pool.request(
        "POST",
        f"{tenant['authority']}/{tenant['tenant_id']}/oauth2/v2.0/token",
        fields=form,
        encode_multipart=False,
    ).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    publisher = f"PublisherIdentifier={tenant['tenant_id']}"
    kinds = ("Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All")
    for kind in kinds:
        pool.request(
            "POST", f"{feed}/subscriptions/start?contentType={kind}&{publisher}", headers=headers, body=b""
        )
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    blobs: list[str] = []
    for kind in kinds:
        address: str | None = (
            f"{feed}/subscriptions/content?contentType={kind}&{publisher}"
            f"&startTime={(now - timedelta(hours=24)).isoformat()}&endTime={now.isoformat()}"
        )
        while address:
            answer = pool.request("GET", address, headers=headers)
            blobs += [item["contentUri"] for item in answer.json()]
            following = answer.headers.get("NextPageUri")
            address = f"{following}&{publisher}" if following else None
    slices = msgspec.json.Decoder(list[msgspec.Raw]).decode
    named = msgspec.defstruct(
        "Named", [(n, Any, None) for n in ("Operation", "Workload", "UserId", "RecordType", "Id")]
    )
    structs = msgspec.json.Decoder(list[named]).decode  # type: ignore[valid-type]  # made at run time
    encode = msgspec.json.Encoder().encode
    began, before = time.monotonic(), time.process_time()
    parts: list[bytes] = []
    size = 0

    def post() -> None:
        body = b'{"intake_key":"%b","jsons":[%b]}' % (intake["intake_key"].encode(), b",".join(parts))
        answer = pool.request(
            "POST", f"{intake['url']}/batch", body=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status == 200, answer.data

    for uri in blobs:
        body = pool.request("GET", f"{uri}?{publisher}", headers=headers).data
        events = slices(body)
        if work == "fields":
            kept = [
                raw
                for raw, one in zip(events, structs(body), strict=True)
                if one.Operation != "a"
                and one.Workload != "b"
                and one.UserId != "c"
                and one.RecordType != 9999
                and one.Id != "d"
            ]
        elif work == "dicts":
            kept = [
                raw
                for raw, one in zip(events, orjson.loads(body), strict=True)
                if one is not None and len(one) > 2 and one.get("Operation") != "a"
            ]
        else:
            kept = events
        for raw in kept:
            part = encode(str(raw, "utf-8"))
            if size + len(part) > BATCH:
                post()
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
    post()
    own = time.process_time() - before
    click.echo(json.dumps({"own": own, "own_seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
