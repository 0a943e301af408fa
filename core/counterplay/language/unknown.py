"""Expressions over what is not known yet: what a step that was not sent will return, what a person will say.

The value is `UNKNOWN`. An expression that reads it is unknown too, except where logic decides without it:
`false and unknown` is false, `true or unknown` is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import nodes

from counterplay.language.expressions import Condition, Expressions, Scope, Template, is_template
from counterplay.language.syntax import Parsed, Path, Reference, path_text, references_of


class Unknown:
    """The value of what is not known yet. There is one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "unknown"

    def __deepcopy__(self, _: object) -> Unknown:
        return self


UNKNOWN: Final = Unknown()


class _RaisedError(Exception):
    """A part of a condition raised, which makes the whole of it false."""


def holds_unknown(value: Any) -> bool:
    """Whether a value is unknown, or something inside it is."""
    if value is UNKNOWN:
        return True
    if isinstance(value, Mapping):
        return any(map(holds_unknown, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_unknown, value))
    return False


def truth(condition: Condition, scope: Scope, expressions: Expressions) -> bool | None:
    """What a condition says; None when that depends on what is unknown."""
    parsed = expressions.parsed(condition.source)
    try:
        return _truth(parsed.node, parsed.source, scope, expressions)
    except _RaisedError:
        return False


def rendered(template: Template, scope: Scope, expressions: Expressions) -> Any:
    """Arguments with UNKNOWN in place of every text that depends on it. ExpressionError as `render` does."""
    return _rendered(template.source, template.where, scope, expressions)


def value(source: str, where: str, scope: Scope, expressions: Expressions) -> Any:
    """The value of a bare expression (`for_each`), or UNKNOWN. ExpressionError as `Template.render` does."""
    if _depends(expressions.parsed(source).references, scope):
        return UNKNOWN
    return expressions.value(source, where).render(scope)


def unknown_paths(source: Any, scope: Scope, expressions: Expressions) -> list[str]:
    """The unknown fields that arguments read, as they are written: `steps.decide.result.approved`."""
    if isinstance(source, Mapping):
        return [path for part in source.values() for path in unknown_paths(part, scope, expressions)]
    if isinstance(source, (list, tuple)):
        return [path for part in source for path in unknown_paths(part, scope, expressions)]
    if isinstance(source, str) and is_template(source):
        references = expressions.text(source).references
        return [path_text(one.path) for one in references if _reaches(one.path, scope)]
    return []


def _truth(node: nodes.Node, source: str, scope: Scope, expressions: Expressions) -> bool | None:
    if isinstance(node, (nodes.And, nodes.Or)):
        decisive = isinstance(node, nodes.Or)
        left = _truth(node.left, source, scope, expressions)
        if left is decisive:
            return decisive
        try:
            right = _truth(node.right, source, scope, expressions)
        except _RaisedError:
            if left is None:
                return None  # whether it is asked at all depends on the left side
            raise
        if right is decisive:
            return decisive
        return None if left is None or right is None else not decisive
    if isinstance(node, nodes.Not) and not isinstance(node.node, nodes.Test):
        inner = _truth(node.node, source, scope, expressions)
        return None if inner is None else not inner
    assert isinstance(node, nodes.Expr)
    part = Parsed(source, node, references_of(node))
    if _depends(part.references, scope):
        return None
    answer = expressions.condition_of(part).evaluate(scope)
    if answer.error is not None:
        raise _RaisedError
    return answer.value


def _rendered(source: Any, where: str, scope: Scope, expressions: Expressions) -> Any:
    if isinstance(source, Mapping):
        return {key: _rendered(part, f"{where}.{key}", scope, expressions) for key, part in source.items()}
    if isinstance(source, (list, tuple)):
        return [_rendered(part, f"{where}[{place}]", scope, expressions) for place, part in enumerate(source)]
    if isinstance(source, str) and is_template(source):
        text = expressions.text(source)
        return UNKNOWN if _depends(text.references, scope) else text.render(scope, where)
    return source


def _depends(references: tuple[Reference, ...], scope: Scope) -> bool:
    return any(_reaches(one.path, scope) for one in references)


def _reaches(path: Path, scope: Scope) -> bool:
    """Whether a path leads to what is unknown, or to something that holds it."""
    found: Any = scope
    for part in path:
        if found is UNKNOWN:
            return True
        if isinstance(found, Mapping) and isinstance(part, str):
            if part not in found:
                return False
            found = found[part]
        elif isinstance(found, (list, tuple)) and isinstance(part, int):
            if not -len(found) <= part < len(found):
                return False
            found = found[part]
        else:
            return False
    return holds_unknown(found)
