"""Writes a distribution of a new plugin: modules, schemas, tests, a bench, a CI file, a README."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path

from counterplay.errors import ConfigError
from counterplay.plugins import API_VERSION, GROUP

KINDS = ("trigger", "transform", "action", "sink", "connection")
#: For each kind: its file, its class, its module's name, and whether it needs the connection.
_MODULES = {
    "connection": ("account", "Account", False),
    "trigger": ("records", "Records", True),
    "transform": ("tag", "Tag", False),
    "action": ("set_status", "SetStatus", True),
    "sink": ("store", "Store", True),
}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def checked_name(name: str) -> str:
    """The name, when a plugin can have it. ConfigError: it cannot, or another one here has it."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"{name!r} is no name for a plugin", hint="use lower-case letters: acme, my_service"
        )
    others = {point.dist.name for point in entry_points(group=GROUP, name=name) if point.dist is not None}
    if others - {distribution_of(name)}:
        raise ConfigError(
            f"{sorted(others)[0]} has a plugin {name!r}, and of two that claim one name neither works",
            hint="choose another name",
        )
    return name


def package_of(name: str) -> str:
    return f"counterplay_{name}"


def distribution_of(name: str) -> str:
    return f"counterplay-{name.replace('_', '-')}"


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write a new distribution. ConfigError: the folder is there already, or cannot be written."""
    if folder.exists():
        raise ConfigError("it is there already", path=folder, hint="remove it, or choose another name")
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write: {error.strerror}", path=error.filename) from error


def filled(template: str, words: dict[str, str]) -> str:
    """A template of the folder `template`, with each `@word@` replaced."""
    text = resources.files(__name__).joinpath("template", f"{template}.tmpl").read_text("utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def new_plugin(name: str, kinds: Collection[str]) -> dict[str, str]:
    """The files of a distribution with one module of each kind; what these need comes along."""
    chosen = [kind for kind in _MODULES if kind in kinds or (kind == "connection" and _needs(kinds))]
    words = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "title": name.replace("_", " ").capitalize(),
        "package": package_of(name),
        "distribution": distribution_of(name),
        "api": API_VERSION,
        "hosts": '"api.example.com",' if "connection" in chosen else "",
        "modules": "\n".join(f"- `{name}.{_MODULES[kind][0]}` ({kind})" for kind in chosen),
        "imports": "\n".join(_import_of(name, kind) for kind in sorted(chosen, key=lambda k: _MODULES[k][0])),
        "classes": ", ".join(_MODULES[kind][1] for kind in chosen),
        **_bench(name, chosen),
        **_example(name, chosen),
    }
    package = f"src/{words['package']}"
    files = {
        "pyproject.toml": filled("pyproject.toml", words),
        "README.md": filled("README.md", words),
        ".gitignore": filled("gitignore", words),
        ".github/workflows/ci.yml": filled("ci.yml", words),
        f"{package}/__init__.py": filled("init.py", words),
        f"{package}/py.typed": "",
        "tests/conftest.py": filled("conftest.py", words),
        "tests/service.py": filled("service.py", words),
        "tests/test_modules.py": _tests(chosen, words),
        f"playbooks/{words['dashed']}-example.yaml": filled("example.yaml", words),
    }
    if _needs(chosen):
        files[f"{package}/client.py"] = filled("client.py", words)
    for kind in chosen:
        module = _MODULES[kind][0]
        files[f"{package}/{module}.py"] = filled(f"{kind}.py", words)
        files[f"{package}/schemas/{module}.json"] = filled(f"{kind}.json", words)
    return files


def _needs(kinds: Collection[str]) -> bool:
    return any(_MODULES[kind][2] for kind in kinds)


def _import_of(name: str, kind: str) -> str:
    module, cls, _ = _MODULES[kind]
    return f"    from {package_of(name)}.{module} import {cls}"


def _bench(name: str, chosen: Collection[str]) -> dict[str, str]:
    settings = '{"base_url": running.base_url, "api_key": running.api_key}'
    example = f'"{name}.set_status": Example({{"item_id": "I-1", "status": "closed"}})'
    return {
        "bench_connections": f'"{name}.account": {settings}' if "connection" in chosen else "",
        "bench_examples": example if "action" in chosen else f'"{name}.tag": Example()',
    }


def _example(name: str, chosen: Collection[str]) -> dict[str, str]:
    """A playbook with the modules; what does not fit into one is left to its author."""
    connection = f"\n  connection: my-{name.replace('_', '-')}"
    trigger = f"{name}.records{connection}" if "trigger" in chosen else "std.manual"
    lines = []
    if "transform" in chosen or "action" in chosen:
        lines.append("steps:")
    if "transform" in chosen:
        lines.append(f"  - {{uses: {name}.tag, with: {{value: seen}}}}")
    own = f", connection: my-{name.replace('_', '-')}"
    if "action" in chosen:
        lines.append(f"  - {{uses: {name}.set_status{own}, with: {{item_id: I-1, status: closed}}}}")
    uses = f"{name}.store{own}" if "sink" in chosen else "std.jsonl, with: {path: events.jsonl}"
    lines += ["sinks:", f"  - {{uses: {uses}}}"]
    return {"trigger": trigger, "steps": "\n".join(lines)}


def _tests(chosen: Collection[str], words: dict[str, str]) -> str:
    """Tests of what the kit cannot know: what the modules mean."""
    parts = [filled(f"test_{kind}.py", words) for kind in chosen]
    return filled("test_head.py", words) + "".join(f"\n\n{part}" for part in parts)
