"""The Jinja2 sandbox that runs what is not compiled, and the filters that both engines use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.environment import TemplateExpression
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.sandbox import SandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import pass_environment

from counterplay.language.semantics import CONDITION, Semantics, finite, joined, json_text, text_of
from counterplay.language.syntax import TESTS

_FROM_JINJA = (
    "abs", "capitalize", "count", "dictsort", "first", "float", "int", "items", "last", "length", "list",
    "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "title",
    "trim", "unique", "upper", "urlencode",
)  # fmt: skip
_OWN = ("default", "d", "flatten", "join", "replace", "round", "string", "sum", "tojson")
BUILT_IN_FILTERS = frozenset(_FROM_JINJA + _OWN)

MEMBERSHIP = {"in": "contains", "notin": "lacks"}
_HELPERS = ("contains", "lacks", "method", "slice", "concat", "any", "all")


class ExpressionEnvironment(SandboxedEnvironment):
    """A sandbox in which `a.b` is a member of the data, and nothing of the data can be called."""

    intercepted_binops = frozenset(SandboxedEnvironment.default_binop_table)
    intercepted_unops = frozenset("-")

    def __init__(self, semantics: Semantics, filters: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(
            undefined=type(semantics.missing),
            autoescape=False,
            cache_size=0,
            keep_trailing_newline=True,
            optimized=False,  # nothing of an expression runs while it is compiled
        )
        self.semantics = semantics
        self.globals.clear()
        self.filters.clear()
        for name, function in {**filters, **_filters()}.items():
            self.filters[name] = _guarded(function, semantics)
        self.filters["default"] = self.filters["d"] = semantics.default
        self.filters.update((f"_{name}", getattr(semantics, name)) for name in _HELPERS)
        self.tests.clear()
        for name, function in _tests(semantics).items():
            self.tests[name] = _test(semantics, function, negated=False)
            self.tests[f"_not_{name}"] = _test(semantics, function, negated=True)
        self.tests["defined"], self.tests["undefined"] = semantics.defined, semantics.undefined
        self.tests["_not_defined"], self.tests["_not_undefined"] = semantics.undefined, semantics.defined

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.semantics.member(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self.semantics.item(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return self.semantics.binary(operator, left, right)

    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        return self.semantics.negative(arg)

    def interpreted(self, node: nodes.Expr) -> TemplateExpression:
        """What `compile_expression(undefined_to_none=False)` gives for a tree that was read already."""
        body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), _rewritten(node), lineno=1)]
        tree = nodes.Template(body, lineno=1)
        tree.set_environment(self)
        return TemplateExpression(self.from_string(tree), undefined_to_none=False)


def _filters() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _FROM_JINJA}
    found |= {
        "flatten": _flatten,
        "join": _join,
        "replace": CONDITION.replace,  # it asks nothing of what is missing: the guard has seen to that
        "round": _round,
        "string": text_of,
        "sum": _sum,
        "tojson": json_text,
    }
    return found


@pass_environment
def _join(environment: Any, values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        values = map(make_attrgetter(environment, attribute), values)
    texts = [text_of(value) for value in values]
    parts = [part for text in texts for part in (separator, text)]
    return joined(parts[1:])


@pass_environment
def _sum(environment: Any, values: Iterable[Any], attribute: str | None = None) -> Any:
    if attribute is not None:
        values = map(make_attrgetter(environment, attribute), values)
    return sum(values)


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    """`[[1, 2], [], 3]` becomes `[1, 2, 3]`: the elements of lists inside the list, one level deep."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _round(value: float, digits: int = 0) -> float:
    if abs(digits) > 15:
        raise ValueError("round takes at most 15 digits")
    return round(value, digits)


def _tests(semantics: Semantics) -> dict[str, Callable[..., Any]]:
    found: dict[str, Any] = {name: JINJA_TESTS[name] for name in TESTS}
    return found | {"in": semantics.contains}


def _guarded(function: Callable[..., Any], semantics: Semantics) -> Callable[..., Any]:
    """The filter; missing comes out when missing goes in, and a lazy result becomes a list."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    missing = semantics.missing

    @wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        for argument in arguments[first:]:
            if argument is missing:
                return semantics.propagate()
        for argument in named.values():
            if argument is missing:
                return semantics.propagate()
        result = function(*arguments, **named)
        return finite(iter(result)) if isinstance(result, (Iterator, range)) else result

    return guarded


def _test(semantics: Semantics, function: Callable[..., Any], *, negated: bool) -> Callable[..., bool]:
    def test(value: Any, *rest: Any, **named: Any) -> bool:
        return semantics.test(function, negated, value, *rest, **named)

    return test


def _rewritten(node: Any) -> Any:
    """A copy of the tree with calls, slices, `in` and `~` as filters of ours: nothing in it is a call."""
    if isinstance(node, list):
        return [_rewritten(part) for part in node]
    if not isinstance(node, nodes.Node):
        return node
    if isinstance(node, nodes.Call):
        return _call(node)
    if isinstance(node, nodes.Concat):
        first, *rest = _rewritten(node.nodes)
        return _helper("concat", first, *rest)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return _helper("slice", _rewritten(node.node), *(_rewritten(b or nodes.Const(None)) for b in bounds))
    if isinstance(node, nodes.Compare) and node.ops[0].op in MEMBERSHIP:
        return _helper(MEMBERSHIP[node.ops[0].op], _rewritten(node.expr), _rewritten(node.ops[0].expr))
    if isinstance(node, nodes.CondExpr):
        # without `else`, Jinja gives an Undefined of its own; a name that nobody defines is missing
        otherwise = node.expr2 or nodes.Name("_nothing", "load")
        return nodes.CondExpr(*map(_rewritten, (node.test, node.expr1, otherwise)), lineno=1)
    if isinstance(node, nodes.Not) and isinstance(node.node, nodes.Test):
        test = _rewritten(node.node)
        test.name = f"_not_{test.name}"
        return test
    return type(node)(*(_rewritten(value) for _, value in node.iter_fields()), lineno=node.lineno)


def _call(node: nodes.Call) -> nodes.Expr:
    target = node.node
    if isinstance(target, nodes.Name):
        return _helper(target.name, _rewritten(node.args[0]))
    assert isinstance(target, nodes.Getattr)  # nothing else passes the reader
    return _helper("method", _rewritten(target.node), nodes.Const(target.attr), *_rewritten(node.args))


def _helper(name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, f"_{name}", list(arguments), [], None, None, lineno=1)
