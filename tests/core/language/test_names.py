"""A playbook is called as its file: what it has seen and done is kept under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counterplay.language import PlaybookError, load
from counterplay.plugins import PluginHost
from counterplay.workspace import Workspace


def test_a_copy_that_keeps_its_name_is_refused(tmp_path: Path) -> None:
    """Two playbooks of one name would take each other's events without a word."""
    file = tmp_path / "contain-copy.yaml"
    file.write_text("name: contain\ndescription: A copy.\ntrigger: {uses: std.manual}\nsteps: []\n")
    with pytest.raises(PlaybookError) as caught:
        load(file, PluginHost.load())
    assert f"{file}:1:7: the file is called 'contain-copy', the playbook is not; " in str(caught.value)
    assert "write name: contain-copy, or rename the file" in str(caught.value)


def test_two_endings_of_one_name_are_told(tmp_path: Path) -> None:
    """Neither file hides the other."""
    (tmp_path / "counterplay.yaml").write_text("")
    (tmp_path / "playbooks").mkdir()
    for ending in ("yaml", "yml"):
        (tmp_path / "playbooks" / f"twice.{ending}").write_text("name: twice\n")
    workspace: Any = Workspace(PluginHost.load(), tmp_path)
    with pytest.raises(Exception, match=r"twice\.y.*ml and twice\.y.*ml are both the playbook 'twice'"):
        workspace.playbooks()
