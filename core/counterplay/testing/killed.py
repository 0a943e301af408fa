"""A real process that makes one attempt of an effect, and is killed at one instruction; and the next one.

Each attempt is a process of its own, made by fork from a server that has everything imported: it shares
nothing with the process of the tests but the store's file and the service.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

from counterplay.errors import CounterplayError
from counterplay.events import JsonObject, encoded
from counterplay.plugins import GROUP, PluginHost
from counterplay.runtime.effects import EffectRunner, Targets
from counterplay.store.database import open_database
from counterplay.store.runs import Lease, NewRun, RunStore
from counterplay.testing.bench import Bench, Example
from counterplay.testing.stage import Stage
from counterplay.testing.watch import Fault, FaultKind

RUN = "killed-run"


@dataclass(frozen=True, slots=True)
class Resumed:
    """How the attempt of the second process ended, and the writes that it sent."""

    effect: str | None
    error: str | None
    writes: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Job:
    path: list[str]
    plugins: dict[str, str]
    uses: str
    arguments: JsonObject
    connections: dict[str, JsonObject]
    folder: str
    moment: str
    log: str
    answer: str


def attempt_killed(stage: Stage, moment: str) -> list[tuple[str, str]] | None:
    """Make the attempt in a process that is killed at its first write; the writes that the service got.

    None: the attempt came to its end.
    """
    job = _job(stage, moment)
    died = _servant().carry_out(job)
    return _writes(job) if died else None


def attempt_resumed(stage: Stage) -> Resumed:
    """Make the next attempt, in another process, to its end."""
    job = _job(stage, "")
    if _servant().carry_out(job) or not Path(job.answer).exists():
        raise CounterplayError("the second process died")
    said = json.loads(Path(job.answer).read_text())
    return Resumed(said["effect"], said["error"], _writes(job))


def _job(stage: Stage, moment: str) -> _Job:
    name = moment.replace(" ", "-") or "resumed"
    return _Job(
        list(sys.path),
        {one.name: one.point.module for one in stage.host.plugins.values() if one.problem is None},
        stage.info.uses,
        stage.arguments,
        {kind: dict(settings) for kind, settings in stage.bench.connections.items()},
        str(stage.folder),
        moment,
        str(stage.folder / f"{name}.log"),
        str(stage.folder / f"{name}.json"),
    )


def _writes(job: _Job) -> list[tuple[str, str]]:
    log = Path(job.log)
    lines = log.read_text().splitlines() if log.exists() else []
    return [cast("tuple[str, str]", tuple(line.split(" ", 1))) for line in lines]


# --- the server --------------------------------------------------------------------------------------


class _Servant:
    """The server as the tests' process sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from counterplay.testing import killed; killed.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def carry_out(self, job: _Job) -> bool:
        """Was the process killed by a signal? CounterplayError: it failed otherwise."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"code": 1}')
        if answer["code"] > 0:
            raise CounterplayError("the process that makes the attempt failed; see above")
        return bool(answer["code"] < 0)

    def close(self) -> None:
        """End the server."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=10)


_running: list[_Servant] = []


def _servant() -> _Servant:
    if not _running:
        _running.append(_Servant())
        atexit.register(_running[0].close)
    return _running[0]


def serve() -> None:
    """Read a job a line, carry out each in a fork of this process, which has one thread; say how it ended."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _carry_out_and_leave(_Job(**json.loads(line)))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


def _carry_out_and_leave(job: _Job) -> None:
    code = 1
    try:
        os.dup2(2, 1)  # what a module prints is no answer
        sys.path[:] = job.path
        _carry_out(job)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _carry_out(job: _Job) -> None:
    points = [EntryPoint(name, module, GROUP) for name, module in job.plugins.items()]
    host = PluginHost.load(points, unagreed=True)
    bench = Bench(job.connections, {job.uses: Example(job.arguments)})
    stage = Stage(host, host.module(job.uses), bench, Path(job.folder))
    stage.watch.log = Path(job.log)
    if job.moment:
        stage.watch.fault = Fault(cast(FaultKind, job.moment))
    action: Any = stage.module()
    with closing(open_database(stage.opener.workspace.store_url)) as database, stage.context() as context:
        runs = RunStore(database)
        playbook = stage.playbook(job.uses, job.arguments)
        run = NewRun(RUN, "local", "killed", RUN, playbook.document, encoded(job.arguments), {}, {}, {})
        with database.write() as connection:
            runs.add(connection, [run])
        runs.begin(RUN, 1)
        context.run_id = RUN
        known = next(iter(runs.effects(RUN)), None)
        runner = EffectRunner(host, runs, Targets(database), stage.opener.secrets.mask_json)
        tenant = context.connection.tenant if context.connection is not None else "local"
        outcome = runner.attempt(job.uses, action, context, Lease(RUN, 1), tenant, known)
    Path(job.answer).write_text(json.dumps({"effect": outcome.effect, "error": outcome.error}))
