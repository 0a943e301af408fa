"""A playbook as an OASIS CACAO Security Playbook 2.0, and a list of what that cannot say.

CACAO has steps, branches and variables, but no triggers, no modules with arguments, and conditions in
the STIX pattern grammar only. So each step is an action that a person or an orchestrator can read, and
the exact words of ours stand in an extension beside it: nothing is lost for whoever knows them.

Ids are made from names (UUIDv5): the same playbook always has the same ids, wherever it is exported.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language.build import all_steps, step_ids
from counterplay.language.durations import parse_duration
from counterplay.language.model import Playbook
from counterplay.modules import Control
from counterplay.plugins import ModuleInfo, PluginHost

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:counterplay:cacao")
_TYPES = {
    "string": "string",
    "boolean": "bool",
    "integer": "integer",
    "number": "float",
    "object": "dictionary",
}
_OURS = ("uses", "connection", "with", "when", "for_each", "max_parallel", "retry", "timeout", "verify")


@dataclass(frozen=True, slots=True)
class Export:
    """The CACAO playbook, and what of the playbook only stands in its extension, a sentence each."""

    document: JsonObject
    not_carried: tuple[str, ...]


def cacao(playbook: Playbook, host: PluginHost, *, created: str, modified: str) -> Export:
    """Export a playbook. Times are RFC 3339 in UTC with milliseconds."""
    return _Exporter(playbook, host, created, modified).export()


def playbook_id(name: str) -> str:
    """The id that a playbook of this name has everywhere."""
    return f"playbook--{uuid.uuid5(NAMESPACE, name)}"


@dataclass(frozen=True, slots=True)
class _Then:
    """Where a step goes on: when it is done, and when it fails (None: the playbook's exception step)."""

    done: str
    failed: str | None = None

    def inside(self, end: str) -> _Then:
        """The same in a branch that ends there: what goes on after a failure ends the branch, too."""
        return _Then(end, end if self.failed == self.done else self.failed)


@dataclass
class _Exporter:
    playbook: Playbook
    host: PluginHost
    created: str
    modified: str
    workflow: JsonObject = field(default_factory=dict)
    variables: JsonObject = field(default_factory=dict)
    agents: JsonObject = field(default_factory=dict)
    summary: dict[str, bool] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.document = self.playbook.document
        self.ids = step_ids(self.document)
        self.author = self._id("identity", "author")
        self.extension = f"extension-definition--{uuid.uuid5(NAMESPACE, 'extension 1')}"

    def export(self) -> Export:
        document = self.document
        self._inputs()
        closing = self._end("end")
        for number, sink in reversed(list(enumerate(document.get("sinks", [])))):
            closing = self._sink(number, sink, closing)
        if document.get("finally"):
            closing = self._sequence(document["finally"], _Then(closing))
        first = self._sequence(document.get("steps", []), _Then(closing))
        first = self._before(first)
        start = self._put("start", "start", {"on_completion": first})
        found: JsonObject = {
            "type": "playbook",
            "spec_version": "cacao-2.0",
            "id": playbook_id(self.playbook.name),
            "name": self.playbook.name,
            "description": self.playbook.description or f"The playbook {self.playbook.name}.",
            **self._kinds(),
            "playbook_processing_summary": {**self.summary, "extensions": True},
            "created_by": self.author,
            "created": self.created,
            "modified": self.modified,
            "labels": ["counterplay"],
        }
        if self.variables:
            found["playbook_variables"] = self.variables
        found["workflow_start"] = start
        if self.workflow[closing]["type"] != "end":
            found["workflow_exception"] = closing
        found["workflow"] = self.workflow
        found["playbook_extensions"] = {self.extension: self._extended()}
        found["agent_definitions"] = self.agents
        found["extension_definitions"] = {self.extension: self._definition()}
        modules = ", ".join([*self._modules(), *(sink["uses"] for sink in document.get("sinks", []))])
        self.lost.append(f"what {modules} do: CACAO has no modules, so that it is told to people in words")
        return Export(found, tuple(dict.fromkeys(self.lost)))

    # --- the whole -------------------------------------------------------------------------------

    def _kinds(self) -> JsonObject:
        """What kind of playbook it is, as far as its modules say so."""
        infos = [self.host.modules[uses] for uses in self._modules() if uses in self.host.modules]
        changes = any(getattr(info.cls, "effect", False) is True for info in infos)
        types, activities = (["mitigation"], ["configure-systems"]) if changes else ([], [])
        if self.document.get("sinks"):
            types, activities = [*types, "notification"], [*activities, "deliver-content"]
        return {"playbook_types": types, "playbook_activities": activities} if types else {}

    def _modules(self) -> list[str]:
        steps = all_steps(self.document)
        return list(dict.fromkeys(str(step["uses"]) for step in steps if "uses" in step))

    def _inputs(self) -> None:
        for name, schema in self.document.get("inputs", {}).items():
            kind = schema.get("type", "string")
            about: JsonObject = {"type": _TYPES.get(kind, "string") if isinstance(kind, str) else "string"}
            if schema.get("description"):
                about["description"] = schema["description"]
            if "default" in schema:
                value = schema["default"]
                about["value"] = value if isinstance(value, str) else json.dumps(value)
            about["external"] = True
            self.variables[f"__{name}__"] = about

    def _extended(self) -> JsonObject:
        names = ("trigger", "filter", "once_per", "inputs")
        kept = {name: self.document[name] for name in names if name in self.document}
        uses = self.playbook.trigger.uses
        self.lost.append(f"the trigger {uses}: CACAO does not say what starts a playbook")
        if "once_per" in kept:
            self.lost.append("once_per: CACAO does not bound how often a playbook starts")
        return kept

    def _definition(self) -> JsonObject:
        return {
            "type": "extension-definition",
            "name": "counterplay",
            "description": "The exact words of a counterplay playbook: trigger, modules and expressions.",
            "created_by": self.author,
            "schema": "urn:counterplay:core/playbook",
            "version": "1",
        }

    def _before(self, first: str) -> str:
        """The filter, in front of all steps: what it does not let through ends at once."""
        if "filter" not in self.document:
            return first
        end, after = self._end("filtered"), self._end("after the filter")
        return self._condition("the filter", "filter", self.document["filter"], first, end, after)

    # --- steps -----------------------------------------------------------------------------------

    def _sequence(self, steps: Sequence[JsonObject], then: _Then) -> str:
        """Put steps that follow one another; the id of the first of them."""
        following = then.done
        for step in reversed(steps):
            following = self._step(step, replace(then, done=following))
        return following

    def _step(self, step: JsonObject, then: _Then) -> str:
        name = self.ids[id(step)]
        handler = step.get("on_error", "stop")
        if handler == "continue":
            then = replace(then, failed=then.done)
        elif isinstance(handler, list):
            then = replace(then, failed=self._sequence(handler, then))

        def body(inner: _Then) -> str:
            if "when" not in step:
                return self._formed(step, name, inner)
            inside = self._formed(step, name, inner.inside(self._end(f"{name} when")))
            return self._condition(f"step {name}", f"when_{name}", step["when"], inside, None, inner.done)

        if "for_each" in step:
            return self._loop(step, name, body, then)
        return body(then)

    def _formed(self, step: JsonObject, name: str, then: _Then) -> str:
        if "parallel" in step:
            return self._parallel(step, name, then)
        if "steps" in step:
            self._unsaid(step, name, ("retry", "timeout"))
            return self._sequence(step["steps"], then)
        return self._module(step, name, then)

    def _parallel(self, step: JsonObject, name: str, then: _Then) -> str:
        branches = step["parallel"]
        self._unsaid(step, name, ("retry", "timeout"))
        if len(branches) == 1:  # CACAO wants two at least
            return self._sequence(branches, then)
        self.summary["parallel_processing"] = True
        firsts = [
            self._step(branch, then.inside(self._end(f"{name} branch {number}")))
            for number, branch in enumerate(branches)
        ]
        return self._put("parallel", f"step {name}", {"name": name, "next_steps": firsts, **_next(then)})

    def _loop(self, step: JsonObject, name: str, body: Callable[[_Then], str], then: _Then) -> str:
        self.summary["while_logic"] = True
        inside = body(then.inside(self._end(f"{name} element")))
        variable = self._variable(f"each_{name}", f"There is an element left of: {step['for_each']}")
        self.lost.append(f"step {name}: `for_each: {step['for_each']}` is a loop on the variable {variable}")
        about: JsonObject = {"name": name, "condition": f"{variable}:value = true", "on_true": inside}
        about["on_completion"] = then.done
        return self._put("while-condition", f"each {name}", about)

    def _condition(
        self,
        where: str,
        name: str,
        expression: str,
        yes: str,
        no: str | None,
        following: str,
    ) -> str:
        """An if: CACAO knows STIX patterns only, so that a variable stands for the expression."""
        self.summary["if_logic"] = True
        variable = self._variable(name, f"True when: {expression}")
        self.lost.append(f"{where}: the condition `{expression}` stands behind the variable {variable}")
        about: JsonObject = {"name": where, "condition": f"{variable}:value = true", "on_true": yes}
        if no is not None:
            about["on_false"] = no
        return self._put("if-condition", f"if {name}", {**about, "on_completion": following})

    def _variable(self, name: str, description: str) -> str:
        made = f"__{name}__"
        self.variables[made] = {"type": "bool", "description": description, "external": False}
        return made

    def _module(self, step: JsonObject, name: str, then: _Then) -> str:
        info = self.host.module(step["uses"])
        self._unsaid(step, name, ("retry", "verify"))
        common: JsonObject = {"name": name, "description": info.summary, **_next(then)}
        if "timeout" in step:
            common["timeout"] = _milliseconds(step["timeout"])
            self.summary["temporal_logic"] = True
        common["step_extensions"] = {self.extension: {key: step[key] for key in _OURS if key in step}}
        called = step.get("with", {}).get("playbook") if issubclass(info.cls, Control) else None
        if isinstance(called, str) and "{{" not in called:
            self.summary["external_playbooks"] = True
            return self._put(
                "playbook-action", f"step {name}", {**common, "playbook_id": playbook_id(called)}
            )
        command: JsonObject = {"type": "manual", "command": self._command(info, step)}
        asks = issubclass(info.cls, Control) and "question" in step.get("with", {})
        agent = self._agent("group", "approvers") if asks else self._agent("security-category", "counterplay")
        return self._put("action", f"step {name}", {**common, "commands": [command], "agent": agent})

    def _command(self, info: ModuleInfo, step: JsonObject) -> str:
        """What is to be done, as a person reads it."""
        arguments = step.get("with", {})
        if "question" in arguments:
            return str(arguments["question"])
        words = ", ".join(f"{name}: {_plain(value)}" for name, value in arguments.items())
        return f"{info.summary} ({info.uses}{f'; {words}' if words else ''})"

    def _sink(self, number: int, sink: JsonObject, following: str) -> str:
        info = self.host.module(sink["uses"])
        about = {
            "name": sink["uses"],
            "description": info.summary,
            "on_completion": following,
            "commands": [{"type": "manual", "command": f"Deliver the outcome. {info.summary} ({info.uses})"}],
            "agent": self._agent("security-category", "counterplay"),
            "step_extensions": {self.extension: {key: sink[key] for key in _OURS if key in sink}},
        }
        return self._put("action", f"sink {number}", about)

    def _unsaid(self, step: JsonObject, name: str, keys: Sequence[str]) -> None:
        for key in (*keys, "max_parallel"):
            if key in step:
                self.lost.append(f"step {name}: `{key}` has no counterpart")

    # --- objects ---------------------------------------------------------------------------------

    def _agent(self, kind: str, name: str) -> str:
        identity = self._id(kind, f"agent {name}")
        about: JsonObject = {"type": kind, "name": name}
        if kind == "security-category":
            about["category"] = ["orchestrator"]
        self.agents[identity] = about
        return identity

    def _end(self, place: str) -> str:
        """Each branch has an end of its own: that is how it is known to be done."""
        return self._put("end", f"end {place}", {})

    def _put(self, kind: str, place: str, about: JsonObject) -> str:
        identity = self._id(kind, place)
        self.workflow[identity] = {"type": kind, **about}
        return identity

    def _id(self, kind: str, place: str) -> str:
        return f"{kind}--{uuid.uuid5(NAMESPACE, f'{self.playbook.name}/{place}')}"


def _next(then: _Then) -> JsonObject:
    if then.failed is None:
        return {"on_completion": then.done}
    return {"on_success": then.done, "on_failure": then.failed}


def _milliseconds(text: str) -> int:
    return max(1, round(parse_duration(text).total_seconds() * 1000))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def timestamp(text: str) -> str:
    """A time as CACAO writes it, with milliseconds. ConfigError: it is none."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time", hint="write 2026-03-02T08:00:00Z") from error
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
