"""std: the modules that belong to no product, and the shortest example of a plugin."""

from collections.abc import Iterable

from counterplay import Module, hookimpl
from counterplay_std.approval import Approval
from counterplay_std.gaps import Gaps
from counterplay_std.http import Http
from counterplay_std.jsonl import Jsonl
from counterplay_std.manual import Manual
from counterplay_std.pick import Pick
from counterplay_std.run_playbook import RunPlaybook
from counterplay_std.stop import StopRun
from counterplay_std.wait import Wait

COUNTERPLAY_API = "1.0"


@hookimpl
def counterplay_modules() -> Iterable[type[Module]]:
    """The modules of this plugin."""
    return [Approval, Gaps, Http, Jsonl, Manual, Pick, RunPlaybook, StopRun, Wait]
