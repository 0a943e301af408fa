"""What conditions and templates mean, and what they may not do."""

# ruff: noqa: E501  # a case on one line reads better than one that is wrapped

from __future__ import annotations

import time
from typing import Any

import pytest

from counterplay.language import ExpressionError, Expressions, ExpressionSyntaxError

EVENT: dict[str, Any] = {
    "status": "new",
    "count": 3,
    "nothing": None,
    "name": "Ada",
    "items": [1, 2],
    "values": "mine",
    "evidence": [{"user": "ada@contoso.com"}],
    "text": "123",
    "listed": "[1, 2]",
    "template": "{{ 7 * 7 }}",
    "flag": True,
    "@odata.type": "#alert",
}
SCOPE = {"event": EVENT, "meta": {"feed": "alerts"}}


@pytest.fixture(params=["compiled", "sandbox"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Every rule holds in both engines."""
    return request.param


@pytest.fixture
def expressions() -> Expressions:
    """The built-in filters and one of a plugin."""
    return Expressions({"demo_users": lambda evidence: [entry["user"] for entry in evidence]})


def whole(expressions: Expressions, engine: Any, text: Any) -> Any:
    """What an argument renders to."""
    return expressions.template({"user_id": text}, engine=engine).render(SCOPE)["user_id"]


@pytest.mark.parametrize(
    "source",
    [
        "event.status == 'new'",
        "event.count > 2 and event.count < 4",
        "1 < event.count <= 3",
        "event.status in ['new', 'old']",
        "event.status not in ['old']",
        "'d' in event.name",
        "event.items == [1, 2]",
        "event.values == 'mine'",
        "event.items[-1] == 2",
        "event['@odata.type'] == '#alert'",
        "event.name.lower().startswith('a')",
        "event.nothing is none and event.gone is not defined",
        "event.evidence | demo_users | first == 'ada@contoso.com'",
        "any([event.gone, event.flag]) and all(event.items)",
        "event.evidence | selectattr('user', 'eq', 'ada@contoso.com') | list | length == 1",
        "not event.gone",
        "event.gone | default('x') == 'x'",
        "event.name[0:2] == 'Ad'",
        "meta.feed ~ '!' == 'alerts!'",
    ],
)
def test_conditions_that_hold(expressions: Expressions, engine: Any, source: str) -> None:
    """The expressions that authors write."""
    truth = expressions.condition(source, engine).evaluate(SCOPE)

    assert (truth.value, truth.error) == (True, None)


@pytest.mark.parametrize(
    "source",
    [
        "event.gone == 'x'",
        "event.gone != 'x'",
        "'x' != event.gone",
        "event.gone == event.gone",
        "event.gone < 3",
        "3 < event.gone",
        "event.gone in ['x']",
        "event.gone not in ['x']",
        "'x' in event.gone",
        "'x' not in event.gone",
        "event.gone in 'text'",
        "event.gone.deeper.still != 1",
        "event.name.upper == 'ADA'",
        "event.get == 1",
        "event.keys is defined",
        "event.gone.lower() != 'x'",
        "event.gone | lower != 'x'",
        "event.gone | length == 0",
        "event.gone is none",
        "event.gone is not none",
        "event.items[7] != 1",
        "item == 1",
        "event.evidence | selectattr('user', 'eq', 'eve')",
    ],
)
def test_missing_equals_nothing(expressions: Expressions, engine: Any, source: str) -> None:
    """A comparison with a field that is not there is false, whichever way it is asked, and no error."""
    truth = expressions.condition(source, engine).evaluate(SCOPE)

    assert (truth.value, truth.error) == (False, None)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("event.count < 'a'", "'<' not supported between instances of 'int' and 'str'"),
        ("event.status == 'new' and event.count.lower() == 'x' or true", None),
        ("event.flag or event.count.lower() == 'x'", "fine"),
        ("event.gone + 1 > 0", "a field that it computes with is missing"),
        ("'x' in event.count", "argument of type 'int' is not iterable"),
        ("1 / 0 == 1", "division by zero"),
        ("'a' * 200000000 == 'a'", "it would produce 200,000,000 characters or elements; 2,000,000 is the limit"),
        ("event.items * 200000000 == 1", "it would produce 400,000,000 characters or elements; 100,000 is the limit"),
        ("2 ** 100000 > 1", "the number would have 200,000 bits; 4,096 is the limit"),
        ("9 ** 9 ** 9 ** 9 ** 9 > 1", None),
        ("'%1000000000d' % 1 == ''", "% does not format text here; write `{{ }}` or ~"),
        ("event.name.replace('', 'x' * 1900000) == ''",
         "it would produce 7,600,003 characters or elements; 2,000,000 is the limit"),
    ],
)  # fmt: skip
def test_a_condition_that_raises_is_false_as_a_whole(
    expressions: Expressions, engine: Any, source: str, reason: str | None
) -> None:
    """The error travels in the answer; what `or` never looks at raises nothing."""
    truth = expressions.condition(source, engine).evaluate(SCOPE)

    if reason == "fine":
        assert (truth.value, truth.error) == (True, None)
    else:
        assert not truth.value
        assert truth.error
        assert truth.error.startswith(f"`{source}`: ")
        assert reason is None or truth.error == f"`{source}`: {reason}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ event.count }}", 3),
        ("{{ event.items }}", [1, 2]),
        ("{{ event.nothing }}", None),
        ("{{ event.flag }}", True),
        ("{{ event.text }}", "123"),
        ("{{ event.listed }}", "[1, 2]"),
        ("{{ event.template }}", "{{ 7 * 7 }}"),
        ("{{- event.count -}}", 3),
        ("n={{ event.count }}", "n=3"),
        ("{{ event.count }} ", "3 "),
        ("{{ event.items }}{{ event.nothing }}", "[1, 2]"),
        ("is {{ event.flag }}", "is true"),
        ("{{ event.evidence }}.", '[{"user": "ada@contoso.com"}].'),
        ("{{ '{{' }} and }}", "{{ and }}"),
        ("{{ event.gone | default('x') }}", "x"),
        ("{{ event.gone.deeper | default(event.name) }}", "Ada"),
        ("{{ event.gone is defined }}", False),
        ("{{ event.evidence | demo_users | first }}", "ada@contoso.com"),
        ("{{ {'a': (1, 2), 'b': event.name | tojson} }}", {"a": [1, 2], "b": '"Ada"'}),
        ("{{ event.items | map('string') | join(',') }}", "1,2"),
        ("{{ [event.items, [], 3, [[4]]] | flatten }}", [1, 2, 3, [4]]),
        ("{{ 'a' if event.flag else 'b' }}", "a"),
        ("no expression }}", "no expression }}"),
        (["{{ event.count }}", {"k": "{{ event.name }}"}], [3, {"k": "Ada"}]),
        (7, 7),
    ],
)
def test_a_text_that_is_one_expression_keeps_the_type(
    expressions: Expressions, engine: Any, text: Any, value: Any
) -> None:
    """Mixed texts are texts, and nothing of the event is ever read as a template or a literal."""
    found = whole(expressions, engine, text)

    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ event.gone }}", "event.gone is missing"),
        ("{{ event.evidence.user }}", "event.evidence.user is missing"),
        ("{{ event.evidence[3].user }}", "event.evidence[3] is missing"),
        ("hello {{ event['@odata.id'] }}", 'event["@odata.id"] is missing'),
        ("{{ event.gone == 1 }}", "event.gone is missing"),
        ("{{ event.gone or 'x' }}", "event.gone is missing"),
        ("{{ event.gone | lower }}", "event.gone is missing"),
        ("{{ event.gone.lower() }}", "event.gone is missing"),
        ("{{ event.name ~ event.gone }}", "event.gone is missing"),
        ("{{ event.a | default(event.b) }}", "event.b is missing"),
        ("{{ item.name }}", "item is missing"),
        ("{{ [] | first }}", "`[] | first` gives no value"),
        ("{{ [event.gone] }}", "event.gone is missing"),
    ],
)
def test_a_missing_field_in_an_argument_is_named(
    expressions: Expressions, engine: Any, text: str, message: str
) -> None:
    """The error names the argument and how far the data went."""
    with pytest.raises(ExpressionError) as caught:
        whole(expressions, engine, text)

    assert str(caught.value) == f"with.user_id: {message}; write `| default(...)` where it may be missing"


def test_an_error_in_a_nested_argument_names_its_path(expressions: Expressions) -> None:
    """Lists count from 0."""
    template = expressions.template({"a": [{"b": "{{ 1 / 0 }}"}]})

    with pytest.raises(ExpressionError, match=r"^with\.a\[0\]\.b: `1 / 0`: division by zero$"):
        template.render(SCOPE)


def test_what_is_rendered_may_be_changed(expressions: Expressions, engine: Any) -> None:
    """A module that changes its arguments does not change the event of the next step."""
    whole(expressions, engine, "{{ event.items }}").append(3)

    assert EVENT["items"] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 200000000 }}",
        "{{ [0] * 200000000 }}",
        "{{ " + " ~ ".join(["event.large"] * 9) + " }}",
        "{{ event.large }}" * 9,
        "{{ [" + ", ".join(["event.large"] * 9) + "] }}",
        "{{ event.large.replace('x', 'yyyyyyyyy') }}",
        "{{ event.large | replace('x', 'yyyyyyyyy') }}",
        "{{ [event.large, event.large, event.large] | join(event.large) }}",
        "{{ event.items | map('replace', 1, event.large ~ event.large) | join(event.large) }}",
        "{{ event.many | map('replace', 'x', event.large) | length }}",
    ],
)
def test_what_would_grow_too_large_is_refused_in_time(
    expressions: Expressions, engine: Any, text: str
) -> None:
    """The limit is looked at before the memory is taken."""
    began = time.process_time()
    scope = {"event": {**EVENT, "large": "x" * 900_000, "many": ["x"] * 90_000}}

    with pytest.raises(ExpressionError, match=r"^with: .*(limit|larger than)"):
        expressions.template(text, engine=engine).render(scope)

    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("event.__class__", "'__class__' cannot be reached: names that begin with _ are closed"),
        ("''.__class__.__mro__[1].__subclasses__()", "__subclasses__"),
        ("event['__class__']", "'__class__' cannot be reached: names that begin with _ are closed"),
        ("event._private", "'_private' cannot be reached: names that begin with _ are closed"),
        ("event | attr('x')", "there is no filter 'attr'"),
        ("event | _method('format')", "there is no filter '_method'"),
        ("event is _not_none", "there is no test '_not_none'"),
        ("event.items()", "items() cannot be called: only methods of text can; "
                          "for the member of that name write .items without (), or use a filter"),
        ("'{0.__class__}'.format(event)", "format() cannot be called: only methods of text can"),
        ("event.name.format_map(event)", "format_map() cannot be called: only methods of text can"),
        ("lipsum()", "lipsum() cannot be called; use a filter, as in `value | length`"),
        ("range(9)", "range() cannot be called; use a filter, as in `value | length`"),
        ("event.lower()()", "this() cannot be called; use a filter, as in `value | length`"),
        ("evnt.status", "'evnt' is not known here; did you mean 'event'?"),
        ("self", "'self' is not known here"),
        ("event.a ==", "cannot read the expression `event.a ==`"),
        ("event.a = 1", "cannot read the expression `event.a = 1`: '=' is not expected there; "
                        "compare with ==, join conditions with and, or"),
        ("{{ event.a }}", "braces around a bare expression; write it without {{ }}"),
        ("", "an empty expression"),
        ("event.a | lowr", "there is no filter 'lowr'; did you mean 'lower'?"),
        ("event.a is defind", "there is no test 'defind'; did you mean 'defined'?"),
        ("1 < event.a in [1]", "`in` within a chain of comparisons"),
        ("any(event.a, 1)", "any() takes one list; write any([a, b])"),
        ("event.name.replace(old='a')", "a call with named arguments"),
        ("event.a | join(*event.b)", "`*` in front of arguments"),
        ("(" * 2000, "the expression is nested too deeply"),
        ("not " * 100 + "event.a", "the expression is nested too deeply"),
        ("event.a" + ".a" * 100, "the expression is nested too deeply"),
        ("event.a or " * 2000 + "1", "an expression of 22,001 characters"),
        ("[" + "1," * 1200 + "]", "the expression has too many parts"),
        ("9" * 5000 + " == 1", "cannot read the expression"),
        ("'\\ud800' == '", "cannot read the expression"),
    ],
)  # fmt: skip
def test_what_an_expression_may_not_be(expressions: Expressions, source: str, message: str) -> None:
    """Refused when it is read, with the next step."""
    with pytest.raises(ExpressionSyntaxError) as caught:
        expressions.condition(source)

    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["{% if x %}", "a {# b #}", "{% raw %}x{% endraw %}"])
def test_statements_and_comments_are_refused(expressions: Expressions, text: str) -> None:
    """Only `{{ }}` is part of the language."""
    with pytest.raises(ExpressionSyntaxError, match="statements and comments are not part of expressions"):
        expressions.template({"a": text})


@pytest.mark.parametrize("text", ["{{ event.a", "a {{", "{{ }}", "{{ a b }}", "{{ (1 }}"])
def test_a_template_that_cannot_be_read_is_refused(expressions: Expressions, text: str) -> None:
    """When it is compiled, not when it is rendered."""
    with pytest.raises(ExpressionSyntaxError):
        expressions.template({"a": text})


def test_a_plugin_filter_that_fails_is_an_error_of_the_argument() -> None:
    """Whatever it raises, the message names the argument, and the run sees one kind of error."""
    expressions = Expressions({"demo_bad": lambda value: {}["gone"], "demo_set": lambda value: {1}})

    with pytest.raises(ExpressionError, match=r"^with\.a: `event \| demo_bad`: 'gone'$"):
        expressions.template({"a": "{{ event | demo_bad }}"}).render(SCOPE)
    with pytest.raises(ExpressionError, match=r"^with\.a: `event \| demo_set`: a set is no JSON value$"):
        expressions.template({"a": "{{ event | demo_set }}"}).render(SCOPE)


def test_a_plugin_does_not_replace_a_built_in_filter() -> None:
    """What `first` means is the same in every installation."""
    expressions = Expressions({"first": lambda value: "other"})

    assert expressions.template("{{ event.items | first }}").render(SCOPE) == 1


def test_an_expression_is_compiled_once(expressions: Expressions) -> None:
    """The same source gives the same condition."""
    assert expressions.condition("event.a == 1") is expressions.condition("event.a == 1")
