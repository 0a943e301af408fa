"""What the expressions of a playbook may name, by where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from counterplay.events import JsonObject
from counterplay.language.findings import did_you_mean
from counterplay.language.syntax import Reference

_STEP_MEMBERS = ("result", "status")
_INTERNAL_MEMBERS = ("domains", "networks")


@dataclass(frozen=True, slots=True)
class StepScope:
    """What expressions at one place see.

    `roots` are the names; `steps` the earlier steps with the schemas of their results (None: open);
    `later` the ids of all other steps; `inputs` the declared ones. `why` explains a root that is not there.
    """

    roots: frozenset[str]
    inputs: frozenset[str]
    why: str = ""
    steps: Mapping[str, JsonObject | None] | None = None
    later: frozenset[str] = frozenset()

    def plus(self, root: str) -> StepScope:
        """The scope with one more name."""
        return replace(self, roots=self.roots | {root})

    def after(self, steps: Mapping[str, JsonObject | None]) -> StepScope:
        """The scope behind more steps."""
        return replace(self, steps={**(self.steps or {}), **steps})

    def problems(self, reference: Reference) -> Iterator[tuple[str, str]]:
        """(What is wrong, what to write) about one reference."""
        root, *rest = reference.path
        if root not in self.roots:
            yield self._unknown_root(str(root))
        elif rest and root == "inputs" and rest[0] not in self.inputs:
            known = ", ".join(sorted(self.inputs)) or "none"
            yield (
                f"there is no input {rest[0]!r}",
                did_you_mean(str(rest[0]), self.inputs, f"declare it under `inputs:` (declared: {known})"),
            )
        elif rest and root == "internal" and rest[0] not in _INTERNAL_MEMBERS:
            yield (
                f"`internal` has no {str(rest[0])!r}",
                did_you_mean(str(rest[0]), _INTERNAL_MEMBERS, f"it has {', '.join(_INTERNAL_MEMBERS)}"),
            )
        elif rest and root == "steps":
            yield from self._step_problems(reference)

    def _unknown_root(self, root: str) -> tuple[str, str]:
        if root == "item":
            return "`item` is not known here", "it is the element of `for_each`, inside the step that has one"
        if root == "error":
            return "`error` is not known here", "only the steps under `on_error` see it"
        return f"`{root}` is not known here", self.why

    def _step_problems(self, reference: Reference) -> Iterator[tuple[str, str]]:
        _, step, *rest = reference.path
        known = self.steps or {}
        if step not in known:
            yield self._unknown_step(str(step))
            return
        if not rest:
            return
        if rest[0] not in _STEP_MEMBERS:
            yield (
                f"a step has no {str(rest[0])!r}",
                did_you_mean(str(rest[0]), _STEP_MEMBERS, f"write steps.{step}.result.{rest[0]}"),
            )
        elif rest[0] == "result" and known[str(step)] is not None:
            yield from _member_problems(f"steps.{step}.result", rest[1:], known[str(step)] or {})

    def _unknown_step(self, step: str) -> tuple[str, str]:
        known = self.steps or {}
        if step in self.later:
            return (
                f"the step {step!r} has not run here",
                "only steps that stand before can be named; move it up",
            )
        otherwise = (
            f"steps before this one: {', '.join(known)}" if known else "no step stands before this one"
        )
        return f"there is no step {step!r}", did_you_mean(step, known, otherwise)


def _member_problems(where: str, rest: list[str | int], schema: JsonObject) -> Iterator[tuple[str, str]]:
    """A member that a closed result schema does not have."""
    root = schema
    for part in rest:
        schema = _followed(schema, root)
        if isinstance(part, int):
            items = schema.get("items")
            if not isinstance(items, dict):
                return
            schema = items
            where = f"{where}[{part}]"
            continue
        properties = schema.get("properties", {})
        if part not in properties:
            if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
                known = ", ".join(properties) or "nothing"
                yield f"{where} has no {part!r}", did_you_mean(part, properties, f"it has {known}")
            return
        schema = properties[part]
        where = f"{where}.{part}"
        if not isinstance(schema, dict):
            return


def _followed(schema: JsonObject, root: JsonObject) -> JsonObject:
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
        return (
            {**target, **{k: v for k, v in schema.items() if k != "$ref"}} if isinstance(target, dict) else {}
        )
    return schema
