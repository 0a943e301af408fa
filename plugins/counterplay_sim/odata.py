"""The part of OData that Graph's collections here understand: `$filter`, `$orderby`, `$top`, `$select`.

`$filter` takes `eq ne gt ge lt le in and or not` and parentheses over the properties that the caller
allows; anything else is refused, as the real service does with a property that it cannot filter on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

Doc = dict[str, Any]
Test = Callable[[Doc], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))|(?P<number>-?\d+)"
    r"|(?P<word>[A-Za-z_][\w/.]*)|(?P<mark>[(),]))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: bool(a == b),
    "ne": lambda a, b: bool(a != b),
    "gt": lambda a, b: a is not None and bool(a > b),
    "ge": lambda a, b: a is not None and bool(a >= b),
    "lt": lambda a, b: a is not None and bool(a < b),
    "le": lambda a, b: a is not None and bool(a <= b),
}
_WORDS = {"true": True, "false": False, "null": None}


class ODataError(ValueError):
    """A query option that the service refuses; the text is its message."""


def parse_filter(text: str, properties: Collection[str], type_name: str) -> Test:
    """A predicate over documents. ODataError: the filter is malformed or names another property."""
    try:
        return _Parser(text, properties, type_name).parse()
    except RecursionError:
        raise ODataError("Invalid filter clause: The recursion limit has been exceeded.") from None


def order(documents: list[Doc], text: str, properties: Collection[str], type_name: str) -> list[Doc]:
    """Documents by one property, `asc` or `desc`."""
    words = text.split()
    if not words or len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise ODataError(f"Invalid $orderby clause: '{text}'.")
    _known(words[0], properties, type_name)
    return sorted(documents, key=lambda doc: _value(doc.get(words[0])) or "", reverse=words[1:] == ["desc"])


def number(text: str, name: str, most: int) -> int:
    """A positive whole number, such as `$top`."""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= most:
        raise ODataError(f"Invalid value '{text}' for {name} query option found.")
    return int(text)


def no_property(name: str, type_name: str) -> ODataError:
    """What the service says of a property that it does not know."""
    return ODataError(f"Could not find a property named '{name}' on type '{type_name}'.")


def _known(name: str, properties: Collection[str], type_name: str) -> str:
    if name not in properties:
        raise no_property(name, type_name)
    return name


class _Parser:
    def __init__(self, text: str, properties: Collection[str], type_name: str) -> None:
        self._properties = properties
        self._type = type_name
        self._tokens = list(self._scan(text))
        self._at = 0

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
            left = _either(left, self._and())
        return left

    def _and(self) -> Test:
        left = self._not()
        while self._accept("and"):
            left = _both(left, self._not())
        return left

    def _not(self) -> Test:
        if self._accept("not"):
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
        _known(name, self._properties, self._type)
        operator = self._next()[1]
        if operator == "in":
            values = self._list()
            return lambda doc: _value(doc.get(name)) in values
        compare = _COMPARE.get(operator)
        if compare is None:
            raise self._error()
        literal = self._literal()

        def test(doc: Doc) -> bool:
            try:
                return compare(_value(doc.get(name)), literal)
            except TypeError:
                raise ODataError(
                    f"A binary operator with incompatible types was detected for '{name}'."
                ) from None

        return test

    def _list(self) -> list[Any]:
        self._expect("(")
        values = [self._literal()]
        while self._accept(","):
            values.append(self._literal())
        self._expect(")")
        return values

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind == "text":
            return text[1:-1].replace("''", "'")
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
