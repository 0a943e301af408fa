"""The part of OData that Graph's collections understand: `$filter`, `$orderby`, `$top`, `$select`.

`$filter` takes `eq ne gt ge lt le in and or not`, parentheses, `startswith endswith contains`, and `any` over
a list, with casts (`evidence/any(e: e/microsoft.graph.security.userEvidence/userAccount/userPrincipalName eq
'a@b.c')`), over the properties that the caller allows; anything else is refused, as the real service does
with a property that it cannot filter on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Doc = dict[str, Any]
Test = Callable[[Any], bool]
Value = Callable[[Any], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))"
    r"|(?P<guid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})|(?P<number>-?\d+)"
    r"|(?P<word>[A-Za-z_@$][\w/.@]*)|(?P<mark>[(),:]))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: bool(a == b),
    "ne": lambda a, b: bool(a != b),
    "gt": lambda a, b: a is not None and bool(a > b),
    "ge": lambda a, b: a is not None and bool(a >= b),
    "lt": lambda a, b: a is not None and bool(a < b),
    "le": lambda a, b: a is not None and bool(a <= b),
}
_FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": str.__contains__,
}
_WORDS = {"true": True, "false": False, "null": None}
_DEEPEST = 100  # the documented maximum of nodes in a filter


class ODataError(ValueError):
    """A query option that the service refuses; the text is its message."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed `$filter`: call it with a document.

    `words` are the operators and functions that it uses, in lower case; `equals` the values that single
    properties must have for it to hold, which an index can look up.
    """

    test: Test
    words: frozenset[str]
    equals: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, document: Any) -> bool:
        return self.test(document)


def parse_filter(
    text: str,
    properties: Collection[str],
    type_name: str,
    *,
    known: Collection[str] = (),
    fold: bool = False,
) -> Filter:
    """A predicate over documents. ODataError: the filter is malformed or names another property.

    `properties` may be paths (`status/errorCode`) and prefixes of any path (`deviceDetail/*`); `known` are
    properties that exist and cannot be filtered on; `fold` compares text without regard to case.
    """
    try:
        parser = _Parser(text, properties, type_name, known, fold)
        test = parser.parse()
    except RecursionError:
        raise ODataError("Invalid filter clause: The recursion limit has been exceeded.") from None
    return Filter(test, frozenset(parser.words), {} if parser.words & {"or", "not"} else parser.equals)


def order(documents: list[Doc], text: str, properties: Collection[str], type_name: str) -> list[Doc]:
    """Documents by properties, each `asc` or `desc`."""
    ordered = documents
    for clause in reversed(text.split(",")):
        words = clause.split()
        if not words or len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
            raise ODataError(f"Invalid $orderby clause: '{text}'.")
        if words[0] not in properties:
            raise no_property(words[0], type_name)
        ordered = sorted(ordered, key=_by(words[0]), reverse=words[1:] == ["desc"])
    return ordered


def number(text: str, name: str, most: int, *, least: int = 1) -> int:
    """A whole number, such as `$top`."""
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ODataError(f"Invalid value '{text}' for {name} query option found.")
    return int(text)


def no_property(name: str, type_name: str) -> ODataError:
    """What the service says of a property that it does not know."""
    return ODataError(f"Could not find a property named '{name}' on type '{type_name}'.")


class _Parser:
    def __init__(
        self, text: str, properties: Collection[str], type_name: str, known: Collection[str], fold: bool
    ) -> None:
        self._properties = properties
        self._prefixes = tuple(name[:-1] for name in properties if name.endswith("/*"))
        self._known = known
        self._type = type_name
        self._fold = fold
        self._tokens = list(self._scan(text))
        self._at = 0
        self._depth = 0
        self._variables: list[str] = []
        self.words: set[str] = set()
        self.equals: dict[str, Any] = {}

    def parse(self) -> Test:
        test = self._or()
        if self._at != len(self._tokens):
            raise self._error()
        return test

    def _scan(self, text: str) -> list[tuple[str, str]]:
        found, position = [], 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise ODataError(f"Invalid filter clause: Syntax error at position {position} in '{text}'.")
            found.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()
        return found

    def _or(self) -> Test:
        left = self._and()
        while self._accept("or"):
            self.words.add("or")
            left = _either(left, self._and())
        return left

    def _and(self) -> Test:
        left = self._not()
        while self._accept("and"):
            left = _both(left, self._not())
        return left

    def _not(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST * 10:
            raise RecursionError
        if self._accept("not"):
            self.words.add("not")
            inner = self._not()
            return lambda doc: not inner(doc)
        if self._accept("("):
            inner = self._or()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        kind, name = self._next()
        if kind != "word":
            raise self._error()
        if name.lower() in _FUNCTIONS and self._accept("("):
            return self._function(name.lower())
        if name.endswith(("/any", "/all")) and self._accept("("):
            return self._lambda(name[:-4], every=name.endswith("/all"))
        read = self._property(name)
        operator = self._next()[1].lower()
        self.words.add(operator)
        if operator == "in":
            values = self._list()
            return lambda doc: read(doc) in values
        compare = _COMPARE.get(operator)
        if compare is None:
            raise self._error()
        literal = self._literal()
        if operator == "eq" and isinstance(literal, str) and not self._variables:
            self.equals[name] = literal

        def test(doc: Any) -> bool:
            try:
                return compare(read(doc), literal)
            except TypeError:
                raise ODataError(
                    f"A binary operator with incompatible types was detected for '{name}'."
                ) from None

        return test

    def _function(self, name: str) -> Test:
        self.words.add(name)
        read = self._property(self._next()[1])
        self._expect(",")
        literal = self._literal()
        self._expect(")")
        if not isinstance(literal, str):
            raise ODataError(f"No function signature for the function with name '{name}' matches.")
        if self._accept("eq"):  # `startswith(a,'b') eq true`
            wanted = self._literal()
            if not isinstance(wanted, bool):
                raise self._error()
        else:
            wanted = True
        compare = _FUNCTIONS[name]

        def test(doc: Any) -> bool:
            value = read(doc)
            return (isinstance(value, str) and compare(value, literal)) is wanted

        return test

    def _lambda(self, name: str, *, every: bool) -> Test:
        self.words.add("all" if every else "any")
        inside = bool(self._variables)
        variable, _, rest = name.partition("/")
        read = (
            self._from_variable(rest) if inside and variable == self._variables[-1] else self._property(name)
        )
        kind, variable = self._next()
        if kind != "word" or not variable.isidentifier():
            raise self._error()
        self._expect(":")
        self._variables.append(variable)
        inner = self._or()
        self._variables.pop()
        self._expect(")")
        combine = all if every else any

        def test(doc: Any) -> bool:
            values = read(doc)
            return combine(inner(one) for one in values) if isinstance(values, list) else every

        return test

    def _property(self, name: str) -> Value:
        if self._variables:
            variable, _, rest = name.partition("/")
            if variable != self._variables[-1]:
                raise no_property(name, self._type)
            return self._from_variable(rest)
        first = name.partition("/")[0]
        if name not in self._properties and not name.startswith(self._prefixes or ("\0",)):
            if first in self._known:
                raise ODataError(f"The property '{name}' cannot be used in the $filter query option.")
            raise no_property(name, self._type)
        return self._reader(name.split("/"))

    def _from_variable(self, path: str) -> Value:
        """`e`, `e/name`, or `e/some.derived.type/name`, which only elements of that type have."""
        return self._reader(path.split("/") if path else [])

    def _reader(self, path: list[str]) -> Value:
        read, fold = _reader(path), self._fold

        def value(doc: Any) -> Any:
            found = _value(read(doc))
            return found.lower() if fold and isinstance(found, str) else found

        return value

    def _list(self) -> list[Any]:
        self._expect("(")
        values = [self._literal()]
        while self._accept(","):
            values.append(self._literal())
        self._expect(")")
        return values

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind in ("text", "guid"):
            text = text[1:-1].replace("''", "'") if kind == "text" else text
            return text.lower() if self._fold else text
        if kind == "time":
            return _value(text)
        if kind == "number":
            return int(text)
        if text in _WORDS:
            return _WORDS[text]
        raise self._error()

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._error()
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] in (("word", text), ("mark", text)):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error()

    def _error(self) -> ODataError:
        return ODataError(f"Invalid filter clause: Syntax error near token {self._at}.")


def _both(left: Test, right: Test) -> Test:
    return lambda doc: left(doc) and right(doc)


def _either(left: Test, right: Test) -> Test:
    return lambda doc: left(doc) or right(doc)


def _reader(path: list[str]) -> Value:
    """Follows members; a name with a dot in it is a cast: `#name` must be the value's type."""

    def read(value: Any) -> Any:
        for name in path:
            if not isinstance(value, dict):
                return None
            if "." in name and not name.startswith("@"):
                if value.get("@odata.type") != f"#{name}":
                    return None
            else:
                value = value.get(name)
        return value

    return read


def _by(path: str) -> Callable[[Doc], tuple[bool, Any]]:
    read = _reader(path.split("/"))
    return lambda doc: _sortable(read(doc))


def _sortable(value: Any) -> tuple[bool, Any]:
    value = _value(value)
    return (value is not None, value if isinstance(value, str | int | float | tuple) else str(value))


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def _value(value: Any) -> Any:
    """Times become comparable (the second, then its fraction); everything else stays."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return value
    return (moment.timestamp(), (match[2] or "").ljust(9, "0"))
