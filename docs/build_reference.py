"""The reference pages, generated from schemas and docstrings while the documentation is built."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_OUTWARD = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from a page into the repository, outside the documentation, become plain text."""
    folder = Path(page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        target = os.path.normpath(folder / match.group(2).partition("#")[0])
        return match.group(1) if target.startswith("..") else match.group(0)

    return _OUTWARD.sub(shown, markdown)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each part of the reference."""
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(make()) + "\n"))
    return files


def commands() -> Iterator[str]:
    """Every command with its help."""
    import click

    from counterplay.cli import playbook

    yield "# Commands\n"
    yield "Exit codes: 0 done, 1 something failed or is quarantined, 2 invalid input, 3 waiting or blocked,"
    yield "130 interrupted."
    context = click.Context(playbook, info_name="playbook")

    def pages(command: click.Command, parent: click.Context, depth: int) -> Iterator[str]:
        own = click.Context(command, info_name=command.name, parent=parent)
        yield f"\n{'#' * depth} {own.command_path}\n"
        yield f"```text\n{command.get_help(own)}\n```"
        if isinstance(command, click.Group):
            for name in command.list_commands(own):
                found = command.get_command(own, name)
                if found is not None:
                    yield from pages(found, own, depth + 1)

    for name in playbook.list_commands(context):
        found = playbook.get_command(context, name)
        if found is not None:
            yield from pages(found, context, 2)


def modules() -> Iterator[str]:
    """Every bundled module: docstring, arguments, permissions."""
    from counterplay.plugins import PluginHost

    yield "# Modules\n"
    yield "Made from the modules' schemas and docstrings; `playbook modules NAME` prints the same."
    infos = [one for one in PluginHost.load().modules.values() if one.distribution == "counterplay"]
    plugin = ""
    for info in sorted(infos, key=lambda one: one.uses):
        if info.plugin != plugin:
            plugin = info.plugin
            yield f"\n## {plugin}"
        yield f"\n### {info.uses}\n\n*{info.kind}*" + (
            f" · connection `{info.cls.connection}`"
            if info.cls.connection and info.kind != "connection"
            else ""
        )
        yield "\n" + _prose(info.cls.__doc__)
        yield from properties(info.schema)
        for need in info.permissions:
            names = " or ".join(f"`{one}`" for one in need["any"])
            yield f"\nNeeds {need['resource']}: {names} ({need['for']})."


def properties(schema: dict[str, Any]) -> Iterator[str]:
    """A table of a schema's properties."""
    found = schema.get("properties", {})
    if not found:
        return
    yield "\n| argument | type | what it is |\n| --- | --- | --- |"
    for name, one in found.items():
        marks = ["required"] if name in schema.get("required", []) else []
        marks += ["secret"] if one.get("writeOnly") else []
        marks += [f"default `{json.dumps(one['default'])}`"] if "default" in one else []
        kind = ", ".join([_type(one), *marks]).replace("|", "\\|")
        yield f"| `{name}` | {kind} | {_cell(one.get('description', ''))} |"


def language() -> Iterator[str]:
    """The schemas of a playbook, of its tests, and of a workspace."""
    from counterplay._data_files import core_schemas

    yield "# Playbook language\n"
    yield "`playbook schema` writes one JSON Schema with all installed modules, for editors."
    for name in ("playbook", "workspace", "playbook-test"):
        schema = json.loads((core_schemas() / f"{name}.json").read_text("utf-8"))
        yield f"\n## {schema.get('title', name)}\n\n{_cell(schema.get('description', ''))}"
        yield from properties(schema)
        for definition, one in schema.get("$defs", {}).items():
            if isinstance(one, dict) and one.get("properties"):
                yield f"\n### {name}: {definition}\n\n{_cell(one.get('description', ''))}"
                yield from properties(one)


def contracts() -> Iterator[str]:
    """The classes that plugins derive from, what travels between them, and the errors."""
    from counterplay import errors, events
    from counterplay import modules as kinds

    yield "# Contracts and errors\n"
    yield _prose(kinds.__doc__)
    for module in (kinds, events):
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and not name.startswith("_"):
                yield f"\n## {name}\n\n{_prose(cls.__doc__)}"
                for method, function in vars(cls).items():
                    if inspect.isfunction(function) and function.__doc__ and not method.startswith("_"):
                        yield f"\n**`{method}{inspect.signature(function)}`**\n\n{_prose(function.__doc__)}"
    yield f"\n## Errors\n\n```text\n{inspect.cleandoc(errors.__doc__ or '')}\n```"


def hooks() -> Iterator[str]:
    """What a plugin can tell the host."""
    from counterplay import hookspecs

    yield f"# Hooks\n\n{_prose(hookspecs.__doc__)}"
    for name, function in vars(hookspecs).items():
        if name.startswith("counterplay_") and inspect.isfunction(function):
            yield f"\n## {name}\n\n```python\ndef {name}{inspect.signature(function)}\n```\n"
            yield _prose(function.__doc__)


def rules() -> Iterator[str]:
    """What the conformance kit holds modules to."""
    from counterplay.testing.rules import RULES

    yield "# Conformance rules\n"
    yield "`pytest --counterplay-plugin NAME` holds each module of a plugin to these.\n"
    yield "| rule | for | promise |\n| --- | --- | --- |"
    for one in RULES.values():
        kinds = "every module" if len(one.kinds) == 5 else ", ".join(sorted(one.kinds))
        yield f"| `{one.name}` | {'the plugin' if one.scope == 'plugin' else kinds} | {_cell(one.text)} |"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "language": language,
    "modules": modules,
    "contracts": contracts,
    "hooks": hooks,
    "rules": rules,
}


def _prose(doc: str | None) -> str:
    """A docstring as Markdown: its sections (`Needs:`) as bold words, their text as paragraphs."""
    lines = []
    for line in inspect.cleandoc(doc or "").splitlines():
        if line.endswith(":") and line[:1].isupper() and " " not in line.strip():
            lines += ["", f"**{line[:-1]}.**", ""]
        else:
            lines.append(line.strip() if line.startswith("    ") else line)
    return "\n".join(lines).replace("<", "&lt;")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{one}`" for one in schema["enum"])
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
