"""What a playbook is once it was read: plain, frozen, and ready to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language.arguments import first_problem
from counterplay.language.expressions import Condition, Template
from counterplay.language.findings import did_you_mean
from counterplay.modules import Kind


@dataclass(frozen=True, slots=True)
class Labels:
    """Every connection that carries all of these labels."""

    labels: tuple[str, ...]


ConnectionRef = str | Labels


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a module. `arguments` is its `with` block as it stands, `template` renders it."""

    uses: str
    kind: Kind
    connection: ConnectionRef | None
    arguments: JsonObject
    template: Template


@dataclass(frozen=True, slots=True)
class TriggerUse(Use):
    """The trigger. `on`: whether updates of an occurrence start runs, too."""

    on: Literal["first", "updates"] = "first"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried in all, and the waits between."""

    attempts: int
    backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class OncePer:
    """At most one run for what `key` renders to, within `window`."""

    key: Template
    window: timedelta


@dataclass(frozen=True, slots=True)
class Step:
    """One entry under `steps`. `id` is its own, or made from the module's name, and unique.

    A module step has `use` and `arguments`; a group and `parallel` have `steps`, `arguments` is empty.
    `for_each` renders to the list whose elements are `item`. `on_error` as a tuple holds the steps
    that handle the error. `verify`: an effect that does not hold when it is read back fails the step;
    `verify_after`: when to look at it again later, durations as they are written.
    """

    id: str
    form: Literal["module", "group", "parallel"]
    use: Use | None
    arguments: Template
    when: Condition | None = None
    for_each: Template | None = None
    max_parallel: int = 1
    retry: Retry | None = None
    timeout: timedelta | None = None
    on_error: Literal["stop", "continue"] | tuple[Step, ...] = "stop"
    verify: bool = False
    verify_after: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Playbook:
    """A checked playbook. `document` is its JSON form, from which `from_document` builds it again."""

    name: str
    description: str
    inputs: Mapping[str, JsonObject]
    trigger: TriggerUse
    filter: Condition | None
    once_per: OncePer | None
    steps: tuple[Step, ...]
    finally_steps: tuple[Step, ...]
    sinks: tuple[Use, ...]
    document: JsonObject = field(repr=False)
    asks_internal: bool = False
    """Whether any of its expressions names `internal`."""

    @property
    def selects_by_internal(self) -> bool:
        """Whether what lets an event through, or tells its runs apart, names `internal`."""
        return names_internal(self.filter) or (
            self.once_per is not None and names_internal(self.once_per.key)
        )

    @property
    def batch_steps(self) -> tuple[Step, ...]:
        """The leading transforms, which map whole batches before any run begins."""
        return self.steps[: self._first_run_step]

    @property
    def run_steps(self) -> tuple[Step, ...]:
        """What each event's run does; none means that the playbook only forwards."""
        return self.steps[self._first_run_step :]

    @property
    def _first_run_step(self) -> int:
        places = (place for place, step in enumerate(self.steps) if not is_batch_step(step))
        return next(places, len(self.steps))

    def inputs_from(self, given: Mapping[str, str]) -> JsonObject:
        """The inputs of `--input name=value`, converted to their types, with defaults filled in.

        ConfigError names the input that is unknown, wrong, or missing.
        """
        for name in given:
            if name not in self.inputs:
                known = ", ".join(self.inputs) or "none"
                hint = did_you_mean(name, self.inputs, f"it has: {known}")
                raise ConfigError(f"the playbook {self.name} has no input {name!r}", hint=hint)
        values: JsonObject = {}
        for name, schema in self.inputs.items():
            if name in given:
                values[name] = _converted(name, given[name], schema)
            elif "default" in schema:
                values[name] = schema["default"]
            else:
                raise ConfigError(f"the input {name!r} is missing", hint=f"give it with --input {name}=...")
        return values


@dataclass(frozen=True, slots=True)
class PlaybookSet:
    """Several playbooks that run as one. `connections` maps the names they use to those to use instead.

    `once`: the set ends by itself when everything that was listed is accounted for.
    """

    name: str
    description: str
    playbooks: tuple[str, ...]
    connections: Mapping[str, str]
    once: bool
    document: JsonObject = field(repr=False)


def names_internal(part: Condition | Template | None) -> bool:
    """Whether an expression asks what is inside."""
    return part is not None and any(one.path[0] == "internal" for one in part.references)


def is_batch_step(step: Step) -> bool:
    """Whether a step is a transform with nothing but its arguments."""
    plain = step.when is None and step.for_each is None and step.retry is None and step.timeout is None
    return step.use is not None and step.use.kind == "transform" and plain and step.on_error == "stop"


def _converted(name: str, text: str, schema: JsonObject) -> Any:
    wanted = schema.get("type", "string")
    types = [wanted] if isinstance(wanted, str) else list(wanted)
    value: Any = text
    if "string" not in types:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"the input {name!r} has to be {' or '.join(_NAMES.get(one, one) for one in types)}",
                hint=_example(name, types),
            ) from error
    problem = first_problem(value, schema)
    if problem:
        raise ConfigError(f"the input {name!r} is not right: {problem}", hint=_example(name, types))
    return value


_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _example(name: str, types: list[str]) -> str:
    examples = {
        "integer": "3",
        "number": "1.5",
        "boolean": "true",
        "array": '\'["a", "b"]\'',
        "object": "'{\"a\": 1}'",
        "null": "null",
    }
    return f"write --input {name}={examples.get(types[0], '...')}"
