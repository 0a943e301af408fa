"""Derives `contract.json`, what the simulator knows of Graph's contract, from the OpenAPI documents.

    python -m counterplay_sim.graph.derive graph-v1.0.openapi.json graph-beta.openapi.json > contract.json

Each version becomes `{"appRoles": {permission: id}, "operations": {"GET /users/{}": {...}},
"types": {name: {property: kind}}, "enums": {name: [value, ...]}, "flags": {...}}`; flags are enumerations
whose values are combined with commas. A kind is `string`, `boolean`, `integer`, `number`, `datetime`,
`guid`, `object`, or the name of a type or an enumeration; `?` after it allows null, `[]` makes it a list.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Doc = dict[str, Any]

_REF = "#/components/schemas/"
_METHODS = ("get", "post", "patch", "put", "delete")
_BY_FORMAT = {"date-time": "datetime", "uuid": "guid"}


def derive(contract: Doc) -> Doc:
    """The table of one version."""
    schemas = contract["components"]["schemas"]
    return {
        "appRoles": contract["x-app-roles"],
        "operations": dict(sorted(_operations(contract))),
        "types": {
            name: _properties(schemas, name)
            for name in sorted(schemas)
            if not {"enum", "x-flags", "x-known-values"} & set(schemas[name])
            and name.startswith("microsoft.graph.")
        },
        "enums": {name: schema["enum"] for name, schema in sorted(schemas.items()) if "enum" in schema},
        "flags": {name: schema["x-flags"] for name, schema in sorted(schemas.items()) if "x-flags" in schema},
    }


def _operations(contract: Doc) -> list[tuple[str, Doc]]:
    made = []
    for path, item in contract["paths"].items():
        for method in _METHODS:
            if method not in item:
                continue
            operation = item[method]
            granted = operation.get("x-application-permissions")
            entry: Doc = {}
            if granted is not None:
                entry["permissions"] = [*granted["least"], *granted["also"]]
            if "x-filterable" in operation:
                entry["filterable"] = operation["x-filterable"]
            made.append((f"{method.upper()} {re.sub(r'{[^}]+}', '{}', path)}", entry))
    return made


def _properties(schemas: Doc, name: str) -> dict[str, str]:
    schema, found = schemas[name], {}
    for part in (*schema.get("allOf", ()), *schema.get("oneOf", ()), schema):
        if "$ref" in part and "oneOf" not in schema:
            found.update(_properties(schemas, part["$ref"].removeprefix(_REF)))
        found.update({key: _kind(value) for key, value in part.get("properties", {}).items()})
    found.pop("@odata.type", None)
    return found


def _kind(schema: Doc) -> str:
    if "anyOf" in schema:
        inner, *rest = sorted(schema["anyOf"], key=lambda one: one == {"type": "null"})
        return _kind(inner) + ("?" if rest else "")
    if "allOf" in schema:
        return _kind(schema["allOf"][0])
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_REF)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    null = "?" if "null" in kinds else ""
    if kinds[0] == "array":
        return f"{_kind(schema['items'])}[]{null}"
    return f"{_BY_FORMAT.get(schema.get('format', ''), kinds[0])}{null}"


def main(files: list[str]) -> str:
    """The text of `contract.json`."""
    contracts = [json.loads(Path(file).read_text("utf-8")) for file in files]
    table = {contract["info"]["version"]: derive(contract) for contract in contracts}
    return (
        json.dumps(table, separators=(",", ":"), sort_keys=True)
        .replace('"types":{', '\n"types":{')
        .replace('},"microsoft.', '},\n"microsoft.')
        + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
