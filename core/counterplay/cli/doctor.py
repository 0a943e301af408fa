"""`playbook doctor`: what would be refused, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from counterplay.cli.output import json_option, print_json, print_table
from counterplay.errors import ConfigError, CounterplayError

if TYPE_CHECKING:
    from counterplay.events import Diagnosis, Need
    from counterplay.language import Playbook, Use
    from counterplay.plugins import ModuleInfo
    from counterplay.runtime.opening import Opener
    from counterplay.workspace import Workspace

INTERNAL = "internal"
"""What a need is called that no module has: to be told which domains are inside."""
_WORDS = {True: "ok", False: "REFUSED", None: "not known"}


@dataclass
class _Patient:
    """One connection, and what the playbooks that use it need of it."""

    name: str
    kind: str
    needs: list[Need] = field(default_factory=list)
    users: dict[int, set[str]] = field(default_factory=dict)
    """The playbooks that have a need, by its place in `needs`."""

    def add(self, need: Need, playbook: str) -> None:
        """A module with other arguments is another need: what a tenant offers may depend on them."""
        if need not in self.needs:
            self.needs.append(need)
        self.users.setdefault(self.needs.index(need), set()).add(playbook)

    def playbooks(self, one: Diagnosis) -> set[str]:
        """Those that a line concerns."""
        places = (
            [place for place, need in enumerate(self.needs) if need.uses == one.about]
            if one.need is None
            else [self.needs.index(one.need)]
        )
        return set().union(*(self.users[place] for place in places or self.users))


@click.command()
@click.argument("name", required=False)
@click.option(
    "--connection",
    "connections",
    multiple=True,
    metavar="NAME=OTHER",
    help="Look at the connection OTHER where a playbook names NAME; `sim` is the simulated one.",
)
@json_option
def doctor(name: str | None, connections: tuple[str, ...], as_json: bool) -> None:
    """Say for the playbook NAME, or for all of the workspace, what its connections would refuse, and why.

    Looks at permissions, licences, reachability, clocks and whatever else a connection knows to look at;
    reads only. Below the table stands the smallest grant that would do.

    Exits 0 when nothing would be refused, 1 when something would be, 2 when the input is invalid; of
    several playbooks those that are not valid are named, and the others looked at all the same.
    """
    from counterplay.cli.loading import known_renames, open_workspace
    from counterplay.cli.run import pairs
    from counterplay.runtime.opening import Opener

    workspace = open_workspace()
    renames = known_renames(workspace, pairs(connections, "--connection", "NAME=OTHER"))
    opener = Opener(workspace)
    chosen, invalid = _chosen(workspace, name, renames)
    rows: list[dict[str, Any]] = []
    for patient in _patients(workspace, chosen):
        rows += _rows(opener, patient)
    grants = _smallest_grants(rows)
    told = [str(error) for error in invalid]
    if as_json:
        print_json({"findings": rows, "grants": grants, "invalid": told})
    elif chosen or not invalid:
        _print(rows, grants)
    for line in told:
        click.echo(f"not looked at: {line}", err=True)
    if invalid:
        sys.exit(2)
    if any(row["ok"] is False for row in rows):
        sys.exit(1)


def _rows(opener: Opener, patient: _Patient) -> list[dict[str, Any]]:
    """What was found about a connection; what is said of several uses of a module is said once."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    users: dict[tuple[Any, ...], set[str]] = {}
    for one in _examined(opener, patient):
        key = (one.about, one.ok, one.detail, one.grant)
        found[key] = {
            "connection": patient.name,
            "about": one.about,
            "ok": one.ok,
            "detail": opener.secrets.mask(one.detail),
            "grant": list(one.grant),
        }
        users.setdefault(key, set()).update(patient.playbooks(one))
    return [{**row, "playbooks": sorted(users[key])} for key, row in found.items()]


def _print(rows: Sequence[Mapping[str, Any]], grants: Mapping[str, Sequence[str]]) -> None:
    if not rows:
        click.echo("no playbook of these uses a connection")
        return
    everybody: dict[str, set[str]] = {}
    for row in rows:
        everybody.setdefault(row["connection"], set()).update(row["playbooks"])
    heads = ["CONNECTION", "ABOUT", "RESULT", "DETAIL"]
    cells = [[row["connection"], row["about"], _WORDS[row["ok"]], row["detail"]] for row in rows]
    if len(set().union(*everybody.values())) > 1:
        heads.insert(3, "PLAYBOOKS")
        for cell, row in zip(cells, rows, strict=True):
            names = row["playbooks"]
            cell.insert(3, "all" if set(names) == everybody[row["connection"]] else ", ".join(names))
    print_table(heads, cells)
    for connection, names in grants.items():
        click.echo(f"\nThe smallest grant that would do for {connection}:")
        for permission in names:
            click.echo(f"  {permission}")


def _smallest_grants(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each connection the permissions that are missing, each once."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for permission in row["grant"] if row["ok"] is False else ():
            names = found.setdefault(row["connection"], [])
            if permission not in names:
                names.append(permission)
    return found


def _chosen(
    workspace: Workspace, name: str | None, renames: Mapping[str, str]
) -> tuple[list[tuple[Playbook, Mapping[str, str]]], list[CounterplayError]]:
    """The playbooks to look at, each with the connections that stand for those it names; what is wrong
    with the others, unless one was asked for by its name.
    """
    from counterplay.cli.loading import load_playbook, members
    from counterplay.language import PlaybookSet

    if name is None:
        if workspace.root is None:
            raise ConfigError(
                "there is no workspace here", hint="name a playbook, or make one: playbook init"
            )
        names = [one for one in workspace.playbooks() if one not in workspace.shipped]
        if not names:
            raise ConfigError("the workspace has no playbook of its own", hint="name one")
    else:
        names = [name]
    found: list[tuple[Playbook, Mapping[str, str]]] = []
    invalid: list[CounterplayError] = []
    for one in names:
        try:
            loaded = load_playbook(workspace, one, renames)
            if isinstance(loaded, PlaybookSet):
                found += members(workspace, loaded, renames)
            else:
                found.append((loaded, renames))
        except CounterplayError as error:
            if name is not None:
                raise
            invalid.append(error)
    return found, invalid


def _patients(
    workspace: Workspace, playbooks: Sequence[tuple[Playbook, Mapping[str, str]]]
) -> list[_Patient]:
    """Every connection that the playbooks use, with what they need of it."""
    from counterplay.language import Labels, connection_of

    found: dict[tuple[str, str], _Patient] = {}
    for playbook, renames in playbooks:
        for use in _uses(playbook):
            info = workspace.host.module(use.uses)
            kind = info.cls.connection
            named = connection_of(use, playbook, workspace.host)
            if kind is None or named is None:
                continue
            names = (
                workspace.labelled(named.labels, kind)
                if isinstance(named, Labels)
                else [renames.get(named, named)]
            )
            for name in names:
                patient = found.setdefault((name, kind), _Patient(name, kind))
                patient.add(_need(playbook, use, info), playbook.name)
                if use is playbook.trigger and _asks_for_domains(workspace, playbook, info):
                    patient.add(_domains_need(workspace, kind), playbook.name)
    return list(found.values())


def _asks_for_domains(workspace: Workspace, playbook: Playbook, trigger: ModuleInfo) -> bool:
    """Whether a playbook wants to know what is inside, and its trigger's connection has to say it."""
    from counterplay.runtime.internal import knows_domains

    if not playbook.asks_internal or workspace.internal.get("domains") is not None:
        return False
    kind = trigger.cls.connection
    return kind is not None and knows_domains(workspace.host.module(kind).cls)


def _domains_need(workspace: Workspace, kind: str) -> Need:
    return replace(workspace.host.module(kind).need({}), uses=INTERNAL)


def needs_by_kind(workspace: Workspace, names: Sequence[str], kind: str) -> list[Need]:
    """What playbooks need of a kind of connection, whatever their connections are called.

    ConfigError: there is no such playbook. PlaybookError: one is wrong.
    """
    from counterplay.language import PlaybookSet, load

    found: list[Need] = []
    left = list(names)
    while left:
        loaded = load(workspace.playbook_file(left.pop(0)), workspace.host)
        if isinstance(loaded, PlaybookSet):
            left += loaded.playbooks
            continue
        for use in _uses(loaded):
            info = workspace.host.module(use.uses)
            if info.cls.connection != kind:
                continue
            added = [_need(loaded, use, info)]
            if use is loaded.trigger and _asks_for_domains(workspace, loaded, info):
                added.append(_domains_need(workspace, kind))
            found += [need for need in added if need not in found]
    return found


def _need(playbook: Playbook, use: Use, info: ModuleInfo) -> Need:
    """What a use needs, its trigger's arguments as they are when every input has its default."""
    from counterplay.language import with_defaults

    arguments = use.arguments
    if use is playbook.trigger:
        inputs = {name: schema["default"] for name, schema in playbook.inputs.items() if "default" in schema}
        try:
            arguments = use.template.render({"inputs": inputs})
        except CounterplayError:  # it takes an input that has none
            arguments = use.arguments
    return info.need(with_defaults(info.schema, arguments))


def _uses(playbook: Playbook) -> Iterator[Use]:
    """Every use of a module in a playbook: trigger, steps of every form, sinks."""
    yield playbook.trigger
    stack = [*playbook.steps, *playbook.finally_steps]
    while stack:
        step = stack.pop(0)
        if step.use is not None:
            yield step.use
        stack = [*step.steps, *(step.on_error if isinstance(step.on_error, tuple) else ()), *stack]
    yield from playbook.sinks


def _examined(opener: Opener, patient: _Patient) -> Iterator[Diagnosis]:
    from counterplay.events import Diagnosis
    from counterplay.modules import Context

    try:
        connection = opener.connection(patient.name, patient.kind)
        with opener.wire(connection) as http:
            http.attempts = 2
            yield from connection.examine(Context(http=http, connection=connection), tuple(patient.needs))
    except CounterplayError as error:
        yield Diagnosis("connection", False, str(error))
