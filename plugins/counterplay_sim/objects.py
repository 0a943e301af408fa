"""A tenant's objects by kind: read from the store on first use, decoded one at a time, indexed on demand.

A kind is what the store calls it (`user`, `rules`, `alert`, `servicePrincipal` ...); an object is one JSON
document by id, in the shape that its service shows. A member whose name begins with `@sim.` is the
simulator's own and never shown: `@sim.visible` (RFC 3339) hides an object until then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from counterplay_sim.store import Store

Doc = dict[str, Any]

PRIVATE = "@sim."
VISIBLE = "@sim.visible"


class Collection(Mapping[str, Any]):
    """The objects of one kind, by id, in the order in which they were first put."""

    def __init__(self, store: Store, tenant: str, kind: str) -> None:
        self._store = store
        self._tenant = tenant
        self.kind = kind
        self._items: dict[str, Any] = dict(store.raw_objects(tenant, kind))
        self._indexes: dict[str, dict[Any, dict[str, None]]] = {}
        self._lock = threading.RLock()
        self.version = 0

    def __getitem__(self, key: str) -> Any:
        item = self._items[key]
        if isinstance(item, bytes):
            with self._lock:  # one decoded document for all threads
                item = self._items[key]
                if isinstance(item, bytes):
                    item = self._items[key] = orjson.loads(item)
        return item

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def put(self, key: str, item: Any) -> None:
        """Write an object, in place of the one with its id; durable when this returns."""
        with self._lock:
            self._unindex(key)
            self._store.put_objects(self._tenant, self.kind, [(key, item)])
            self._items[key] = item
            for name, index in self._indexes.items():
                index.setdefault(_member(item, name), {})[key] = None
            self.version += 1

    def remove(self, key: str) -> None:
        """Forget an object. KeyError: there is none of that id."""
        with self._lock:
            self._unindex(key)
            del self._items[key]
            self._store.delete_objects(self._tenant, self.kind, [key])
            self.version += 1

    def where(self, name: str, value: Any) -> list[Any]:
        """The objects whose member has that value (text in any case), by an index made on first use."""
        with self._lock:
            index = self._indexes.get(name)
            if index is None:
                index = {}
                for key in self._items:
                    index.setdefault(_member(self[key], name), {})[key] = None
                self._indexes[name] = index
            return [self[key] for key in index.get(_folded(value), ())]

    def _unindex(self, key: str) -> None:
        if self._indexes and key in self._items:
            for name, index in self._indexes.items():
                for keys in _holders(index, self[key], name, key):
                    keys.pop(key, None)


class Objects:
    """Every kind of one tenant's objects."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._kinds: dict[str, Collection] = {}
        self._lock = threading.Lock()

    def __getitem__(self, kind: str) -> Collection:
        found = self._kinds.get(kind)
        if found is None:
            with self._lock:
                found = self._kinds.setdefault(kind, Collection(self._store, self._tenant, kind))
        return found


def _member(item: Any, name: str) -> Any:
    return _folded(item.get(name)) if isinstance(item, dict) else None


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower()
    return value if isinstance(value, int | float | None) else None


def _holders(index: dict[Any, dict[str, None]], item: Any, name: str, key: str) -> Iterator[dict[str, None]]:
    """The index lines that may hold a key: where the object says, or all when it was changed in place."""
    line = index.get(_member(item, name))
    if line is not None and key in line:
        yield line
    else:
        yield from index.values()
