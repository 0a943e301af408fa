"""Reads a module of Sekoia's automation library, and writes a plugin's skeleton with equivalent schemas.

A module is a folder: `manifest.json` (`name`, `slug`, `configuration`: the credentials' JSON Schema, draft 7,
with `secrets`, a list of members) and one file for each action, trigger and connector (`arguments` and
`results`: JSON Schemas; `name`, `description`). Connectors emit events and forward them themselves; here a
trigger emits them, and a sink of the playbook forwards.
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.plugins import API_VERSION
from counterplay.scaffold import distribution_of, filled, package_of
from counterplay.scaffold.draft7 import DIALECT, to_2020

Kind = Literal["action", "trigger", "connector"]
_KINDS: tuple[Kind, ...] = ("action", "trigger", "connector")
_FORWARDING = frozenset({"intake_key", "intake_server", "intake_url", "chunk_size"})
_SECRET = re.compile(r"secret|password|(^|_)key$|token|passphrase")
_URL = re.compile(r"(^|_)(url|host|server|endpoint)$")


@dataclass(frozen=True, slots=True)
class SekoiaPart:
    """One action, trigger or connector. `name` is snake_case and unique in its module."""

    name: str
    kind: Kind
    title: str
    description: str
    arguments: JsonObject
    results: JsonObject


@dataclass(frozen=True, slots=True)
class SekoiaModule:
    """A module as its files describe it."""

    name: str
    title: str
    description: str
    configuration: JsonObject
    parts: list[SekoiaPart] = field(default_factory=list)


def read_module(folder: Path) -> SekoiaModule:
    """Read a module's files. ConfigError: it has no manifest, or a file is no JSON object."""
    manifest = _read(folder / "manifest.json")
    title = str(manifest.get("name") or folder.name)
    parts: list[SekoiaPart] = []
    taken: set[str] = set()
    for kind in _KINDS:
        for file in sorted(folder.glob(f"{kind}_*.json")):
            document = _read(file)
            name = snake(file.stem.removeprefix(f"{kind}_"))
            if name in taken:
                name = f"{name}_{kind}"
            taken.add(name)
            parts.append(
                SekoiaPart(
                    name,
                    kind,
                    str(document.get("name") or name),
                    str(document.get("description") or document.get("name") or name),
                    document.get("arguments") or {},
                    document.get("results") or {},
                )
            )
    if not parts:
        raise ConfigError("it has no action_*.json, trigger_*.json or connector_*.json", path=folder)
    return SekoiaModule(
        snake(str(manifest.get("slug") or folder.name)),
        title,
        str(manifest.get("description") or title),
        manifest.get("configuration") or {},
        parts,
    )


def skeleton(module: SekoiaModule, name: str) -> tuple[dict[str, str], list[str]]:
    """The files of a distribution with a module for each part, and what could not be carried over."""
    notes: list[str] = []
    connection = _closed(module.configuration, f"{name}.account", f"An account at {module.title}.", notes)
    for key in module.configuration.get("secrets", []):
        if key in connection["properties"]:
            connection["properties"][key]["writeOnly"] = True
    schemas: dict[str, JsonObject] = {}
    for part in module.parts:
        schemas[part.name] = _schema(name, part, connection, notes)
    for key, one in connection["properties"].items():
        if _SECRET.search(key):
            one["writeOnly"] = True
    package = package_of(name)
    words = {
        "name": name,
        "title": module.title,
        "package": package,
        "distribution": distribution_of(name),
        "urls": "".join(f'"{key}", ' for key in connection["properties"] if _URL.search(key)),
        "api": API_VERSION,
    }
    source = f"src/{package}"
    files = {
        "pyproject.toml": filled("pyproject.toml", words),
        ".gitignore": filled("gitignore", words),
        "README.md": filled(
            "imported_README.md", {**words, "modules": _listed(name, module), "notes": _lines(notes)}
        ),
        f"{source}/__init__.py": filled("init.py", {**words, **_init_words(package, module)}),
        f"{source}/py.typed": "",
        f"{source}/account.py": filled("imported_account.py", words),
        f"{source}/schemas/account.json": _dumped(connection),
        "tests/test_schemas.py": filled("imported_tests.py", words),
    }
    for part in module.parts:
        files[f"{source}/{part.name}.py"] = filled(
            f"imported_{'action' if part.kind == 'action' else 'trigger'}.py",
            {
                **words,
                "module": part.name,
                "class": class_name(part.name),
                "summary": summary(part),
                "about": textwrap.fill(_one_line(part.description), 100, subsequent_indent="    "),
            },
        )
        files[f"{source}/schemas/{part.name}.json"] = _dumped(schemas[part.name])
    return files, notes


def snake(text: str) -> str:
    """A name in snake_case, such as a module can have."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    found = "_".join(words) or "module"
    return found if found[0].isalpha() else f"m_{found}"


def class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def summary(part: SekoiaPart) -> str:
    """The docstring's first line: a sentence of 12 to 100 characters."""
    text = _one_line(part.title).rstrip(".")
    text = text[:1].upper() + text[1:]
    if len(text) < 12:
        text = f"{'Carry out' if part.kind == 'action' else 'Emit events of'} {text}"
    return f"{text[:98].rstrip()}."


def _schema(name: str, part: SekoiaPart, connection: JsonObject, notes: list[str]) -> JsonObject:
    uses = f"{name}.{part.name}"
    schema = _closed(part.arguments, uses, _one_line(part.description), notes)
    secrets = set(part.arguments.get("secrets", []))
    for key in list(schema["properties"]):
        if part.kind != "action" and key in _FORWARDING:
            _drop(schema, key)
            notes.append(f"{uses}: {key!r} is left out, forwarding is the work of a sink")
        elif key in secrets or _SECRET.search(key):
            moved = schema["properties"][key]
            _drop(schema, key)
            connection["properties"].setdefault(key, moved)
            notes.append(f"{uses}: the secret {key!r} became a setting of {name}.account")
    if part.kind == "action":
        result = _closed(part.results, f"{uses} result", f"What {uses} returns.", notes)
        definitions = result.pop("$defs", {})
        for word in ("$schema", "title"):
            result.pop(word, None)
        if not result["properties"]:
            result = {"description": result["description"], "type": "object"}
            notes.append(f"{uses}: its result is not described; say what it returns in `$defs/result`")
        schema.setdefault("$defs", {}).update({**definitions, "result": result})
    return schema


def _closed(given: JsonObject, title: str, description: str, notes: list[str]) -> JsonObject:
    """The schema of an object in 2020-12, closed, every property described."""
    found = to_2020({key: value for key, value in given.items() if key not in ("$schema", "secrets")})
    schema: JsonObject = {
        "$schema": DIALECT,
        "title": title,
        "description": description,
        **{key: value for key, value in found.items() if key not in ("title", "description")},
        "type": "object",
    }
    schema.setdefault("properties", {})
    _close(schema, title, notes)
    required = [
        key for key in schema.get("required", []) if "default" not in schema["properties"].get(key, {})
    ]
    schema.pop("required", None)
    return {**schema, **({"required": required} if required else {})}


def _close(schema: Any, where: str, notes: list[str]) -> None:
    """Close objects that name their members, and describe what is not described."""
    if isinstance(schema, list):
        for one in schema:
            _close(one, where, notes)
        return
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict):
        if schema.get("additionalProperties") is not False:
            schema["additionalProperties"] = False
        for key, one in schema["properties"].items():
            if isinstance(one, bool):
                one = schema["properties"][key] = {}
            if not str(one.get("description", "")).strip():
                one["description"] = f"{one.get('title') or key.replace('_', ' ').capitalize()}."
                notes.append(f"{where}: {key!r} has no description of its own")
            if "default" in one and not _fits(one):
                del one["default"]
    for key, value in schema.items():
        if key == "properties" or key == "$defs":
            for one in value.values():
                _close(one, where, notes)
        elif key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"):
            _close(value, where, notes)


def _fits(schema: JsonObject) -> bool:
    import jsonschema

    return jsonschema.Draft202012Validator(schema).is_valid(schema["default"])


def _drop(schema: JsonObject, key: str) -> None:
    del schema["properties"][key]
    schema["required"] = [one for one in schema.get("required", []) if one != key]
    if not schema["required"]:
        del schema["required"]


def _read(file: Path) -> JsonObject:
    try:
        document = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", path=file, hint="name the folder of a module") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", path=file) from error
    if not isinstance(document, dict):
        raise ConfigError("it is no JSON object", path=file)
    return document


def _init_words(package: str, module: SekoiaModule) -> dict[str, str]:
    names = ["account", *(part.name for part in module.parts)]
    return {
        "imports": "\n".join(f"    from {package}.{one} import {class_name(one)}" for one in sorted(names)),
        "classes": ", ".join(class_name(one) for one in names),
        "hosts": "",
    }


def _listed(name: str, module: SekoiaModule) -> str:
    return "\n".join(f"- `{name}.{part.name}` ({part.kind}): {summary(part)}" for part in module.parts)


def _lines(notes: list[str]) -> str:
    return "\n".join(f"- {one}" for one in notes) or "- nothing"


def _one_line(text: str) -> str:
    return " ".join(text.replace('"""', "'''").replace("\\", "/").split())


def _dumped(schema: JsonObject) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
