"""`playbook sim`: the simulated tenant as a process of its own, and the oracle's report."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from counterplay.errors import ConfigError, CounterplayError

if TYPE_CHECKING:
    from counterplay_sim.simulator import Simulator

_STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the tenant's state lies. Default: the workspace's .counterplay, or the user's state folder.",
)


@click.group(invoke_without_command=True)
@_STATE_DIR
@click.option(
    "--port", default=0, metavar="N", help="Listen on N (login), N+1 (Graph), N+2 (audit), N+3 (intake)."
)
@click.option("--admin-port", default=0, metavar="N", help="Listen on N for settings, faults and the report.")
@click.option("--seed", default=1, metavar="N", show_default=True, help="What a new tenant is invented from.")
@click.option(
    "--events",
    default=4000,
    metavar="N",
    show_default=True,
    help="How many ordinary audit events a new tenant has.",
)
@click.option(
    "--requests-per-minute",
    default=2000,
    metavar="N",
    show_default=True,
    help="What the audit feed takes before it answers AF429.",
)
@click.option(
    "--faults",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A JSON file with a list of faults to meet on the wire.",
)
@click.pass_context
def sim(
    context: click.Context,
    state_dir: Path | None,
    port: int,
    admin_port: int,
    seed: int,
    events: int,
    requests_per_minute: int,
    faults: Path | None,
) -> None:
    """Run the simulated Microsoft 365 tenant and its intake until Ctrl-C.

    It speaks the real protocols on 127.0.0.1 behind TLS: token end-point, audit feed, Graph, intake. A
    tenant that was left unfinished goes on as it was. The settings are printed as connections for
    counterplay.yaml; `playbook run` in the same workspace finds the running simulator by itself.

    Exits 0 when it is stopped by Ctrl-C or SIGTERM, 2 when it cannot start.
    """
    from counterplay.workspace import find_state_dir

    folder = state_dir or find_state_dir()
    context.obj = folder
    if context.invoked_subcommand is not None:
        return
    from counterplay_sim.simulator import Simulator
    from counterplay_sim.strictness import Strictness

    try:
        simulator = Simulator(
            folder,
            seed=seed,
            events=events,
            faults=_rules(faults),
            strictness=Strictness(requests_per_minute=requests_per_minute),
            port=port,
            admin_port=admin_port,
        )
        _serve(simulator)
    except BlockingIOError:
        _fail(ConfigError(f"another process serves the simulated tenant in {folder}", hint="stop it first"))
    except (CounterplayError, ValueError, TypeError) as error:
        _fail(error)


@sim.command()
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
@click.pass_context
def report(context: click.Context, state_dir: Path | None, as_json: bool) -> None:
    """Print what the tenant knows: events that arrived or did not, who was changed, requests used.

    Exits 0 when every audit event arrived exactly once and byte-equal, 1 when not, 2 without a tenant.
    """
    from counterplay_sim.oracle import Oracle
    from counterplay_sim.report import full

    folder = state_dir or context.obj
    try:
        verdict = Oracle(folder).verdict()
    except LookupError as error:
        _fail(ConfigError(str(error), hint="run `playbook run quickstart` or `playbook sim` first"))
    click.echo(json.dumps(verdict.to_dict(), indent=2) if as_json else "\n".join(full(verdict)))
    context.exit(0 if verdict.events.ok else 1)


def _serve(simulator: Simulator) -> None:
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with simulator:
            click.echo(_settings(simulator))
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _settings(simulator: Simulator) -> str:
    import yaml

    connections = {
        "sim-tenant": {"uses": "m365.tenant", **simulator.m365_settings()},
        "sim-intake": {"uses": "intake.key", **simulator.intake_settings()},
    }
    text: str = yaml.safe_dump({"connections": connections}, sort_keys=False)
    where = simulator.folder / "sim.json"
    admin = simulator.url("admin")
    return f"{text}# for other processes: COUNTERPLAY_SIM={where}\n# admin: {admin}\n# Ctrl-C ends it"


def _rules(file: Path | None) -> list[Any]:
    if file is None:
        return []
    try:
        rules = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"not a JSON file: {error}", path=file) from error
    if not isinstance(rules, list):
        raise ConfigError("a faults file holds a JSON list of objects", path=file)
    return rules


def _fail(error: Exception) -> None:
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(2)
