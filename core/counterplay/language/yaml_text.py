"""Reads YAML into plain data that remembers where each key and value stands.

Scalars follow the core schema of YAML 1.2: `on`, `no` and `1:20` are texts. The parser is libyaml's
where PyYAML was built with it; the tree is built here from its events, without recursion, so that
depth, aliases and size are counted before anything is expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from counterplay.language.findings import Finding, PlaybookError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
"""Values in a file once its aliases are written out."""
MAX_DEPTH = 50

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PLAYBOOK = "`name:` and `trigger:`; `playbook init` writes one"
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "True", "TRUE")), frozenset(("false", "False", "FALSE"))
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


@dataclass(slots=True)
class Node:
    """A value and its place, counted from 1. `value` is a scalar, a list of nodes, or names to nodes."""

    line: int
    column: int
    value: Any = None
    keys: dict[str, tuple[int, int]] | None = None
    size: int = 1

    @property
    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: node.plain for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value


class Document:
    """A file that was read: its data, and the place of everything in it."""

    def __init__(self, name: str, root: Node) -> None:
        self.name = name
        self.root = root
        self.data: Any = root.plain

    def place(
        self, path: Iterator[str | int] | tuple[str | int, ...], *, key: bool = False
    ) -> tuple[int, int]:
        """Line and column of the value at a path, or of its name; of the nearest one that is there."""
        node = self.root
        where = (node.line, node.column)
        for part in path:
            try:
                child = node.value[part]
            except (KeyError, IndexError, TypeError):
                break
            named = (node.keys or {}).get(str(part)) if isinstance(node.value, dict) else None
            node = child
            where = named if key and named else (node.line, node.column)
        return where

    def finding(
        self, path: tuple[str | int, ...], message: str, hint: str = "", *, key: bool = False
    ) -> Finding:
        """A finding at a path."""
        line, column = self.place(path, key=key)
        return Finding(self.name, line, column, message, hint)


def read(text: bytes, name: str, begins: str = _PLAYBOOK) -> Document:
    """Read one file; `begins` is how its kind does. PlaybookError: what is wrong with it, at its place."""
    if len(text) > MAX_BYTES:
        raise _error(
            name, 1, 1, f"the file has {len(text):,} bytes", f"{MAX_BYTES:,} is the limit: split it up"
        )
    source = _decoded(text, name)
    builder = _Builder(name)
    try:
        for event in yaml.parse(source, Loader=_Loader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _explained(error, source, name) from error
    if builder.root is None or builder.root.value is None:
        raise _error(name, 1, 1, "the file is empty", f"begin with {begins}")
    if builder.findings:
        raise PlaybookError(builder.findings)
    if not isinstance(builder.root.value, dict):
        raise _error(
            name,
            builder.root.line,
            builder.root.column,
            "the file is not a mapping",
            f"begin with {begins}",
        )
    return Document(name, builder.root)


def _decoded(text: bytes, name: str) -> str:
    try:
        source = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8", "replace")
        line, column = _position(before)
        raise _error(
            name, line, column, f"byte {text[error.start]:#04x} is not UTF-8", "save the file as UTF-8"
        ) from error
    control = _CONTROL.search(source)
    if control is not None:
        line, column = _position(source[: control.start()])
        raise _error(name, line, column, f"the control character U+{ord(control.group()):04X}", "remove it")
    return source


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _error(name: str, line: int, column: int, message: str, hint: str) -> PlaybookError:
    return PlaybookError([Finding(name, line, column, message, hint)])


def _explained(error: yaml.YAMLError, source: str, name: str) -> PlaybookError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    lines = source.split("\n")
    # libyaml notices a tab in the indentation at the line itself or at the one after it
    for number in (line, line - 1):
        indent = re.match(r"\s*", lines[number]).group() if 0 <= number < len(lines) else ""  # type: ignore[union-attr]
        if "\t" in indent:
            return _error(
                name, number + 1, indent.index("\t") + 1, "a tab in the indentation", "indent with spaces"
            )
    problem = getattr(error, "problem", None) or str(error)
    character = lines[line][column : column + 1] if line < len(lines) else ""
    hint = "check the indentation, the brackets and the quotes just before it"
    if character and character in "@`%{}[]&*!|>":
        hint = f"quote a text that begins with {character}"
    elif "mapping values" in problem:
        hint = "quote a text that holds a colon and a space"
    return _error(name, line + 1, column + 1, f"this is not YAML: {problem}", hint)


class _Builder:
    """Takes the parser's events and builds the tree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Node | None = None
        self.findings: list[Finding] = []
        self.documents = 0
        self.anchors: dict[str, Node] = {}
        self.open: list[tuple[Node, list[Any]]] = []  # a collection, and [the key that waits for its value]

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event), event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._refuse(event, "a second document begins", "write one playbook a file, without ---")

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        self._no_tag(event)
        value: Any = event.value
        if event.implicit[0] and event.style in (None, ""):
            value = self._plain(event)
        return Node(*_start(event), value)

    def _plain(self, event: yaml.ScalarEvent) -> Any:
        text = event.value
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INT.fullmatch(text):
            number = (
                int(text, 0) if text.startswith(("0o", "0x")) else int(text) if len(text) < 25 else 1 << 64
            )
            if not -(1 << 63) <= number < 1 << 63:
                self._refuse(event, "a number of more than 64 bits", "quote it to make it a text")
            return number
        if _FLOAT.fullmatch(text):
            number_ = float(text)
            if number_ in (float("inf"), float("-inf")):
                self._refuse(event, "a number that is too large", "quote it to make it a text")
            return number_
        if _NOT_FINITE.fullmatch(text):
            self._refuse(event, f"{text} has no place in JSON", "quote it to make it a text")
        return text

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._no_tag(event)
        if len(self.open) >= MAX_DEPTH:
            self._refuse(event, f"nested more than {MAX_DEPTH} deep", "write it flatter")
        mapping = isinstance(event, yaml.MappingStartEvent)
        node = Node(*_start(event), {} if mapping else [], {} if mapping else None)
        if event.anchor:
            # known while it is open too: an alias to it from inside is then found to be a circle
            self.anchors[event.anchor] = node
            node.size = MAX_NODES + 1
        self.open.append((node, []))

    def _close(self, event: yaml.Event) -> None:
        node, _ = self.open.pop()
        children = node.value.values() if isinstance(node.value, dict) else node.value
        node.size = 1 + sum(child.size for child in children)
        if node.size > MAX_NODES:
            self._too_many(event)
        self._add(node, None)

    def _alias(self, event: yaml.AliasEvent) -> None:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            raise _error(
                self.name, *_start(event), f"no anchor &{event.anchor} stands before this", "write it out"
            )
        if any(node is opened for opened, _ in self.open):
            raise _error(self.name, *_start(event), f"*{event.anchor} stands inside itself", "write it out")
        self._add(Node(*_start(event), node.value, node.keys, node.size), event)

    def _add(self, node: Node, event: yaml.Event | None) -> None:
        anchor = getattr(event, "anchor", None)
        if anchor and not isinstance(event, yaml.AliasEvent):
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        parent, waiting = self.open[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif waiting:
            self._member(parent, waiting.pop(), node)
        else:
            waiting.append(node)
        if node.size > MAX_NODES:
            raise self._too_many_error((node.line, node.column))

    def _member(self, parent: Node, key: Node, node: Node) -> None:
        place = (key.line, key.column)
        name = key.value
        if not isinstance(name, str):
            self.findings.append(Finding(self.name, *place, "a key that is not a text", "quote it"))
            return
        assert parent.keys is not None
        if name == "<<":
            self.findings.append(
                Finding(
                    self.name, *place, "merge keys (<<) are not part of YAML 1.2", "write the members out"
                )
            )
        elif name in parent.value:
            first = parent.keys[name][0]
            self.findings.append(
                Finding(
                    self.name,
                    *place,
                    f"the key {name!r} stands twice (first in line {first})",
                    "keep one of them",
                )
            )
        else:
            parent.value[name] = node
            parent.keys[name] = place

    def _no_tag(self, event: Any) -> None:
        if event.tag and event.tag != "!":
            self._refuse(event, f"the tag {event.tag[:60]!r}", "remove it; quote a value to make it a text")

    def _too_many(self, event: yaml.Event) -> None:
        raise self._too_many_error(_start(event))

    def _too_many_error(self, place: tuple[int, int]) -> PlaybookError:
        return _error(
            self.name,
            *place,
            f"the file grows to more than {MAX_NODES:,} values by its aliases",
            "write it out smaller",
        )

    def _refuse(self, event: yaml.Event, message: str, hint: str) -> None:
        raise _error(self.name, *_start(event), message, hint)


def _start(event: yaml.Event) -> tuple[int, int]:
    mark: Any = event.start_mark
    return mark.line + 1, mark.column + 1
