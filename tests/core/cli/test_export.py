"""`playbook export --cacao`: the file, what is told beside it, and what is refused."""

from __future__ import annotations

import json
from typing import Any


def test_a_playbook_is_printed_and_what_is_lost_is_told(desk: Any) -> None:
    """JSON on stdout, everything else on stderr."""
    said = desk.playbook("export", "--cacao", "contain-compromised-account", "--created", "2026-01-01")
    assert said.code == 0
    assert said.data["spec_version"] == "cacao-2.0"
    assert said.data["created"] == "2026-01-01T00:00:00.000Z"
    assert "not carried: the trigger m365.alerts: CACAO does not say what starts a playbook\n" in said.err


def test_it_can_be_written_to_a_file(desk: Any) -> None:
    """The same document."""
    printed = desk.playbook("export", "--cacao", "alerts-to-intake")
    assert (
        desk.playbook("export", "--cacao", "alerts-to-intake", "--output", "a.json").out == "wrote a.json\n"
    )
    assert json.loads((desk.root / "a.json").read_text()) == printed.data
    assert "not carried: when it was created" in printed.err


def test_what_cannot_be_exported_says_what_can(desk: Any) -> None:
    """A set, no form, times that make no sense."""
    for arguments, why in (
        (("--cacao", "quickstart"), "quickstart is a set; export its playbooks one by one"),
        (("alerts-to-intake",), "no form is named; write --cacao"),
        (("--cacao", "alerts-to-intake", "--created", "soon"), "'soon' is no time"),
        (
            ("--cacao", "alerts-to-intake", "--created", "2026-01-02", "--modified", "2026-01-01"),
            "after it was modified",
        ),
    ):
        said = desk.playbook("export", *arguments)
        assert said.code == 2
        assert why in said.err
