"""The first version of a playbook and of its test, from the modules that it is to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from counterplay.cases.examples import example_of
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.modules import Action, Control, Kind
from counterplay.plugins import ModuleInfo, PluginHost
from counterplay.workspace import Workspace, with_article


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants: a trigger, steps as `USES` or `ID=USES`, sinks, and connections by kind."""

    name: str
    description: str
    trigger: str
    steps: Sequence[str] = ()
    sinks: Sequence[str] = ()
    connections: Mapping[str, str] | None = None


def sketched(wish: Wish, workspace: Workspace) -> JsonObject:
    """The playbook, as it stands in a file: required arguments hold the examples of their schemas.

    ConfigError: a module does not exist or has no place there, or no connection of its kind is known.
    """
    host = workspace.host
    sketch = _Sketch(workspace, wish.connections or {})
    if not wish.steps and not wish.sinks:
        raise ConfigError("a playbook needs a step or a sink", hint="name one with --step or --sink")
    document: JsonObject = {"name": wish.name, "description": wish.description}
    document["trigger"] = sketch.use(_module(host, wish.trigger, ("trigger",)))
    ids: set[str] = set()
    steps = []
    for word in wish.steps:
        name, _, uses = word.rpartition("=")
        info = _module(host, uses, ("action", "transform", "sink"))
        identity = _free(name or info.cls.name, ids)
        steps.append({"id": identity, **sketch.use(info)})
    if steps:
        document["steps"] = steps
    if wish.sinks:
        document["sinks"] = [sketch.use(_module(host, uses, ("sink",))) for uses in wish.sinks]
    return document


def sketched_case(document: JsonObject, host: PluginHost) -> JsonObject:
    """The circumstances of its first case: an event, an answer for each action, and people who agree."""
    answers: JsonObject = {}
    approvals: JsonObject = {}
    for step in document.get("steps", []):
        info = host.module(step["uses"])
        result = info.schema.get("$defs", {}).get("result", {})
        if issubclass(info.cls, Control):
            if "approved" in result.get("properties", {}):
                approvals[step["id"]] = {"say": "approve", "by": "somebody", "after": "10m"}
        elif issubclass(info.cls, Action):
            answers[step["id"]] = {"result": example_of({**result, "$defs": info.schema.get("$defs", {})})}
    given: JsonObject = {"event": {"id": "event-1"}}
    if answers:
        given["answers"] = answers
    if approvals:
        given["approvals"] = approvals
    return given


class _Sketch:
    def __init__(self, workspace: Workspace, connections: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._connections = connections

    def use(self, info: ModuleInfo) -> JsonObject:
        found: JsonObject = {"uses": info.uses}
        if info.cls.connection is not None:
            found["connection"] = self._connection(info.cls.connection)
        arguments = example_of(info.schema)
        if arguments:
            found["with"] = arguments
        return found

    def _connection(self, kind: str) -> str:
        """The one that was asked for, else the workspace's own, else one that a plugin offers."""
        if kind in self._connections:
            return self._connections[kind]
        own = [name for name, entry in self._workspace.entries.items() if entry.uses == kind]
        offered = [name for name, offers in self._workspace.offers if offers == kind]
        if own or offered:
            return [*own, *offered][0]
        raise ConfigError(
            f"no connection of kind {kind} is known",
            hint=f"add one to counterplay.yaml, or name one that will be there: --connection {kind}=NAME",
        )


def _module(host: PluginHost, uses: str, kinds: tuple[Kind, ...]) -> ModuleInfo:
    info = host.module(uses)
    if info.kind not in kinds:
        wanted = " or ".join(with_article(kind) for kind in kinds)
        raise ConfigError(
            f"{uses} is {with_article(info.kind)}, not {wanted}", hint="`playbook modules` lists them"
        )
    return info


def _free(name: str, taken: set[str]) -> str:
    base, number = name, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name
