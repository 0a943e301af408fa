"""What a service runs: the enabled playbooks of a workspace, each as it was when it was last valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from counterplay.errors import ConfigError, CounterplayError
from counterplay.events import JsonObject
from counterplay.language import Playbook, Step
from counterplay.language.arguments import first_problem
from counterplay.modules import FeedTrigger, PollTrigger, PushTrigger
from counterplay.places import FILE
from counterplay.runtime.live import connections_of
from counterplay.runtime.opening import Opener
from counterplay.runtime.session import Task
from counterplay.workspace import Workspace

Load = Callable[[Workspace, str, Mapping[str, str]], object]
_SOURCES = (FeedTrigger, PollTrigger, PushTrigger)


@dataclass(frozen=True, slots=True)
class Selection:
    """What runs, by name, and what does not with the reason. `version` is another one after each change.

    `invalid` are those of `out` that nobody left out on purpose: they are wrong, even where their last good
    version runs on.
    """

    workspace: Workspace
    tasks: Mapping[str, Task] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    invalid: frozenset[str] = frozenset()
    version: str = ""


def fingerprint(workspace: Workspace) -> str:
    """A hash over the configuration and the playbook files: cheap enough for each second."""
    digest = hashlib.sha256()
    root = workspace.root
    files = [root / FILE, *sorted((root / "playbooks").glob("*.y*ml"))] if root is not None else []
    for file in files:
        try:
            digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
        except OSError:  # it was taken away between the listing and the reading
            digest.update(b"gone")
    return digest.hexdigest()


def select(workspace: Workspace, load: Load, last: Selection | None) -> Selection:
    """The enabled playbooks. One that is not valid (any more) stays as it was last, or stays out.

    ConfigError: the configuration itself is wrong, so nothing can be said of the playbooks.
    """
    settings: Mapping[str, Any] = workspace.config.get("playbooks") or {}
    opener = Opener(workspace)
    tasks: dict[str, Task] = {}
    out: dict[str, str] = {}
    invalid = set(settings) - set(workspace.playbooks())
    for name in invalid:
        out[name] = "counterplay.yaml names it under `playbooks:`, and there is no such playbook"
    for name in _enabled(workspace, settings):
        try:
            task = _task(opener, name, settings.get(name) or {}, load)
        except CounterplayError as error:
            text = str(error)
            if last is not None and name in last.tasks:
                tasks[name] = last.tasks[name]
                text = f"its last good version runs on: {text}"
            out[name] = text
            invalid.add(name)
            continue
        if task is None:
            out[name] = "it is started by hand only (`playbook run`)"
        else:
            tasks[name] = task
    return Selection(workspace, tasks, out, frozenset(invalid), _version(workspace, tasks))


def _enabled(workspace: Workspace, settings: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for name, file in workspace.playbooks().items():
        own = file is not workspace.shipped.get(name)
        about = settings.get(name)
        if (about or {}).get("enabled", own or about is not None):
            names.append(name)
    return names


def _task(opener: Opener, name: str, about: Mapping[str, Any], load: Load) -> Task | None:
    """The playbook with everything that it needs, opened once to see that it is there."""
    renames = dict(about.get("connections") or {})
    found = load(opener.workspace, name, renames)
    if not isinstance(found, Playbook):
        raise ConfigError("it is a set; enable its members under `playbooks:` one by one")
    inputs = _inputs(found, about.get("inputs") or {})
    if not issubclass(opener.host.module(found.trigger.uses).cls, _SOURCES):
        return None
    for connection in connections_of(opener, found, renames):
        meta = {"connection": connection.label} if connection is not None else {}
        for step in _all((*found.steps, *found.finally_steps)):
            if step.use is not None:
                opener.connection_for(step.use, found, renames, meta)
        for use in found.sinks:
            opener.connection_for(use, found, renames, meta)
    return Task(found, inputs, renames)


def _inputs(playbook: Playbook, given: Mapping[str, Any]) -> JsonObject:
    values: JsonObject = {}
    for name in given:
        if name not in playbook.inputs:
            raise ConfigError(f"it has no input {name!r}, which counterplay.yaml gives")
    for name, schema in playbook.inputs.items():
        if name in given:
            problem = first_problem(given[name], schema)
            if problem:
                raise ConfigError(f"the input {name!r} is not right: {problem}")
            values[name] = given[name]
        elif "default" in schema:
            values[name] = schema["default"]
        else:
            hint = f"give it in counterplay.yaml under playbooks.{playbook.name}.inputs"
            raise ConfigError(f"the input {name!r} is missing", hint=hint)
    return values


def _all(steps: tuple[Step, ...]) -> list[Step]:
    found: list[Step] = []
    for step in steps:
        handlers = step.on_error if isinstance(step.on_error, tuple) else ()
        found += [step, *_all(step.steps), *_all(handlers)]
    return found


def _version(workspace: Workspace, tasks: Mapping[str, Task]) -> str:
    about = {name: [one.playbook.document, one.inputs, one.renames] for name, one in tasks.items()}
    text = json.dumps([about, workspace.config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
