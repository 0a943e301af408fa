"""Conditions and templates: what `filter`, `when` and `with` are once they are read.

Each is compiled once. What the compiler can translate runs as a Python function, the rest in the
Jinja2 sandbox; `engine` says which (`compiled`, `sandbox`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from counterplay.errors import PermanentError
from counterplay.language.compiled import Function, NotCompiled, compile_condition, compile_value
from counterplay.language.sandbox import ExpressionEnvironment
from counterplay.language.semantics import ARGUMENT, CONDITION, MissingError, finite, joined, settled, text_of
from counterplay.language.syntax import (
    ExpressionSyntaxError,
    Parsed,
    Path,
    Reference,
    parse,
    path_text,
    template_parts,
)

Engine = Literal["compiled", "sandbox"]
Scope = Mapping[str, object]
MARKS = ("{{", "{%", "{#")
_CACHED = 2_000


class ExpressionError(PermanentError):
    """An expression in an argument has no value; the message names the argument and the field."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a condition said. One that raises is false as a whole, and says why in `error`."""

    value: bool
    error: str | None = None

    def __bool__(self) -> bool:
        return self.value


_TRUE, _FALSE = Truth(True), Truth(False)


@dataclass(frozen=True, slots=True)
class Condition:
    """A bare expression that is asked for yes or no.

    `evaluate(scope)` never raises. The scope holds `event`, `meta`, `inputs`, `internal`, `steps`,
    `item`, `error`, `run` as far as they exist there.
    """

    source: str
    evaluate: Callable[[Scope], Truth] = field(repr=False, compare=False)
    references: tuple[Reference, ...] = ()
    engine: Engine = "compiled"


@dataclass(frozen=True, slots=True)
class Template:
    """Arguments with expressions in their texts, at any depth. `render` gives plain JSON data."""

    source: Any
    where: str
    _render: Callable[[Scope], Any] = field(repr=False, compare=False)
    references: tuple[Reference, ...] = ()

    def render(self, scope: Scope) -> Any:
        """The arguments of this scope, a copy that the caller may change.

        ExpressionError: a field is missing, or an expression fails: `with.user_id: event.user is missing`.
        """
        return self._render(scope)


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """One text with expressions. `whole`: it is one expression, and keeps the type of its value."""

    whole: bool
    references: tuple[Reference, ...]
    render: Callable[[Scope, str], Any]


class Expressions:
    """Compiles the expressions of an installation; `filters` are those that its plugins add."""

    def __init__(self, filters: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._lenient = ExpressionEnvironment(CONDITION, filters or {})
        self._strict = ExpressionEnvironment(ARGUMENT, filters or {})
        self._names = frozenset(name for name in self._lenient.filters if not name.startswith("_"))
        self._conditions: dict[tuple[str, Engine], Condition] = {}
        self._texts: dict[tuple[str, Engine], TextTemplate] = {}

    def condition(self, source: str, engine: Engine = "compiled") -> Condition:
        """Compile a bare expression. ExpressionSyntaxError: what is wrong with it.

        `engine="sandbox"` keeps it from being compiled, to compare the two.
        """
        known = self._conditions.get((source, engine))
        if known is None:
            known = self._condition(parse(source, self._lenient, self._names), engine)
            _remember(self._conditions, (source, engine), known)
        return known

    def template(self, value: Any, where: str = "with", engine: Engine = "compiled") -> Template:
        """Compile arguments; `where` is how errors name their root. Raises as `condition` does."""
        references: list[Reference] = []
        render = self._renderer(value, where, engine, references)
        return Template(value, where, render, tuple(references))

    def value(self, source: str, where: str, engine: Engine = "compiled") -> Template:
        """Compile a bare expression for its value (`for_each`). Raises as `condition` does."""
        expression = _Expression(parse(source, self._strict, self._names), self._strict, engine)
        references = expression.parsed.references
        return Template(source, where, lambda scope: expression.value(scope, where), references)

    def text(self, text: str, engine: Engine = "compiled") -> TextTemplate:
        """Compile one text with `{{ }}` in it."""
        known = self._texts.get((text, engine))
        if known is None:
            known = self._text(text, engine)
            _remember(self._texts, (text, engine), known)
        return known

    def parsed(self, source: str) -> Parsed:
        """A bare expression as a tree, for those who take it apart. Raises as `condition` does."""
        return parse(source, self._lenient, self._names)

    def condition_of(self, part: Parsed) -> Condition:
        """A part of such a tree as a condition of its own."""
        return self._condition(part, "compiled")

    def _condition(self, parsed: Parsed, engine: Engine) -> Condition:
        def failed(error: Exception) -> Truth:
            return Truth(False, f"`{parsed.source.strip()[:200]}`: {_reason(error)}")

        if engine == "compiled":
            try:
                function = compile_condition(parsed.node, self._lenient, _TRUE, _FALSE, failed)
                return Condition(parsed.source, function, parsed.references)
            except NotCompiled:
                pass
        run = _sandboxed(parsed, self._lenient)

        def evaluate(scope: Scope) -> Truth:
            try:
                return _TRUE if run(scope) else _FALSE
            except Exception as error:
                return failed(error)

        return Condition(parsed.source, evaluate, parsed.references, "sandbox")

    def _renderer(
        self, value: Any, where: str, engine: Engine, references: list[Reference]
    ) -> Callable[[Scope], Any]:
        """What renders a value; what its expressions name is added to `references`."""
        if isinstance(value, str) and is_template(value):
            text = self.text(value, engine)
            references += text.references
            return lambda scope: text.render(scope, where)
        if isinstance(value, Mapping):
            members = {
                key: self._renderer(part, f"{where}.{key}", engine, references) for key, part in value.items()
            }
            return lambda scope: {key: render(scope) for key, render in members.items()}
        if isinstance(value, (list, tuple)):
            elements = [
                self._renderer(part, f"{where}[{place}]", engine, references)
                for place, part in enumerate(value)
            ]
            return lambda scope: [render(scope) for render in elements]
        return lambda scope: value

    def _text(self, text: str, engine: Engine) -> TextTemplate:
        parts = [
            _Expression(parse(part, self._strict, self._names), self._strict, engine)
            if is_expression
            else part
            for part, is_expression in template_parts(text, self._strict)
        ]
        expressions = [part for part in parts if isinstance(part, _Expression)]
        references = tuple(reference for part in expressions for reference in part.parsed.references)
        if len(parts) == 1 and expressions:
            return TextTemplate(True, references, expressions[0].value)

        def render(scope: Scope, where: str) -> str:
            return _joined(
                [p if isinstance(p, str) else text_of(p.value(scope, where)) for p in parts], where
            )

        return TextTemplate(False, references, render)


class _Expression:
    """One `{{ }}`."""

    def __init__(self, parsed: Parsed, environment: ExpressionEnvironment, engine: Engine) -> None:
        self.parsed = parsed
        self.function: Function
        try:
            if engine == "sandbox":
                raise NotCompiled
            self.function = compile_value(parsed.node, environment)
        except NotCompiled:
            self.function = _sandboxed(parsed, environment)

    def value(self, scope: Scope, where: str) -> Any:
        """The value as plain JSON data; ExpressionError names the argument, `where`."""
        try:
            return settled(self.function(scope))
        except MissingError as error:
            raise self._missing(scope, where) from error
        except Exception as error:
            raise ExpressionError(
                f"{where}: `{self.parsed.source.strip()[:200]}`: {_reason(error)}"
            ) from error

    def _missing(self, scope: Scope, where: str) -> ExpressionError:
        hint = "write `| default(...)` where it may be missing"
        for reference in self.parsed.references:
            if not reference.guarded and (path := _first_missing(reference.path, scope)):
                return ExpressionError(f"{where}: {path_text(path)} is missing", hint=hint)
        return ExpressionError(f"{where}: `{self.parsed.source.strip()[:200]}` gives no value", hint=hint)


def is_template(text: str) -> bool:
    """Whether a text holds an expression (or what looks like a statement, which is refused)."""
    return any(mark in text for mark in MARKS)


def _sandboxed(parsed: Parsed, environment: ExpressionEnvironment) -> Function:
    run = environment.interpreted(parsed.node)

    def value(scope: Scope) -> Any:
        found: Any = run(scope)
        return finite(found) if hasattr(found, "__next__") else found

    return value


def _first_missing(path: Path, scope: Scope) -> Path | None:
    value: Any = scope
    for length, part in enumerate(path, 1):
        value = CONDITION.item(value, part)
        if value is CONDITION.missing:
            return path[:length]
    return None


def _joined(parts: list[str], where: str) -> str:
    try:
        return joined(parts)
    except Exception as error:
        raise ExpressionError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, MissingError):
        return "a field that it computes with is missing"
    if isinstance(error, RecursionError):
        return "the data is nested too deeply"
    return (str(error).split("\n", 1)[0] or type(error).__name__)[:200]


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _CACHED:
        cache.clear()  # safe while other threads read it
    cache[key] = value


__all__ = [
    "Condition",
    "Engine",
    "ExpressionError",
    "ExpressionSyntaxError",
    "Expressions",
    "Template",
    "Truth",
    "is_template",
]
