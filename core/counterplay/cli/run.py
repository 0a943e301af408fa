"""`playbook run`: the main job."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import json_option, print_json
from counterplay.errors import ConfigError

if TYPE_CHECKING:
    from counterplay.language import Playbook, PlaybookSet
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.session import Session, Task
    from counterplay.workspace import Workspace


@click.command()
@click.argument("name")
@click.option("--once", is_flag=True, help="End when everything that is listed now is accounted for.")
@click.option(
    "--event",
    "event_file",
    metavar="FILE",
    help="Run for the events in FILE (JSON object, array or lines; - is stdin) instead of the trigger's.",
)
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="Give an input of the playbook.")
@click.option(
    "--connection",
    "connections",
    multiple=True,
    metavar="NAME=OTHER",
    help="Use the connection OTHER where the playbook names NAME; `sim` is the simulated one.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8787",
    show_default=True,
    metavar="HOST:PORT",
    help="Where push triggers are served (plain HTTP: put a TLS proxy in front of other addresses).",
)
@click.option(
    "--metrics",
    "metrics_at",
    metavar="HOST:PORT|FILE",
    help="Serve figures for Prometheus at HOST:PORT/metrics, or keep them in FILE.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Show what it would do, as `playbook plan` does.")
@click.option(
    "--plan-file",
    metavar="FILE",
    help="Carry out the plans in FILE (from `playbook plan NAME --json`), and stop where anything differs.",
)
@json_option
def run(
    name: str,
    once: bool,
    event_file: str | None,
    inputs: tuple[str, ...],
    connections: tuple[str, ...],
    listen: str,
    metrics_at: str | None,
    only_plan: bool,
    plan_file: str | None,
    as_json: bool,
) -> None:
    """Run the playbook NAME (or FILE.yaml), or all playbooks of the set NAME.

    Follows its source until Ctrl-C; with --once it ends when everything that was listed is accounted
    for and the runs that it started ended or wait. A service that is down is waited for, also with
    --once: Ctrl-C loses nothing. What was interrupted goes on at the next start.

    Exits 0 when all is done, 1 when something failed or is quarantined, 2 when the input is invalid,
    3 when something waits or is blocked, 130 when interrupted.
    """
    from counterplay.cli.progress import print_summary, progress
    from counterplay.runtime.figures import told

    if only_plan:
        from counterplay.cli.plan import make_plans

        make_plans(name, event_file, event_file is None, 10, inputs, connections, as_json)
        return
    if plan_file is not None:
        from counterplay.cli.plan_file import carry_out_plans

        if event_file or inputs or connections:
            raise ConfigError("a plan holds its event, inputs and connections", hint="give --plan-file alone")
        sys.exit(carry_out_plans(name, plan_file, as_json))
    stop = threading.Event()
    with _terminable():
        session, opener = _prepared(
            name,
            stop,
            once=once,
            event_file=event_file,
            given=pairs(inputs, "--input", "NAME=VALUE"),
            renames=pairs(connections, "--connection", "NAME=OTHER"),
            listen=listen,
            metrics_at=metrics_at,
        )
    debug = bool(click.get_current_context().find_root().params.get("debug"))
    with signals(stop), progress(session, opener, quiet=as_json, debug=debug) as on_started:
        ended = session.run(on_started)
    if as_json:
        report = {
            "playbook": session.name,
            "exit_code": ended.exit_code,
            "seconds": round(ended.seconds, 3),
            "figures": ended.figures,
            "changed": ended.changed,
            "notices": told(ended.notices),
            "runs_waiting": ended.runs["waiting"],
            "remarks": list(ended.lines),
        }
        print_json(opener.secrets.mask_json(report))
    else:
        print_summary(session.name, ended, opener.secrets.mask)
    sys.exit(ended.exit_code)


def _prepared(
    name: str,
    stop: threading.Event,
    *,
    once: bool,
    event_file: str | None,
    given: dict[str, str],
    renames: dict[str, str],
    listen: str,
    metrics_at: str | None,
) -> tuple[Session, Opener]:
    """Everything that can be wrong before anything runs: ConfigError says which."""
    from counterplay.cli.loading import open_to_run
    from counterplay.language import PlaybookSet
    from counterplay.runtime.opening import Opener
    from counterplay.runtime.session import Session

    _check_address(listen)
    workspace = open_to_run()
    workspace.host.hook.counterplay_invocation_started(command="run", name=name)
    found, tasks = chosen(workspace, name, given, renames)
    once = once or (isinstance(found, PlaybookSet) and found.once)
    events = read_events(event_file) if event_file is not None else None
    opener = Opener(workspace, stop)
    session = Session(
        opener,
        found.name,
        tasks,
        once=once,
        stop=stop,
        events=events,
        listen=listen,
        metrics_at=metrics_at,
    )
    return session, opener


def chosen(
    workspace: Workspace, name: str, given: dict[str, str], renames: dict[str, str]
) -> tuple[Playbook | PlaybookSet, list[Task]]:
    """The playbook or set, and what is to run: each playbook with its inputs and connections."""
    from counterplay.cli.loading import known_renames, load_playbook, members
    from counterplay.language import PlaybookSet
    from counterplay.runtime.session import Task

    known_renames(workspace, renames)
    found = load_playbook(workspace, name, renames)
    playbooks = members(workspace, found, renames) if isinstance(found, PlaybookSet) else [(found, renames)]
    tasks = [
        Task(one, one.inputs_from(_own(given, one.inputs, len(playbooks))), own) for one, own in playbooks
    ]
    _no_stray_inputs(given, [one.inputs for one, _ in playbooks])
    _no_stray_renames(renames, found, [one for one, _ in playbooks])
    return found, tasks


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM means what Ctrl-C does: nothing has begun, so the command just ends."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks to finish what is in flight; the second one ends at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        os.write(2, b"\nfinishing what is in flight; once more to end at once\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pairs(words: tuple[str, ...], option: str, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{option} {word}: not {form}", hint=f"write {option} {form}")
        if key in pairs:
            raise ConfigError(f"{option} {word}: {key!r} is given twice", hint="give it once")
        pairs[key] = value
    return pairs


def _check_address(text: str) -> None:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"--listen {text}: not HOST:PORT", hint="write --listen 127.0.0.1:8787")


def _own(given: dict[str, str], declared: Mapping[str, Any], playbooks: int) -> dict[str, str]:
    """In a set, an input goes to the playbooks that declare it; a single playbook gets them all."""
    if playbooks == 1:
        return given
    return {key: value for key, value in given.items() if key in declared}


def _no_stray_inputs(given: dict[str, str], declared: list[Mapping[str, Any]]) -> None:
    for key in given:
        if not any(key in one for one in declared):
            raise ConfigError(f"no playbook of the set has an input {key!r}")


def _no_stray_renames(
    renames: dict[str, str], found: Playbook | PlaybookSet, playbooks: list[Playbook]
) -> None:
    named = {
        str(use.connection)
        for one in playbooks
        for use in (one.trigger, *(step.use for step in (*one.batch_steps, *one.run_steps)), *one.sinks)
        if use is not None and use.connection is not None
    }
    for old, new in getattr(found, "connections", {}).items():  # a set's own names, and what it makes of them
        named |= {old, new}
    for key, value in renames.items():
        if key not in named:
            raise ConfigError(
                f"--connection {key}={value}: nothing here names a connection {key!r}",
                hint=f"the names are: {', '.join(sorted(named)) or 'none'}",
            )


def read_events(name: str) -> list[bytes]:
    """The events of a file, as the bytes that stand in it. ConfigError names the place of what is none."""
    place = "stdin" if name == "-" else name
    try:
        body = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the events: {error.strerror}", path=place, hint="give a file, or - for stdin"
        ) from error
    from counterplay.runtime.decoding import elements, of_lines

    text = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    if not text:
        raise ConfigError("there is no event in it", path=place, hint="give a JSON object, an array or lines")
    if text.startswith(b"["):
        found = elements(text)
    elif _is_json(text):
        found = of_lines(iter([text]))
    else:
        found = of_lines(line.strip() for line in text.splitlines() if line.strip())
    for flaw in found.broken:
        raise ConfigError(
            f"event {flaw.position + 1}: {flaw.reason}", path=place, hint="every event is one JSON object"
        )
    return [raw for _, raw in found.events]


def _is_json(text: bytes) -> bool:
    """Is it one document, on however many lines? What is none is taken for a document a line."""
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
