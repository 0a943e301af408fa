"""std.pick: keep, drop and rename members of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from counterplay import Context, Event, JsonObject, Transform

_MISSING = object()
_WHOLE = ""  # the mark, in a tree of names, that a path ends here


class Pick(Transform):
    """Keep, drop and rename members of events.

    `user.name` means the member `name` of the member `user`, of each element if `user` is an array;
    it also means a member whose own name is `user.name`. Members that an event does not have are no
    error. An event in which nothing changes goes on as the bytes that the source sent.
    """

    name = "pick"

    def __init__(self, arguments: JsonObject) -> None:
        super().__init__(arguments)
        self._keep = _tree(arguments["keep"]) if "keep" in arguments else None
        self._drop = _tree(arguments.get("drop", ()))
        self._rename: dict[str, str] = arguments.get("rename", {})

    def apply(self, context: Context, events: Sequence[Event]) -> Sequence[Event]:
        """Every event, in order, with the members that are asked for."""
        return [self._picked(event) for event in events]

    def _picked(self, event: Event) -> Event:
        before = event.data
        data = before if self._keep is None else _kept(before, self._keep)
        if self._drop:
            data = _without(data, self._drop)
        if self._rename:
            data = _renamed(data, self._rename)
        return event if data == before else event.replaced(data)


_Tree = dict[str, Any]


def _tree(paths: Sequence[str]) -> _Tree:
    """`["a.b", "c"]` as `{"a": {"b": {"": {}}}, "c": {"": {}}}`."""
    root: _Tree = {}
    for path in paths:
        node = root
        for part in path.split("."):
            node = node.setdefault(part, {})
        node[_WHOLE] = {}
    return root


def _members(data: JsonObject, tree: _Tree, prefix: str = "") -> Iterator[tuple[str, _Tree]]:
    """The members of an object that the tree names, each with what the tree says of its inside."""
    for part, below in tree.items():
        if part == _WHOLE:
            continue
        name = prefix + part
        if name in data:
            yield name, below
        yield from _members(data, below, f"{name}.")


def _kept(value: Any, tree: _Tree) -> Any:
    if isinstance(value, list):
        return [_kept(item, tree) for item in value if isinstance(item, (dict, list))]
    kept = {}
    for name, below in _members(value, tree):
        if _WHOLE in below:
            kept[name] = value[name]
        elif isinstance(value[name], (dict, list)):
            kept[name] = _kept(value[name], below)
    return kept


def _without(value: Any, tree: _Tree) -> Any:
    if isinstance(value, list):
        return [_without(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    left = dict(value)
    for name, below in _members(value, tree):
        if _WHOLE in below:
            del left[name]
        else:
            left[name] = _without(left[name], below)
    return left


def _renamed(data: JsonObject, names: dict[str, str]) -> JsonObject:
    """All members are taken out before the first is put back, so that two can change places."""
    moved = []
    for old, new in names.items():
        data, value = _taken(data, old)
        if value is not _MISSING:
            moved.append((new, value))
    for new, value in moved:
        data = _put(data, new.split("."), value)
    return data


def _taken(data: JsonObject, path: str) -> tuple[JsonObject, Any]:
    """A copy without the member, and its value; a member named by the longer part of the path wins."""
    if path in data:
        return {name: value for name, value in data.items() if name != path}, data[path]
    for cut in range(len(path) - 1, 0, -1):
        inside = data.get(path[:cut]) if path[cut] == "." else None
        if isinstance(inside, dict):
            smaller, value = _taken(inside, path[cut + 1 :])
            if value is not _MISSING:
                return {**data, path[:cut]: smaller}, value
    return data, _MISSING


def _put(data: JsonObject, path: list[str], value: Any) -> JsonObject:
    name, *rest = path
    if not rest:
        return {**data, name: value}
    inside = data.get(name)
    return {**data, name: _put(inside if isinstance(inside, dict) else {}, rest, value)}
