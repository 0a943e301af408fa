"""Microsoft's contract as a validator of requests' answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_FOLDER = Path(__file__).resolve().parents[3] / "contracts"


class GraphContract:
    """One version of the contract."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.schemas = document["components"]["schemas"]
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry: Any = Registry().with_resource("urn:graph", resource)
        self._validators: dict[str, Any] = {}

    def operations(self) -> Iterator[tuple[str, str]]:
        """Method and path of each operation."""
        for path, item in self.document["paths"].items():
            for method in item:
                if method != "parameters":
                    yield method.upper(), path

    def answer_schema(self, method: str, path: str, status: int) -> dict[str, Any] | None:
        """The schema of an answer, None when it has no body. KeyError: that status is not documented."""
        answers = self.document["paths"][path][method.lower()]["responses"]
        key = str(status) if str(status) in answers else f"{status // 100}XX"
        answer = answers[key]
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        content = answer.get("content", {}).get("application/json")
        return None if content is None else content["schema"]

    def problems(self, schema: dict[str, Any], body: Any) -> list[str]:
        """Why a body does not fit, and members that no type of the contract has."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            text = key.replace('"#/components/', '"urn:graph#/components/')
            self._validators[key] = Draft202012Validator(json.loads(text), registry=self._registry)
        found = [
            f"{error.json_path}: {error.message[:200]}" for error in self._validators[key].iter_errors(body)
        ]
        return found + list(self._strangers(schema, body, "$"))

    def _strangers(self, schema: dict[str, Any], body: Any, path: str) -> Iterator[str]:
        """The contract's types are open; a member of a name that they do not have is a slip all the same."""
        schema = self._resolved(schema, body)
        if isinstance(body, list):
            for number, one in enumerate(body):
                yield from self._strangers(schema.get("items", {}), one, f"{path}[{number}]")
        elif isinstance(body, dict):
            known = self._members(schema)
            if set(known) <= {"@odata.type"}:  # a row of hunting results: its columns are the query's
                return
            for name, value in body.items():
                if name.startswith("@odata."):
                    continue
                if name not in known:
                    yield f"{path}.{name}: the contract has no such member"
                else:
                    yield from self._strangers(known[name], value, f"{path}.{name}")

    def _resolved(self, schema: dict[str, Any], body: Any) -> dict[str, Any]:
        if "$ref" in schema:
            return self._resolved(self.schemas[schema["$ref"].rpartition("/")[2]], body)
        if "anyOf" in schema:
            return self._resolved(next(one for one in schema["anyOf"] if one != {"type": "null"}), body)
        if "oneOf" in schema and isinstance(body, dict):
            named = str(body.get("@odata.type", "")).removeprefix("#")
            return self._resolved(self.schemas[named], body) if named in self.schemas else {}
        return schema

    def _members(self, schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"].rpartition("/")[2]]
        for part in (*schema.get("allOf", ()), schema):
            if part is not schema:
                found |= self._members(part)
            found |= part.get("properties", {})
        return found


@pytest.fixture(scope="session")
def contracts() -> dict[str, GraphContract]:
    """The contracts of v1.0 and beta."""
    return {
        version: GraphContract(json.loads((_FOLDER / f"graph-{version}.openapi.json").read_text("utf-8")))
        for version in ("v1.0", "beta")
    }


@pytest.fixture
def everything(start: Callable[..., Any], contracts: dict[str, GraphContract]) -> tuple[Any, Any]:
    """A tenant with every licence whose application may do everything, unthrottled, and a client."""
    from counterplay_sim.graph import GraphRules
    from counterplay_sim.strictness import Strictness

    simulator, client = start(strictness=Strictness(graph=GraphRules(throttle_scale=0)))
    roles = {*contracts["v1.0"].document["x-app-roles"], *contracts["beta"].document["x-app-roles"]}
    extra = {
        "SecurityData.Manage.All",
        "Device.Read.All",
        "Group.Read.All",
        "RoleManagement.ReadWrite.Directory",
    }
    simulator.tenant.grants["graph"] = sorted(roles | extra)
    return simulator, client
