"""Checks what the schema of the language cannot: modules, arguments, expressions, references, connections.

Works on what is there: a part that the schema refused is skipped here, so that one run of `check`
shows everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from counterplay.errors import CounterplayError
from counterplay.events import JsonObject
from counterplay.language.arguments import problems, schema_problem
from counterplay.language.build import expressions_of, step_ids
from counterplay.language.connections import ConnectionCatalogue
from counterplay.language.expressions import ExpressionSyntaxError, is_template
from counterplay.language.findings import Finding, did_you_mean
from counterplay.language.scopes import StepScope
from counterplay.language.syntax import Reference
from counterplay.language.yaml_text import Document
from counterplay.modules import Kind
from counterplay.plugins import ModuleInfo, PluginHost

Path = tuple[str | int, ...]
Results = dict[str, JsonObject | None]

_PLACES: dict[Kind, str] = {
    "trigger": "under `trigger:`",
    "transform": "under `steps:`",
    "action": "under `steps:`",
    "sink": "under `sinks:`",
    "connection": "in counterplay.yaml, and is named by `connection:`",
}
_EVENT_ONLY = frozenset(("event", "meta", "inputs", "internal"))
_IN_STEPS = frozenset(("event", "meta", "inputs", "internal", "steps", "run"))


def check(document: Document, host: PluginHost, catalogue: ConnectionCatalogue | None) -> list[Finding]:
    """Everything that is wrong with a playbook or a set besides its form."""
    checker = _Checker(document, host, catalogue)
    checker.no_references((), document.data)
    if "playbooks" in document.data:
        checker.set_connections()
    else:
        checker.playbook()
    return checker.findings


class _Checker:
    def __init__(self, document: Document, host: PluginHost, catalogue: ConnectionCatalogue | None) -> None:
        self.document = document
        self.data: JsonObject = document.data
        self.host = host
        self.catalogue = catalogue
        self.expressions = expressions_of(host)
        self.findings: list[Finding] = []
        self.ids = step_ids(self.data)
        self.inputs = frozenset(_mapping(self.data.get("inputs")))
        self.trigger: ModuleInfo | None = None

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        self.findings.append(self.document.finding(path, message, hint, key=key))

    def no_references(self, path: Path, value: Any) -> None:
        """`${...}` stands in counterplay.yaml only."""
        if isinstance(value, str) and "${" in value:
            self.add(
                path,
                "a ${...} reference in a playbook",
                "put it into counterplay.yaml and name the connection",
            )
        elif isinstance(value, dict):
            for name, part in value.items():
                self.no_references((*path, name), part)
        elif isinstance(value, list):
            for place, part in enumerate(value):
                self.no_references((*path, place), part)

    def set_connections(self) -> None:
        for name, target in _mapping(self.data.get("connections")).items():
            if self.catalogue is not None and isinstance(target, str) and not self.catalogue.kinds(target):
                self.no_connection(("connections", name), target)

    # -- the parts of a playbook

    def playbook(self) -> None:
        self.input_schemas()
        early = StepScope(frozenset(("inputs",)), self.inputs, "the trigger begins before there is an event")
        why = "filters see the event alone: event, meta, inputs and internal"
        filters = StepScope(_EVENT_ONLY, self.inputs, why)
        self.check_trigger(early)
        self.condition(("filter",), self.data.get("filter"), filters)
        if "once_per" in self.data:
            self.texts(("once_per", "key"), _mapping(self.data["once_per"]).get("key"), filters)
        later = frozenset(self.ids.values())
        why = f"an expression here sees {', '.join(sorted(_IN_STEPS))}"
        scope = StepScope(_IN_STEPS, self.inputs, why, {}, later)
        self.unique_ids(("steps",), self.data.get("steps"), {})
        done = self.sequence(("steps",), self.data.get("steps"), scope, leading=True)
        if self.data.get("finally"):
            self.sequence(("finally",), self.data["finally"], scope.after(done))
        sinks = StepScope(
            frozenset(("inputs",)), self.inputs, "a sink takes many records at once: it sees inputs only"
        )
        for place, sink in enumerate(_list(self.data.get("sinks"))):
            self.use(("sinks", place), sink, ("sink",), sinks)

    def input_schemas(self) -> None:
        for name, schema in _mapping(self.data.get("inputs")).items():
            if not isinstance(schema, dict):
                continue
            path = ("inputs", name)
            wrong = schema_problem(schema)
            if wrong:
                self.add(
                    path, f"this is no JSON Schema: {wrong}", "write for instance {type: string, default: x}"
                )
            elif "default" in schema:
                for problem in problems(schema["default"], schema):
                    self.add(
                        (*path, "default", *problem.path),
                        f"the default does not fit: {problem.message}",
                        problem.hint,
                    )

    def check_trigger(self, scope: StepScope) -> None:
        trigger = self.data.get("trigger")
        self.trigger = self.use(("trigger",), trigger, ("trigger",), scope)

    def unique_ids(self, path: Path, steps: Any, seen: dict[str, Path]) -> None:
        for place, step in enumerate(_list(steps)):
            here = (*path, place)
            name = _mapping(step).get("id")
            if isinstance(name, str):
                if name in seen:
                    line, _ = self.document.place(seen[name])
                    self.add(
                        (*here, "id"), f"the id {name!r} is taken (line {line})", "give each step its own"
                    )
                seen.setdefault(name, (*here, "id"))
            for key in ("steps", "parallel", "on_error"):
                self.unique_ids((*here, key), _mapping(step).get(key), seen)
        if path == ("steps",):
            self.unique_ids(("finally",), self.data.get("finally"), seen)

    # -- steps

    def sequence(self, path: Path, steps: Any, scope: StepScope, *, leading: bool = False) -> Results:
        """Check steps that run one after the other; the results that what follows may name."""
        done: Results = {}
        for place, step in enumerate(_list(steps)):
            if isinstance(step, dict):
                leading = leading and self.is_batch_step(step)
                done |= self.step((*path, place), step, scope.after(done), leading)
        return done

    def is_batch_step(self, step: JsonObject) -> bool:
        info = self.host.modules.get(step.get("uses", "")) if isinstance(step.get("uses"), str) else None
        return (
            info is not None
            and info.kind == "transform"
            and not set(step) - {"id", "uses", "connection", "with"}
        )

    def step(self, path: Path, step: JsonObject, scope: StepScope, leading: bool) -> Results:
        self.condition((*path, "for_each"), step.get("for_each"), scope)
        inner = scope.plus("item") if "for_each" in step else scope
        self.condition((*path, "when"), step.get("when"), inner)
        name = self.ids[id(step)]
        own: Results = {name: None}
        children: Results = {}
        if "parallel" in step:
            for place, branch in enumerate(_list(step["parallel"])):
                children |= self.sequence_of_one((*path, "parallel", place), branch, inner)
        elif "steps" in step:
            children = self.sequence((*path, "steps"), step["steps"], inner)
        else:
            if leading:
                why = "a leading transform takes many events at once: it sees inputs only"
                inner = StepScope(frozenset(("inputs",)), self.inputs, why)
            info = self.use(path, step, ("action", "transform", "sink"), inner)
            if info is not None and "for_each" not in step:
                own = {name: _result_schema(info)}
        if isinstance(step.get("on_error"), list):
            self.sequence((*path, "on_error"), step["on_error"], inner.after({name: None}).plus("error"))
        return own if "for_each" in step else {**children, **own}

    def sequence_of_one(self, path: Path, branch: Any, scope: StepScope) -> Results:
        return self.step(path, branch, scope, False) if isinstance(branch, dict) else {}

    # -- uses of modules

    def use(self, path: Path, use: Any, kinds: tuple[Kind, ...], scope: StepScope) -> ModuleInfo | None:
        """Check one use of a module; its info when there is such a module of a fitting kind."""
        use = _mapping(use)
        arguments = use.get("with")
        self.texts((*path, "with"), arguments, scope)
        name = use.get("uses")
        if not isinstance(name, str) or "." not in name:
            return None
        try:
            info = self.host.module(name)
            schema = info.schema
        except CounterplayError as error:
            self.add((*path, "uses"), error.message, error.hint or "")
            return None
        if info.kind not in kinds:
            here = {"trigger": "a trigger", "sink": "a sink"}.get(kinds[0], "a step")
            article = "an" if info.kind == "action" else "a"
            belongs = _PLACES[info.kind]
            self.add(
                (*path, "uses"),
                f"{name} is {article} {info.kind}, and this is {here}",
                f"it belongs {belongs}",
            )
            return None
        if arguments is None or isinstance(arguments, dict):
            try:
                self.arguments(path, arguments, schema)
                self.called(path, arguments or {}, schema)
            except Exception as error:
                flaw = _flaw(schema, error)
                if flaw is None:
                    raise
                self.add(
                    (*path, "uses"),
                    f"the schema of {name} is none: {flaw}",
                    f"tell those who make {info.distribution}",
                )
        self.connection(path, use, info)
        return info

    def arguments(self, path: Path, arguments: JsonObject | None, schema: JsonObject) -> None:
        for problem in problems(arguments or {}, schema, templates=True):
            if not problem.path and arguments is None:
                hint = problem.hint.replace("add `", "add `with:` with `", 1)
                self.add((*path, "uses"), problem.message, hint)
            else:
                self.add((*path, "with", *problem.path), problem.message, problem.hint, key=problem.at_key)

    def called(self, path: Path, arguments: JsonObject, schema: JsonObject) -> None:
        """Playbooks that a step calls by name: it would find out only when it begins."""
        for key, described in schema.get("properties", {}).items():
            name = arguments.get(key)
            if self.catalogue is None or not described.get("x-playbook") or not isinstance(name, str):
                continue
            known = self.catalogue.playbooks()
            if name not in known and not is_template(name) and not name.endswith((".yaml", ".yml")):
                hint = did_you_mean(name, known, "`playbook list` shows what there is")
                self.add((*path, "with", key), f"no playbook is called {name!r}", hint)

    def connection(self, path: Path, use: JsonObject, info: ModuleInfo) -> None:
        wanted, own = info.cls.connection, use.get("connection")
        if wanted is None:
            if own is not None:
                self.add((*path, "connection"), f"{info.uses} takes no connection", "remove it", key=True)
            return
        if own is None:
            inherits = self.trigger is not None and self.trigger.cls.connection == wanted
            if not inherits:
                also = ", and the trigger has none of that kind" if path[0] != "trigger" else ""
                self.add(
                    (*path, "uses"),
                    f"{info.uses} needs a connection of kind {wanted}{also}",
                    "add `connection: <name>`",
                )
            return
        if self.catalogue is not None:
            self.known_connection((*path, "connection"), own, wanted, info.uses)

    def known_connection(self, path: Path, own: Any, wanted: str, uses: str) -> None:
        assert self.catalogue is not None
        if isinstance(own, str):
            kinds = self.catalogue.kinds(own)
            if not kinds:
                self.no_connection(path, own)
            elif wanted not in kinds:
                self.add(
                    path,
                    f"{own!r} is {' and '.join(sorted(kinds))}, and {uses} needs {wanted}",
                    "name another one",
                )
        elif isinstance(own, dict) and isinstance(own.get("labels"), list):
            labels = [label for label in own["labels"] if isinstance(label, str)]
            if labels and not self.catalogue.labelled(labels, wanted):
                listed = ", ".join(labels)
                self.add(
                    path,
                    f"no connection of kind {wanted} carries {listed}",
                    "add `labels:` in counterplay.yaml",
                )

    def no_connection(self, path: Path, name: str) -> None:
        assert self.catalogue is not None
        known = sorted(self.catalogue.names())
        otherwise = f"there are {', '.join(known)}" if known else "add it to counterplay.yaml"
        self.add(path, f"no connection is called {name!r}", did_you_mean(name, known, otherwise))

    # -- expressions

    def condition(self, path: Path, source: Any, scope: StepScope) -> None:
        if isinstance(source, str):
            self.compiled(path, lambda: self.expressions.condition(source).references, scope)

    def texts(self, path: Path, value: Any, scope: StepScope) -> None:
        """Check the expressions in every text of the value."""
        if isinstance(value, str) and is_template(value):
            self.compiled(path, lambda: self.expressions.text(value).references, scope)
        elif isinstance(value, dict):
            for name, part in value.items():
                if is_template(name):
                    self.add((*path, name), "an expression as a name", "write the name out", key=True)
                self.texts((*path, name), part, scope)
        elif isinstance(value, list):
            for place, part in enumerate(value):
                self.texts((*path, place), part, scope)

    def compiled(self, path: Path, references: Callable[[], tuple[Reference, ...]], scope: StepScope) -> None:
        try:
            found = references()
        except ExpressionSyntaxError as error:
            self.add(path, error.message, error.hint or "")
            return
        for message, hint in _unrepeated(
            problem for reference in found for problem in scope.problems(reference)
        ):
            self.add(path, message, hint)


def _unrepeated(found: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(found))


def _result_schema(info: ModuleInfo) -> JsonObject | None:
    """The schema of a step's result when it says anything, with what its `$ref`s refer to."""
    definitions = info.schema.get("$defs", {})
    result = definitions.get("result")
    return {**result, "$defs": definitions} if isinstance(result, dict) else None


def _mapping(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flaw(schema: JsonObject, error: Exception) -> str | None:
    """What is wrong with a module's schema that made the validator fail; None: the fault is elsewhere."""
    import jsonschema
    from referencing.exceptions import Unresolvable

    if isinstance(error, Unresolvable):
        return f"it refers to {error.ref!r}, which is not there"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as found:
        return f"{found.message} (at {found.json_path})"
    return None
