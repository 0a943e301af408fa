"""What a shipped playbook says that it needs is what its modules need."""

from __future__ import annotations

import re

import pytest

from counterplay.cli.doctor import needs_by_kind
from counterplay.language import Playbook, load
from counterplay.plugins import PluginHost
from counterplay.workspace import Workspace

WORKSPACE = Workspace(PluginHost.load(), None)
PLAYBOOKS = {
    name: loaded
    for name, file in WORKSPACE.shipped.items()
    if isinstance(loaded := load(file, WORKSPACE.host), Playbook)
}
#: Named because something more is read with it; nothing is refused without it.
OPTIONAL = {
    "office365-to-intake": {"ActivityFeed.ReadDlp"},
    "triage-alert": {"RoleManagement.Read.Directory"},
}
_PERMISSION = re.compile(r"\b[A-Z][A-Za-z-]*(?:\.[A-Z][A-Za-z]*)+\b")


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_the_permissions_that_a_description_names_are_enough(name: str) -> None:
    """One of the alternatives of each need is named, so that who grants what is written can run it."""
    named = set(_PERMISSION.findall(PLAYBOOKS[name].description))
    needs = [need for one in needs_by_kind(WORKSPACE, [name], "m365.tenant") for need in one.permissions]

    missing = [(need["any"], need["for"]) for need in needs if not named & set(need["any"])]

    assert missing == []


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_no_permission_is_named_that_nothing_needs(name: str) -> None:
    """The smallest grant is the one that is written."""
    named = set(_PERMISSION.findall(PLAYBOOKS[name].description))
    needs = [need for one in needs_by_kind(WORKSPACE, [name], "m365.tenant") for need in one.permissions]

    assert named - {one for need in needs for one in need["any"]} <= OPTIONAL.get(name, set())
