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
from keyword import iskeyword
from pathlib import Path
from typing import Literal

from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.plugins import API_VERSION
from counterplay.scaffold import distribution_of, filled, package_of
from counterplay.scaffold.closed import closed, one_line, renamed

Kind = Literal["action", "trigger", "connector"]
_KINDS: tuple[Kind, ...] = ("action", "trigger", "connector")
_IMPORTED = frozenset(
    {"Action", "Connection", "Context", "JsonObject", "Page", "PermanentError", "PollTrigger", "StepContext"}
)
"""What the modules' files import by name."""
_FORWARDING = frozenset({"intake_key", "intake_server", "intake_url", "chunk_size"})
_SECRET = re.compile(r"secret|password|(^|_)key$|token|passphrase")
_URL = re.compile(r"(^|[_-])(url|host|server|endpoint)$")


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
    dropped: list[str] = field(default_factory=list)
    """What stands where a schema should, and is none."""


def read_module(folder: Path) -> SekoiaModule:
    """Read a module's files. ConfigError: it has no manifest, or files are no JSON objects; names all."""
    manifest = _read(folder / "manifest.json")
    title = one_line(str(manifest.get("name") or folder.name)).replace('"', "'")
    parts: list[SekoiaPart] = []
    wrong: list[ConfigError] = []
    dropped: list[str] = []
    taken = {"account", "init"}
    for kind in _KINDS:
        for file in sorted(folder.glob(f"{kind}_*.json")):
            try:
                parts.append(_part(kind, file, taken, dropped))
            except ConfigError as error:
                wrong.append(error)
    if wrong:
        raise wrong[0] if len(wrong) == 1 else ConfigError("\n".join(map(str, wrong)))
    if not parts:
        raise ConfigError("it has no action_*.json, trigger_*.json or connector_*.json", path=folder)
    return SekoiaModule(
        snake(str(manifest.get("slug") or folder.name)),
        title,
        str(manifest.get("description") or title),
        _object(manifest, "configuration", "manifest.json", dropped),
        parts,
        dropped,
    )


def _part(kind: Kind, file: Path, taken: set[str], dropped: list[str]) -> SekoiaPart:
    document = _read(file)
    name = snake(file.stem.removeprefix(f"{kind}_"))
    if name in taken or iskeyword(name) or class_name(name) in _IMPORTED:
        name = f"{name}_{kind}"
    while name in taken:
        name = f"{name}_too"
    taken.add(name)
    title = str(document.get("name") or name)
    description = str(document.get("description") or title)
    return SekoiaPart(
        name,
        kind,
        title,
        description,
        _object(document, "arguments", file.name, dropped),
        _object(document, "results", file.name, dropped),
    )


def _object(document: JsonObject, member: str, file: str, dropped: list[str]) -> JsonObject:
    """A schema; what is none says nothing, and is named in `dropped`."""
    found = document.get(member)
    if isinstance(found, dict):
        return found
    if found is not None:
        dropped.append(f"{file}: {member!r} is no JSON object, so it says nothing")
    return {}


def skeleton(module: SekoiaModule, name: str) -> tuple[dict[str, str], list[str]]:
    """The files of a distribution with a module for each part, and what could not be carried over."""
    notes = list(module.dropped)
    connection = closed(module.configuration, f"{name}.account", f"An account at {module.title}.", notes)
    for key in _secrets(module.configuration):
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
                "about": textwrap.fill(one_line(part.description), 100, subsequent_indent="    "),
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
    text = one_line(part.title).rstrip(".")
    text = text[:1].upper() + text[1:]
    if len(text) < 12 or not re.match("[A-Z]", text):
        text = f"{'Carry out' if part.kind == 'action' else 'Emit events of'} {text}"
    return f"{text[:98].rstrip()}."


def _schema(name: str, part: SekoiaPart, connection: JsonObject, notes: list[str]) -> JsonObject:
    uses = f"{name}.{part.name}"
    arguments = dict(part.arguments)
    if part.kind != "action":
        arguments = _without_forwarding(arguments, uses, notes)
    schema = closed(arguments, uses, one_line(part.description), notes)
    secrets = _secrets(part.arguments)
    for key in list(schema["properties"]):
        if key in secrets or _SECRET.search(key):
            moved = schema["properties"][key]
            _drop(schema, key)
            if "$ref" in json.dumps(moved):  # what it refers to stays behind
                moved = {"type": "string", "description": moved["description"]}
            connection["properties"].setdefault(key, moved)
            notes.append(f"{uses}: the secret {key!r} became a setting of {name}.account")
    if part.kind == "action":
        results = renamed(part.results)
        result = closed(results, f"{uses} result", f"What {uses} returns.", notes, at="#/$defs/result")
        definitions = result.pop("$defs", {})
        for word in ("$schema", "title"):
            result.pop(word, None)
        if not result["properties"]:
            result = {"description": result["description"], "type": "object"}
            notes.append(f"{uses}: its result is not described; say what it returns in `$defs/result`")
        schema.setdefault("$defs", {}).update({**definitions, "result": result})
    return schema


def _without_forwarding(arguments: JsonObject, uses: str, notes: list[str]) -> JsonObject:
    properties = arguments.get("properties")
    if not isinstance(properties, dict):
        return arguments
    left = {key: value for key, value in properties.items() if key not in _FORWARDING}
    notes += [
        f"{uses}: {key!r} is left out, forwarding is the work of a sink"
        for key in properties
        if key in _FORWARDING
    ]
    required = arguments.get("required")
    kept = [key for key in required if key in left] if isinstance(required, list) else []
    return {**arguments, "properties": left, "required": kept}


def _secrets(schema: JsonObject) -> set[str]:
    found = schema.get("secrets")
    return {key for key in found if isinstance(key, str)} if isinstance(found, list) else set()


def _drop(schema: JsonObject, key: str) -> None:
    del schema["properties"][key]
    schema["required"] = [one for one in schema.get("required", []) if one != key]
    if not schema["required"]:
        del schema["required"]


def _read(file: Path) -> JsonObject:
    try:
        document = json.loads(file.read_text("utf-8-sig"))
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


def _dumped(schema: JsonObject) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
