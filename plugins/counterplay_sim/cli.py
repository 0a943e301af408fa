"""`playbook sim`: the simulated tenant as a process of its own, and the oracle's report."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from counterplay.errors import ConfigError, CounterplayError

if TYPE_CHECKING:
    from counterplay_sim.faults import Fault
    from counterplay_sim.oracle import Oracle
    from counterplay_sim.simulator import Simulator
    from counterplay_sim.strictness import Strictness

_STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the tenant's state lies. Default: the workspace's .counterplay, or the user's state folder.",
)


@click.group(invoke_without_command=True)
@_STATE_DIR
@click.option(
    "--port",
    default=0,
    metavar="N",
    type=click.IntRange(0, 65532),
    help="Listen on N (login), N+1 (Graph), N+2 (audit), N+3 (intake).",
)
@click.option(
    "--admin-port",
    default=0,
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Listen on N for settings, faults and the report.",
)
@click.option("--seed", default=1, metavar="N", show_default=True, help="What a new tenant is invented from.")
@click.option(
    "--events",
    default=4000,
    metavar="N",
    type=click.IntRange(0),
    show_default=True,
    help="How many ordinary audit events a new tenant has.",
)
@click.option(
    "--users",
    default=40,
    metavar="N",
    show_default=True,
    type=click.IntRange(1),
    help="How many users it has.",
)
@click.option("--rules", type=click.IntRange(0), metavar="N", help="How many inbox rules they have together.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="What happened in a new tenant; may be repeated. account-takeover (default),"
    " business-email-compromise, aitm-token-theft, malicious-oauth-consent, malicious-oauth-tenant-wide,"
    " password-spray, mfa-fatigue, mass-download, compromised-device, quiet (nothing), all.",
)
@click.option(
    "--licence",
    default="e5",
    show_default=True,
    metavar="NAME",
    help="What a new tenant has bought: free, business_basic, business_premium, p1, p2, e3, e5, no_xdr.",
)
@click.option(
    "--tenants",
    default=1,
    metavar="N",
    show_default=True,
    type=click.IntRange(1, 100),
    help="How many tenants to serve: connections sim, sim-2, sim-3 ...",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    metavar="N",
    help="Let the tenant's clock run so many times as fast.",
)
@click.option("--plain-http", is_flag=True, help="Speak HTTP without TLS: for measurements only.")
@click.option(
    "--requests-per-minute",
    type=click.IntRange(1),
    metavar="N",
    help="What the audit feed takes before it answers AF429. Default: 2000.",
)
@click.option(
    "--grants",
    metavar="LIST",
    help="What the application may do: all, or graph:User.Read.All,activity:ActivityFeed.Read ...;"
    " services that are not named keep theirs.",
)
@click.option(
    "--faults",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A JSON file: a list of faults, or an object with `faults` and `strictness`.",
)
@click.pass_context
def sim(
    context: click.Context,
    state_dir: Path | None,
    port: int,
    admin_port: int,
    seed: int,
    events: int,
    users: int,
    rules: int | None,
    scenarios: tuple[str, ...],
    licence: str,
    tenants: int,
    rate: float | None,
    plain_http: bool,
    requests_per_minute: int | None,
    grants: str | None,
    faults: Path | None,
) -> None:
    """Run the simulated tenant and its intake until Ctrl-C.

    It speaks the real protocols of Microsoft 365 on 127.0.0.1 behind TLS: token end-point, audit feed,
    Graph, intake. A tenant that was left unfinished goes on as it was. The settings are printed as
    connections for counterplay.yaml; `playbook run` in the same workspace finds the running simulator by
    itself.

    Exits 0 when it is stopped by Ctrl-C or SIGTERM, 2 when it cannot start.
    """
    from counterplay.places import find_state_dir

    folder = state_dir or find_state_dir()
    context.obj = folder
    if context.invoked_subcommand is not None:
        return
    from counterplay_sim.grants import parse_grants
    from counterplay_sim.scenario.build import DEFAULT, Plan, scenario_names
    from counterplay_sim.simulator import Simulator

    try:
        plan = Plan(
            events=events,
            users=users,
            rules=rules,
            scenarios=scenario_names(scenarios or (DEFAULT,)),
            licence=licence,
        )
        found, switches = _rules(faults)
        rules_of = _switches(switches, faults)
        if requests_per_minute is not None:
            rules_of = replace(rules_of, requests_per_minute=requests_per_minute)
        simulator = Simulator(
            folder,
            seed=seed,
            plan=plan,
            tenants=tenants,
            faults=found,
            strictness=rules_of,
            grants=None if grants is None else parse_grants(grants),
            port=port,
            admin_port=admin_port,
            tls=not plain_http,
        )
        _serve(simulator, rate)
    except BlockingIOError:
        _fail(ConfigError(f"another process serves the simulated tenant in {folder}", hint="stop it first"))
    except (CounterplayError, ValueError, TypeError) as error:
        _fail(error)


@sim.command()
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
@click.option("--tenant", metavar="N", help="Which tenant, by its number from 1 or its id.")
@click.pass_context
def report(context: click.Context, state_dir: Path | None, as_json: bool, tenant: str | None) -> None:
    """Print what the tenant knows: events that arrived or did not, who was changed, requests used.

    Exits 0 when every audit event arrived exactly once and byte-equal, 1 when not, 2 without a tenant.
    """
    from counterplay_sim.oracle import Oracle
    from counterplay_sim.report import full

    folder = state_dir or context.obj
    oracle = Oracle(folder)
    try:
        if tenant is None:
            verdict = oracle.verdict()
        else:
            verdict = oracle.verdict(tenant if len(tenant) == 36 else _nth(oracle, tenant))
    except LookupError as error:
        _fail(ConfigError(str(error), hint="run `playbook run quickstart` or `playbook sim` first"))
    click.echo(json.dumps(verdict.to_dict(), indent=2) if as_json else "\n".join(full(verdict)))
    context.exit(0 if verdict.events.ok else 1)


def _nth(oracle: Oracle, number: str) -> str:
    known = oracle.tenants()
    if not number.isdecimal() or not 0 < int(number) <= len(known):
        raise LookupError(f"there is no simulated tenant {number}; there are {len(known)}")
    return known[int(number) - 1]


def _serve(simulator: Simulator, rate: float | None = None) -> None:
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with simulator:
            if rate is not None:
                simulator.clock.run_at(rate)
            click.echo(_settings(simulator))
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _settings(simulator: Simulator) -> str:
    import yaml

    connections = {}
    for tenant in simulator.tenants:
        slot = tenant.row.slot
        number = "" if slot == 1 else f"-{slot}"
        connections[f"sim-tenant{number}"] = {"uses": "m365.tenant", **simulator.m365_settings(slot)}
        connections[f"sim-intake{number}"] = {"uses": "intake.key", **simulator.intake_settings(slot)}
    text: str = yaml.safe_dump({"connections": connections}, sort_keys=False)
    where = simulator.folder / "sim.json"
    admin = simulator.url("admin")
    return f"{text}# for other processes: COUNTERPLAY_SIM={where}\n# admin: {admin}\n# Ctrl-C ends it"


def _rules(file: Path | None) -> tuple[list[Fault], dict[str, Any]]:
    """The faults and the switches of a faults file. ConfigError: it is no such file."""
    if file is None:
        return [], {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"not a JSON file: {error}", path=file) from error
    if isinstance(content, list):
        content = {"faults": content}
    if not isinstance(content, dict) or not set(content) <= {"faults", "strictness"}:
        raise ConfigError(
            "a faults file holds a JSON list of faults, or an object with `faults` and `strictness`",
            path=file,
        )
    faults, switches = content.get("faults", []), content.get("strictness", {})
    if not isinstance(faults, list):
        raise ConfigError("`faults` is a list of rules", path=file)
    if not isinstance(switches, dict):
        raise ConfigError("`strictness` is an object of switches", path=file)
    return [_fault(rule, number, file) for number, rule in enumerate(faults, 1)], switches


def _fault(rule: Any, number: int, file: Path) -> Fault:
    from counterplay_sim.faults import Fault

    try:
        return Fault.parse(rule)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"fault {number}: {error}", path=file) from error


def _switches(switches: dict[str, Any], file: Path | None) -> Strictness:
    from counterplay_sim.strictness import Strictness

    try:
        return Strictness.parse(switches)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"strictness: {error}", path=file) from error


def _fail(error: Exception) -> None:
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(2)
