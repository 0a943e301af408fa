"""What a plugin consists of on disk and what it declares, read without importing any of it."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

_OWN = "counterplay"
_SKIPPED = ("__pycache__",)
_SAID = ("COUNTERPLAY_API", "COUNTERPLAY_HOSTS")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a plugin says of itself in its files.

    `modules` are those that have a schema; `permissions` read `Microsoft Graph: User.Read.All or ...`.
    """

    api: str
    hosts: tuple[str, ...]
    modules: tuple[str, ...]
    permissions: tuple[str, ...]


def content_hash(point: EntryPoint) -> str:
    """One hash over every file of the plugin, as they are on disk now; empty when there are none.

    That is the package (or module) that the entry point names, and whatever else its distribution
    installed; links that an editable installation made are left out, for they differ by machine.
    """
    files = {**dict(_package_files(point.module)), **dict(_distribution_files(point))}
    whole = hashlib.sha256()
    for name, file in sorted(files.items()):
        whole.update(name.encode() + b"\0")
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest() if files else ""


def declaration(point: EntryPoint) -> Declaration:
    """What the plugin declares; what its code works out when it is imported is not seen."""
    said: dict[str, Any] = {}
    specs = _specs(point.module)
    spec = specs[-1] if specs else None
    if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        said = dict(_constants(Path(spec.origin)))
    schemas = {file.stem: _read(file) for file in _schemas(spec)}
    needs = [need for one in schemas.values() for need in one.get("x-permissions", ())]
    return Declaration(
        api=str(said.get("COUNTERPLAY_API", "")),
        hosts=tuple(map(str, said.get("COUNTERPLAY_HOSTS", ()))),
        modules=tuple(sorted(f"{point.name}.{name}" for name in schemas)),
        permissions=tuple(sorted({f"{need['resource']}: {' or '.join(need['any'])}" for need in needs})),
    )


def command_help(point: EntryPoint) -> str | None:
    """The first line of a command's help, from its docstring or its `help=`; None when it is not written out.

    So `playbook --help` can show it without importing the plugin.
    """
    specs = _specs(point.module)
    origin = specs[-1].origin if specs else None
    for node in _parsed(Path(origin)) if origin is not None else ():
        if isinstance(node, ast.FunctionDef) and node.name == point.attr:
            text = _help_argument(node) or ast.get_docstring(node) or ""
            return text.strip().partition("\n")[0] or None
    return None


def _help_argument(node: ast.FunctionDef) -> str | None:
    """What a decorator such as `@click.command(short_help="...")` says."""
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call) or not _names_command(decorator.func):
            continue
        given = {one.arg: one.value for one in decorator.keywords}
        for name in ("short_help", "help"):
            value = given.get(name)
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    return None


def _names_command(called: ast.expr) -> bool:
    """Is it `click.command`, `group` or the like, rather than what adds an option?"""
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in ("command", "group")


def _specs(module: str) -> list[ModuleSpec]:
    """Where each part of a dotted name is; nothing when it is not there.

    `importlib.util.find_spec` would import the packages on the way.
    """
    found: list[ModuleSpec] = []
    path: Any = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = next((one for finder in sys.meta_path if (one := finder.find_spec(name, path))), None)
        if spec is None:
            return []
        found.append(spec)
        path = spec.submodule_search_locations
    return found


def _package_files(module: str) -> Iterator[tuple[str, Path]]:
    """The files of the outermost package around a module that belongs to nobody else, by name."""
    # a namespace package has no file, and others may have parts of it
    spec = next((one for one in _specs(module) if one.origin is not None), None)
    if spec is None or spec.origin is None:
        return
    file = Path(spec.origin)
    if spec.submodule_search_locations is None:
        yield file.name, file
        folder = file.parent / "schemas"
    else:
        folder = file.parent
    for one in folder.rglob("*"):
        if one.is_file() and not set(_SKIPPED) & set(one.relative_to(folder).parts):
            yield one.relative_to(folder.parent).as_posix(), one


def _distribution_files(point: EntryPoint) -> Iterator[tuple[str, Path]]:
    if point.dist is None or point.dist.name == _OWN:
        return
    for one in point.dist.files or ():
        first, name = one.parts[0], one.name
        ours = first == ".." or first.endswith(".dist-info") or set(_SKIPPED) & set(one.parts)
        if ours or name.endswith(".pth") or name.startswith("__editable__"):
            continue
        file = Path(str(one.locate()))
        if file.is_file():
            yield one.as_posix(), file


def _schemas(spec: ModuleSpec | None) -> list[Path]:
    if spec is None or spec.origin is None:
        return []
    return sorted((Path(spec.origin).parent / "schemas").glob("*.json"))


def _constants(source: Path) -> Iterator[tuple[str, Any]]:
    """What the module's text says of itself, as far as it is written out there."""
    for node in _parsed(source):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id in _SAID:
                try:
                    yield target.id, ast.literal_eval(node.value)
                except ValueError:
                    continue


def _parsed(source: Path) -> list[ast.stmt]:
    """The statements of a module; none when it is no Python that can be read."""
    try:
        return ast.parse(source.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
