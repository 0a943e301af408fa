"""Turns the document of a checked playbook into a `Playbook`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from counterplay.events import JsonObject
from counterplay.language.durations import parse_duration
from counterplay.language.expressions import Condition, Expressions, Template
from counterplay.language.model import (
    ConnectionRef,
    Labels,
    OncePer,
    Playbook,
    PlaybookSet,
    Retry,
    Step,
    TriggerUse,
    Use,
    names_internal,
)
from counterplay.plugins import PluginHost

Part = TypeVar("Part", Condition, Template)
_BY_HOST: WeakKeyDictionary[PluginHost, Expressions] = WeakKeyDictionary()


def expressions_of(host: PluginHost) -> Expressions:
    """The compiler of a host's expressions, with the filters of its plugins: one for each host."""
    found = _BY_HOST.get(host)
    if found is None:
        found = _BY_HOST[host] = Expressions(host.template_filters)
    return found


def from_document(document: JsonObject, host: PluginHost) -> Playbook:
    """The playbook of a run's snapshot: the JSON form of a playbook that was checked before.

    ConfigError: a module that it uses is no longer installed, or a filter of an expression is gone.
    """
    return _Builder(document, host).playbook()


def set_from_document(document: JsonObject) -> PlaybookSet:
    """The set of a checked document."""
    return PlaybookSet(
        document["name"],
        document.get("description", ""),
        tuple(document["playbooks"]),
        dict(document.get("connections") or {}),
        document.get("once", False),
        document,
    )


def step_ids(document: JsonObject) -> dict[int, str]:
    """The id of each step of a document, by `id()` of its mapping: its own, else its module's name.

    A name that is taken gets a number: `get_user`, `get_user_2`. The same document always gives the
    same ids, so that a run finds its results again.
    """
    steps = list(all_steps(document))
    taken = {step["id"] for step in steps if isinstance(step.get("id"), str)}
    found: dict[int, str] = {}
    for step in steps:
        name = step.get("id")
        if not isinstance(name, str):
            name = base = _derived(step)
            number = 2
            while name in taken:
                name, number = f"{base}_{number}", number + 1
            taken.add(name)
        found[id(step)] = name
    return found


def all_steps(document: JsonObject) -> Iterator[JsonObject]:
    """Every step mapping of a document, in its order, at any depth."""
    for key in ("steps", "parallel", "on_error", "finally"):
        children = document.get(key)
        for child in children if isinstance(children, list) else ():
            if isinstance(child, dict):
                yield child
                yield from all_steps(child)


def _derived(step: JsonObject) -> str:
    uses = step.get("uses")
    if isinstance(uses, str):
        return uses.rpartition(".")[2]
    return "parallel" if "parallel" in step else "group"


class _Builder:
    def __init__(self, document: JsonObject, host: PluginHost) -> None:
        self.document = document
        self.host = host
        self.expressions = expressions_of(host)
        self.ids = step_ids(document)
        self.asks_internal = False

    def playbook(self) -> Playbook:
        document = self.document
        found = Playbook(
            document["name"],
            document.get("description") or "",
            document.get("inputs") or {},
            self.trigger(document["trigger"]),
            self.condition(document.get("filter")),
            self.once_per(document.get("once_per")),
            self.steps(document.get("steps")),
            self.steps(document.get("finally")),
            tuple(self.use(sink) for sink in document.get("sinks") or ()),
            document,
        )
        return replace(found, asks_internal=self.asks_internal)

    def trigger(self, document: JsonObject) -> TriggerUse:
        use = self.use(document)
        on = document.get("on", "first")
        return TriggerUse(use.uses, use.kind, use.connection, use.arguments, use.template, on)

    def use(self, document: JsonObject) -> Use:
        arguments = document.get("with") or {}
        return Use(
            document["uses"],
            self.host.module(document["uses"]).kind,
            _connection(document.get("connection")),
            arguments,
            self.template(arguments),
        )

    def steps(self, documents: Iterable[JsonObject] | None) -> tuple[Step, ...]:
        return tuple(self.step(document) for document in documents or ())

    def step(self, document: JsonObject) -> Step:
        use = self.use(document) if "uses" in document else None
        on_error, verify = document.get("on_error", "stop"), document.get("verify")
        return Step(
            id=self.ids[id(document)],
            form="module" if use else "parallel" if "parallel" in document else "group",
            use=use,
            arguments=use.template if use else self.expressions.template({}),
            when=self.condition(document.get("when")),
            for_each=self.for_each(document.get("for_each")),
            max_parallel=document.get("max_parallel", 1),
            retry=_retry(document.get("retry")),
            timeout=parse_duration(document["timeout"]) if "timeout" in document else None,
            on_error=self.steps(on_error) if isinstance(on_error, list) else on_error,
            verify=document.get("verify") is True,
            verify_after=tuple(verify["after"]) if isinstance(verify, dict) else (),
            steps=self.steps(document.get("parallel") or document.get("steps")),
        )

    def condition(self, source: str | None) -> Condition | None:
        return self.noted(self.expressions.condition(source)) if source is not None else None

    def for_each(self, source: str | None) -> Template | None:
        return self.noted(self.expressions.value(source, "for_each")) if source is not None else None

    def template(self, value: Any, where: str = "with") -> Template:
        return self.noted(self.expressions.template(value, where))

    def noted(self, part: Part) -> Part:
        self.asks_internal = self.asks_internal or names_internal(part)
        return part

    def once_per(self, document: JsonObject | None) -> OncePer | None:
        if document is None:
            return None
        key = self.template(document["key"], "once_per.key")
        return OncePer(key, parse_duration(document["window"]))


def _connection(value: Any) -> ConnectionRef | None:
    return Labels(tuple(value["labels"])) if isinstance(value, dict) else value


def _retry(document: JsonObject | None) -> Retry | None:
    if document is None:
        return None
    waits = {name: parse_duration(document[name]) for name in ("backoff", "max_backoff") if name in document}
    return Retry(document["attempts"], **waits)
