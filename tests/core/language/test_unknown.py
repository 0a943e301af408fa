"""Expressions over what is not known yet."""

from itertools import product
from typing import Any

import pytest

from counterplay.language import Expressions
from counterplay.language.unknown import UNKNOWN, rendered, truth, unknown_paths, value

EXPRESSIONS = Expressions()
SCOPE = {"event": {"a": True, "b": False, "n": 3}, "steps": {"ask": {"result": UNKNOWN, "status": UNKNOWN}}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("steps.ask.result.approved", None),
        ("not steps.ask.result.approved", None),
        ("event.b and steps.ask.result.approved", False),
        ("steps.ask.result.approved and event.b", False),
        ("event.a or steps.ask.result.approved", True),
        ("steps.ask.result.approved or event.a", True),
        ("event.a and steps.ask.result.approved", None),
        ("steps.ask.result.n > 3", None),
        ("steps.ask.result is defined", None),
        ("steps.ask.result | default('x') == 'x'", None),
        ("event.n > 2", True),
        ("event.gone.deep == 1", False),
        ("event.n / 0 > 1", False),
        ("steps.ask.result or event.n / 0 > 1", None),
        ("event.a if steps.ask.result else event.b", None),
        ("steps.ask.result in [1, 2] and not event.a", False),
    ],
)
def test_a_condition_is_unknown_only_where_that_matters(source: str, expected: bool | None) -> None:
    """Logic decides what it can without the unknown part."""
    assert truth(EXPRESSIONS.condition(source), SCOPE, EXPRESSIONS) is expected


@pytest.mark.parametrize(
    "source",
    ["x and y", "x or y", "not x", "not (x and y)", "not x or y", "(x or y) and not (x and y)", "x == y"],
)
def test_whatever_the_unknown_turns_out_to_be_agrees_with_what_was_said(source: str) -> None:
    """What is said with a part unknown holds for each value that it can take."""
    text = source.replace("x", "event.x").replace("y", "event.y")
    condition = EXPRESSIONS.condition(text)
    for x, y in product([True, False, UNKNOWN], repeat=2):
        said = truth(condition, {"event": {"x": x, "y": y}}, EXPRESSIONS)
        possible = {
            bool(condition.evaluate({"event": {"x": one, "y": other}}))
            for one in ([True, False] if x is UNKNOWN else [x])
            for other in ([True, False] if y is UNKNOWN else [y])
        }
        assert said is None or possible == {said}
        if x is not UNKNOWN and y is not UNKNOWN:
            assert said is not None


def test_arguments_keep_what_is_known() -> None:
    """Only the texts that read something unknown are unknown."""
    template = EXPRESSIONS.template(
        {
            "user": "{{ event.n }}",
            "note": "by {{ steps.ask.result.by }}",
            "list": ["{{ steps.ask.status }}", 1],
        }
    )

    found: Any = rendered(template, SCOPE, EXPRESSIONS)

    assert found == {"user": 3, "note": UNKNOWN, "list": [UNKNOWN, 1]}
    assert unknown_paths(template.source, SCOPE, EXPRESSIONS) == ["steps.ask.result.by", "steps.ask.status"]


def test_a_whole_that_holds_the_unknown_is_unknown() -> None:
    """Reading all steps at once reads the unknown one, too."""
    assert value("steps", "for_each", SCOPE, EXPRESSIONS) is UNKNOWN
    assert value("event.n", "for_each", SCOPE, EXPRESSIONS) == 3
