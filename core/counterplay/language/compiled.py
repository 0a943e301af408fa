"""Compiles an expression to a Python function: the same meaning as in the sandbox, without its cost.

The function is built as a Python syntax tree from the checked Jinja tree: names of ours, constants,
and the helpers of `Semantics`. Nothing of the source text becomes Python text. What has no
translation here raises `NotCompiled`, and is left to the sandbox.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

from jinja2 import nodes
from jinja2.utils import pass_environment

from counterplay.language.sandbox import MEMBERSHIP, ExpressionEnvironment

Function = Callable[[Any], Any]

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "eq": ast.Eq,
    "ne": ast.NotEq,
    "lt": ast.Lt,
    "lteq": ast.LtE,
    "gt": ast.Gt,
    "gteq": ast.GtE,
}
_BINARY: dict[type[nodes.Node], str] = {
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
}
_PASS_ENVIRONMENT = pass_environment(lambda environment: None).jinja_pass_arg  # type: ignore[attr-defined]


class NotCompiled(Exception):
    """The expression needs the sandbox."""


def compile_value(node: nodes.Expr, environment: ExpressionEnvironment) -> Function:
    """`f(scope)`: the value of the expression, possibly missing. NotCompiled: it needs the sandbox."""
    compiler = _Compiler(environment)
    return compiler.function([ast.Return(compiler.value(node))])


def compile_condition(
    node: nodes.Expr, environment: ExpressionEnvironment, true: Any, false: Any, failed: Callable[..., Any]
) -> Function:
    """`f(scope)`: `true` or `false`, or `failed(error)` when the expression raises."""
    compiler = _Compiler(environment)
    answer = ast.IfExp(compiler.value(node), compiler.constant(true), compiler.constant(false))
    handler = ast.ExceptHandler(
        _name("Exception"), "error", [ast.Return(_call(compiler.constant(failed), _name("error")))]
    )
    return compiler.function([ast.Try([ast.Return(answer)], [handler], [], [])])


class _Compiler:
    def __init__(self, environment: ExpressionEnvironment) -> None:
        self.environment = environment
        self.semantics = environment.semantics
        self.names: dict[str, Any] = {
            "__builtins__": {},
            "dict": dict,
            "len": len,
            "list": list,
            "str": str,
            "type": type,
            "Exception": Exception,
            "missing": self.semantics.missing,
        }
        self.temporaries = 0

    def function(self, body: list[ast.stmt]) -> Function:
        arguments = ast.arguments([], [ast.arg("scope")], None, [], [], None, [])
        definition = ast.FunctionDef("expression", arguments, body, [])
        module = ast.fix_missing_locations(ast.Module([definition], []))
        exec(compile(module, "<expression>", "exec"), self.names)
        function: Function = self.names["expression"]
        return function

    def value(self, node: nodes.Node) -> ast.expr:
        """The Python expression for a node: `on_compare` for a Compare, and so on."""
        if type(node) in _BINARY:
            assert isinstance(node, nodes.BinExpr)
            return self.helper(
                "binary", ast.Constant(_BINARY[type(node)]), self.value(node.left), self.value(node.right)
            )
        translate = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if translate is None:
            raise NotCompiled
        found: ast.expr = translate(node)
        return found

    def constant(self, value: Any) -> ast.expr:
        """A name for an object that the function uses."""
        name = f"c{len(self.names)}"
        self.names[name] = value
        return _name(name)

    def helper(self, method: str, *arguments: ast.expr) -> ast.expr:
        return _call(self.constant(getattr(self.semantics, method)), *arguments)

    def held(self, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """The value bound to a temporary, and the temporary."""
        self.temporaries += 1
        name = f"t{self.temporaries}"
        return ast.NamedExpr(ast.Name(name, ast.Store()), value), _name(name)

    def when_type(
        self,
        kind: str,
        value: ast.expr,
        fast: Callable[[ast.expr], ast.expr],
        slow: Callable[[ast.expr], ast.expr],
    ) -> ast.expr:
        """`fast(t) if type(t := value) is kind else slow(t)`."""
        bound, held = self.held(value)
        is_kind = ast.Compare(_call(_name("type"), bound), [ast.Is()], [_name(kind)])
        return ast.IfExp(is_kind, fast(held), slow(held))

    def on_const(self, node: nodes.Const) -> ast.expr:
        return ast.Constant(node.value)

    def on_name(self, node: nodes.Name) -> ast.expr:
        return _call(
            ast.Attribute(_name("scope"), "get", ast.Load()), ast.Constant(node.name), _name("missing")
        )

    def on_getattr(self, node: nodes.Getattr) -> ast.expr:
        return self._member(node.node, node.attr)

    def on_getitem(self, node: nodes.Getitem) -> ast.expr:
        if isinstance(node.arg, nodes.Slice):
            parts = (node.arg.start, node.arg.stop, node.arg.step)
            bounds = [self.value(part) if part else ast.Constant(None) for part in parts]
            return self.helper("slice", self.value(node.node), *bounds)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return self._member(node.node, node.arg.value)
        if isinstance(node.arg, nodes.Const) and type(node.arg.value) is int:
            return self.element(node.node, node.arg.value)
        return self.helper("item", self.value(node.node), self.value(node.arg))

    def element(self, owner: nodes.Node, place: int) -> ast.expr:
        """`owner[place]`, which is never negative here: a minus sign is an operator of its own."""

        def get(held: ast.expr) -> ast.expr:
            enough = ast.Compare(_call(_name("len"), held), [ast.Gt()], [ast.Constant(place)])
            return ast.IfExp(enough, ast.Subscript(held, ast.Constant(place), ast.Load()), _name("missing"))

        def other(held: ast.expr) -> ast.expr:
            return self.helper("item", held, ast.Constant(place))

        return self.when_type("list", self.value(owner), get, other)

    def _member(self, owner: nodes.Node, name: str) -> ast.expr:
        def get(held: ast.expr) -> ast.expr:
            return _call(ast.Attribute(held, "get", ast.Load()), ast.Constant(name), _name("missing"))

        def other(held: ast.expr) -> ast.expr:
            return self.helper("member", held, ast.Constant(name))

        return self.when_type("dict", self.value(owner), get, other)

    def on_compare(self, node: nodes.Compare) -> ast.expr:
        if node.ops[0].op in MEMBERSHIP:
            return self.on_membership(node)
        signs = [_COMPARISONS[operand.op]() for operand in node.ops]
        return ast.Compare(
            self.value(node.expr), list(signs), [self.value(operand.expr) for operand in node.ops]
        )

    def on_membership(self, node: nodes.Compare) -> ast.expr:
        helper, right = MEMBERSHIP[node.ops[0].op], node.ops[0].expr
        texts = _texts(right)
        if texts is None:
            return self.helper(helper, self.value(node.expr), self.value(right))
        listed = self.constant(frozenset(texts))
        sign = ast.In() if helper == "contains" else ast.NotIn()
        return self.when_type(
            "str",
            self.value(node.expr),
            lambda held: ast.Compare(held, [sign], [listed]),
            lambda held: self.helper(helper, held, self.value(right)),
        )

    def on_and(self, node: nodes.And) -> ast.expr:
        return ast.BoolOp(ast.And(), [self.value(node.left), self.value(node.right)])

    def on_or(self, node: nodes.Or) -> ast.expr:
        return ast.BoolOp(ast.Or(), [self.value(node.left), self.value(node.right)])

    def on_not(self, node: nodes.Not) -> ast.expr:
        if isinstance(node.node, nodes.Test):
            return self.on_test(node.node, negated=True)
        return ast.UnaryOp(ast.Not(), self.value(node.node))

    def on_neg(self, node: nodes.Neg) -> ast.expr:
        return self.helper("negative", self.value(node.node))

    def on_condexpr(self, node: nodes.CondExpr) -> ast.expr:
        otherwise = self.value(node.expr2) if node.expr2 is not None else _name("missing")
        return ast.IfExp(self.value(node.test), self.value(node.expr1), otherwise)

    def on_list(self, node: nodes.List) -> ast.expr:
        return ast.List([self.value(item) for item in node.items], ast.Load())

    def on_tuple(self, node: nodes.Tuple) -> ast.expr:
        return ast.Tuple([self.value(item) for item in node.items], ast.Load())

    def on_concat(self, node: nodes.Concat) -> ast.expr:
        return self.helper("concat", *map(self.value, node.nodes))

    def on_call(self, node: nodes.Call) -> ast.expr:
        arguments = [self.value(argument) for argument in node.args]
        if isinstance(node.node, nodes.Name):
            return self.helper(node.node.name, *arguments)
        assert isinstance(node.node, nodes.Getattr)  # nothing else passes the reader
        name = node.node.attr

        def slow(value: ast.expr) -> ast.expr:
            return self.helper("method", value, ast.Constant(name), *arguments)

        owner = self.value(node.node.node)
        if name == "replace" or not all(isinstance(argument, ast.Constant) for argument in arguments):
            return slow(owner)
        return self.when_type(
            "str", owner, lambda held: _call(ast.Attribute(held, name, ast.Load()), *arguments), slow
        )

    def on_test(self, node: nodes.Test, negated: bool = False) -> ast.expr:
        if node.name in ("defined", "undefined"):
            absent = (node.name == "undefined") is not negated
            value = self.value(node.node)
            if isinstance(value, (ast.Constant, ast.List, ast.Tuple)):  # Python warns of `1 is x`
                return self.helper("undefined" if absent else "defined", value)
            return ast.Compare(value, [ast.Is() if absent else ast.IsNot()], [_name("missing")])
        function: Any = self.environment.tests[f"_not_{node.name}" if negated else node.name]
        return self.applied(function, node)

    def on_filter(self, node: nodes.Filter) -> ast.expr:
        function: Callable[..., Any] = self.environment.filters[node.name]
        wanted = getattr(function, "jinja_pass_arg", None)
        if wanted is _PASS_ENVIRONMENT:
            function = partial(function, self.environment)
        elif wanted is not None:
            raise NotCompiled
        return self.applied(function, node)

    def applied(self, function: Callable[..., Any], node: nodes.Filter | nodes.Test) -> ast.expr:
        """The very function that the sandbox would call, on the same arguments."""
        assert node.node is not None
        named = [ast.keyword(_keyword(pair), self.value(pair.value)) for pair in node.kwargs]
        arguments = [self.value(node.node), *(self.value(argument) for argument in node.args)]
        return ast.Call(self.constant(function), arguments, named)


def _keyword(pair: nodes.Node) -> str:
    """The name of a named argument (Jinja's annotation says Pair, and it is a Keyword)."""
    assert isinstance(pair, nodes.Keyword)
    return pair.key


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _call(function: ast.expr, *arguments: ast.expr) -> ast.expr:
    return ast.Call(function, list(arguments), [])


def _texts(node: nodes.Node) -> list[str] | None:
    """The texts of a list that holds nothing else."""
    if not isinstance(node, (nodes.List, nodes.Tuple)):
        return None
    texts = [
        item.value for item in node.items if isinstance(item, nodes.Const) and isinstance(item.value, str)
    ]
    return texts if len(texts) == len(node.items) else None
