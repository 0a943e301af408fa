"""`playbook schema`: printed, written to a file, or kept in the workspace."""

from __future__ import annotations

import json
from typing import Any


def test_the_schema_is_printed_or_written(desk: Any) -> None:
    """The same document wherever it goes."""
    printed = desk.playbook("schema").data
    assert "with m365.get_user" in printed["$defs"]
    assert desk.playbook("schema", "--output", "out.json").code == 0
    assert json.loads((desk.root / "out.json").read_text()) == printed
    said = desk.playbook("schema", "--write")
    assert said.out == "wrote .counterplay/playbook.schema.json\n"
    assert json.loads((desk.root / ".counterplay" / "playbook.schema.json").read_text()) == printed


def test_init_writes_it_with_the_modules(desk: Any) -> None:
    """So that an editor works from the first minute."""
    assert desk.playbook("init").code == 0
    found = json.loads((desk.root / ".counterplay" / "playbook.schema.json").read_text())
    assert "with std.jsonl" in found["$defs"]


def test_a_plugin_that_is_out_is_out_of_the_schema(desk: Any, monkeypatch: Any) -> None:
    """What is installed is what is offered."""
    monkeypatch.setenv("COUNTERPLAY_DISABLE", "m365")
    assert "with m365.get_user" not in desk.playbook("schema").data["$defs"]


def test_there_is_nowhere_to_write_without_a_workspace(desk: Any) -> None:
    """It says what to do instead."""
    (desk.root / "counterplay.yaml").unlink()
    said = desk.playbook("schema", "--write")
    assert said.code == 2
    assert "there is no workspace here; `playbook init` makes one, or use --output" in said.err
    assert desk.playbook("schema", "--write", "--output", "x").code == 2
