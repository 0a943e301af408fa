"""What the operators of an expression mean, for both of its engines.

The compiled function and the Jinja sandbox call the same helpers, so that an expression has one
meaning. A field that is not there is the value `missing`. In a condition it equals nothing: every
comparison with it is false (`!=` too), a filter or a method of it is missing again. In an argument
any use of it, other than to ask `is defined` or to give a `default`, raises MissingError.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Self, cast

from jinja2.runtime import Undefined

MAX_TEXT = 2_000_000
"""Characters in a text, and values in a result: twice the largest event that a run keeps inline."""
MAX_ITEMS = 100_000
"""Elements that a filter or an operator may produce."""
MAX_DIGITS = 4_096
"""Bits in a whole number that an operator may produce."""


class MissingError(Exception):
    """A field that is not there was used where its value is needed."""


class TooLargeError(Exception):
    """An operator or a filter would produce more than an expression may."""


class Missing(Undefined):
    """The value of a field that is not there. There is one for conditions and one for arguments."""

    __slots__ = ()
    _one: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls._one is None or type(cls._one) is not cls:
            cls._one = super().__new__(cls)
        return cast(Self, cls._one)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(name="value")

    def _fail(self, *_: Any, **__: Any) -> NoReturn:
        raise MissingError

    _fail_with_undefined_error = _fail
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _fail
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _fail
    __pow__ = __rpow__ = __pos__ = __neg__ = __call__ = __getitem__ = _fail
    __int__ = __float__ = __complex__ = __str__ = __iter__ = __len__ = _fail

    def __hash__(self) -> int:
        return 0


class MissingInCondition(Missing):
    """Equals nothing, is less than nothing, and is false."""

    __slots__ = ()

    def _never(self, other: object) -> bool:
        return False

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _never  # type: ignore[assignment]  # Jinja's raise
    __hash__ = Missing.__hash__

    def __bool__(self) -> bool:
        return False


class MissingInArgument(Missing):
    """Raises when it is used."""

    __slots__ = ()
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = Missing._fail
    __hash__ = Missing.__hash__


# fmt: off
STRING_METHODS = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower",
    "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
))
# fmt: on


class Semantics:
    """The helpers for one kind of expression; `missing` is its value for what is not there."""

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    def member(self, value: Any, name: str) -> Any:
        """`value.name`: a member of an object of the data, never an attribute or a method."""
        if value is not self.missing and isinstance(value, Mapping):  # asking an ABC is slow
            return value.get(name, self.missing)
        return self.missing

    def item(self, value: Any, key: Any) -> Any:
        """`value[key]`: a member by name, or an element by position."""
        if key is self.missing or value is self.missing:
            return self.missing
        if isinstance(value, Mapping):
            return value.get(key, self.missing) if isinstance(key, str) else self.missing
        if isinstance(value, (list, tuple, str)) and type(key) is int:
            try:
                return value[key]
            except IndexError:
                return self.missing
        return self.missing

    def slice(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]` of a list or a text."""
        for part in (value, start, stop, step):
            if part is self.missing:
                return self.propagate()
        if not isinstance(value, (list, tuple, str)):
            raise TypeError(f"{kind_of(value)} cannot be cut into a part")
        return value[start:stop:step]

    def contains(self, element: Any, container: Any) -> bool:
        """`element in container`; false when either is missing."""
        if element is self.missing or container is self.missing:
            return bool(self.missing)
        return bool(element in container)

    def lacks(self, element: Any, container: Any) -> bool:
        """`element not in container`; false when either is missing, as `!=` is."""
        if element is self.missing or container is self.missing:
            return bool(self.missing)
        return bool(element not in container)

    def method(self, value: Any, name: str, *arguments: Any) -> Any:
        """`value.name(arguments)` for the methods of text that are allowed."""
        for part in (value, *arguments):
            if part is self.missing:
                return self.propagate()
        if not isinstance(value, str):
            raise TypeError(f"{name}() is for text, and this is {kind_of(value)}")
        if name not in STRING_METHODS:
            raise TypeError(f"{name}() is no method of text here")
        if name == "replace":
            return self.replace(value, *arguments)
        return getattr(value, name)(*arguments)

    def replace(self, value: Any, old: Any, new: Any, count: Any = -1) -> str:
        """The text with `old` replaced; refused before it grows too large."""
        source, old, new = text_of(value), text_of(old), text_of(new)
        count = -1 if count is None else int(count)
        hits = source.count(old) if count < 0 else min(count, source.count(old))
        _limit(len(source) + hits * (len(new) - len(old)), MAX_TEXT)
        return source.replace(old, new, count)

    def binary(self, sign: str, left: Any, right: Any) -> Any:
        """`left sign right`, within the limits."""
        if left is self.missing or right is self.missing:
            raise MissingError
        if sign == "+" and _sized(left) and _sized(right):
            _limit(len(left) + len(right), MAX_TEXT if isinstance(left, str) else MAX_ITEMS)
        elif sign == "*":
            _limit_product(left, right)
        elif sign == "%" and isinstance(left, str):
            raise TypeError("% does not format text here; write `{{ }}` or ~")
        elif sign == "**":
            _limit_power(left, right)
        return _OPERATORS[sign](left, right)

    def negative(self, value: Any) -> Any:
        """`-value`."""
        if value is self.missing:
            raise MissingError
        return -value

    def concat(self, *parts: Any) -> str:
        """`a ~ b`: both as text."""
        for part in parts:
            if part is self.missing:
                raise MissingError
        return joined([text_of(part) for part in parts])

    def any(self, values: Any) -> Any:
        """Whether one of the values is true."""
        return any(map(bool, values)) if values is not self.missing else self.propagate()

    def all(self, values: Any) -> Any:
        """Whether every value is true."""
        return all(map(bool, values)) if values is not self.missing else self.propagate()

    def test(self, function: Callable[..., Any], negated: bool, value: Any, *rest: Any, **named: Any) -> bool:
        """`value is test`, or `is not` when negated; false in both cases when something is missing."""
        for part in (value, *rest, *named.values()):
            if part is self.missing:
                return bool(self.missing)
        return bool(function(value, *rest, **named)) is not negated

    def defined(self, value: Any) -> bool:
        """Whether the field is there; null is a value."""
        return value is not self.missing

    def undefined(self, value: Any) -> bool:
        """Whether the field is not there."""
        return value is self.missing

    def default(self, value: Any, default: Any = "", boolean: Any = False) -> Any:
        """The value, or the default when the field is not there (with `true`: when it is empty, too)."""
        if value is self.missing or (boolean and not value):
            return default
        return value

    def propagate(self) -> Missing:
        """What becomes of something done to a missing value: missing again, or an error."""
        bool(self.missing)  # raises in an argument
        return self.missing


CONDITION = Semantics(MissingInCondition())
ARGUMENT = Semantics(MissingInArgument())


def kind_of(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for types, name in (
        (str, "text"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
        (Mapping, "an object"),
    ):
        if isinstance(value, cast(Any, types)):
            return name
    return f"a {type(value).__name__}"


def text_of(value: Any) -> str:
    """A value as it stands inside a text: JSON for lists and objects, nothing for null."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return json_text(value)


def json_text(value: Any) -> str:
    """A value as JSON text, without escapes that JSON does not need."""
    return json.dumps(settled(value), ensure_ascii=False)


def joined(parts: list[str]) -> str:
    """The parts as one text, refused when it is too large."""
    _limit(sum(map(len, parts)), MAX_TEXT)
    return "".join(parts)


def finite(values: Iterator[Any]) -> list[Any]:
    """What a lazy filter yields, as a list; refused while it grows too large, not afterwards."""
    found: list[Any] = []
    size = 0
    for value in values:
        found.append(value)
        size += len(value) if isinstance(value, (str, list, dict)) else 1
        _limit(len(found), MAX_ITEMS)
        _limit(size, MAX_TEXT)
    return found


def settled(value: Any) -> Any:
    """A copy of a result that is plain JSON data. TypeError: it is not. TooLargeError: it is too much."""
    return _settled(value, [MAX_TEXT])


def _settled(value: Any, budget: list[int]) -> Any:
    budget[0] -= 1 + (len(value) if isinstance(value, str) else 0)
    if budget[0] < 0:
        raise TooLargeError(f"the value is larger than {MAX_TEXT:,} characters")
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{value} is no JSON number")
        return value
    if isinstance(value, Missing):
        raise MissingError
    if isinstance(value, (list, tuple)):
        return [_settled(element, budget) for element in value]
    if isinstance(value, Mapping):
        return {_key(key, budget): _settled(element, budget) for key, element in value.items()}
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _key(key: Any, budget: list[int]) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{kind_of(key)} cannot be the name of a member; write text")
    budget[0] -= len(key)
    return key


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


def _limit(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"it would produce {size:,} characters or elements; {limit:,} is the limit")


def _sized(value: Any) -> bool:
    return isinstance(value, (str, list, tuple))


def _limit_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if _sized(one) and isinstance(other, int):
            _limit(len(one) * other, MAX_TEXT if isinstance(one, str) else MAX_ITEMS)
    if isinstance(left, int) and isinstance(right, int):
        _limit_bits(left.bit_length() + right.bit_length())


def _limit_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        _limit_bits(base.bit_length() * exponent)


def _limit_bits(bits: int) -> None:
    if bits > MAX_DIGITS:
        raise TooLargeError(f"the number would have {bits:,} bits; {MAX_DIGITS:,} is the limit")
