"""The compiled function and the sandbox are two engines with one meaning."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.language import ExpressionError, Expressions

EXPRESSIONS = Expressions({"demo_double": lambda value: [value, value]})

NAMES = ["a", "b", "items", "get", "naïve"]
WORDS = st.sampled_from(["", "a", "A", "ab", "é", "ß", "123", "[1, 2]", "None", "\U0001f600"])
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.5, 10**18]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
EVENTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
SCOPES = st.fixed_dictionaries({"event": EVENTS}, optional={"meta": EVENTS, "item": VALUES})


def literal(value: Any) -> str:
    """A value as an expression writes it."""
    if isinstance(value, str):
        return "'" + value + "'"
    return (
        {None: "none", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


def joined(*parts: Any) -> st.SearchStrategy[str]:
    """Strategies and texts, one after the other."""
    return st.tuples(*(st.just(p) if isinstance(p, str) else p for p in parts)).map("".join)


MEMBERS = st.sampled_from([".a", ".b", ".items", ".get", "['naïve']", "[0]", "[-1]", "['a']"])
PATHS = st.builds(
    lambda root, parts: root + "".join(parts),
    st.sampled_from(["event", "meta", "item"]),
    st.lists(MEMBERS, max_size=3),
)
COMPARISONS = st.sampled_from([" == ", " != ", " < ", " <= ", " > ", " >= ", " in ", " not in "])
METHODS = st.sampled_from(
    [
        ".lower()",
        ".startswith('a')",
        ".endswith('')",
        ".replace('a', 'bb')",
        ".split()",
        ".strip('a')",
        ".title()",
    ]
)
FILTERS = st.sampled_from(
    [
        "lower", "length", "first", "last", "list", "default('x')", "default(none, true)", "string", "int", "tojson",
        "sort", "unique", "join('-')", "demo_double", "map(attribute='a')", "select('defined')", "sum", "reverse", "flatten",
        "selectattr('a', '==', 1)", "rejectattr('b')", "map('lower')", "max", "round", "items", "trim", "upper",
        "selectattr('a', 'in', [1, 'a'])",
    ]
)  # fmt: skip
TESTS = st.sampled_from(
    ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "true", "in [1]"]
)
OPERATORS = st.sampled_from([" + ", " - ", " * ", " / ", " // ", " % ", " ** ", " ~ "])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One more level of an expression."""
    return st.one_of(
        joined("(", inner, COMPARISONS, inner, ")"),
        joined("(", inner, " < ", inner, " == ", inner, ")"),
        joined("(", inner, st.sampled_from([" and ", " or "]), inner, ")"),
        joined("(not ", inner, ")"),
        joined("(", inner, ")", METHODS),
        joined("(", inner, ")", MEMBERS),
        joined("(", inner, " | ", FILTERS, ")"),
        joined("(", inner, st.sampled_from([" is ", " is not "]), TESTS, ")"),
        joined("(", inner, OPERATORS, inner, ")"),
        joined("(-", inner, ")"),
        joined("[", inner, ", ", inner, "]"),
        joined("{'a': ", inner, "}.a"),
        joined("(", inner, " if ", inner, " else ", inner, ")"),
        joined("(", inner, " if ", inner, ")"),
        joined("(", inner, ")[:1]"),
        joined(st.sampled_from(["any", "all"]), "(", inner, ")"),
        joined("(", inner, ")[", inner, "]"),
    )


SOURCES: st.SearchStrategy[str] = st.recursive(
    st.one_of(PATHS, PATHS, SCALARS.map(literal)), grown, max_leaves=6
)


def rendered(source: str, scope: Any, engine: Any) -> Any:
    """What an argument with this expression gives: its value with its type, or the error."""
    try:
        value = EXPRESSIONS.template("{{ " + source + " }}", engine=engine).render(scope)
    except ExpressionError as error:
        return str(error)
    return type(value), repr(value)


@settings(max_examples=500, deadline=None)
@given(SOURCES, SCOPES)
def test_both_engines_agree_on_a_condition(source: str, scope: Any) -> None:
    """Whatever the expression and the event, both say the same, errors included."""
    compiled = EXPRESSIONS.condition(source)
    sandbox = EXPRESSIONS.condition(source, "sandbox")

    assert sandbox.engine == "sandbox"
    assert compiled.evaluate(scope) == sandbox.evaluate(scope)


@settings(max_examples=500, deadline=None)
@given(SOURCES, SCOPES)
def test_both_engines_agree_on_an_argument(source: str, scope: Any) -> None:
    """Whatever the expression and the event, both render the same value or the same error."""
    assert rendered(source, scope, "compiled") == rendered(source, scope, "sandbox")


@pytest.mark.parametrize(
    "source",
    [
        "event.a == 1 and event.b != 'x' or not event.c",
        "1 < event.a <= 3",
        "event.a in ['x', 'y'] and event.b not in event.c",
        "event.a.b['@odata.type'][0] == 'x'",
        "event.a.lower().startswith('x')",
        "any([event.a, event.b]) and all(event.c)",
        "event.a is defined and event.b is not none",
        "event.a | default('x') | lower == 'x'",
    ],
)
def test_the_pure_subset_is_compiled(source: str) -> None:
    """Comparison, membership, members, literals, methods of text, any and all cost no sandbox."""
    assert EXPRESSIONS.condition(source).engine == "compiled"


def test_what_needs_jinja_falls_back_to_the_sandbox() -> None:
    """A filter that runs other filters by name is left to Jinja."""
    condition = EXPRESSIONS.condition("event.a | selectattr('k', '==', 'x') | list | length == 1")

    assert condition.engine == "sandbox"
    assert condition.evaluate({"event": {"a": [{"k": "x"}, {"k": "y"}, {}]}})
