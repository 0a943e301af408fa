"""A subset of the Kusto query language, enough for the simulator's own hunting tables.

    Table
    | where Column == "x" and (Time > ago(1h) or Other has "word")
    | project Column, Time | order by Time desc | take 10

* operators: `where` (`filter`), `project`, `take` (`limit`), `order by` (`sort by`) `asc`/`desc`,
  `count`, `summarize count() by A, B` (also `Name = count()`), `distinct A, B`
* comparisons: `== != =~ !~ > >= < <=`, `contains !contains has !has startswith !startswith endswith` (none of
  them minds the case; `contains_cs`, `has_cs`, `startswith_cs` do), `in (...)`, `!in (...)`, `in~ (...)`,
  `between (a .. b)`, `isempty(c)`, `isnotempty(c)`, joined by `and`, `or`, `not(...)` and parentheses
* literals: texts in either quote, `@"..."`, numbers, `true`, `false`, `datetime(...)`, `ago(7d)`, `now()`
* comments after `//`

Anything else is refused with a message of the real parser's kind: no joins, no functions, no `let`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]
Test = Callable[[Row], bool]
Columns = Mapping[str, str]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>@?"(?:[^"\\]|\\.)*"|@?'(?:[^'\\]|\\.)*')|(?P<span>\d+(?:\.\d+)?(?:d|h|m|s|ms)\b)
    |(?P<number>-?\d+(?:\.\d+)?(?!\w))|(?P<mark>\.\.|==|!=|=~|!~|>=|<=|[><=|(),])
    |(?P<word>!?[A-Za-z_][\w]*~?))""",
    re.VERBOSE,
)
_DATETIME = re.compile(r"datetime\(\s*([^)\s]+(?: [\d:.]+)?)\s*\)", re.IGNORECASE)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DEEPEST = 50  # conditions in parentheses
_LONGEST_NUMBER = 30
_WORD = re.compile(r"[^0-9a-z]+")


class KqlError(ValueError):
    """The query cannot be understood, or asks what is not simulated."""


@dataclass(frozen=True, slots=True)
class Result:
    """`columns` are name to type (`String`, `DateTime`, `Int64`, `Double`, `SByte`, `Object`), in order."""

    columns: Columns
    rows: list[Row]


def table_of(text: str) -> str:
    """The table that a query reads. KqlError: it names none."""
    tokens = _scan(_plain(text))
    if not tokens or tokens[0][0] != "word":
        raise KqlError("The query must begin with the name of a table.")
    return str(tokens[0][1])


def run(text: str, columns: Columns, rows: Iterable[Row], now: datetime) -> Result:
    """What a query makes of its table's rows; times in rows are aware datetimes."""
    parser = _Parser(_scan(_plain(text)), now)
    result = Result(columns, list(rows))
    return parser.pipe(result)


def _plain(text: str) -> str:
    """Without comments; those inside texts stay."""
    lines = []
    for line in text.splitlines():
        quote = ""
        for at, letter in enumerate(line):
            if quote:
                quote = "" if letter == quote else quote
            elif letter in "\"'":
                quote = letter
            elif line.startswith("//", at):
                line = line[:at]
                break
        lines.append(line)
    return "\n".join(lines).strip().rstrip(";")


def _scan(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        date = _DATETIME.match(text, position + (len(text[position:]) - len(text[position:].lstrip())))
        if date is not None:
            found.append(("time", _datetime(date[1])))
            position = date.end()
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise KqlError(f"A recognition error occurred. Token: {text[position : position + 20].strip()!r}")
        kind = match.lastgroup or ""
        found.append((kind, match[kind]))
        position = match.end()
    return found


def _datetime(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip("\"'").replace("Z", "+00:00"))
    except ValueError:
        raise KqlError(f"'{text}' is not a datetime.") from None
    return moment if moment.tzinfo else datetime.fromisoformat(moment.isoformat() + "+00:00")


class _Parser:
    def __init__(self, tokens: list[tuple[str, Any]], now: datetime) -> None:
        self._tokens = tokens
        self._at = 1  # after the table's name
        self._now = now
        self._columns: Columns = {}
        self._depth = 0

    def pipe(self, result: Result) -> Result:
        while self._at < len(self._tokens):
            self._expect("|")
            kind, name = self._next()
            work = getattr(self, f"_do_{str(name).lower()}", None) if kind == "word" else None
            if work is None:
                raise KqlError(f"Unknown operator: {name}. It is not one that is simulated.")
            self._columns = result.columns
            result = work(result)
        return result

    # Tabular operators

    def _do_where(self, result: Result) -> Result:
        test = self._or()
        return Result(result.columns, [row for row in result.rows if test(row)])

    _do_filter = _do_where

    def _do_project(self, result: Result) -> Result:
        pairs = []
        for name in self._items():
            source = self._column() if self._accept("=") else self._known(name)
            pairs.append((name, source))
        columns = {name: result.columns[source] for name, source in pairs}
        return Result(columns, [{name: row.get(source) for name, source in pairs} for row in result.rows])

    def _do_distinct(self, result: Result) -> Result:
        names = [self._known(name) for name in self._items()]
        seen: dict[tuple[Any, ...], Row] = {}
        for row in result.rows:
            seen.setdefault(
                tuple(str(row.get(name)) for name in names), {name: row.get(name) for name in names}
            )
        return Result({name: result.columns[name] for name in names}, list(seen.values()))

    def _do_take(self, result: Result) -> Result:
        kind, value = self._next()
        if kind != "number" or "." in value or _number(value) < 0:
            raise KqlError(f"take: expected a whole number, not {value!r}.")
        return Result(result.columns, result.rows[: int(_number(value))])

    _do_limit = _do_take

    def _do_order(self, result: Result) -> Result:
        self._expect_word("by")
        keys = []
        for name in self._items():
            down = True  # what Kusto does when nothing is said
            if self._accept("asc"):
                down = False
            else:
                self._accept("desc")
            keys.append((self._known(name), down))
        rows = result.rows
        for name, down in reversed(keys):
            try:
                rows = sorted(rows, key=_by(name), reverse=down)
            except TypeError:
                raise KqlError(f"order: the column {name} cannot be sorted by.") from None
        return Result(result.columns, rows)

    _do_sort = _do_order

    def _do_count(self, result: Result) -> Result:
        return Result({"Count": "Int64"}, [{"Count": len(result.rows)}])

    def _do_summarize(self, result: Result) -> Result:
        kind, name = self._next()
        label = "count_"
        if kind == "word" and self._accept("="):
            label = name
            kind, name = self._next()
        if str(name).lower() != "count":
            raise KqlError(f"summarize: only count() is simulated, not {name}().")
        self._expect("(")
        self._expect(")")
        names = [self._known(one) for one in self._items()] if self._accept("by") else []
        groups: dict[tuple[Any, ...], Row] = {}
        for row in result.rows:
            key = tuple(str(row.get(one)) for one in names)
            group = groups.setdefault(key, {**{one: row.get(one) for one in names}, label: 0})
            group[label] += 1
        if not names and not groups:
            groups[()] = {label: 0}
        return Result({**{one: result.columns[one] for one in names}, label: "Int64"}, list(groups.values()))

    # Conditions

    def _or(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise KqlError("The query is nested too deeply.")
        tests = [self._and()]
        while self._accept("or"):
            tests.append(self._and())
        self._depth -= 1
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _and(self) -> Test:
        tests = [self._single()]
        while self._accept("and"):
            tests.append(self._single())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _single(self) -> Test:
        if self._accept("("):
            inner = self._or()
            self._expect(")")
            return inner
        kind, word = self._next()
        if kind != "word":
            raise self._error(word)
        if word.lower() in ("not", "isempty", "isnotempty") and self._accept("("):
            return self._call(word.lower())
        name = self._known(word)
        _, operator = self._next()
        return self._comparison(name, str(operator).lower())

    def _call(self, name: str) -> Test:
        if name == "not":
            inner = self._or()
            self._expect(")")
            return lambda row: not inner(row)
        column = self._column()
        self._expect(")")
        empty = name == "isempty"
        return lambda row: (row.get(column) in (None, "")) is empty

    def _comparison(self, name: str, operator: str) -> Test:
        if operator in ("in", "!in", "in~", "!in~"):
            values = self._list()
            folded = operator.endswith("~")
            wanted = [_folded(one) if folded else one for one in values]
            inside = not operator.startswith("!")
            return lambda row: ((_folded(row.get(name)) if folded else row.get(name)) in wanted) is inside
        if operator == "between":
            self._expect("(")
            low = self._value()
            self._expect("..")
            high = self._value()
            self._expect(")")
            return lambda row: _compare(">=", row.get(name), low) and _compare("<=", row.get(name), high)
        value = self._value()
        if operator in _ORDER:
            return lambda row: _compare(operator, row.get(name), value)
        wanted_text = not operator.startswith("!")
        test = _TEXT.get(operator.removeprefix("!"))
        if test is None:
            raise self._error(operator)
        return lambda row: test(_text(row.get(name)), _text(value)) is wanted_text

    def _list(self) -> list[Any]:
        self._expect("(")
        values = [self._value()]
        while self._accept(","):
            values.append(self._value())
        self._expect(")")
        return values

    def _value(self) -> Any:
        kind, text = self._next()
        if kind == "text":
            return _unquoted(text)
        if kind == "number":
            return _number(text)
        if kind == "time":
            return text
        if kind == "word" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "word" and text.lower() in ("ago", "now"):
            self._expect("(")
            if not self._accept(")"):
                span = self._next()
                if span[0] != "span":
                    raise KqlError(f"ago: expected a timespan such as 1h, not {span[1]!r}.")
                self._expect(")")
                try:
                    return self._now - _span(span[1])
                except OverflowError:
                    raise KqlError(f"ago: the timespan {span[1]} is too long.") from None
            return self._now
        raise self._error(text)

    # Tokens

    def _items(self) -> Iterable[str]:
        while True:
            kind, name = self._next()
            if kind != "word":
                raise self._error(name)
            yield name
            if not self._accept(","):
                return

    def _column(self) -> str:
        return self._known(self._next()[1])

    def _known(self, name: Any) -> str:
        if name not in self._columns:
            raise KqlError(f"'where' operator: Failed to resolve column or scalar expression named '{name}'")
        return str(name)

    def _next(self) -> tuple[str, Any]:
        if self._at >= len(self._tokens):
            raise KqlError("The query ends too early.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _accept(self, text: str) -> bool:
        if self._at < len(self._tokens):
            kind, word = self._tokens[self._at]
            if kind in ("word", "mark") and word.lower() == text:
                self._at += 1
                return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(self._tokens[self._at][1] if self._at < len(self._tokens) else "the end")

    _expect_word = _expect

    def _error(self, token: Any) -> KqlError:
        return KqlError(f"A recognition error occurred. Token: {str(token)[:40]!r}, position {self._at}")


_ORDER = ("==", "!=", ">", ">=", "<", "<=")


def _compare(operator: str, left: Any, right: Any) -> bool:
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    if left is None:
        return False
    try:
        match operator:
            case ">":
                return bool(left > right)
            case ">=":
                return bool(left >= right)
            case "<":
                return bool(left < right)
        return bool(left <= right)
    except TypeError:
        raise KqlError(
            f"Cannot compare values of types {type(left).__name__} and {type(right).__name__}"
        ) from None


def _has(text: str, word: str) -> bool:
    """Whole terms: runs of letters and digits."""
    return f" {' '.join(_WORD.split(word.lower()))} " in f" {' '.join(_WORD.split(text.lower()))} "


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "=~": lambda a, b: a.lower() == b.lower(),
    "~": lambda a, b: a.lower() == b.lower(),  # of `!~`
    "contains": lambda a, b: b.lower() in a.lower(),
    "contains_cs": lambda a, b: b in a,
    "has": _has,
    "has_cs": lambda a, b: _has(a, b) and b in a,
    "startswith": lambda a, b: a.lower().startswith(b.lower()),
    "startswith_cs": lambda a, b: a.startswith(b),
    "endswith": lambda a, b: a.lower().endswith(b.lower()),
}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _unquoted(text: str) -> str:
    if text.startswith("@"):
        return text[2:-1]
    return re.sub(r"\\(.)", lambda one: {"n": "\n", "t": "\t"}.get(one[1], one[1]), text[1:-1])


def _number(text: str) -> int | float:
    if len(text) > _LONGEST_NUMBER:
        raise KqlError(f"'{text[:20]}...' is not a number.")
    return float(text) if "." in text else int(text)


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"([\d.]+)(\w+)", text)
    assert match is not None
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def _by(name: str) -> Callable[[Row], tuple[bool, Any]]:
    return lambda row: (row.get(name) is not None, row.get(name) if row.get(name) is not None else 0)
