"""What the simulator knows of Graph's contract: permissions, properties and enumerations.

`contract.json` is derived from Microsoft's own metadata (`derive.py`); nothing here is typed in by hand.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import orjson

from counterplay_sim.graph.errors import GraphError, bad_request, invalid_property, invalid_value
from counterplay_sim.objects import PRIVATE

Doc = dict[str, Any]

FUTURE = "unknownFutureValue"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,12})?)?(Z|[+-]\d\d:\d\d)")
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
}


class Contract:
    """One version of Graph: `v1.0` or `beta`."""

    def __init__(self, table: Doc) -> None:
        self._roles: dict[str, str] = table["appRoles"]
        self._operations: dict[str, Doc] = table["operations"]
        self._types: dict[str, dict[str, str]] = table["types"]
        self._enums: dict[str, list[str]] = table["enums"]
        self._flags: dict[str, list[str]] = table["flags"]
        self._gated = {
            name: frozenset(values[values.index(FUTURE) + 1 :])
            for name, values in self._enums.items()
            if FUTURE in values
        }
        self._may_be_gated: dict[str, bool] = {}

    @property
    def app_roles(self) -> dict[str, str]:
        """The ids of application permissions, by name."""
        return self._roles

    def has(self, operation: str) -> bool:
        """Whether the contract knows `GET /users/{}`."""
        return operation in self._operations

    def permissions(self, operation: str) -> list[str] | None:
        """Any one of these application permissions is enough; None when there is none that would do."""
        found: list[str] | None = self._operations[operation].get("permissions")
        return found

    def filterable(self, operation: str) -> list[str] | None:
        """The properties that `$filter` documents for a collection, if it does."""
        found: list[str] | None = self._operations[operation].get("filterable")
        return found

    def properties(self, type_name: str) -> dict[str, str]:
        """The kinds of a type's properties, by name."""
        return self._types.get(type_name, {})

    def check_flags(self, text: str, kind: str) -> None:
        """Refuse a value of an enumeration whose members are combined with commas."""
        for name in text.split(","):
            if name.strip() not in self._flags[kind] or name.strip() == FUTURE:
                raise bad_request(f"Cannot convert the literal '{name}' to the expected type '{kind}'.")

    def shown(self, document: Doc, type_name: str, *, everything: bool) -> Doc:
        """A document as the wire carries it.

        The simulator's own members are left out, and enumeration members that clients of the first
        version do not know become `unknownFutureValue` unless they asked for `everything`.
        """
        made = {key: value for key, value in document.items() if not key.startswith(PRIVATE)}
        if everything or not self._gates(type_name):
            return made
        kinds = self.properties(type_name)
        for key, value in made.items():
            kind = kinds.get(key)
            if kind is not None and value is not None:
                made[key] = self._gate(value, kind)
        return made

    def _gate(self, value: Any, kind: str) -> Any:
        kind = kind.removesuffix("?")
        if isinstance(value, list):
            return [self._gate(one, kind.removesuffix("[]")) for one in value]
        if isinstance(value, str):
            return FUTURE if value in self._gated.get(kind, ()) else value
        if isinstance(value, dict):
            return self.shown(value, _type_of(value, kind), everything=False)
        return value

    def _gates(self, type_name: str) -> bool:
        """Whether anything below a type can hold such a member."""
        known = self._may_be_gated.get(type_name)
        if known is None:
            self._may_be_gated[type_name] = False  # for types that refer to themselves
            known = type_name.endswith(".oneOf") or any(
                bool(self._gated.get(inner)) or (inner in self._types and self._gates(inner))
                for inner in (
                    kind.removesuffix("?").removesuffix("[]") for kind in self.properties(type_name).values()
                )
            )
            self._may_be_gated[type_name] = known
        return known

    def check(self, values: Doc, type_name: str, *, path: str = "") -> None:
        """Refuse a document of a request whose properties or values the contract does not have."""
        kinds, resource = self.properties(type_name), type_name.rpartition(".")[2].capitalize()
        for name, value in values.items():
            if name.startswith("@odata.") or "@odata." in name:
                continue
            if name not in kinds:
                raise invalid_property(path + name)
            self._check_value(value, kinds[name], path + name, resource)

    def _check_value(self, value: Any, kind: str, name: str, resource: str) -> None:
        if value is None:
            if not kind.endswith("?"):
                raise invalid_value(name, resource)
            return
        kind = kind.removesuffix("?")
        if kind.endswith("[]"):
            if not isinstance(value, list):
                raise _no_conversion(name, kind)
            for one in value:
                self._check_value(one, kind.removesuffix("[]"), name, resource)
        elif kind in self._enums:
            self._check_enum(value, kind, name)
        elif kind in self._types:
            if not isinstance(value, dict):
                raise _no_conversion(name, kind)
            if self.properties(kind):
                self.check(value, _type_of(value, kind), path=f"{name}/")
        elif kind in ("datetime", "guid"):
            fits = _is_moment if kind == "datetime" else _GUID.fullmatch
            if not isinstance(value, str) or not fits(value):
                raise _no_conversion(name, "Edm.DateTimeOffset" if kind == "datetime" else "Edm.Guid")
        elif kind in self._flags:
            self.check_flags(str(value), kind)
        elif not isinstance(value, _PYTHON.get(kind, (str,))) or (
            kind != "boolean" and isinstance(value, bool)
        ):
            raise invalid_value(name, resource)

    def _check_enum(self, value: Any, kind: str, name: str) -> None:
        """Names are case-sensitive, and nobody can write `unknownFutureValue`."""
        if not isinstance(value, str) or value not in self._enums[kind] or value == FUTURE:
            raise bad_request(
                f"Cannot convert the literal '{value}' to the expected type '{kind}' of the property"
                f" '{name}'."
            )


def _type_of(value: Doc, kind: str) -> str:
    """The type of a polymorphic value is the one that it names."""
    named = value.get("@odata.type")
    return named.removeprefix("#") if kind.endswith(".oneOf") and isinstance(named, str) else kind


def _is_moment(text: str) -> bool:
    """Whether a text is a moment that there was or will be, in UTC too."""
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _no_conversion(name: str, kind: str) -> GraphError:
    return bad_request(f"Cannot convert the value of the property '{name}' to the expected type '{kind}'.")


@cache
def contract(version: str) -> Contract:
    """The contract of `v1.0` or `beta`, read once."""
    file = resources.files("counterplay_sim.graph").joinpath("contract.json")
    tables = orjson.loads(file.read_bytes())
    if version == "beta":  # what beta's slice leaves out is as in v1.0
        tables = {"beta": {part: {**tables["v1.0"][part], **tables["beta"][part]} for part in tables["beta"]}}
    return Contract(tables[version])
