"""From a file to a checked playbook."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path

from counterplay._data_files import core_schemas
from counterplay.errors import ConfigError
from counterplay.events import JsonObject
from counterplay.language.arguments import problems
from counterplay.language.build import from_document, set_from_document
from counterplay.language.check import check
from counterplay.language.connections import ConnectionCatalogue
from counterplay.language.findings import PlaybookError
from counterplay.language.model import Playbook, PlaybookSet
from counterplay.language.yaml_text import MAX_BYTES, read
from counterplay.plugins import PluginHost


@cache
def playbook_schema() -> JsonObject:
    """The JSON Schema of playbook files, as editors use it."""
    schema: JsonObject = json.loads((core_schemas() / "playbook.json").read_text("utf-8"))
    return schema


def load(
    path: Path | Traversable, host: PluginHost, catalogue: ConnectionCatalogue | None = None
) -> Playbook | PlaybookSet:
    """Read and check the file. PlaybookError has all findings; ConfigError: it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
            size = len(text) if len(text) <= MAX_BYTES else file.seek(0, 2)
    except OSError as error:
        raise ConfigError(f"cannot read the playbook: {error.strerror or error}", path=str(path)) from error
    if size > MAX_BYTES:
        raise ConfigError(
            f"the file has {size:,} bytes",
            hint=f"{MAX_BYTES:,} is the limit: split it up",
            path=str(path),
            line=1,
            column=1,
        )
    return load_text(text, str(path), host, catalogue, stem=path.name.rpartition(".")[0])


def load_text(
    text: bytes,
    name: str,
    host: PluginHost,
    catalogue: ConnectionCatalogue | None = None,
    *,
    stem: str | None = None,
) -> Playbook | PlaybookSet:
    """Check the text of a playbook; `name` is how findings call it. PlaybookError has all findings.

    A file is called as its playbook is (`stem`): what a playbook has seen and done is kept under its
    name, so two that share one would take each other's events.
    """
    document = read(text, name)
    wrong = [
        document.finding(p.path, p.message, p.hint, key=p.at_key)
        for p in problems(document.data, playbook_schema())
    ]
    if stem is not None and isinstance(document.data.get("name"), str) and document.data["name"] != stem:
        hint = f"write name: {stem}, or rename the file"
        wrong.append(document.finding(("name",), f"the file is called {stem!r}, the playbook is not", hint))
    # the rest of the checks look only where the schema found nothing, and say so by skipping
    wrong += check(document, host, catalogue)
    if wrong:
        raise PlaybookError(wrong)
    if "playbooks" in document.data:
        return set_from_document(document.data)
    return from_document(document.data, host)
