"""Reads an expression: Jinja2's syntax, held to what expressions may contain."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.lexer import Lexer
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

from counterplay.errors import ConfigError
from counterplay.language.findings import did_you_mean
from counterplay.language.semantics import STRING_METHODS

MAX_SOURCE = 8_000
"""Characters in one expression."""
MAX_NODES = 1_000
"""Operators, names and values in one expression."""
MAX_DEPTH = 60
"""How deep the parts of an expression nest."""

SCOPE = ("event", "meta", "inputs", "internal", "steps", "item", "error", "run")
FUNCTIONS = ("any", "all")
# fmt: off
TESTS = frozenset((
    "boolean", "defined", "divisibleby", "even", "false", "float", "integer", "iterable", "lower",
    "mapping", "none", "number", "odd", "sequence", "string", "true", "undefined", "upper", "==",
    "!=", "<", "<=", ">", ">=", "eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan",
    "ge", "in",
))
# fmt: on

_ALLOWED = (
    nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod,
    nodes.Pow, nodes.Not, nodes.Neg, nodes.Pos, nodes.And, nodes.Or,
)  # fmt: skip


class ExpressionSyntaxError(ConfigError):
    """An expression or a template is written wrong; nothing has run."""


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that an expression reads: `("event", "evidence", 0, "user")`.

    `guarded`: the expression asks whether it is there (`is defined`, `default`).
    """

    path: Path
    guarded: bool = False

    def __str__(self) -> str:
        return path_text(self.path)


@dataclass(frozen=True, slots=True)
class Parsed:
    """An expression that may be compiled."""

    source: str
    node: nodes.Expr
    references: tuple[Reference, ...]


def path_text(path: Path) -> str:
    """`event.evidence[0].user`, `event["@odata.type"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def parse(source: str, environment: SandboxedEnvironment, filters: Collection[str]) -> Parsed:
    """Read one expression. ExpressionSyntaxError: what is wrong with it, and what to write."""
    if len(source) > MAX_SOURCE:
        raise ExpressionSyntaxError(
            f"an expression of {len(source):,} characters", hint=f"{MAX_SOURCE:,} is the limit: split it up"
        )
    if not source.strip():
        raise ExpressionSyntaxError(
            "an empty expression", hint="write a condition such as event.status == 'new'"
        )
    if source.lstrip().startswith(("{{", "{%", "{#")):
        raise ExpressionSyntaxError("braces around a bare expression", hint="write it without {{ }}")
    node = _parsed(source, environment)
    _check(node, filters)
    return Parsed(source, node, references_of(node))


def references_of(node: nodes.Node) -> tuple[Reference, ...]:
    """The fields that an expression, or a part of one, reads."""
    return tuple(_references(node))


def template_parts(text: str, environment: SandboxedEnvironment) -> list[tuple[str, bool]]:
    """A text cut into (part, whether it is an expression). ExpressionSyntaxError: a brace is not closed."""
    if len(text) > MAX_SOURCE * 8:
        raise ExpressionSyntaxError(
            f"a template of {len(text):,} characters", hint=f"{MAX_SOURCE * 8:,} is the limit: split it up"
        )
    parts: list[tuple[str, bool]] = []
    inside: list[str] | None = None
    lexer: Lexer = environment.lexer
    try:
        for _, kind, value in lexer.tokeniter(text, None):
            if kind in ("block_begin", "comment_begin", "raw_begin", "linestatement_begin"):
                raise ExpressionSyntaxError(
                    f"{value.strip()!r} in a text: statements and comments are not part of expressions",
                    hint="use {{ }} with a filter or `a if b else c`; for the characters as such, {{ '{%' }}",
                )
            if kind == "variable_begin":
                inside = []
            elif kind == "variable_end":
                parts.append(("".join(inside or ()), True))
                inside = None
            elif inside is not None:
                inside.append(value)
            else:
                parts.append((value, False))
    except TemplateError as error:
        raise ExpressionSyntaxError(
            f"cannot read the text: {error}", hint="close every {{ with }}"
        ) from error
    if inside is not None:
        raise ExpressionSyntaxError("{{ without its end", hint="close it with }}")
    return parts


def _parsed(source: str, environment: SandboxedEnvironment) -> nodes.Expr:
    try:
        parser = Parser(environment, source, state="variable")
        node = parser.parse_expression()
        if not parser.stream.eos:
            token = parser.stream.current
            raise ExpressionSyntaxError(
                f"cannot read the expression {_short(source)}: {str(token.value)!r} is not expected there",
                hint="compare with ==, join conditions with and, or",
            )
    except (TemplateError, ValueError) as error:
        raise ExpressionSyntaxError(
            f"cannot read the expression {_short(source)}: {_jinja_words(error)}",
            hint="expressions are written as in Jinja2",
        ) from error
    except (RecursionError, MemoryError) as error:
        raise _too_deep() from error
    node.set_environment(environment)
    return node


def _jinja_words(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".").replace("'end of template'", "end")


def _too_deep() -> ExpressionSyntaxError:
    return ExpressionSyntaxError("the expression is nested too deeply", hint="split it over several steps")


def _check(root: nodes.Node, filters: Collection[str]) -> None:
    queue: list[tuple[nodes.Node, int]] = [(root, 0)]
    for count, (node, depth) in enumerate(queue):
        if count > MAX_NODES:
            raise ExpressionSyntaxError(
                "the expression has too many parts", hint="split it over several steps"
            )
        if depth > MAX_DEPTH:
            raise _too_deep()
        _check_node(node, filters)
        queue.extend((child, depth + 1) for child in _children(node))


def _children(node: nodes.Node) -> Iterator[nodes.Node]:
    """The parts of a node; of a call of a method, the text it is called on rather than the method."""
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            yield node.node.node
        yield from node.args
        return
    yield from node.iter_child_nodes()


def _check_node(node: nodes.Node, filters: Collection[str]) -> None:
    if not isinstance(node, _ALLOWED):
        raise ExpressionSyntaxError(f"{type(node).__name__.lower()} is not part of expressions")
    if isinstance(node, nodes.Name):
        _check_name(node.name)
    elif isinstance(node, nodes.Getattr):
        _check_member(node.attr)
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        _check_member(node.arg.value)
    elif isinstance(node, nodes.Call):
        _check_call(node)
    elif isinstance(node, nodes.Filter) and node.name not in filters:
        raise _unknown("filter", node.name, filters)
    elif isinstance(node, nodes.Test) and node.name not in TESTS:
        raise _unknown("test", node.name, TESTS)
    elif isinstance(node, nodes.Compare) and len(node.ops) > 1:
        _check_chain(node)
    if isinstance(node, (nodes.Call, nodes.Filter, nodes.Test)) and (node.dyn_args or node.dyn_kwargs):
        raise ExpressionSyntaxError("`*` in front of arguments", hint="write the arguments one by one")


def _check_chain(node: nodes.Compare) -> None:
    if any(operand.op in ("in", "notin") for operand in node.ops):
        raise ExpressionSyntaxError(
            "`in` within a chain of comparisons", hint="write them apart, joined by and"
        )


def _check_name(name: str) -> None:
    if name in SCOPE or name in FUNCTIONS:
        return
    if name.startswith("_"):
        raise _private(name)
    raise ExpressionSyntaxError(
        f"{name!r} is not known here",
        hint=did_you_mean(name, SCOPE, f"an expression begins with {', '.join(SCOPE)}; quote a text"),
    )


def _check_member(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise _private(name)


def _private(name: str) -> ExpressionSyntaxError:
    return ExpressionSyntaxError(
        f"{name!r} cannot be reached: names that begin with _ are closed",
        hint="read members of the data only",
    )


def _check_call(node: nodes.Call) -> None:
    if node.kwargs:
        raise ExpressionSyntaxError("a call with named arguments", hint="write the arguments in order")
    target = node.node
    if isinstance(target, nodes.Name) and target.name in FUNCTIONS:
        if len(node.args) != 1:
            raise ExpressionSyntaxError(
                f"{target.name}() takes one list", hint=f"write {target.name}([a, b])"
            )
        return
    if isinstance(target, nodes.Getattr):
        _check_member(target.attr)
        if target.attr in STRING_METHODS:
            return
        raise ExpressionSyntaxError(
            f"{target.attr}() cannot be called: only methods of text can",
            hint=f"for the member of that name write .{target.attr} without (), or use a filter",
        )
    name = target.name if isinstance(target, nodes.Name) else "this"
    raise ExpressionSyntaxError(f"{name}() cannot be called", hint="use a filter, as in `value | length`")


def _unknown(what: str, name: str, known: Collection[str]) -> ExpressionSyntaxError:
    listed = ", ".join(sorted(word for word in known if word[0].isalpha()))
    return ExpressionSyntaxError(
        f"there is no {what} {name!r}", hint=did_you_mean(name, known, f"there are {listed}")
    )


def _references(root: nodes.Node) -> Iterator[Reference]:
    queue: list[tuple[nodes.Node, bool]] = [(root, False)]
    while queue:
        node, guarded = queue.pop()
        path = _path(node)
        if path is not None:
            if path[0] not in FUNCTIONS:
                yield Reference(path, guarded)
            continue
        asks = (isinstance(node, nodes.Test) and node.name in ("defined", "undefined")) or (
            isinstance(node, nodes.Filter) and node.name in ("default", "d")
        )
        children = list(_children(node))
        queue.extend((child, asks and child is children[0]) for child in reversed(children))


def _path(node: nodes.Node) -> Path | None:
    """The path of a chain of members that are all spelt out; None for anything else."""
    parts: list[str | int] = []
    while True:
        if isinstance(node, nodes.Name):
            return (node.name, *reversed(parts))
        if isinstance(node, nodes.Getattr):
            parts.append(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            if not isinstance(node.arg.value, (str, int)) or isinstance(node.arg.value, bool):
                return None
            parts.append(node.arg.value)
        else:
            return None
        node = node.node


def _short(source: str) -> str:
    text = " ".join(source.split())
    return f"`{text[:57]}...`" if len(text) > 60 else f"`{text}`"
